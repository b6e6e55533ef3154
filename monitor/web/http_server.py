"""A small HTTP server for the metrics, which clients can neither hold up nor fill up.

wsgiref's server with limits around it.  Every connection has a thread, there are at most so many of
them, and each has to be done within a time that no amount of single bytes prolongs.  Where all places
are taken, the connection that has been asking for longest without having asked anything gives way: a
crowd that opens connections and says nothing loses them to whoever speaks.  Where TLS is spoken, the
handshake is part of that time, in the thread of its connection; the accepting thread never waits.
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
"""Most connections, and threads, at once."""

MAX_REQUEST_BYTES: Final = 16 * 1024
"""Most bytes of a request: its line and headers.  Prometheus sends some 500; nothing that is asked here has a body."""

REQUEST_SECONDS: Final = 5.0
"""Longest time from the connection to the end of the request's headers, the TLS handshake included."""

ANSWER_SECONDS: Final = 20.0
"""Longest time from the connection to the end of the answer."""

_PATIENCE_SECONDS: Final = 2.0  # a client that takes longer over an answer may lose it to others who want its place
_POLL_SECONDS: Final = 0.25  # how often overdue connections are looked for

_log = structlog.get_logger("exporter")


class _TooLongError(OSError):
    """A request has more bytes than are read."""


class _Bounded(io.RawIOBase):
    """The reading half of a connection, up to so many bytes."""

    def __init__(self, connection: socket.socket, most: int) -> None:
        self._connection = connection
        self._left = most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - any writable buffer
        if not self._left:
            raise _TooLongError("a request of too many bytes")
        read = self._connection.recv_into(buffer, min(len(buffer), self._left))
        self._left -= read
        return read


@dataclass(eq=False, slots=True)
class _Connection:
    """A connection that is being served.

    Attributes
    ----------
    since : float
        Monotonic time in s of its arrival.
    deadline : float
        Monotonic time in s at which it is cut.
    asked : bool
        Whether its request was read whole.
    """

    socket: socket.socket
    since: float
    deadline: float
    asked: bool = False

    def cut(self) -> None:
        """Wake up its thread with an end of file; the thread closes it."""
        with suppress(OSError):
            # that of the plain socket: SSLSocket.shutdown takes its TLS state away under the thread's hands
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)


class _Answer(ServerHandler):
    """Runs the application for one request."""

    server_software = "ecgmon"
    request_handler: WSGIRequestHandler

    def log_exception(self, exc_info: Any, /) -> None:  # noqa: ANN401 - as in the standard library
        """Say briefly what went wrong, where it was not the client that went away."""
        kind, error = exc_info[:2]
        if kind is not None and not issubclass(kind, OSError):
            _log.error("http-request-failed", error=f"{kind.__name__}: {error}")


class _Handler(WSGIRequestHandler):
    """Reads one request."""

    server: Server
    timeout = REQUEST_SECONDS  # of one read or write; the server sees to the time of all together
    server_version = "ecgmon"
    sys_version = ""

    def setup(self) -> None:
        """Shake hands, and bound what is read."""
        if isinstance(self.request, ssl.SSLSocket):
            self.request.settimeout(self.timeout)
            try:
                self.request.do_handshake()
            except OSError:
                self.server.refused("handshake")
                raise
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_Bounded(self.connection, MAX_REQUEST_BYTES))

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
            if self.raw_requestline:  # it went while it was being told what is wrong
                self.server.refused("request")
            raise
        self.server.asked(self.connection)
        writer = cast("io.BufferedWriter", self.wfile)
        answer = _Answer(io.BytesIO(), writer, io.StringIO(), self.get_environ(), multithread=True)
        answer.request_handler = self
        answer.run(self.server.get_app())  # type: ignore[arg-type]

    def log_message(self, *_: object) -> None:
        """Stay silent: requests are not worth a line each."""


class Server(WSGIServer):
    """One thread a connection, a bounded number of them for a bounded time.

    Parameters
    ----------
    host : str
    port : int
    app : callable
        What answers.
    tls : ssl.SSLContext, optional
        Speak TLS, and nothing else.
    refused : callable
        Told the reason, a word, of every connection that got no answer.

    Raises
    ------
    OSError
        If the address cannot be had.
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
        self._open: dict[socket.socket, _Connection] = {}  # in the order of their arrival
        self._threads = 0
        self._rate_limit = RateLimit()
        super().__init__((host, port), _Handler)
        self.set_app(app)

    def server_bind(self) -> None:
        """Bind, without asking a name server what we are called."""
        socket_server_bind(self)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; the TLS handshake is left to its thread."""
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
        """Serve a connection in a thread of its own, if there is a place for it."""
        now = time.monotonic()
        with self._lock:
            if len(self._open) >= MAX_CONNECTIONS:
                self._give_way(now)
            # a thread whose connection gave way ends at once, but not before it has run: it counts until then
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
        except RuntimeError:  # the system has no more threads
            self._forget(request)
            self._refuse_connection()
            self.shutdown_request(request)

    def _give_way(self, now: float) -> None:
        """Cut the oldest connection that has not asked yet, else the oldest that dawdles over its answer."""
        waiting = (one for one in self._open.values() if not one.asked)
        dawdling = (one for one in self._open.values() if now - one.since > _PATIENCE_SECONDS)
        if (one := next(waiting, None) or next(dawdling, None)) is not None:
            one.cut()
            del self._open[one.socket]
            self._refuse_connection()

    def _refuse_connection(self) -> None:
        self.refused("connections")
        if (unsaid := self._rate_limit.due("connections")) is not None:
            _log.warning("http-connections-refused", most=MAX_CONNECTIONS, others_since=unsaid)

    def _serve(self, request: socket.socket, client_address: object) -> None:
        try:
            self.finish_request(request, client_address)
        except OSError:
            pass  # the client went away, or was cut
        finally:
            self._forget(request)
            self.shutdown_request(request)

    def _forget(self, request: socket.socket) -> None:
        with self._lock:
            self._open.pop(request, None)
            self._threads -= 1

    def asked(self, request: socket.socket) -> None:
        """Note that a request was read whole; what is left is to answer it."""
        with self._lock:
            if (connection := self._open.get(request)) is not None:
                connection.asked = True
                connection.deadline += ANSWER_SECONDS - REQUEST_SECONDS

    def service_actions(self) -> None:
        """Cut what is overdue; called between two connections and every :data:`_POLL_SECONDS`."""
        now = time.monotonic()
        with self._lock:
            overdue = [connection for connection in self._open.values() if connection.deadline < now]
            for connection in overdue:
                connection.deadline = now + ANSWER_SECONDS  # its thread is about to end; cut once is enough
                connection.cut()
        for _ in overdue:
            self.refused("time")

    def run(self) -> None:
        """Serve until :meth:`shutdown`."""
        self.serve_forever(_POLL_SECONDS)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say in a line what the standard library would print in twenty."""
        del request, client_address
        _log.exception("http-connection-failed")


def socket_server_bind(server: WSGIServer) -> None:
    """Bind as :class:`http.server.HTTPServer` does, but for its look-up of the host's full name."""
    from socketserver import TCPServer

    TCPServer.server_bind(server)
    host, port = server.server_address[:2]
    server.server_name, server.server_port = str(host), port
    server.setup_environ()
