"""Notifications of a role to systemd (sd_notify): ready, status, watchdog, reloading, stopping.

The protocol is a datagram of ``KEY=VALUE`` lines to the socket that ``NOTIFY_SOCKET`` names; see sd_notify(3).
Without that variable nothing is sent.
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
_MARGIN_SECONDS: Final = 5.0  # added to the drain time, for closing sockets and files


class Service:
    """Sends the notifications; the watchdog checks the thread that calls :meth:`turned`.

    Parameters
    ----------
    environ : mapping
        Environment; its variables of sd_notify are removed, so that children send no notifications.
    clock : callable
        Monotonic time in seconds.

    Attributes
    ----------
    watchdog_seconds : float or None
        Time without a turn after which systemd ends the process.
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
        self._last_watchdog = self._last_status = -1e9

    def turned(self, status: Callable[[], str]) -> None:
        """Note a turn of the loop: send ready the first time, then watchdog and status when they are due.

        Parameters
        ----------
        status : callable
            Returns a line for ``systemctl status``; called at most once a second.
        """
        if not self._address:
            return
        now = self._clock()
        lines = []
        if not self._ready:
            self._ready = True
            lines.append("READY=1")
        # twice as often as required: a turn may be late
        if self.watchdog_seconds is not None and now - self._last_watchdog >= self.watchdog_seconds / 2:
            self._last_watchdog = now
            lines.append("WATCHDOG=1")
        if now - self._last_status >= _STATUS_SECONDS:
            self._last_status = now
            lines.append("STATUS=" + " ".join(status().split()))
        if lines:
            self._notify(lines)

    def watch(self, stopping: Callable[[], bool], drain_seconds: float) -> Callable[[], bool]:
        """Wrap a function that returns whether to stop, so that systemd is notified as soon as it does."""

        def asked() -> bool:
            if not stopping():
                return False
            self.ending(drain_seconds)
            return True

        return asked

    def ending(self, drain_seconds: float) -> None:
        """Notify systemd that the role finishes its work, and how long that may take."""
        if not self._ending:
            self._ending = True
            microseconds = round((drain_seconds + _MARGIN_SECONDS) * 1e6)
            self._notify(["STOPPING=1", f"EXTEND_TIMEOUT_USEC={microseconds}", "STATUS=draining"])

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Notify systemd of the start and the end of a reload; the role serves in either case."""
        self._notify(["RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}"])
        try:
            yield
        finally:
            if not self._ending:
                self._notify(["READY=1"])

    def _notify(self, lines: list[str]) -> None:
        if not self._address:
            return
        # an address that begins with @ is abstract: its first byte is zero
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(0)  # a manager that does not read must not block the role
            sender.sendto("\n".join(lines).encode(), address)
