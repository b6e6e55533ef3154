"""The counters and histograms of the monitor, as Prometheus metrics."""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING

from ecgmon.monitor.metrics.histograms import observe_all

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ecgmon.monitor.core.alerts import Alert
    from ecgmon.monitor.core.instruments import Gauges
    from ecgmon.monitor.core.outcomes import Outcome
    from ecgmon.monitor.metrics.instruments import Metrics


class MetricInstruments:
    """Implements :class:`ecgmon.monitor.core.instruments.Instruments`.

    Parameters
    ----------
    metrics : Metrics
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._redelivered = 0

    def rejected(self, role: str, reason: str) -> None:
        """Count a message that does not follow the protocol."""
        self._metrics.rejected.labels(role, reason).inc()

    def source_failed(self) -> None:
        """Count a source that cannot be read."""
        self._metrics.source_errors.inc()

    def opened(self, stream: str, alerts: Sequence[Alert]) -> None:
        """Give a stream a label of its own if one is left, in order of announcement, and count its active alerts."""
        self._metrics.of_stream(stream)
        for alert in alerts:
            self._metrics.alerts_active.labels(alert.kind.value, alert.priority.value).inc()

    def segmented(self, stream: str, beats: int) -> None:
        """Count beats that arrived."""
        self._metrics.of_stream(stream).segmented.inc(beats)

    def segmentation_took(self, seconds: float) -> None:
        """Observe the processor time that segmenting a message's items took."""
        self._metrics.duration.labels("segment").observe(seconds)

    def resent(self, beats: int) -> None:
        """Count beats that producers sent again."""
        self._metrics.redelivered.labels("producer").inc(beats)

    def dropped_by_producer(self, beats: int) -> None:
        """Count beats that live sources dropped, as soon as their producers report them."""
        self._metrics.producer_dropped.inc(beats)

    def handed_out(self, waited: float) -> None:
        """Observe how long the first beat of a batch waited for a worker."""
        self._metrics.duration.labels("queue").observe(waited)

    def answered(self, beats: int, device: str, seconds: float, inside: float) -> None:
        """Count a scored batch, its round trip time ``seconds``, and the time ``inside`` the worker."""
        self._metrics.duration.labels("score").observe(seconds)
        self._metrics.inference.labels(device).observe(inside)
        self._metrics.batch.observe(beats)

    def committed(self, seconds: float, latencies: NDArray[np.float64], waited: NDArray[np.float64]) -> None:
        """Observe a commit and the latencies of its beats, in one call each: single calls cost as much as scoring."""
        self._metrics.duration.labels("commit").observe(seconds)
        observe_all(self._metrics.duration.labels("total"), latencies)
        observe_all(self._metrics.duration.labels("order"), waited)

    def stored(self, outcome: Outcome, rate: float, wall: float) -> None:
        """Count what was stored at time ``wall`` (seconds since 1970), and set the heart rate in beats/min."""
        state, scores = outcome.entry.state, outcome.scores
        shown = self._metrics.of_stream(state.name)
        if scores:
            shown.stored.inc(len(scores))
            known = [index for index, score in enumerate(scores) if not math.isnan(score)]
            shown.scored.inc(len(known))
            if len(known) < len(scores):
                self._metrics.unscored.inc(len(scores) - len(known))
            if known:
                first = state.beats - len(scores)
                observe_all(
                    shown.score,
                    [scores[index] for index in known],
                    lambda index: {"stream": shown.label, "seq": str(first + known[index])},
                )
            if not math.isnan(rate):
                shown.heart_rate.set(rate)
        for quality, run in groupby(outcome.seconds):
            shown.quality(quality).inc(len(list(run)))
        if outcome.dropped:
            self._metrics.dropped.labels(shown.label).inc(outcome.dropped)
        shown.last_item.set(wall)

    def alert(self, kind: str, priority: str, *, raised: bool) -> None:
        """Count an alert of a stream that was raised or cleared."""
        if raised:
            self._metrics.alerts_raised.labels(kind, priority).inc()
        self._metrics.alerts_active.labels(kind, priority).inc(1 if raised else -1)

    def device_alert(self, kind: str, priority: str, *, raised: bool) -> None:
        """Count the alert about the degraded device, which belongs to no stream."""
        if raised:
            self._metrics.alerts_raised.labels(kind, priority).inc()
        self._metrics.alerts_active.labels(kind, priority).set(int(raised))

    def store_failed(self) -> None:
        """Count a commit that failed."""
        self._metrics.store_errors.inc()

    def store_written(self) -> None:
        """Count a write to the store."""
        self._metrics.commits.inc()

    def pruned(self, beats: int) -> None:
        """Count beats that were deleted because of their age."""
        self._metrics.pruned.inc(beats)

    def model(self, about: Mapping[str, str]) -> None:
        """Set the model that scores come from."""
        self._metrics.model.info(dict(about))

    def queue_limit(self, items: int) -> None:
        """Set the maximum number of unstored items."""
        self._metrics.queue_limit.set(items)

    def refresh(self, gauges: Gauges) -> None:
        """Set the gauges."""
        metrics = self._metrics
        metrics.queue.labels("waiting").set(gauges.queued)
        metrics.queue.labels("leased").set(gauges.leased)
        metrics.redelivered.labels("worker").inc(gauges.redelivered - self._redelivered)
        self._redelivered = gauges.redelivered
        metrics.producers.set(gauges.producers)
        for device, count in gauges.devices.items():
            metrics.workers.labels(device).set(count)
        metrics.worker_seen.clear()
        for name, seen in gauges.workers_last_seen.items():
            metrics.worker_seen.labels(name).set(seen)
        metrics.workers_degraded.set(gauges.degraded)
        lags: dict[str, float] = {}  # several streams may share a label
        for stream, lag in gauges.lags.items():
            label = metrics.of_stream(stream).label
            lags[label] = max(lags.get(label, 0.0), lag)
        for label, lag in lags.items():
            metrics.lag.labels(label).set(lag)
        for state, count in gauges.states.items():
            metrics.streams.labels(state).set(count)
        metrics.ready.set(gauges.ready)
