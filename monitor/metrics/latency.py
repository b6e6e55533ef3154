"""Quantiles of durations in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOW: Final = 1e-6  # seconds; shorter counts as this
_HIGH: Final = 1e4  # seconds; longer counts as this
_GROWTH: Final = 1.01  # each bin is 1 % wider than the one before: the error of a quantile is below that


class LatencyHistogram:
    """Counts of durations in bins that grow by one per cent, from a microsecond to hours."""

    def __init__(self, counts: NDArray[np.int64] | None = None) -> None:
        bins = int(np.ceil(np.log(_HIGH / _LOW) / np.log(_GROWTH))) + 1
        self._counts = np.zeros(bins, np.int64) if counts is None else counts

    @property
    def counts(self) -> NDArray[np.int64]:
        """A copy of the counts to make another histogram from; the difference of two covers the time between."""
        return self._counts.copy()

    def add(self, seconds: NDArray[np.float64]) -> None:
        """Count durations in seconds, shape (n,)."""
        clipped = np.clip(seconds, _LOW, _HIGH)
        bins = (np.log(clipped / _LOW) / np.log(_GROWTH)).astype(np.int64)
        self._counts += np.bincount(bins, minlength=len(self._counts))

    def quantile(self, share: float) -> float:
        """Duration in seconds that a ``share`` of those counted does not exceed; NaN if none was.

        The error is at most one per cent.
        """
        total = int(self._counts.sum())
        if total == 0:
            return float("nan")
        rank = max(1, int(np.ceil(share * total)))
        at = int(np.searchsorted(np.cumsum(self._counts), rank))
        return float(_LOW * _GROWTH ** (at + 0.5))
