"""Return freed memory to the system."""

from __future__ import annotations

import ctypes
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS: Final = 10.0
"""Seconds between two trims.  A trim takes a millisecond, and the system must clear memory that is allocated again."""


class Freed:
    """Returns freed memory to the system at regular intervals.

    The C library keeps freed memory that lies between blocks still in use.  Streams that start together need much
    memory at once for their first beats; without a trim the process would keep it.

    Parameters
    ----------
    seconds : float
        Time between two trims.
    clock : callable
        Monotonic time in seconds.

    Notes
    -----
    Does nothing if the C library has no ``malloc_trim``, a function of glibc.
    """

    def __init__(self, seconds: float = SECONDS, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._next = clock() + seconds
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def turned(self) -> None:
        """Return memory if it is time; called at every turn of a loop."""
        now = self._clock()
        if self._trim is not None and now >= self._next:
            self._next = now + self._seconds
            self._trim(0)
