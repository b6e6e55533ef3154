"""The connection of a producer or worker to the monitor: greeting, pings, timeouts, reconnecting."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import structlog
import zmq

from ecgmon.pipelines import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ecgmon.pipelines.transport.keys import ConnectionKeys

_log = structlog.get_logger("peer")

_GREET_SECONDS: Final = 1.0  # between two greetings without an answer; doubles after each
_GREET_MOST_SECONDS: Final = 8.0  # longest time between two greetings
_REFUSED_SECONDS: Final = 2.0  # before the next greeting after a temporary refusal
_ALIVE_MS: Final = 2000  # between two ZeroMQ heartbeats on a connection
_DEAD_MS: Final = 6000  # without a heartbeat, after which the connection is closed and opened again
_CONNECT_MS: Final = 2000  # longest attempt to connect: the kernel repeats a lost packet at growing intervals
_SILENT_BEATS: Final = 5  # heartbeats without a message after which the monitor counts as gone


def look_alive(socket: zmq.Socket[bytes]) -> None:
    """Make libzmq detect a dead tcp connection within seconds; the kernel would wait for minutes."""
    socket.setsockopt(zmq.IPV6, 1)  # includes IPv4
    socket.setsockopt(zmq.HEARTBEAT_IVL, _ALIVE_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _DEAD_MS)
    socket.setsockopt(zmq.HEARTBEAT_TTL, _DEAD_MS)  # the timeout of the other side


class Peer:
    """A DEALER socket that follows the protocol: it greets, pings and reconnects.

    Parameters
    ----------
    address : str
        ZeroMQ address of the monitor's socket.
    keys : ConnectionKeys or None
        Keys for a monitor on tcp.
    greeting : callable
        Returns the frames of this peer's greeting.
    ping : callable
        Returns the frames of a ping for an epoch.
    clock : callable
        Monotonic time in seconds.

    Attributes
    ----------
    epoch : int
        The monitor's epoch; 0 until the monitor has welcomed this peer.
    """

    def __init__(
        self,
        address: str,
        *,
        keys: ConnectionKeys | None = None,
        greeting: Callable[[], list[bytes]],
        ping: Callable[[int], list[bytes]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._greeting = greeting
        self._ping = ping
        self._clock = clock
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 200)
        self._socket.setsockopt(zmq.MAXMSGSIZE, wire.MAX_FRAME)
        self._socket.setsockopt(zmq.SNDHWM, 0)  # no limit: credit bounds the queue
        self._socket.setsockopt(zmq.IMMEDIATE, 1)  # queue nothing without a connection
        self._socket.setsockopt(zmq.RECONNECT_IVL, 50)  # milliseconds; doubles up to the next
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        self._socket.setsockopt(zmq.CONNECT_TIMEOUT, _CONNECT_MS)
        look_alive(self._socket)
        if keys is not None:
            keys.secure(self._socket)
        self._socket.connect(address)
        self.epoch = 0
        self._heartbeat = _GREET_SECONDS
        self._heard = self._pinged = clock()
        self._greet_at = 0.0
        self._greet_interval = _GREET_SECONDS

    def tick(self) -> None:
        """Greet or ping if it is time; detect that the monitor has gone."""
        now = self._clock()
        if self.epoch and now - self._heard > _SILENT_BEATS * self._heartbeat and now - self._pinged < self._heartbeat:
            # Only after an unanswered ping: a process that was paused and resumes must not take
            # its own pause for silence of the monitor.
            _log.warning("monitor-silent", seconds=round(now - self._heard, 1))
            self.greet_again()
        if not self.epoch:
            if now >= self._greet_at and self.send(self._greeting()):
                self._greet_at = now + self._greet_interval
                self._greet_interval = min(2 * self._greet_interval, _GREET_MOST_SECONDS)
        elif now - self._pinged >= self._heartbeat:
            self._pinged = now
            self.send(self._ping(self.epoch))

    def send(self, frames: Sequence[bytes | memoryview]) -> bool:
        """Send a message; False if there is no connection."""
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self, timeout_ms: int) -> list[bytes] | None:
        """Return the next message, or None if none arrives in time."""
        if not self._socket.poll(timeout_ms):
            return None
        self._heard = self._clock()
        return self._socket.recv_multipart()

    def welcomed(self, epoch: int, heartbeat: float) -> None:
        """Record that the monitor has accepted this peer."""
        self.epoch = epoch
        self._greet_interval = _GREET_SECONDS
        self._heartbeat = heartbeat
        self._pinged = self._clock()

    def greet_again(self) -> None:
        """Greet again; a greeting that waits for its answer is not repeated early."""
        if self.epoch:
            self.epoch = 0
            self._greet_at = 0.0

    def wait_and_greet(self) -> None:
        """Greet again after a pause."""
        self.epoch = 0
        self._greet_at = self._clock() + _REFUSED_SECONDS

    def leave(self) -> None:
        """Tell the monitor that this peer leaves."""
        if self.epoch:
            self.send([wire.encode(wire.Bye(self.epoch))])

    def close(self) -> None:
        """Close the socket; messages in its queue may still be sent for 200 ms."""
        self._context.destroy(linger=200)
