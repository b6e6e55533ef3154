"""Rate limiting of log events that can come in floods."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class RateLimit:
    """Keeps events that may come in floods from flooding the log: one of a kind in a while, with a count of the others.

    Parameters
    ----------
    seconds : float
        Least time between two lines of a kind.
    clock : callable
        Monotonic time in seconds.
    """

    def __init__(self, seconds: float = 10.0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._last: dict[object, tuple[float, int]] = {}

    def due(self, kind: object) -> int | None:
        """Count an event; return how many of its kind were not logged before it if it is to be logged now, else None.

        ``kind`` must be one of few: each is remembered.
        """
        now = self._clock()
        at, suppressed = self._last.get(kind, (-math.inf, 0))
        if now - at < self._seconds:
            self._last[kind] = (at, suppressed + 1)
            return None
        self._last[kind] = (now, 0)
        return suppressed
