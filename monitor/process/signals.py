"""How a process is asked to end (SIGTERM, Ctrl-C, the end of the process that started it) or to reload (SIGHUP)."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # from <linux/prctl.h>


class StopRequest:
    """True from the first SIGTERM or SIGINT on.

    A second signal changes nothing: a drain that is under way, which is bounded, goes on.
    """

    def __init__(self) -> None:
        self._asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        self._asked = True

    def __call__(self) -> bool:
        """Whether the process should end."""
        return self._asked


class ReloadRequest:
    """Whether a SIGHUP came; several before it is taken count as one."""

    def __init__(self) -> None:
        self._asked = False
        signal.signal(signal.SIGHUP, self._ask)

    def _ask(self, *_: object) -> None:
        self._asked = True

    def taken(self) -> bool:
        """Whether to reload; from then on the next SIGHUP is waited for."""
        asked, self._asked = self._asked, False
        return asked


def end_with_parent(parent: int) -> None:
    """Have the kernel send this process SIGTERM when its parent dies, so that it never outlives it.

    Parameters
    ----------
    parent : int
        Process id of the parent; if it is another by now, the parent has died already.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
