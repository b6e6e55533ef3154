"""Questions to a running monitor over its control socket: the side that answers, and the side that asks."""

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


class Control:
    """Answers questions.

    Parameters
    ----------
    socket : Socket
        REP, bound.
    status : callable
        Says how the monitor stands.
    latencies : callable
        Gives the latencies of all beats so far, as :meth:`Client.latencies` returns them.
    rejected : callable
        Is called for every question that is none of these; it is answered with nothing.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        *,
        status: Callable[[], Status],
        latencies: Callable[[], bytes],
        rejected: Callable[[], None],
    ) -> None:
        self.socket = socket
        self._status = status
        self._latencies = latencies
        self._rejected = rejected

    def answer(self) -> None:
        """Answer a question, if one waits."""
        try:
            question = self.socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return
        if question == [_STATUS]:
            self.socket.send(msgspec.msgpack.encode(self._status()))
        elif question == [_LATENCIES]:
            self.socket.send(self._latencies())
        else:
            self._rejected()
            self.socket.send(b"")


class NotRunningError(Exception):
    """No monitor answers in a runtime folder."""

    __module__ = "ecgmon.errors"


class Client:
    """Asks a monitor.

    Parameters
    ----------
    runtime : Path
        The monitor's runtime folder.
    """

    def __init__(self, runtime: Path) -> None:
        self._runtime = runtime
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    def status(self, timeout: float = 2.0) -> Status:
        """How the monitor stands.

        Raises
        ------
        NotRunningError
            If it does not answer within ``timeout`` seconds.
        """
        return msgspec.msgpack.decode(self._ask(_STATUS, timeout), type=Status)

    def latencies(self, timeout: float = 2.0) -> bytes:
        """Ask for the latencies of all beats so far: counts, int64, for :class:`ecgmon.monitor.metrics.latency.LatencyHistogram`.

        Raises
        ------
        NotRunningError
            If it does not answer within ``timeout`` seconds.
        """
        return self._ask(_LATENCIES, timeout)

    def _ask(self, question: bytes, timeout: float) -> bytes:
        if not (self._runtime / endpoints.CONTROL).exists():
            raise NotRunningError(f"no monitor serves in {self._runtime}")
        with self._context.socket(zmq.REQ) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RCVTIMEO, int(timeout * 1000))
            socket.setsockopt(zmq.SNDTIMEO, int(timeout * 1000))
            socket.setsockopt(zmq.IMMEDIATE, 1)
            socket.connect(endpoints.endpoint(self._runtime, endpoints.CONTROL))
            try:
                socket.send(question)
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
        """Let go of the sockets."""
        self._context.destroy(linger=0)
