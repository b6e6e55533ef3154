"""The metrics of a monitor.

docs/metrics.md lists every metric; a test compares that page with the served metrics.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Info
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from ecgmon.monitor.metrics.histograms import Histogram
from ecgmon.pipelines.limits import MAX_STREAM_ID

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ecgmon.monitor.metrics.histograms import Observations
    from ecgmon.pipelines.items import Quality

PREFIX: Final = "ecgmon"
OTHER: Final = "other"
"""Label value of the streams beyond the configured number of labels."""

DURATION_BUCKETS: Final = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
"""Upper bounds in seconds of every duration histogram: 100 us to 10 s, three per decade."""

BATCH_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
REFUSALS: Final = (
    "attempts",
    "authentication",
    "connections",
    "handshake",
    "method",
    "no-credentials",
    "request",
    "time",
    "too-long",
)
"""Reasons for which the HTTP server refuses a connection or a request."""

MAX_LABEL: Final = MAX_STREAM_ID
"""Maximum length of a stream's label in characters, the same as for a stream id."""

STAGES: Final = ("segment", "queue", "score", "order", "commit", "total")


def score_buckets(threshold: float) -> tuple[float, ...]:
    """Return the upper bounds of the score histogram: steps of 0.5 or 1, and the exact alert threshold."""
    return tuple(sorted({0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, threshold}))


class Metrics:
    """All metrics of a monitor.

    Parameters
    ----------
    threshold : float
        Alert threshold of the score, which becomes a bucket bound.
    max_stream_labels : int
        Streams that get a label value of their own; the rest share :data:`OTHER`.
    registry : CollectorRegistry, optional
        A new one by default.

    Attributes
    ----------
    registry : CollectorRegistry
    label_names : dict from str to tuple of str
        Names of the labels of each counter, gauge and histogram, by the metric's name without a suffix.
    """

    def __init__(self, *, threshold: float, max_stream_labels: int, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry = registry or CollectorRegistry()
        self._max_labels = max_stream_labels
        self._of_streams: dict[str, StreamMetrics] = {}
        self._of_others = StreamMetrics(self, OTHER)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

        self.label_names: dict[str, tuple[str, ...]] = {}
        self._add_beats(threshold)
        self._add_streams()
        self._add_stages()
        self._add_daemon()
        for reason in REFUSALS:
            self.http_refused.labels(reason)
        for stage in STAGES:
            self.duration.labels(stage)
        for queue in ("waiting", "leased"):
            self.queue.labels(queue)
        for hop in ("producer", "worker"):
            self.redelivered.labels(hop)

    def _named(self, name: str, labels: tuple[str, ...]) -> str:
        self.label_names[f"{PREFIX}_{name}"] = labels
        return f"{PREFIX}_{name}"

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(self._named(name, labels), text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(self._named(name, labels), text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Iterable[float], *labels: str) -> Histogram:
        return Histogram(self._named(name, labels), text, labels, buckets=buckets, registry=self.registry)

    def _add_beats(self, threshold: float) -> None:
        self.build = Info(f"{PREFIX}_build", "Version of the program.", registry=self.registry)
        self.model = Info(f"{PREFIX}_model", "The model that scores come from.", registry=self.registry)
        self.score = self._histogram(
            "score", "Anomaly score of beats: -log10 of the share of normal beats with at least this score.",
            score_buckets(threshold), "stream",
        )  # fmt: skip
        self.segmented = self._counter(
            "beats_segmented", "Beats that producers cut and sent, each counted once.", "stream"
        )
        self.scored = self._counter("beats_scored", "Beats with a score.", "stream")
        self.stored = self._counter("beats_stored", "Beats committed to the store.", "stream")
        self.unscored = self._counter(
            "beats_unscored", "Beats stored without a score, because no worker could score them."
        )
        self.redelivered = self._counter(
            "beats_redelivered",
            "Beats sent again: by a producer to the monitor, or by the monitor to a worker.",
            "hop",
        )
        self.dropped = self._counter(
            "beats_dropped",
            "Beats that a live source dropped because the daemon did not accept them in time.",
            "stream",
        )
        self.workers_degraded = self._gauge(
            "workers_degraded", "Workers whose GPU has failed and that continue on the CPU until they are restarted."
        )
        self.producer_dropped = self._counter(
            "producer_beats_dropped", "Beats that live sources dropped, reported by their producers at once."
        )
        self.alerts_raised = self._counter("alerts_raised", "Alerts raised.", "kind", "priority")
        self.alerts_active = self._gauge("alerts_active", "Alerts raised and not cleared.", "kind", "priority")

    def _add_streams(self) -> None:
        self.heart_rate = self._gauge(
            "heart_rate_beats_per_minute", "Heart rate over the last eight RR intervals.", "stream"
        )
        self.quality = self._counter("signal_quality_seconds", "Seconds of signal by quality.", "stream", "quality")
        self.lag = self._gauge(
            "stream_lag_seconds", "Time since the last item of a stream that has not ended arrived.", "stream"
        )
        self.last_item = self._gauge(
            "stream_last_item_timestamp_seconds", "When the last item of a stream was stored.", "stream"
        )
        self.streams = self._gauge("streams", "Streams by state.", "state")

    def _add_stages(self) -> None:
        self.duration = self._histogram(
            "stage_duration_seconds",
            "Time in a stage. segment: segmenting a message's items; queue: arrival of a beat until it is sent to a worker;"
            " score: sending a batch to receiving its answer; order: arrival of a beat until it is scored and its turn has"
            " come; commit: one commit; total: arrival of the last sample of a window to the commit.",
            DURATION_BUCKETS, "stage",
        )  # fmt: skip
        self.inference = self._histogram(
            "inference_duration_seconds", "Time of a batch inside the worker.", DURATION_BUCKETS, "device"
        )
        self.batch = self._histogram("batch_beats", "Beats in a batch.", BATCH_BUCKETS)
        self.queue = self._gauge(
            "queue_beats", "Beats in a queue of the monitor: waiting for a worker, or with one.", "queue"
        )
        self.queue_limit = self._gauge("queue_limit_items", "Maximum number of unstored items in the monitor.")

    def _add_daemon(self) -> None:
        self.reload_success = self._gauge(
            "config_reload_success", "1 if the last reload was applied, 0 if it was refused."
        )
        self.reload_success.set(1)
        self.workers = self._gauge("workers", "Workers that are connected and alive.", "device")
        self.producers = self._gauge("producers", "Producers that are connected and alive.")
        self.worker_seen = self._gauge(
            "worker_last_seen_timestamp_seconds", "When the last message of a worker arrived.", "worker"
        )
        self.rejected = self._counter(
            "messages_rejected", "Messages that did not follow the protocol, by reason.", "role", "reason"
        )
        self.source_errors = self._counter("source_errors", "Sources that could not be read, or only partly.")
        self.store_errors = self._counter("store_errors", "Commits that failed; they are tried again.")
        self.commits = self._counter("store_commits", "Commits to the store.")
        self.pruned = self._counter("beats_pruned", "Beats deleted because they are older than the retention.")
        self.ready = self._gauge("ready", "1 while the monitor can accept, score and store beats, else 0.")
        self.http_refused = self._counter(
            "http_refused", "Connections and requests that the HTTP server of the metrics refused, by reason.", "reason"
        )

    def of_stream(self, stream: str) -> StreamMetrics:
        """Return the metrics of a stream, labelled by its id, or by :data:`OTHER` if no label is left.

        An id that the protocol does not allow is escaped and cut to :data:`MAX_LABEL`.
        """
        found = self._of_streams.get(stream)
        if found is None:
            if len(self._of_streams) >= self._max_labels:
                return self._of_others
            # half a surrogate pair cannot be encoded; one such name would make every scrape fail
            shown = stream.encode("ascii" if not stream.isprintable() else "utf-8", "backslashreplace").decode()
            found = self._of_streams[stream] = StreamMetrics(self, shown[:MAX_LABEL])
        return found


class StreamMetrics:
    """The metrics of one stream, each kept after its first use: a look-up by label takes longer than counting.

    Parameters
    ----------
    metrics : Metrics
    label : str
        Value of the label ``stream``.
    """

    def __init__(self, metrics: Metrics, label: str) -> None:
        self._metrics = metrics
        self.label = label
        self._qualities: dict[Quality, Counter] = {}

    @cached_property
    def segmented(self) -> Counter:
        """Beats that arrived."""
        return self._metrics.segmented.labels(self.label)

    @cached_property
    def stored(self) -> Counter:
        """Beats committed."""
        return self._metrics.stored.labels(self.label)

    @cached_property
    def scored(self) -> Counter:
        """Beats committed with a score."""
        return self._metrics.scored.labels(self.label)

    @cached_property
    def score(self) -> Observations:
        """Scores of beats."""
        return self._metrics.score.labels(self.label)

    @cached_property
    def heart_rate(self) -> Gauge:
        """Heart rate in beats/min."""
        return self._metrics.heart_rate.labels(self.label)

    @cached_property
    def last_item(self) -> Gauge:
        """Time at which its last item was stored, in seconds since 1970."""
        return self._metrics.last_item.labels(self.label)

    def quality(self, quality: Quality) -> Counter:
        """Return the counter of seconds with a quality."""
        found = self._qualities.get(quality)
        if found is None:
            found = self._qualities[quality] = self._metrics.quality.labels(self.label, quality.name.lower())
        return found
