"""Signals that ask a process to stop (SIGTERM, Ctrl-C, the end of its parent) or to reload (SIGHUP)."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # from <linux/prctl.h>


class StopRequest:
    """True from the first SIGTERM or SIGINT on.

    A second signal has no effect: a drain in progress continues until it is done or its time is over.
    """

    def __init__(self) -> None:
        self._requested = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, *_: object) -> None:
        self._requested = True

    def __call__(self) -> bool:
        """Return whether the process should stop."""
        return self._requested


class ReloadRequest:
    """A request to reload by SIGHUP; several before :meth:`consume` count as one."""

    def __init__(self) -> None:
        self._requested = False
        signal.signal(signal.SIGHUP, self._note)

    def _note(self, *_: object) -> None:
        self._requested = True

    def request(self) -> None:
        """Request a reload as SIGHUP does."""
        self._requested = True

    def consume(self) -> bool:
        """Return whether a reload was requested, and clear the request."""
        requested, self._requested = self._requested, False
        return requested


def end_with_parent(parent: int) -> None:
    """Make the kernel send this process SIGTERM when its parent dies.

    Parameters
    ----------
    parent : int
        Process id of the parent; if the current parent has another, this one has already died.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
