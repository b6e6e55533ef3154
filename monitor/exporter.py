"""Metrics, and the HTTP server that shows them.

docs/metrics.md lists every metric; a test holds that page against what is served here.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import ssl
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, make_wsgi_app
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from monitor import passwords
from monitor.http_server import Server
from monitor.settings import is_loopback
from pipelines import secret_files
from pipelines.secret_files import SecretFileError
from pipelines.sparing import Sparing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from monitor.passwords import Hashed
    from monitor.settings import ExporterSettings
    from pipelines.items import Quality

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
"""Why the HTTP server refuses a connection or a request."""

MAX_LABEL: Final = 64
"""Longest value of a stream's label, in characters: that of a stream id."""

_CHECKS_A_SECOND: Final = 1.0  # passwords that are hashed, in the long run: some 10 % of a processor
_CHECKS_AT_ONCE: Final = 5  # and after a while of quiet
_MOST_PAUSE: Final = 0.5  # seconds between two renderings

_log = structlog.get_logger()

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
        self._of_streams: dict[str, StreamMetrics] = {}
        self._of_others = StreamMetrics(self, OTHER)
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
        self.queue_limit = gauge("queue_limit_items", "Items that the monitor holds unstored at most.")
        self.reload_success = gauge("config_reload_success", "1 if the last reload was taken, 0 if it was refused.")
        self.reload_success.set(1)
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
        self.http_refused = counter(
            "http_refused", "Connections and requests that the HTTP server of the metrics refused, by reason.", "reason"
        )
        for reason in REFUSALS:
            self.http_refused.labels(reason)
        for stage in STAGES:
            self.duration.labels(stage)
        for queue in ("waiting", "leased"):
            self.queue.labels(queue)
        for hop in ("producer", "worker"):
            self.redelivered.labels(hop)

    def of_stream(self, stream: str) -> StreamMetrics:
        """Give the metrics of a stream: labelled by its id while there is room, then by :data:`OTHER`.

        An id that the protocol would not have let in is shown escaped and cut to :data:`MAX_LABEL`.
        """
        found = self._of_streams.get(stream)
        if found is None:
            if len(self._of_streams) >= self._max_labels:
                return self._of_others
            # half a surrogate pair could not be served at all: one such name, and there were no metrics
            shown = stream.encode("ascii" if not stream.isprintable() else "utf-8", "backslashreplace").decode()
            found = self._of_streams[stream] = StreamMetrics(self, shown[:MAX_LABEL])
        return found


class StreamMetrics:
    """The metrics of one stream, each there from its first use on; finding them by their label takes longer than counting.

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
        """Those of them with a score."""
        return self._metrics.scored.labels(self.label)

    @cached_property
    def score(self) -> Histogram:
        """Their scores."""
        return self._metrics.score.labels(self.label)

    @cached_property
    def heart_rate(self) -> Gauge:
        """Heart rate in beats/min."""
        return self._metrics.heart_rate.labels(self.label)

    @cached_property
    def last_item(self) -> Gauge:
        """When its last item was stored, in seconds since 1970."""
        return self._metrics.last_beat.labels(self.label)

    def quality(self, quality: Quality) -> Counter:
        """Count seconds of a quality."""
        found = self._qualities.get(quality)
        if found is None:
            found = self._qualities[quality] = self._metrics.quality.labels(self.label, quality.name.lower())
        return found


def application(metrics: Metrics, health: Callable[[], dict[str, bool]]) -> WSGIApplication:
    """``/metrics`` (OpenMetrics when asked for), ``/-/healthy`` and ``/-/ready``.

    Parameters
    ----------
    metrics : Metrics
    health : callable
        Gives the conditions of being ready by name; healthy is whoever answers at all and has
        ``alive`` true.
    """
    expose = _one_at_a_time(make_wsgi_app(metrics.registry))

    def get(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return expose(environ, start)
        if path == "/-/healthy":
            alive = health()["alive"]
            return _answer(start, "200 OK" if alive else "503 Service Unavailable", {"healthy": alive})
        if path == "/-/ready":
            conditions = health()
            ready = all(conditions.values())
            return _answer(start, "200 OK" if ready else "503 Service Unavailable", {"ready": ready, **conditions})
        if path == "/":
            return _answer(start, "200 OK", {"ecgmon": ["/metrics", "/-/healthy", "/-/ready"]})
        return _answer(start, "404 Not Found", {"error": f"nothing is at {path[:100]}"})

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        method = environ.get("REQUEST_METHOD")
        if method == "GET":
            return get(environ, start)
        if method != "HEAD":
            metrics.http_refused.labels("method").inc()
            error = {"error": "only GET and HEAD are answered here"}
            return _answer(start, "405 Method Not Allowed", error, ("Allow", "GET, HEAD"))
        held: list[Any] = []
        length = sum(map(len, get({**environ, "REQUEST_METHOD": "GET"}, lambda *head: held.extend(head[:2]))))  # type: ignore[arg-type]
        start(held[0], [*held[1], ("Content-Length", str(length))])
        return []

    return app


def _answer(start: StartResponse, status: str, body: object, *headers: tuple[str, str]) -> list[bytes]:
    start(status, [("Content-Type", "application/json"), *headers])
    return [json.dumps(body).encode() + b"\n"]


def _one_at_a_time(expose: WSGIApplication) -> WSGIApplication:
    """Render for one client at a time, and for half of the time at most.

    Rendering is Python, which runs one thread at a time: without this a client that asks without end would
    take the monitor's loop its turns.
    """
    rendering = threading.Lock()
    free = 0.0

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        nonlocal free
        with rendering:
            time.sleep(max(0.0, free - time.monotonic()))
            began = time.monotonic()
            body = expose(environ, start)
            free = (ended := time.monotonic()) + min(ended - began, _MOST_PAUSE)
        return body

    return app


@dataclass(frozen=True, slots=True)
class Access:
    """What an exporter needs to be reached from other hosts: TLS, and a user with a password.

    Parameters
    ----------
    tls : ssl.SSLContext
    user : str
    password : Hashed
    """

    tls: ssl.SSLContext | None = None
    user: str = ""
    password: Hashed | None = None

    @property
    def whole(self) -> bool:
        """Whether it is encrypted and tells who asks: what an address that others reach needs."""
        return self.tls is not None and self.password is not None


def access(settings: ExporterSettings) -> Access:
    """Read the certificate, key and password file that a configuration names.

    Raises
    ------
    ExporterError
        If one can not be used, or others could read the key or the password file.
    """
    try:
        tls = _tls(settings) if settings.tls_certificate or settings.tls_key else None
        if bool(settings.user) != bool(settings.password_file):
            raise ExporterError("expected both or neither of [exporter] user and password_file")
        password = passwords.read(Path(settings.password_file)) if settings.password_file else None
    except (SecretFileError, passwords.PasswordError) as error:
        raise ExporterError(str(error)) from error
    return Access(tls, settings.user, password)


def _tls(settings: ExporterSettings) -> ssl.SSLContext:
    certificate, key = settings.tls_certificate, settings.tls_key
    if not (certificate and key):
        raise ExporterError("expected both or neither of [exporter] tls_certificate and tls_key")
    secret_files.read(Path(key), "TLS key")
    if not Path(certificate).is_file():
        raise ExporterError(f"the TLS certificate {certificate} is not a file that can be read")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        # a key with a password of its own would else have OpenSSL ask on the terminal
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:  # SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or "no PEM"
        raise ExporterError(
            f"the TLS certificate {certificate} and the key {key} cannot be used ({reason});"
            " expected a PEM certificate chain and its key, without a password"
        ) from error
    return context


class Guard:
    """Lets those who know the password through to an application (HTTP basic authentication).

    Checking a password is costly by design. So what was right once is known again by a hash with a key that
    only this process has, and wrong ones are checked one at a time, so many a second; the others are told to
    come back (429). Nothing that a client sends as user or password is logged.

    Parameters
    ----------
    app : callable
    user : str
    password : Hashed
    refused : callable
        Told the reason, a word, of every request that was refused.
    clock : callable
        Monotonic time in seconds.
    """

    def __init__(
        self,
        app: WSGIApplication,
        user: str,
        password: Hashed,
        *,
        refused: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._user = user.encode()
        self._password = password
        self._refused = refused
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._right = b""
        self._checking = threading.Lock()
        self._allowance = float(_CHECKS_AT_ONCE)
        self._refilled = clock()
        self._spare = Sparing(clock=clock)

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Answer a request, or have the application answer it."""
        given = _credentials(environ.get("HTTP_AUTHORIZATION", ""))
        verdict = self._judge(*given) if given else False
        if verdict:
            return self._app(environ, start)
        reason = "attempts" if verdict is None else "authentication" if given else "no-credentials"
        self._refused(reason)
        if reason != "no-credentials" and (unsaid := self._spare.due(reason)) is not None:
            _log.warning(
                "http-authentication-failed",
                client=environ.get("REMOTE_ADDR"),
                unchecked=verdict is None,
                others_since=unsaid,
            )
        if verdict is None:
            error = {"error": "too many attempts; come back later"}
            return _answer(start, "429 Too Many Requests", error, ("Retry-After", "1"))
        error = {"error": "user and password are needed"}
        return _answer(start, "401 Unauthorized", error, ("WWW-Authenticate", 'Basic realm="ecgmon", charset="UTF-8"'))

    def _judge(self, user: bytes, password: bytes) -> bool | None:
        """Tell whether these are right; None where that can not be looked at now."""
        seen = hmac.digest(self._key, len(user).to_bytes(4, "big") + user + password, "sha256")
        if hmac.compare_digest(seen, self._right):
            return True
        with self._checking:
            now = self._clock()
            self._allowance = min(_CHECKS_AT_ONCE, self._allowance + (now - self._refilled) * _CHECKS_A_SECOND)
            self._refilled = now
            if self._allowance < 1:
                return None
            self._allowance -= 1
            # both, always: an unknown user takes as long as a known one
            right = self._password.matches(password) & hmac.compare_digest(user, self._user)
            if right:
                self._right = seen
                self._allowance += 1
            return right


def _credentials(header: str) -> tuple[bytes, bytes] | None:
    """Take user and password from an ``Authorization`` header; None where they are not in it."""
    scheme, _, coded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(coded.strip(), validate=True).partition(b":")
    except ValueError:
        return None
    return (user, password) if colon and len(password) <= passwords.MOST else None


class Exporter:
    """Serves an application in threads of its own.

    Parameters
    ----------
    app : callable
    host : str
    port : int
        0 takes a free one; :attr:`port` says which.
    access : Access, optional
        TLS and authentication; an address that other hosts reach is refused without both.
    refused : callable, optional
        Told the reason, a word, of every connection and request that was refused.

    Raises
    ------
    ExporterError
        If the address cannot be had, or may not.
    """

    def __init__(
        self,
        app: WSGIApplication,
        host: str,
        port: int,
        *,
        access: Access | None = None,
        refused: Callable[[str], None] | None = None,
    ) -> None:
        access, refused = access or Access(), refused or (lambda _: None)
        if not (access.whole or is_loopback(host)):
            raise _open_to_others(host)
        if access.password is not None:
            app = Guard(app, access.user, access.password, refused=refused)
        try:
            self._server = Server(host, port, app, tls=access.tls, refused=refused)
        except (OSError, UnicodeError) as error:  # a host name that is none is a UnicodeError
            raise ExporterError(
                f"cannot serve metrics at {host}:{port}: {getattr(error, 'strerror', None) or error};"
                " choose another with [exporter] port, ECGMON_EXPORTER_PORT or --port (0 takes a free one)"
            ) from error
        bound = str(self._server.server_address[0])
        if not (access.whole or is_loopback(bound)):  # localhost is what the system says it is
            self._server.server_close()
            raise _open_to_others(f"{host} ({bound})")
        self.host = host
        self.port = self._server.server_port
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'http' if access.tls is None else 'https'}://{shown}:{self.port}/metrics"
        self._thread = threading.Thread(target=self._server.run, name="exporter", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=1.0)


def _open_to_others(host: str) -> ExporterError:
    return ExporterError(
        f"metrics at {host} could be read by other hosts: expected a loopback address such as 127.0.0.1, or all of"
        " [exporter] tls_certificate, tls_key, user and password_file"
    )


def serve(metrics: Metrics, health: Callable[[], dict[str, bool]], settings: ExporterSettings) -> Exporter:
    """Serve the metrics of a monitor as its configuration says.

    Parameters
    ----------
    metrics : Metrics
    health : callable
        See :func:`application`.
    settings : ExporterSettings

    Raises
    ------
    ExporterError
        If a file of the configuration can not be used, or the address cannot be had.
    """

    def refused(reason: str) -> None:
        metrics.http_refused.labels(reason).inc()

    app = application(metrics, health)
    return Exporter(app, settings.host, settings.port, access=access(settings), refused=refused)
