"""Metrics over HTTP: who may read them, and the server that shows them."""

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

_CHECKS_A_SECOND: Final = 1.0  # passwords that are hashed, in the long run: some 10 % of a processor
_CHECKS_AT_ONCE: Final = 5  # and after a while of quiet
_MOST_PAUSE: Final = 0.5  # seconds between two renderings

_log = structlog.get_logger()


class ExporterError(Exception):
    """The metrics endpoint cannot be served; the message says where and why."""


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
        If one cannot be used, or others could read the key or the password file.
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
        self._rate_limit = RateLimit(clock=clock)

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Answer a request, or have the application answer it."""
        given = _credentials(environ.get("HTTP_AUTHORIZATION", ""))
        verdict = self._judge(*given) if given else False
        if verdict:
            return self._app(environ, start)
        reason = "attempts" if verdict is None else "authentication" if given else "no-credentials"
        self._refused(reason)
        if reason != "no-credentials" and (unsaid := self._rate_limit.due(reason)) is not None:
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
        """Tell whether these are right; None where that cannot be looked at now."""
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
        If a file of the configuration cannot be used, or the address cannot be had.
    """

    def refused(reason: str) -> None:
        metrics.http_refused.labels(reason).inc()

    app = application(metrics, health)
    return Exporter(app, settings.host, settings.port, access=access(settings), refused=refused)
