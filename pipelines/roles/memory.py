"""Memory that a burst took and no longer needs, given back to the system."""

from __future__ import annotations

import ctypes
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS: Final = 10.0
"""From one time to the next: it takes a millisecond, and what is taken again has to be cleared by the system first."""


class Freed:
    """Gives freed memory back now and then.

    The C library keeps what is freed between things that are still in use, for what comes next.  Streams that begin
    together have their first beats, and the heights of them, all at once: what that took would stay with the process.

    Parameters
    ----------
    seconds : float
        From one time to the next.
    clock : callable
        Monotonic time in seconds.

    Notes
    -----
    Where the C library has no ``malloc_trim``, which is glibc's, nothing is done.
    """

    def __init__(self, seconds: float = SECONDS, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._next = clock() + seconds
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def turned(self) -> None:
        """Take note of a turn of the loop; memory is given back if it is time."""
        now = self._clock()
        if self._trim is not None and now >= self._next:
            self._next = now + self._seconds
            self._trim(0)
