"""Where the roles meet: ipc sockets in a folder that only this user can enter, and tcp sockets with authentication."""

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
"""Longest path of a Unix socket in bytes (sun_path holds 108 with its end)."""

PRODUCERS: Final = "producers"
WORKERS: Final = "workers"
FEED: Final = "feed"
CONTROL: Final = "control"


class EndpointError(Exception):
    """The runtime folder cannot be used; the message says why and what to do."""


def endpoint(folder: Path, name: str) -> str:
    """ZeroMQ address of a socket in a runtime folder.

    Raises
    ------
    EndpointError
        If the path is longer than a Unix socket's may be.
    """
    path = os.fsencode(folder.absolute() / name)
    if len(path) > _LONGEST:
        raise EndpointError(
            f"the runtime folder {folder} makes a socket path of {len(path)} bytes; at most {_LONGEST} are possible:"
            " choose a shorter one with [runtime] dir"
        )
    return f"ipc://{os.fsdecode(path)}"


def claim(folder: Path) -> int:
    """Make the runtime folder if need be, check that it is ours alone, and lock it.

    A second bind on an ipc path silently takes the endpoint over from the first, so the process that binds
    holds this lock.

    Returns
    -------
    int
        File descriptor that holds the lock; it lapses with the process.

    Raises
    ------
    EndpointError
        If the folder is a link, another user's, open to others, or in use by another monitor.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise EndpointError(f"cannot make the runtime folder {folder}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise EndpointError(f"the runtime folder {folder} is not a folder (a link is not followed)")
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
    """Who a message came from, as long as that connection lasts."""

    listener: Listener
    id: bytes
    """What the socket calls the connection."""
    client: str = ""
    """Public key that it proved to have, at a listener with authentication; else empty."""


class Listener:
    """A socket that producers or workers connect to.

    Parameters
    ----------
    socket : Socket
        Bound, or to be bound by a guard.
    guarded : bool
        Whether peers have proved a key.
    """

    def __init__(self, socket: zmq.Socket[bytes], *, guarded: bool = False) -> None:
        self.socket = socket
        self.guarded = guarded

    def receive(self) -> tuple[Connection, list[bytes | memoryview]] | None:
        """Next message, or None if there is none."""
        try:
            if not self.guarded:
                identity, *plain = self.socket.recv_multipart(zmq.NOBLOCK)
                return Connection(self, identity), list(plain)
            sender, *frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return None
        # a frame is the header of a message or a few hundred kB of windows, which are not copied
        client = str((frames[0] if frames else sender).get("User-Id"))
        return Connection(self, sender.bytes, client), [frame.buffer for frame in frames]

    def send(self, connection: Connection, frames: Sequence[bytes | memoryview]) -> str | None:
        """Send a message; says why if it cannot be."""
        try:
            self.socket.send_multipart([connection.id, *frames], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return str(error)
        return None


def bind(context: zmq.Context[zmq.Socket[bytes]], kind: int, address: str) -> zmq.Socket[bytes]:
    """Socket of a monitor, bound."""
    socket = unbound(context, kind)
    socket.bind(address)
    return socket


def unbound(context: zmq.Context[zmq.Socket[bytes]], kind: int) -> zmq.Socket[bytes]:
    """Socket of a monitor; what it queues is bounded by credit, so no high-water mark drops anything."""
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 200)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME)
    if kind == zmq.ROUTER:
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        look_alive(socket)
    return socket
