"""Rate limiting of log events."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class RateLimit:
    """Limits how often events of one kind are logged, and counts the suppressed ones.

    Parameters
    ----------
    seconds : float
        Shortest time between two log lines of one kind.
    clock : callable
        Monotonic time in seconds.
    """

    def __init__(self, seconds: float = 10.0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._last: dict[object, tuple[float, int]] = {}

    def due(self, kind: object) -> int | None:
        """Count an event and decide whether to log it.

        Parameters
        ----------
        kind : object
            Kind of the event.  The number of kinds must be small, since each is remembered.

        Returns
        -------
        int or None
            Number of events of this kind suppressed since the last one logged; None if this event is suppressed, too.
        """
        now = self._clock()
        at, suppressed = self._last.get(kind, (-math.inf, 0))
        if now - at < self._seconds:
            self._last[kind] = (at, suppressed + 1)
            return None
        self._last[kind] = (now, 0)
        return suppressed
