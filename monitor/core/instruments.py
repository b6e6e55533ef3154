"""What is counted while the monitor runs: a seam, so that what decides knows nothing of metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ecgmon.monitor.core.alerts import Alert
    from ecgmon.monitor.core.exchange import Exchange
    from ecgmon.monitor.core.outcomes import Outcome
    from ecgmon.monitor.core.peers import Peers
    from ecgmon.monitor.core.streams import Streams


@dataclass(frozen=True, slots=True)
class Gauges:
    """How things stand at a moment.

    Attributes
    ----------
    queued, leased : int
        Beats that wait for a worker, and that are with one.
    redelivered : int
        Beats that workers were given again, since the start.
    producers : int
    devices : mapping of str to int
        Workers by device.
    workers_heard : mapping of str to float
        When each worker was heard of, in seconds since 1970, by name.
    degraded : int
        Workers that do not compute where they should.
    lags : mapping of str to float
        Time since something arrived of each stream, in s.
    states : mapping of str to int
        Streams by state.
    ready : bool
    """

    queued: int
    leased: int
    redelivered: int
    producers: int
    devices: Mapping[str, int]
    workers_heard: Mapping[str, float]
    degraded: int
    lags: Mapping[str, float]
    states: Mapping[str, int]
    ready: bool

    @classmethod
    def of(
        cls, exchange: Exchange, peers: Peers[Any], streams: Streams[Any], *, now: float, wall: float, ready: bool
    ) -> Self:
        """From the parts, at a time of the monotonic clock that is ``wall`` seconds after 1970."""
        return cls(
            queued=exchange.queued,
            leased=exchange.leased,
            redelivered=exchange.redelivered,
            producers=len(peers.producers),
            devices=peers.devices(),
            workers_heard={worker.name: wall - (now - worker.heard) for worker in peers.workers.values()},
            degraded=len(peers.degraded()),
            lags=streams.lags(now),
            states=streams.states(),
            ready=ready,
        )


class Instruments(Protocol):
    """What counts; times in s."""

    def rejected(self, role: str, reason: str) -> None:
        """Count a message that does not follow the protocol."""

    def source_failed(self) -> None:
        """Count a source that cannot be read."""

    def opened(self, stream: str, alerts: Sequence[Alert]) -> None:
        """Count a stream that is announced for the first time since the start, and its alerts that are active."""

    def segmented(self, stream: str, beats: int) -> None:
        """Count beats that arrived."""

    def segmentation_took(self, seconds: float) -> None:
        """Observe the processor time that cutting a message's items took."""

    def resent(self, beats: int) -> None:
        """Count beats that producers sent again."""

    def dropped_by_producer(self, beats: int) -> None:
        """Count beats that live sources dropped, as their producers say at once."""

    def handed_out(self, waited: float) -> None:
        """Observe how long the first beat of a batch waited."""

    def answered(self, beats: int, device: str, seconds: float, inside: float) -> None:
        """Count a batch that took so many seconds there and back, and so many inside the worker."""

    def committed(self, seconds: float, latencies: NDArray[np.float64], waited: NDArray[np.float64]) -> None:
        """Count a commit, and how long its beats took in all and waited for their turn."""

    def stored(self, outcome: Outcome, rate: float, wall: float) -> None:
        """Count what was stored of a stream at a time in seconds since 1970, with its heart rate in beats/min."""

    def alert(self, kind: str, priority: str, *, raised: bool) -> None:
        """Count an alert of a stream that was raised or cleared."""

    def device_alert(self, kind: str, priority: str, *, raised: bool) -> None:
        """Count the one alert that is about no stream."""

    def store_failed(self) -> None:
        """Count a commit that failed."""

    def store_written(self) -> None:
        """Count a write to the store."""

    def pruned(self, beats: int) -> None:
        """Count beats that were deleted for their age."""

    def model(self, about: Mapping[str, str]) -> None:
        """Show the model that scores come from."""

    def queue_limit(self, items: int) -> None:
        """Show how many items are held unstored at most."""

    def refresh(self, gauges: Gauges) -> None:
        """Show how things stand."""
