"""Queries to a running monitor over its control socket: server and client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import zmq

from ecgmon.monitor.core.status import Status
from ecgmon.monitor.process import connections as endpoints

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_STATUS: Final = b"status"
_LATENCIES: Final = b"latencies"
_RELOAD: Final = b"reload"


class Control:
    """Answers queries.

    Parameters
    ----------
    socket : Socket
        REP, bound.
    status : callable
        Returns the status of the monitor.
    latencies : callable
        Returns the latencies of all beats so far, as :meth:`Client.latencies` returns them.
    reload : callable
        Requests a reload of the configuration and the model.
    rejected : callable
        Called for every other query, which gets an empty answer.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        *,
        status: Callable[[], Status],
        latencies: Callable[[], bytes],
        reload: Callable[[], None],
        rejected: Callable[[], None],
    ) -> None:
        self.socket = socket
        self._status = status
        self._latencies = latencies
        self._reload = reload
        self._rejected = rejected

    def answer(self) -> None:
        """Answer a query, if there is one."""
        try:
            query = self.socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return
        if query == [_STATUS]:
            self.socket.send(msgspec.msgpack.encode(self._status()))
        elif query == [_LATENCIES]:
            self.socket.send(self._latencies())
        elif query == [_RELOAD]:
            self._reload()
            self.socket.send(_RELOAD)
        else:
            self._rejected()
            self.socket.send(b"")


class NotRunningError(Exception):
    """No monitor answers in a runtime folder."""

    __module__ = "ecgmon.errors"


class Client:
    """Sends queries to a monitor.

    Parameters
    ----------
    runtime : Path
        The monitor's runtime folder.
    """

    def __init__(self, runtime: Path) -> None:
        self._runtime = runtime
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    def status(self, timeout: float = 2.0) -> Status:
        """Return the status of the monitor.

        Raises
        ------
        NotRunningError
            If it does not answer within ``timeout`` seconds.
        """
        return msgspec.msgpack.decode(self._ask(_STATUS, timeout), type=Status)

    def latencies(self, timeout: float = 2.0) -> bytes:
        """Return the latencies of all beats so far as int64 counts.

        They are those of :class:`ecgmon.monitor.metrics.latency.LatencyHistogram`.

        Raises
        ------
        NotRunningError
            If it does not answer within ``timeout`` seconds.
        """
        return self._ask(_LATENCIES, timeout)

    def reload(self, timeout: float = 2.0) -> None:
        """Have the monitor reload its configuration and its model; workers with another model follow it.

        Raises
        ------
        NotRunningError
            If it does not answer within ``timeout`` seconds.
        """
        self._ask(_RELOAD, timeout)

    def _ask(self, query: bytes, timeout: float) -> bytes:
        if not (self._runtime / endpoints.CONTROL).exists():
            raise NotRunningError(f"no monitor serves in {self._runtime}")
        with self._context.socket(zmq.REQ) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RCVTIMEO, int(timeout * 1000))
            socket.setsockopt(zmq.SNDTIMEO, int(timeout * 1000))
            socket.setsockopt(zmq.IMMEDIATE, 1)
            socket.connect(endpoints.endpoint(self._runtime, endpoints.CONTROL))
            try:
                socket.send(query)
                return bytes(socket.recv())
            except zmq.Again:
                raise NotRunningError(f"the monitor in {self._runtime} does not answer") from None

    def feed(self) -> zmq.Socket[bytes]:
        """Open a socket subscribed to the live feed of all streams; close it after use."""
        socket = self._context.socket(zmq.SUB)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, 10_000)
        socket.subscribe(b"")
        socket.connect(endpoints.endpoint(self._runtime, endpoints.FEED))
        return socket

    def close(self) -> None:
        """Close the sockets."""
        self._context.destroy(linger=0)
