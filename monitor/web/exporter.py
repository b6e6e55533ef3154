"""Metrics over HTTP: the application, its authentication, and the server that runs it."""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog
from prometheus_client import make_wsgi_app

from ecgmon.monitor.config.schema import is_loopback
from ecgmon.monitor.web import passwords
from ecgmon.monitor.web.http_server import Server
from ecgmon.pipelines.transport import secret_files
from ecgmon.pipelines.transport.rate_limit import RateLimit
from ecgmon.pipelines.transport.secret_files import SecretFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from ecgmon.monitor.config.schema import ExporterSettings
    from ecgmon.monitor.metrics.instruments import Metrics
    from ecgmon.monitor.web.passwords import Hashed

_CHECKS_PER_SECOND: Final = 1.0  # password checks on average: about 10 % of a processor
_CHECK_BURST: Final = 5  # password checks in a burst, after a pause
_MAX_PAUSE: Final = 0.5  # seconds between two renderings, at most

_log = structlog.get_logger()


class ExporterError(Exception):
    """The metrics endpoint cannot be served; the message says where and why."""


def application(metrics: Metrics, health: Callable[[], dict[str, bool]]) -> WSGIApplication:
    """Make the application: ``/metrics`` (OpenMetrics if the client accepts it), ``/-/healthy`` and ``/-/ready``.

    Parameters
    ----------
    metrics : Metrics
    health : callable
        Returns the conditions by name.  The monitor is healthy if ``alive`` is true, and ready if all are true.
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
        return _answer(start, "404 Not Found", {"error": f"there is no page {path[:100]}"})

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        method = environ.get("REQUEST_METHOD")
        if method == "GET":
            return get(environ, start)
        if method != "HEAD":
            metrics.http_refused.labels("method").inc()
            error = {"error": "expected the method GET or HEAD"}
            return _answer(start, "405 Method Not Allowed", error, ("Allow", "GET, HEAD"))
        head: list[Any] = []  # status and headers
        length = sum(map(len, get({**environ, "REQUEST_METHOD": "GET"}, lambda *args: head.extend(args[:2]))))  # type: ignore[arg-type]
        start(head[0], [*head[1], ("Content-Length", str(length))])
        return []

    return app


def _answer(start: StartResponse, status: str, body: object, *headers: tuple[str, str]) -> list[bytes]:
    start(status, [("Content-Type", "application/json"), *headers])
    return [json.dumps(body).encode() + b"\n"]


def _one_at_a_time(expose: WSGIApplication) -> WSGIApplication:
    """Render for one client at a time, and for at most half of the time.

    Rendering runs Python code, one thread at a time.  Without this limit, a client that sends requests without
    pause would slow down the monitor's loop.
    """
    rendering = threading.Lock()
    next_start = 0.0

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        nonlocal next_start
        with rendering:
            time.sleep(max(0.0, next_start - time.monotonic()))
            began = time.monotonic()
            body = expose(environ, start)
            next_start = (ended := time.monotonic()) + min(ended - began, _MAX_PAUSE)
        return body

    return app


@dataclass(frozen=True, slots=True)
class Access:
    """TLS and a user with a password; an address that other hosts can reach needs both.

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
    def complete(self) -> bool:
        """Whether it has both TLS and a password."""
        return self.tls is not None and self.password is not None


def access(settings: ExporterSettings) -> Access:
    """Read the certificate, key and password file that a configuration names.

    Raises
    ------
    ExporterError
        If a file cannot be used, or other users can read the key or the password file.
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
        # without a password here, OpenSSL asks for that of an encrypted key on the terminal
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:  # SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or "not PEM"
        raise ExporterError(
            f"the TLS certificate {certificate} and the key {key} cannot be used ({reason});"
            " expected a PEM certificate chain and its key, without a password"
        ) from error
    return context


class Guard:
    """Passes requests with the right password to an application (HTTP basic authentication).

    Checking a password is slow by design.  The right user and password are therefore remembered after the first
    check, as a hash with a key that only this process has.  All others are checked one at a time and at a limited
    rate; requests beyond it get the status 429.  Users and passwords that clients send are not logged.

    Parameters
    ----------
    app : callable
    user : str
    password : Hashed
    refused : callable
        Called with the reason, one word, for every refused request.
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
        self._allowance = float(_CHECK_BURST)
        self._refilled = clock()
        self._rate_limit = RateLimit(clock=clock)

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Pass a request to the application, or refuse it."""
        given = _credentials(environ.get("HTTP_AUTHORIZATION", ""))
        verdict = self._check(*given) if given else False
        if verdict:
            return self._app(environ, start)
        reason = "attempts" if verdict is None else "authentication" if given else "no-credentials"
        self._refused(reason)
        if reason != "no-credentials" and (suppressed := self._rate_limit.due(reason)) is not None:
            _log.warning(
                "http-authentication-failed",
                client=environ.get("REMOTE_ADDR"),
                unchecked=verdict is None,
                others_since=suppressed,
            )
        if verdict is None:
            error = {"error": "too many attempts; try again later"}
            return _answer(start, "429 Too Many Requests", error, ("Retry-After", "1"))
        error = {"error": "user and password are needed"}
        return _answer(start, "401 Unauthorized", error, ("WWW-Authenticate", 'Basic realm="ecgmon", charset="UTF-8"'))

    def _check(self, user: bytes, password: bytes) -> bool | None:
        """Return whether user and password are right; None if the rate limit prevents the check."""
        digest = hmac.digest(self._key, len(user).to_bytes(4, "big") + user + password, "sha256")
        if hmac.compare_digest(digest, self._right):
            return True
        with self._checking:
            now = self._clock()
            self._allowance = min(_CHECK_BURST, self._allowance + (now - self._refilled) * _CHECKS_PER_SECOND)
            self._refilled = now
            if self._allowance < 1:
                return None
            self._allowance -= 1
            # always check both: an unknown user takes as long as a known one
            right = self._password.matches(password) & hmac.compare_digest(user, self._user)
            if right:
                self._right = digest
                self._allowance += 1
            return right


def _credentials(header: str) -> tuple[bytes, bytes] | None:
    """Read user and password from an ``Authorization`` header; None if it has none."""
    scheme, _, coded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(coded.strip(), validate=True).partition(b":")
    except ValueError:
        return None
    return (user, password) if colon and len(password) <= passwords.MAX_BYTES else None


class Exporter:
    """Serves an application in its own threads.

    Parameters
    ----------
    app : callable
    host : str
    port : int
        0 takes a free one; :attr:`port` is the one in use.
    access : Access, optional
        TLS and authentication; an address that other hosts can reach is refused without both.
    refused : callable, optional
        Called with the reason, one word, for every refused connection and request.

    Raises
    ------
    ExporterError
        If the address cannot be used, or other hosts can reach it and ``access`` is not complete.
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
        if not (access.complete or is_loopback(host)):
            raise _open_to_others(host)
        if access.password is not None:
            app = Guard(app, access.user, access.password, refused=refused)
        try:
            self._server = Server(host, port, app, tls=access.tls, refused=refused)
        except (OSError, UnicodeError) as error:  # an invalid host name is a UnicodeError
            raise ExporterError(
                f"cannot serve metrics at {host}:{port}: {getattr(error, 'strerror', None) or error};"
                " choose another with [exporter] port, ECGMON_EXPORTER_PORT or --port (0 takes a free one)"
            ) from error
        bound = str(self._server.server_address[0])
        if not (access.complete or is_loopback(bound)):  # the system decides which address localhost is
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
    """Serve the metrics of a monitor with the settings of its configuration.

    Parameters
    ----------
    metrics : Metrics
    health : callable
        See :func:`application`.
    settings : ExporterSettings

    Raises
    ------
    ExporterError
        If a file of the configuration or the address cannot be used.
    """

    def refused(reason: str) -> None:
        metrics.http_refused.labels(reason).inc()

    app = application(metrics, health)
    return Exporter(app, settings.host, settings.port, access=access(settings), refused=refused)
