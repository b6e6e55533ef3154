"""How producers and workers stay in touch with the monitor: greeting, pings, silence, coming back."""

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

_GREET_SECONDS: Final = 1.0  # between two greetings while nobody answers, doubling up to
_GREET_MOST_SECONDS: Final = 8.0  # so that a monitor that is slow to answer is not asked ever more
_REFUSED_SECONDS: Final = 2.0  # before greeting again after a refusal that may pass
_ALIVE_MS: Final = 2000  # between two signs of life on a connection
_DEAD_MS: Final = 6000  # without one, after which it is closed and made anew
_CONNECT_MS: Final = 2000  # longest attempt to connect: the kernel would repeat a lost packet ever more slowly
_SILENT_BEATS: Final = 5  # heartbeats without a word after which the monitor is taken for gone


def look_alive(socket: zmq.Socket[bytes]) -> None:
    """Have libzmq notice within seconds that a tcp connection is dead, where the kernel would wait for minutes."""
    socket.setsockopt(zmq.IPV6, 1)  # and IPv4
    socket.setsockopt(zmq.HEARTBEAT_IVL, _ALIVE_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _DEAD_MS)
    socket.setsockopt(zmq.HEARTBEAT_TTL, _DEAD_MS)  # and have the other side do so, too


class Peer:
    """A DEALER socket with the manners of the protocol.

    Parameters
    ----------
    address : str
        ZeroMQ address of the monitor's socket.
    keys : ConnectionKeys or None
        Keys, for a monitor on tcp.
    greeting : callable
        Gives the frames that introduce this peer.
    ping : callable
        Gives the frames of a ping for an epoch.
    clock : callable
        Monotonic time in seconds.

    Attributes
    ----------
    epoch : int
        The monitor's, 0 while not welcomed.
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
        self._socket.setsockopt(zmq.SNDHWM, 0)  # credit bounds what is queued
        self._socket.setsockopt(zmq.IMMEDIATE, 1)  # queue nothing for a monitor that is not there
        self._socket.setsockopt(zmq.RECONNECT_IVL, 50)  # milliseconds, doubling up to
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
        self._patience = _GREET_SECONDS

    def tick(self) -> None:
        """Greet or ping if it is time; notice that the monitor has gone."""
        now = self._clock()
        if self.epoch and now - self._heard > _SILENT_BEATS * self._heartbeat and now - self._pinged < self._heartbeat:
            # Only after an unanswered ping: a process that was stopped for a while and goes on now
            # must not blame the monitor for its own silence.
            _log.warning("monitor-silent", seconds=round(now - self._heard, 1))
            self.greet_again()
        if not self.epoch:
            if now >= self._greet_at and self.send(self._greeting()):
                self._greet_at = now + self._patience
                self._patience = min(2 * self._patience, _GREET_MOST_SECONDS)
        elif now - self._pinged >= self._heartbeat:
            self._pinged = now
            self.send(self._ping(self.epoch))

    def send(self, frames: Sequence[bytes | memoryview]) -> bool:
        """Send a message; False if there is no monitor to send it to."""
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self, timeout_ms: int) -> list[bytes] | None:
        """Next message, or None if none comes in time."""
        if not self._socket.poll(timeout_ms):
            return None
        self._heard = self._clock()
        return self._socket.recv_multipart()

    def welcomed(self, epoch: int, heartbeat: float) -> None:
        """Take note that the monitor knows this peer now."""
        self.epoch = epoch
        self._patience = _GREET_SECONDS
        self._heartbeat = heartbeat
        self._pinged = self._clock()

    def greet_again(self) -> None:
        """Introduce this peer again; a greeting that is under way is not repeated before its time."""
        if self.epoch:
            self.epoch = 0
            self._greet_at = 0.0

    def wait_and_greet(self) -> None:
        """Introduce this peer again after a while."""
        self.epoch = 0
        self._greet_at = self._clock() + _REFUSED_SECONDS

    def leave(self) -> None:
        """Say goodbye."""
        if self.epoch:
            self.send([wire.encode(wire.Bye(self.epoch))])

    def close(self) -> None:
        """Close the socket; what it still holds is sent for a moment."""
        self._context.destroy(linger=200)
