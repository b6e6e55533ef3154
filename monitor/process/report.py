"""What a running monitor says of itself: answers to ``ecgmon status`` and the live feed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Self

import msgspec
import zmq

from ecgmon.monitor.process import connections as endpoints

if TYPE_CHECKING:
    from pathlib import Path

    from ecgmon.monitor.core.alerts import Alert


class FeedAlert(msgspec.Struct, frozen=True):
    """An alert as views show it; times in s of stream time."""

    number: int
    kind: str
    priority: str
    start: float
    end: float | None
    message: str

    @classmethod
    def of(cls, alert: Alert) -> Self:
        """From an alert."""
        return cls(alert.number, alert.kind.value, alert.priority.value, alert.start, alert.end, alert.message)


class FeedUpdate(msgspec.Struct, frozen=True):
    """What one commit added to a stream.

    The feed is for looking on: a viewer that is too slow misses updates.  What must not be missed
    is in the store.
    """

    stream: str
    seconds: float
    """Stream time in s up to which it is known."""
    beats: list[tuple[float, float]]
    """R peak in s of stream time, and score."""
    rate: float
    """Heart rate per minute."""
    alerts: list[FeedAlert]
    """Raised or cleared."""
    ended: bool


class WorkerStatus(msgspec.Struct, frozen=True):
    """A worker as the monitor sees it."""

    name: str
    device: str
    scored: int
    silent: float
    """Time in s since it was last heard of."""


class StreamStatus(msgspec.Struct, frozen=True):
    """A stream as the monitor sees it."""

    beats: int
    seconds: float
    rate: float
    last_score: float
    ended: bool
    stalled: bool
    active: list[FeedAlert]


class Status(msgspec.Struct, frozen=True):
    """A running monitor; counts since its start, latencies in s.  ``Status()`` is one that has done nothing."""

    uptime: float = 0.0
    busy_seconds: float = 0.0
    """From the first item that came to the last commit."""
    model: str = ""
    metrics: str = ""
    producers: int = 0
    workers: list[WorkerStatus] = []
    queued: int = 0
    leased: int = 0
    segmented: int = 0
    scored: int = 0
    stored: int = 0
    redelivered: int = 0
    dropped: int = 0
    store_ok: bool = True
    troubles: dict[str, str] = {}
    """Sources that could not be read, or not to their end, and why."""
    latency_p50: float = math.nan
    latency_p99: float = math.nan
    streams: dict[str, StreamStatus] = {}


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
        return msgspec.msgpack.decode(self._ask(b"status", timeout), type=Status)

    def latencies(self, timeout: float = 2.0) -> bytes:
        """Ask for the latencies of all beats so far: counts, int64, for :class:`ecgmon.monitor.metrics.latency.LatencyHistogram`.

        Raises
        ------
        NotRunningError
            If it does not answer within ``timeout`` seconds.
        """
        return self._ask(b"latencies", timeout)

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
