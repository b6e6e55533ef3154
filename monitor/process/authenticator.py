"""Authentication of clients over tcp: the client list, and the authenticator that checks their keys.

Every tcp socket of the monitor uses CURVE only: a peer without the monitor's public key, or without a
key of its own, fails the handshake.  ZAP (ZeroMQ RFC 27) asks the authenticator whether a key is on the
list, separately for producers and workers.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

import structlog
import zmq
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils.monitor import recv_monitor_message

from ecgmon.pipelines.transport import keys
from ecgmon.pipelines.transport.keys import KeyFileError
from ecgmon.pipelines.transport.rate_limit import RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from ecgmon.pipelines.transport.keys import KeyPair

_log = structlog.get_logger("authenticator")

ROLES: Final = ("producer", "worker")
"""Roles of a client; each has its own socket."""

_FAILED: Final = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_MOST_BYTES: Final = 2**20  # of the client list
_HANDSHAKE_MS: Final = 5000  # a connection that has not finished its handshake by then is closed


@dataclass(frozen=True, slots=True)
class Client:
    """A client that may connect over tcp.

    Attributes
    ----------
    name : str
        For logs.
    role : str
        One of :data:`ROLES`.
    streams : tuple of str
        Patterns (``*`` stands for anything) of the streams that a producer may write.
    """

    name: str
    role: str
    streams: tuple[str, ...] = ()

    def may_write(self, stream: str) -> bool:
        """Return whether the client may send a stream."""
        return any(fnmatchcase(stream, pattern) for pattern in self.streams)


def read_clients(path: Path) -> dict[str, Client]:
    """Read a client list: each line has a name, a role, a public key and, for a producer, stream patterns.

    Parameters
    ----------
    path : Path
        Text; empty lines and lines that begin with ``#`` are ignored.

    Returns
    -------
    dict of str to Client
        By public key.

    Raises
    ------
    KeyFileError
        If the file cannot be read, or a line is invalid; the message names file and line.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise KeyFileError(f"cannot read the client list {path}: {reason}") from error
    if len(text) > _MOST_BYTES:
        raise KeyFileError(f"the client list {path} is longer than {_MOST_BYTES} bytes")
    clients: dict[str, Client] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            key, client = _client(line.split())
        except KeyFileError as error:
            raise KeyFileError(f"{path}:{number}: {error}") from None
        if key in clients:
            raise KeyFileError(f"{path}:{number}: this key already belongs to {clients[key].name}")
        clients[key] = client
    return clients


def _client(words: list[str]) -> tuple[str, Client]:
    if len(words) < 3:  # noqa: PLR2004 - name, role, key
        raise KeyFileError("expected a name, a role, a public key and, for a producer, the streams that it may write")
    name, role, key, *streams = words
    if role not in ROLES:
        raise KeyFileError(f"{role!r} is not a role; expected {' or '.join(ROLES)}")
    keys.checked(key.encode())
    if (role == "producer") != bool(streams):
        raise KeyFileError("a producer needs patterns of the streams that it may write (* for all); a worker has none")
    return key, Client(name, role, tuple(streams))


class Authenticator:
    """Authenticates the clients of the tcp sockets of a context.

    Parameters
    ----------
    own : KeyPair
        The monitor's keys.
    clients : Path
        File of the client list; it is read again when it changes.
    refused : callable
        Called from a thread with the role of the listener at which a handshake failed.

    Raises
    ------
    KeyFileError
        If the client list is unreadable or invalid.
    """

    def __init__(self, own: KeyPair, clients: Path, refused: Callable[[str], None]) -> None:
        self._own = own
        self._path = clients
        self._refused = refused
        self._clients = read_clients(clients)
        self._stamp = self._file_stamp()
        self._authenticator: ThreadAuthenticator | None = None
        self._watches: list[threading.Thread] = []
        self._rate_limit = RateLimit()

    @property
    def clients(self) -> Mapping[str, Client]:
        """Clients that may connect, by public key."""
        return self._clients

    def bind(self, context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes], role: str, address: str) -> None:
        """Bind a socket to a tcp address, for clients of one role.

        Raises
        ------
        zmq.ZMQError
            If the address cannot be bound.
        """
        if self._authenticator is None:  # before the first bind: without an authenticator, no handshake succeeds
            self._authenticator = ThreadAuthenticator(context)
            self._authenticator.start()
        self._authenticator.configure_curve_callback(domain=role, credentials_provider=_Provider(self, role))
        socket.zap_domain = role.encode()
        socket.zap_enforce_domain = 1
        socket.curve_secretkey = self._own.secret
        socket.curve_publickey = self._own.public
        socket.curve_server = 1
        socket.handshake_ivl = _HANDSHAKE_MS
        watched = socket.get_monitor_socket(_FAILED | zmq.EVENT_MONITOR_STOPPED)
        # A separate thread reads the events: libzmq's thread would wait for a main loop that is busy with the disk.
        watch = threading.Thread(target=self._watch, args=(watched, role), name=f"handshakes-{role}", daemon=True)
        watch.start()
        self._watches.append(watch)
        socket.bind(address)

    def client(self, user_id: str) -> Client | None:
        """Return the client with a public key; None if the key is no longer on the list."""
        return self._clients.get(user_id)

    def refresh(self) -> None:
        """Read the client list again if the file has changed; an invalid one is ignored."""
        stamp = self._file_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._clients = read_clients(self._path)
        except KeyFileError as error:
            _log.error("clients-unchanged", reason=str(error))
            return
        _log.info("clients-read", clients=len(self._clients))

    def close(self) -> None:
        """Stop the threads; the sockets must already be closed."""
        for watch in self._watches:
            watch.join(timeout=1.0)
        if self._authenticator is not None:
            self._authenticator.stop()

    def allows(self, role: str, key: str) -> bool:
        """Return whether a key belongs to a client of a role."""
        client = self._clients.get(key)
        return client is not None and client.role == role

    def _file_stamp(self) -> tuple[int, int, int]:
        try:
            found = self._path.stat()
        except OSError:
            return (0, 0, 0)
        return (found.st_mtime_ns, found.st_size, found.st_ino)

    def _watch(self, events: zmq.Socket[bytes], role: str) -> None:
        while True:
            event = recv_monitor_message(events)
            if event["event"] == zmq.EVENT_MONITOR_STOPPED:
                break
            self._refused(role)
            if (more := self._rate_limit.due(role)) is not None:
                _log.warning("handshake-failed", listener=role, others_since=more)
        events.close()


class _Provider:
    """Answers the queries of pyzmq's authenticator for one role."""

    def __init__(self, authenticator: Authenticator, role: str) -> None:
        self._authenticator = authenticator
        self._role = role

    def callback(self, domain: str, key: bytes) -> bool:
        del domain
        return self._authenticator.allows(self._role, key.decode())
