"""Quantiles of durations in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOW: Final = 1e-6  # seconds; shorter ones count as this
_HIGH: Final = 1e4  # seconds; longer ones count as this
_GROWTH: Final = 1.01  # each bin is 1 % wider than the one before, so the error of a quantile is below 1 %


class LatencyHistogram:
    """Counts of durations in bins that grow by one per cent, from a microsecond to hours."""

    def __init__(self, counts: NDArray[np.int64] | None = None) -> None:
        bins = int(np.ceil(np.log(_HIGH / _LOW) / np.log(_GROWTH))) + 1
        self._counts = np.zeros(bins, np.int64) if counts is None else counts

    @property
    def counts(self) -> NDArray[np.int64]:
        """A copy of the counts; the difference of two copies makes a histogram of the time between them."""
        return self._counts.copy()

    def add(self, seconds: NDArray[np.float64]) -> None:
        """Count durations in seconds, shape (n,)."""
        clipped = np.clip(seconds, _LOW, _HIGH)
        bins = (np.log(clipped / _LOW) / np.log(_GROWTH)).astype(np.int64)
        self._counts += np.bincount(bins, minlength=len(self._counts))

    def quantile(self, share: float) -> float:
        """Return the duration in seconds that a ``share`` of the durations does not exceed; NaN if there are none.

        The error is at most one per cent.
        """
        total = int(self._counts.sum())
        if total == 0:
            return float("nan")
        rank = max(1, int(np.ceil(share * total)))
        index = int(np.searchsorted(np.cumsum(self._counts), rank))
        return float(_LOW * _GROWTH ** (index + 0.5))
