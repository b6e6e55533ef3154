"""A small HTTP server for the metrics, with limits on connections, bytes and time.

It is the server of wsgiref with limits added.  Every connection has its own thread; the number of
connections is limited.  A connection must end within a fixed time, however many bytes arrive.  If all
places are taken, a new connection replaces the oldest one that has not sent a request, so clients that
send nothing do not keep others out.  A TLS handshake counts towards the time and runs in the thread of
its connection; the accepting thread does not wait for it.
"""

from __future__ import annotations

import io
import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer

import structlog

from ecgmon.pipelines.transport.rate_limit import RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable
    from wsgiref.types import WSGIApplication

MAX_CONNECTIONS: Final = 64
"""Maximum number of open connections."""

MAX_REQUEST_BYTES: Final = 16 * 1024
"""Maximum size in bytes of a request: its line and headers.  Prometheus sends about 500; no request here has a body."""

REQUEST_SECONDS: Final = 5.0
"""Longest time from the connection to the end of the request's headers, the TLS handshake included."""

ANSWER_SECONDS: Final = 20.0
"""Longest time from the connection to the end of the answer."""

_SLOW_ANSWER_SECONDS: Final = 2.0  # a connection whose answer takes longer can be replaced by a new one
_POLL_SECONDS: Final = 0.25  # between two checks for overdue connections

_log = structlog.get_logger("exporter")


class _TooLongError(OSError):
    """A request is longer than allowed."""


class _LimitedReader(io.RawIOBase):
    """The read side of a connection, up to a number of bytes."""

    def __init__(self, connection: socket.socket, limit: int) -> None:
        self._connection = connection
        self._left = limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - any writable buffer
        if not self._left:
            raise _TooLongError("the request is too long")
        read = self._connection.recv_into(buffer, min(len(buffer), self._left))
        self._left -= read
        return read


@dataclass(eq=False, slots=True)
class _Connection:
    """A connection that is being served.

    Attributes
    ----------
    since : float
        Monotonic time of its arrival, in s.
    deadline : float
        Monotonic time at which it is shut down, in s.
    has_request : bool
        Whether its request was read completely.
    """

    socket: socket.socket
    since: float
    deadline: float
    has_request: bool = False

    def shut_down(self) -> None:
        """Wake its thread with an end of file; the thread then closes the connection."""
        with suppress(OSError):
            # the plain socket's method: SSLSocket.shutdown would remove the TLS state that the thread still uses
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)


class _Answer(ServerHandler):
    """Runs the application for one request."""

    server_software = "ecgmon"
    request_handler: WSGIRequestHandler

    def log_exception(self, exc_info: Any, /) -> None:  # noqa: ANN401 - as in the standard library
        """Log an error of the application in one line, unless the client disconnected."""
        kind, error = exc_info[:2]
        if kind is not None and not issubclass(kind, OSError):
            _log.error("http-request-failed", error=f"{kind.__name__}: {error}")


class _Handler(WSGIRequestHandler):
    """Reads one request."""

    server: Server
    timeout = REQUEST_SECONDS  # of one read or write; the server limits their total time
    server_version = "ecgmon"
    sys_version = ""

    def setup(self) -> None:
        """Do the TLS handshake, and limit the bytes that are read."""
        if isinstance(self.request, ssl.SSLSocket):
            self.request.settimeout(self.timeout)
            try:
                self.request.do_handshake()
            except OSError:
                self.server.refused("handshake")
                raise
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_LimitedReader(self.connection, MAX_REQUEST_BYTES))

    def handle(self) -> None:
        """Answer the request."""
        self.raw_requestline = b""
        try:
            self.raw_requestline = self.rfile.readline(MAX_REQUEST_BYTES)
            if not self.raw_requestline or not self.parse_request():
                if self.raw_requestline:
                    self.server.refused("request")
                return
        except _TooLongError:
            self.server.refused("too-long")
            self.requestline = self.request_version = self.command = ""
            self.send_error(431)
            return
        except ConnectionError:
            if self.raw_requestline:  # the client disconnected during the error answer
                self.server.refused("request")
            raise
        self.server.note_request(self.connection)
        writer = cast("io.BufferedWriter", self.wfile)
        answer = _Answer(io.BytesIO(), writer, io.StringIO(), self.get_environ(), multithread=True)
        answer.request_handler = self
        answer.run(self.server.get_app())  # type: ignore[arg-type]

    def log_message(self, *_: object) -> None:
        """Do not log requests."""


class Server(WSGIServer):
    """A server with one thread for each connection, and limits on their number and time.

    Parameters
    ----------
    host : str
    port : int
    app : callable
        The WSGI application.
    tls : ssl.SSLContext, optional
        If given, the server accepts only TLS.
    refused : callable
        Called with the reason, one word, for every connection that gets no answer.

    Raises
    ------
    OSError
        If the address cannot be used.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, host: str, port: int, app: WSGIApplication, *, tls: ssl.SSLContext | None, refused: Callable[[str], None]
    ) -> None:
        if ":" in host:
            self.address_family = socket.AF_INET6
        self.refused = refused
        self._tls = tls
        self._lock = threading.Lock()
        self._open: dict[socket.socket, _Connection] = {}  # in order of arrival
        self._threads = 0
        self._rate_limit = RateLimit()
        super().__init__((host, port), _Handler)
        self.set_app(app)

    def server_bind(self) -> None:
        """Bind without looking up the full name of the host."""
        socket_server_bind(self)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; its thread does the TLS handshake."""
        connection, address = super().get_request()
        if self._tls is None:
            return connection, address
        try:
            wrapped = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        except OSError:
            connection.close()
            self.refused("handshake")
            raise
        return wrapped, address

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as in the standard library
        """Serve a connection in its own thread; refuse it if there is no place."""
        now = time.monotonic()
        with self._lock:
            if len(self._open) >= MAX_CONNECTIONS:
                self._make_room(now)
            # the thread of a replaced connection counts until it has run, which ends it
            place = len(self._open) < MAX_CONNECTIONS and self._threads < 2 * MAX_CONNECTIONS
            if place:
                self._open[request] = _Connection(request, now, now + REQUEST_SECONDS)
                self._threads += 1
        if not place:
            self._refuse_connection()
            self.shutdown_request(request)
            return
        try:
            threading.Thread(target=self._serve, args=(request, client_address), name="metrics", daemon=True).start()
        except RuntimeError:  # the system cannot start another thread
            self._forget(request)
            self._refuse_connection()
            self.shutdown_request(request)

    def _make_room(self, now: float) -> None:
        """Shut down the oldest connection without a request, else the oldest one whose answer is slow."""
        waiting = (one for one in self._open.values() if not one.has_request)
        slow = (one for one in self._open.values() if now - one.since > _SLOW_ANSWER_SECONDS)
        if (one := next(waiting, None) or next(slow, None)) is not None:
            one.shut_down()
            del self._open[one.socket]
            self._refuse_connection()

    def _refuse_connection(self) -> None:
        self.refused("connections")
        if (suppressed := self._rate_limit.due("connections")) is not None:
            _log.warning("http-connections-refused", most=MAX_CONNECTIONS, others_since=suppressed)

    def _serve(self, request: socket.socket, client_address: object) -> None:
        try:
            self.finish_request(request, client_address)
        except OSError:
            pass  # the client disconnected, or its connection was shut down
        finally:
            self._forget(request)
            self.shutdown_request(request)

    def _forget(self, request: socket.socket) -> None:
        with self._lock:
            self._open.pop(request, None)
            self._threads -= 1

    def note_request(self, request: socket.socket) -> None:
        """Note that a request was read completely, and extend its deadline for the answer."""
        with self._lock:
            if (connection := self._open.get(request)) is not None:
                connection.has_request = True
                connection.deadline += ANSWER_SECONDS - REQUEST_SECONDS

    def service_actions(self) -> None:
        """Shut down overdue connections; called after each connection and every :data:`_POLL_SECONDS`."""
        now = time.monotonic()
        with self._lock:
            overdue = [connection for connection in self._open.values() if connection.deadline < now]
            for connection in overdue:
                connection.deadline = now + ANSWER_SECONDS  # its thread is about to end: do not repeat this
                connection.shut_down()
        for _ in overdue:
            self.refused("time")

    def run(self) -> None:
        """Serve until :meth:`shutdown`."""
        self.serve_forever(_POLL_SECONDS)

    def handle_error(self, request: object, client_address: object) -> None:
        """Log the error as one event; the standard library would print it."""
        del request, client_address
        _log.exception("http-connection-failed")


def socket_server_bind(server: WSGIServer) -> None:
    """Bind as :class:`http.server.HTTPServer` does, but without its look-up of the host's full name."""
    from socketserver import TCPServer

    TCPServer.server_bind(server)
    host, port = server.server_address[:2]
    server.server_name, server.server_port = str(host), port
    server.setup_environ()
