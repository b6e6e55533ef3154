"""The status of a running monitor: answers to ``ecgmon status``, and the live feed.  Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Self

import msgspec

if TYPE_CHECKING:
    from ecgmon.monitor.core.alerts import Alert
    from ecgmon.monitor.core.commit import Entry
    from ecgmon.monitor.core.peers import Worker
    from ecgmon.monitor.core.streams import Stream


class FeedAlert(msgspec.Struct, frozen=True):
    """An alert for display; times in s of stream time."""

    number: int
    kind: str
    priority: str
    start: float
    end: float | None
    message: str

    @classmethod
    def of(cls, alert: Alert) -> Self:
        """Make one from an alert."""
        return cls(alert.number, alert.kind.value, alert.priority.value, alert.start, alert.end, alert.message)


class FeedUpdate(msgspec.Struct, frozen=True):
    """The data that one commit added to a stream.

    The feed is for display only: a viewer that is too slow misses updates.  The store holds everything.
    """

    stream: str
    seconds: float
    """Stream time in s up to which the stream is known."""
    beats: list[tuple[float, float]]
    """R peak in s of stream time, and score."""
    rate: float
    """Heart rate per minute."""
    alerts: list[FeedAlert]
    """Alerts that were raised or cleared."""
    ended: bool

    @classmethod
    def of(cls, entry: Entry, rate: float) -> Self:
        """Make one from a stream's commit and its heart rate in beats/min."""
        state = entry.state
        return cls(
            stream=state.name,
            seconds=state.seconds,
            beats=[(beat.sample / state.fs, beat.score) for beat in entry.beats],
            rate=rate,
            alerts=[FeedAlert.of(alert) for alert in entry.alerts],
            ended=state.ended,
        )


class WorkerStatus(msgspec.Struct, frozen=True):
    """The status of a worker."""

    name: str
    device: str
    scored: int
    silent: float
    """Time in s since its latest message."""

    @classmethod
    def of(cls, worker: Worker, now: float) -> Self:
        """Make one from a worker; ``now`` is on the same monotonic clock as ``last_seen``."""
        return cls(worker.name, worker.device, worker.scored, now - worker.last_seen)


class StreamStatus(msgspec.Struct, frozen=True):
    """The status of a stream."""

    beats: int
    seconds: float
    rate: float
    last_score: float
    ended: bool
    stalled: bool
    active: list[FeedAlert]

    @classmethod
    def of(cls, stream: Stream[Any]) -> Self:
        """Make one from a stream."""
        state = stream.rules.state
        return cls(
            beats=state.beats,
            seconds=state.seconds,
            rate=stream.rate,
            last_score=stream.last_score,
            ended=state.ended,
            stalled=stream.stalled,
            active=[FeedAlert.of(alert) for alert in stream.rules.active],
        )


class Status(msgspec.Struct, frozen=True):
    """The status of a monitor; counts since its start, latencies in s.  The defaults describe a new monitor."""

    uptime: float = 0.0
    busy_seconds: float = 0.0
    """Time from the first item received to the last commit, in s."""
    model: str = ""
    fingerprint: str = ""
    """SHA-256 of the model's checkpoint; the workers have the same model."""
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
    """Sources that could not be read to their end, and why."""
    latency_p50: float = math.nan
    latency_p99: float = math.nan
    streams: dict[str, StreamStatus] = {}
