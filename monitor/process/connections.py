"""Connections between roles: ipc sockets in a folder that only this user can enter, authenticated tcp sockets."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from typing import TYPE_CHECKING, Final, NamedTuple

import zmq

from ecgmon.pipelines.transport.peer import look_alive
from ecgmon.pipelines.wire import MAX_FRAME

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_LONGEST: Final = 107
"""Longest path of a Unix socket in bytes (sun_path holds 108 with the final zero)."""

PRODUCERS: Final = "producers"
WORKERS: Final = "workers"
FEED: Final = "feed"
CONTROL: Final = "control"


class EndpointError(Exception):
    """The runtime folder cannot be used; the message says why and what to do."""


def endpoint(folder: Path, name: str) -> str:
    """Return the ZeroMQ address of a socket in a runtime folder.

    Raises
    ------
    EndpointError
        If the path is too long for a Unix socket.
    """
    path = os.fsencode(folder.absolute() / name)
    if len(path) > _LONGEST:
        raise EndpointError(
            f"the runtime folder {folder} makes a socket path of {len(path)} bytes; at most {_LONGEST} are allowed:"
            " choose a shorter one with [runtime] dir"
        )
    return f"ipc://{os.fsdecode(path)}"


def claim(folder: Path) -> int:
    """Create the runtime folder if it is missing, check that no other user can enter it, and lock it.

    A second bind on an ipc path silently takes the endpoint over from the first; the lock prevents that.

    Returns
    -------
    int
        File descriptor that holds the lock; the lock ends with the process.

    Raises
    ------
    EndpointError
        If the folder is a link, belongs to another user, can be entered by others, or is in use by another monitor.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise EndpointError(f"cannot create the runtime folder {folder}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise EndpointError(f"the runtime folder {folder} is not a folder (links are not followed)")
    if found.st_uid != os.geteuid():
        raise EndpointError(f"the runtime folder {folder} belongs to user {found.st_uid}, not to {os.geteuid()}")
    if found.st_mode & 0o077:
        raise EndpointError(
            f"the runtime folder {folder} has mode {stat.S_IMODE(found.st_mode):04o}; others may enter it: chmod 0700"
        )
    try:
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise EndpointError(f"cannot write in the runtime folder {folder}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        if error.errno != errno.EWOULDBLOCK:
            raise EndpointError(f"cannot lock the runtime folder {folder}: {error.strerror}") from error
        raise EndpointError(f"another monitor serves in {folder}; stop it or choose another [runtime] dir") from None
    return lock


class Connection(NamedTuple):
    """The connection that a message came from."""

    listener: Listener
    id: bytes
    """Routing id of the connection at its socket."""
    client: str = ""
    """Public key that the peer has proved to own; empty at a listener without authentication."""


class Listener:
    """A socket that producers or workers connect to.

    Parameters
    ----------
    socket : Socket
        Bound, or to be bound by the authenticator.
    authenticated : bool
        Whether peers have proved to own a key.
    """

    def __init__(self, socket: zmq.Socket[bytes], *, authenticated: bool = False) -> None:
        self.socket = socket
        self.authenticated = authenticated

    def receive(self) -> tuple[Connection, list[bytes | memoryview]] | None:
        """Return the next message, or None if there is none."""
        try:
            if not self.authenticated:
                identity, *plain = self.socket.recv_multipart(zmq.NOBLOCK)
                return Connection(self, identity), list(plain)
            sender, *frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return None
        # frames are not copied: one may hold a few hundred kB of windows
        client = str((frames[0] if frames else sender).get("User-Id"))
        return Connection(self, sender.bytes, client), [frame.buffer for frame in frames]

    def send(self, connection: Connection, frames: Sequence[bytes | memoryview]) -> str | None:
        """Send a message; return None, or the reason why it cannot be sent."""
        try:
            self.socket.send_multipart([connection.id, *frames], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return str(error)
        return None


def bind(context: zmq.Context[zmq.Socket[bytes]], kind: int, address: str) -> zmq.Socket[bytes]:
    """Make a socket of a monitor, and bind it."""
    socket = unbound(context, kind)
    socket.bind(address)
    return socket


def unbound(context: zmq.Context[zmq.Socket[bytes]], kind: int) -> zmq.Socket[bytes]:
    """Make a socket of a monitor; credit limits what it queues, so no high-water mark drops messages."""
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 200)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME)
    if kind == zmq.ROUTER:
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        look_alive(socket)
    return socket
