"""Metrics, and the HTTP server that shows them.

docs/metrics.md lists every metric; a test holds that page against what is served here.
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, make_wsgi_app
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from socketserver import BaseRequestHandler
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

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
"""Upper bounds in seconds of every duration histogram: 100 us to 10 s, three a decade."""

BATCH_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
STAGES: Final = ("segment", "queue", "score", "order", "commit", "total")


class ExporterError(Exception):
    """The metrics endpoint cannot be served; the message says where and why."""


def score_buckets(threshold: float) -> tuple[float, ...]:
    """Upper bounds of the score histogram: half steps, and the alert threshold exactly."""
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
    """

    def __init__(self, *, threshold: float, max_stream_labels: int, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry = registry or CollectorRegistry()
        self._max_labels = max_stream_labels
        self._labels: dict[str, str] = {}
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"{PREFIX}_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"{PREFIX}_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: Iterable[float], *labels: str) -> Histogram:
            return Histogram(f"{PREFIX}_{name}", text, labels, buckets=tuple(buckets), registry=registry)

        self.build = Info(f"{PREFIX}_build", "Version of the program.", registry=registry)
        self.model = Info(f"{PREFIX}_model", "The model that scores come from.", registry=registry)
        self.score = histogram(
            "score", "Anomaly score of beats: -log10 of the share of normal beats that look at least this odd.",
            score_buckets(threshold), "stream",
        )  # fmt: skip
        self.segmented = counter("beats_segmented", "Beats that producers cut and sent, each once.", "stream")
        self.scored = counter("beats_scored", "Beats with a score.", "stream")
        self.stored = counter("beats_stored", "Beats committed to the store.", "stream")
        self.unscored = counter("beats_unscored", "Beats stored without a score, because no worker could score them.")
        self.redelivered = counter(
            "beats_redelivered",
            "Beats handed over again: by a producer to the monitor, or by the monitor to a worker.",
            "hop",
        )
        self.dropped = counter(
            "beats_dropped", "Beats that a live source dropped because they were not taken in time.", "stream"
        )
        self.workers_degraded = gauge(
            "workers_degraded", "Workers whose GPU has failed and that go on with the CPU until they are started again."
        )
        self.producer_dropped = counter(
            "producer_beats_dropped", "Beats that live sources dropped, as their producers tell at once."
        )
        self.alerts_raised = counter("alerts_raised", "Alerts raised.", "kind", "priority")
        self.alerts_active = gauge("alerts_active", "Alerts raised and not cleared.", "kind", "priority")
        self.heart_rate = gauge("heart_rate_beats_per_minute", "Heart rate over the last eight RR intervals.", "stream")
        self.quality = counter("signal_quality_seconds", "Seconds of signal by quality.", "stream", "quality")
        self.lag = gauge(
            "stream_lag_seconds", "Time since the last item of a stream that has not ended arrived.", "stream"
        )
        self.last_beat = gauge(
            "stream_last_item_timestamp_seconds", "When the last item of a stream was stored.", "stream"
        )
        self.streams = gauge("streams", "Streams by state.", "state")
        self.duration = histogram(
            "stage_duration_seconds",
            "Time in a stage. segment: cutting a message's items; queue: arrival of a beat to its being handed to a worker;"
            " score: a batch at its worker, there and back; order: beat received to its turn; commit: one commit;"
            " total: arrival of the last sample of a window to the commit.",
            DURATION_BUCKETS, "stage",
        )  # fmt: skip
        self.inference = histogram(
            "inference_duration_seconds", "Time of a batch inside the worker.", DURATION_BUCKETS, "device"
        )
        self.batch = histogram("batch_beats", "Beats in a batch.", BATCH_BUCKETS)
        self.queue = gauge(
            "queue_beats", "Beats in a queue of the monitor: waiting for a worker, or with one.", "queue"
        )
        self.workers = gauge("workers", "Workers that are connected and alive.", "device")
        self.producers = gauge("producers", "Producers that are connected and alive.")
        self.worker_seen = gauge("worker_last_seen_timestamp_seconds", "When a worker was last heard of.", "worker")
        self.rejected = counter(
            "messages_rejected", "Messages that did not follow the protocol, by reason.", "role", "reason"
        )
        self.source_errors = counter("source_errors", "Sources that could not be read, or not to their end.")
        self.store_errors = counter("store_errors", "Commits that failed; they are tried again.")
        self.commits = counter("store_commits", "Commits to the store.")
        self.pruned = counter("beats_pruned", "Beats deleted because they are older than the retention.")
        self.ready = gauge("ready", "1 while the monitor can take, score and store beats, else 0.")
        for stage in STAGES:
            self.duration.labels(stage)
        for queue in ("waiting", "leased"):
            self.queue.labels(queue)
        for hop in ("producer", "worker"):
            self.redelivered.labels(hop)

    def stream_label(self, stream: str) -> str:
        """Label value of a stream: its id while there is room, then :data:`OTHER`."""
        label = self._labels.get(stream)
        if label is None:
            if len(self._labels) >= self._max_labels:
                return OTHER
            label = self._labels[stream] = stream
        return label


class _Handler(WSGIRequestHandler):
    timeout = 5  # seconds; a client that opens a connection and says nothing must not hold a thread

    def log_message(self, *_: object) -> None:
        """Stay silent: requests are not worth a line each."""


class _Server(WSGIServer):
    """One thread a request, a bounded number of them at once."""

    daemon_threads = True
    most = threading.BoundedSemaphore(16)

    def process_request(self, request: object, client_address: object) -> None:
        if not self.most.acquire(blocking=False):
            self.shutdown_request(request)  # type: ignore[arg-type]
            return
        threading.Thread(target=self._serve, args=(request, client_address), daemon=True).start()

    def _serve(self, request: object, client_address: object) -> None:
        try:
            self.finish_request(request, client_address)  # type: ignore[arg-type]
        except OSError:
            pass  # the client went away
        finally:
            self.shutdown_request(request)  # type: ignore[arg-type]
            self.most.release()


def application(metrics: Metrics, health: Callable[[], dict[str, bool]]) -> WSGIApplication:
    """``/metrics`` (OpenMetrics when asked for), ``/-/healthy`` and ``/-/ready``.

    Parameters
    ----------
    metrics : Metrics
    health : callable
        Gives the conditions of being ready by name; healthy is whoever answers at all and has
        ``alive`` true.
    """
    expose = make_wsgi_app(metrics.registry)

    def answer(start: StartResponse, status: str, body: object) -> list[bytes]:
        start(status, [("Content-Type", "application/json")])
        return [json.dumps(body).encode() + b"\n"]

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if environ.get("REQUEST_METHOD") not in ("GET", "HEAD", "OPTIONS"):
            return answer(start, "405 Method Not Allowed", {"error": "only GET is answered here"})
        if path == "/metrics":
            body: Iterable[bytes] = expose(environ, start)
            return body
        if path == "/-/healthy":
            alive = health()["alive"]
            return answer(start, "200 OK" if alive else "503 Service Unavailable", {"healthy": alive})
        if path == "/-/ready":
            conditions = health()
            ready = all(conditions.values())
            return answer(start, "200 OK" if ready else "503 Service Unavailable", {"ready": ready, **conditions})
        if path == "/":
            return answer(start, "200 OK", {"ecgmon": ["/metrics", "/-/healthy", "/-/ready"]})
        return answer(start, "404 Not Found", {"error": f"nothing is at {path[:100]}"})

    return app


class Exporter:
    """Serves an application in threads of its own.

    Parameters
    ----------
    host : str
    port : int
        0 takes a free one; :attr:`port` says which.

    Raises
    ------
    ExporterError
        If the address cannot be had.
    """

    def __init__(self, app: WSGIApplication, host: str, port: int) -> None:
        handler: type[BaseRequestHandler] = _Handler
        try:
            self._server = make_server(host, port, app, server_class=_Server, handler_class=handler)  # type: ignore[arg-type]
        except OSError as error:
            raise ExporterError(
                f"cannot serve metrics at {host}:{port}: {error.strerror or error};"
                " choose another with [exporter] port, ECGMON_EXPORTER_PORT or --port (0 takes a free one)"
            ) from error
        self.host = host
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="exporter", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=1.0)
