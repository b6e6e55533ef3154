"""What a role tells systemd (sd_notify): that it serves, how it stands, that its loop turns, that it is ending.

The protocol is a datagram of ``KEY=VALUE`` lines to the socket that ``NOTIFY_SOCKET`` names; see sd_notify(3).
Without that variable nothing is told, and nothing changes.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, MutableMapping

_STATUS_SECONDS: Final = 1.0  # between two status texts
_MARGIN_SECONDS: Final = 5.0  # beyond the drain bound, for closing what is left


class Service:
    """The thread that calls :meth:`turned` is the one whose standstill the watchdog ends.

    Parameters
    ----------
    environ : mapping
        Environment; its variables of sd_notify are taken out, so that no child speaks in our name.
    clock : callable
        Monotonic time in seconds.

    Attributes
    ----------
    watchdog_seconds : float or None
        Longest time between two turns after which systemd ends the process.
    """

    def __init__(
        self, environ: MutableMapping[str, str] = os.environ, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._address = environ.pop("NOTIFY_SOCKET", "")
        watched_pid = environ.pop("WATCHDOG_PID", str(os.getpid()))
        microseconds = environ.pop("WATCHDOG_USEC", "")
        mine = microseconds.isdecimal() and int(microseconds) > 0 and watched_pid == str(os.getpid())
        self.watchdog_seconds = int(microseconds) / 1e6 if self._address and mine else None
        self._ready = False
        self._ending = False
        self._fed = self._said = -1e9

    def turned(self, status: Callable[[], str]) -> None:
        """Tell that the loop has turned: the first time that it serves, then that it lives, and how it stands.

        Parameters
        ----------
        status : callable
            Gives a line for ``systemctl status``; asked at most once a second.
        """
        if not self._address:
            return
        now = self._clock()
        lines = []
        if not self._ready:
            self._ready = True
            lines.append("READY=1")
        # twice as often as demanded: a turn may come late
        if self.watchdog_seconds is not None and now - self._fed >= self.watchdog_seconds / 2:
            self._fed = now
            lines.append("WATCHDOG=1")
        if now - self._said >= _STATUS_SECONDS:
            self._said = now
            lines.append("STATUS=" + " ".join(status().split()))
        if lines:
            self._tell(lines)

    def watch(self, stopping: Callable[[], bool], drain_seconds: float) -> Callable[[], bool]:
        """Wrap what says whether to stop, so that systemd is told as soon as the role knows."""

        def asked() -> bool:
            if not stopping():
                return False
            self.ending(drain_seconds)
            return True

        return asked

    def ending(self, drain_seconds: float) -> None:
        """Tell that the role finishes what is in progress, and how long that may take."""
        if not self._ending:
            self._ending = True
            microseconds = round((drain_seconds + _MARGIN_SECONDS) * 1e6)
            self._tell(["STOPPING=1", f"EXTEND_TIMEOUT_USEC={microseconds}", "STATUS=draining"])

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Tell that the role takes a changed configuration, and when it has; it serves either way."""
        self._tell(["RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}"])
        try:
            yield
        finally:
            if not self._ending:
                self._tell(["READY=1"])

    def _tell(self, lines: list[str]) -> None:
        if not self._address:
            return
        # an address that begins with @ is abstract: its first byte is zero
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as told:
            told.settimeout(0)  # a manager that does not listen must not hold us up
            told.sendto("\n".join(lines).encode(), address)
