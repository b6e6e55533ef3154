"""The interface to the metrics, so that ``core`` does not depend on them."""

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
    """The current values of the gauges.

    Attributes
    ----------
    queued, leased : int
        Beats that wait for a worker, and beats that a worker is scoring.
    redelivered : int
        Beats that were assigned again, since the start.
    producers : int
    devices : mapping of str to int
        Workers by device.
    workers_last_seen : mapping of str to float
        When each worker's latest message arrived, in seconds since 1970, by name.
    degraded : int
        Workers whose GPU failed and that continue on the CPU.
    lags : mapping of str to float
        Time since the last message of each stream, in s.
    states : mapping of str to int
        Streams by state.
    ready : bool
    """

    queued: int
    leased: int
    redelivered: int
    producers: int
    devices: Mapping[str, int]
    workers_last_seen: Mapping[str, float]
    degraded: int
    lags: Mapping[str, float]
    states: Mapping[str, int]
    ready: bool

    @classmethod
    def of(
        cls, exchange: Exchange, peers: Peers[Any], streams: Streams[Any], *, now: float, wall: float, ready: bool
    ) -> Self:
        """Collect the values; ``now`` is monotonic time, ``wall`` is the same time in seconds since 1970."""
        return cls(
            queued=exchange.queued,
            leased=exchange.leased,
            redelivered=exchange.redelivered,
            producers=len(peers.producers),
            devices=peers.devices(),
            workers_last_seen={worker.name: wall - (now - worker.last_seen) for worker in peers.workers.values()},
            degraded=len(peers.degraded()),
            lags=streams.lags(now),
            states=streams.states(),
            ready=ready,
        )


class Instruments(Protocol):
    """The monitor's counters and histograms; times in s."""

    def rejected(self, role: str, reason: str) -> None:
        """Count a message that does not follow the protocol."""

    def source_failed(self) -> None:
        """Count a source that cannot be read."""

    def opened(self, stream: str, alerts: Sequence[Alert]) -> None:
        """Count a stream that is announced for the first time since the start, and its active alerts."""

    def segmented(self, stream: str, beats: int) -> None:
        """Count beats that arrived."""

    def segmentation_took(self, seconds: float) -> None:
        """Observe the processor time that segmenting a message's items took."""

    def resent(self, beats: int) -> None:
        """Count beats that producers sent again."""

    def dropped_by_producer(self, beats: int) -> None:
        """Count beats that live sources dropped, as soon as their producers report them."""

    def handed_out(self, waited: float) -> None:
        """Observe how long the first beat of a batch waited for a worker."""

    def answered(self, beats: int, device: str, seconds: float, inside: float) -> None:
        """Count a scored batch, its round trip time ``seconds``, and the time ``inside`` the worker."""

    def committed(self, seconds: float, latencies: NDArray[np.float64], waited: NDArray[np.float64]) -> None:
        """Count a commit, its beats' latencies, and the part of each latency spent waiting for items in order."""

    def stored(self, outcome: Outcome, rate: float, wall: float) -> None:
        """Count what was stored at time ``wall`` (seconds since 1970), and set the heart rate in beats/min."""

    def alert(self, kind: str, priority: str, *, raised: bool) -> None:
        """Count an alert of a stream that was raised or cleared."""

    def device_alert(self, kind: str, priority: str, *, raised: bool) -> None:
        """Count the alert about the degraded device, which belongs to no stream."""

    def store_failed(self) -> None:
        """Count a commit that failed."""

    def store_written(self) -> None:
        """Count a write to the store."""

    def pruned(self, beats: int) -> None:
        """Count beats that were deleted because of their age."""

    def model(self, about: Mapping[str, str]) -> None:
        """Set the model that scores come from."""

    def queue_limit(self, items: int) -> None:
        """Set the maximum number of unstored items."""

    def refresh(self, gauges: Gauges) -> None:
        """Set the gauges."""
