"""From A(x) and the rhythm to one score with a meaning: how rarely a normal beat looks this odd.

A score is a surprise, -log10 of the share of normal beats that look at least this odd: 2 means one
normal beat in a hundred, 3 one in a thousand.  It is made in three steps, each a table measured on
normal beats that the model did not see in training:

1. the surprise of A(x): normal beats are mostly reconstructed well;
2. the surprise of an early beat, from ``rr_ratio``: small is odd, large is not;
3. the surprise of the sum of both.  Adding surprises is Fisher's method of combining p-values; its
   textbook distribution assumes independence, the third table measures what is true instead.

Where the rhythm is not known yet, the first table alone gives the score.  Beyond the last hundredth
of the measured beats the tables follow an exponential tail fitted to that hundredth (Pickands,
1975, with shape 0), so that odder always means a higher score, up to :data:`CAP`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CAP: Final = 6.0
"""Highest score: one normal beat in a million.  What lies above log10 of the beats measured is extrapolated."""

TAIL: Final = 2.0
"""Surprise from which the tables follow the fitted tail: the last hundredth of the beats."""

KNOT: Final = 0.05
"""Surprise between two knots of a table."""

LEAST_BEATS: Final = 1000
"""Normal beats that a calibration needs, so that ten lie in the tail."""


class CalibrationError(Exception):
    """A calibration that can not be measured or has no meaning."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A monotone piecewise linear function from a measured value to its surprise.

    Parameters
    ----------
    values : ndarray of float64, shape (knots,)
        Strictly increasing.
    surprise : ndarray of float64, shape (knots,)
        From 0 to :data:`CAP`, never falling, or never rising where small values are the odd ones.

    Raises
    ------
    CalibrationError
        If the knots are none of that.
    """

    values: NDArray[np.float64]
    surprise: NDArray[np.float64]

    def __post_init__(self) -> None:
        values, surprise = self.values, self.surprise
        if values.ndim != 1 or values.shape != surprise.shape or len(values) < 2:  # noqa: PLR2004 - a line has two ends
            raise CalibrationError(
                f"a table has {values.shape} values and {surprise.shape} surprises; expected one list of each, equally long"
            )
        if not (np.isfinite(values).all() and np.isfinite(surprise).all()):
            raise CalibrationError("a table has values that are not finite")
        if not (np.diff(values) > 0).all():
            raise CalibrationError("the values of a table do not increase from knot to knot")
        steps = np.diff(surprise)
        if not ((steps >= 0).all() or (steps <= 0).all()):
            raise CalibrationError("the surprise of a table both rises and falls: an odder beat could score lower")
        if surprise.min() < 0 or surprise.max() > CAP:
            raise CalibrationError(
                f"a table has surprises from {surprise.min()} to {surprise.max()}; expected 0 to {CAP}"
            )

    def __call__(self, value: NDArray[Any]) -> NDArray[np.float64]:
        """Look up surprises; values beyond the ends get those of the ends, NaN stays NaN."""
        surprise: NDArray[np.float64] = np.interp(value, self.values, self.surprise)
        return surprise

    @classmethod
    def measure(cls, oddness: NDArray[Any]) -> Self:
        """Measure how rarely normal beats are at least this odd.

        Parameters
        ----------
        oddness : ndarray, shape (n,)
            Of normal beats that no model was fitted to, finite; more is odder.

        Raises
        ------
        CalibrationError
            If there are fewer than :data:`LEAST_BEATS`, or the oddest are all alike.
        """
        if len(oddness) < LEAST_BEATS:
            raise CalibrationError(
                f"{len(oddness)} normal beats are too few for a table; expected at least {LEAST_BEATS}"
            )
        return cls._of(_quantiles(oddness))

    @classmethod
    def _of(cls, values: NDArray[np.float64]) -> Self:
        """Order knots by value, keeping of those with one value the least surprising."""
        values, first = np.unique(values.round(9), return_index=True)
        return cls(values, _GRID[first])

    def to_dict(self) -> dict[str, list[float]]:
        """Return the knots as plain lists."""
        return {"values": self.values.tolist(), "surprise": self.surprise.tolist()}

    @classmethod
    def from_dict(cls, plain: dict[str, list[float]]) -> Self:
        """Make a table from :meth:`to_dict`'s answer, checking it."""
        try:
            return cls(np.array(plain["values"], np.float64), np.array(plain["surprise"], np.float64))
        except (KeyError, TypeError, ValueError) as error:
            raise CalibrationError(f"a table lacks a list of numbers, 'values' or 'surprise': {error!r}") from error


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """What turns A(x) and ``rr_ratio`` into a score.

    Attributes
    ----------
    error : Table
        A(x) to its surprise.
    rhythm : Table
        ``rr_ratio`` to the surprise of a beat that early.
    combined : Table
        Sum of both surprises to its surprise.
    beats : int
        Normal beats that the tables were measured on.
    """

    error: Table
    rhythm: Table
    combined: Table
    beats: int

    def score(self, error: NDArray[np.float32], rr_ratio: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score beats.

        Parameters
        ----------
        error : ndarray of float32, shape (n,)
            A(x).  NaN where a beat could not be scored.
        rr_ratio : ndarray of float32, shape (n,)
            RR interval over the mean of those before it.  NaN where not known.

        Returns
        -------
        ndarray of float32, shape (n,)
            From 0 to :data:`CAP`; NaN where ``error`` is.  A beat's score depends on that beat alone.
        """
        by_error = self.error(error)
        both = self.combined(by_error + self.rhythm(rr_ratio))
        return np.where(np.isnan(rr_ratio), by_error, both).astype(np.float32)

    @classmethod
    def measure(cls, error: NDArray[np.float32], rr_ratio: NDArray[np.float32]) -> Self:
        """Measure the tables on normal beats that the model was not trained on.

        Parameters
        ----------
        error : ndarray of float32, shape (n,)
            A(x) of each.
        rr_ratio : ndarray of float32, shape (n,)
            NaN where not known.

        Raises
        ------
        CalibrationError
            If there are fewer than :data:`LEAST_BEATS` beats with a known rhythm, or values that
            are not finite and positive.
        """
        known = ~np.isnan(rr_ratio)
        if np.count_nonzero(known) < LEAST_BEATS:
            raise CalibrationError(
                f"{np.count_nonzero(known)} normal beats with a known rhythm are too few to calibrate on; "
                f"expected at least {LEAST_BEATS}"
            )
        if not ((error > 0) & np.isfinite(error)).all() or not (rr_ratio[known] > 0).all():
            raise CalibrationError("a beat to calibrate on has an A(x) or an rr_ratio that is not a positive number")
        # Tails are fitted to logarithms: A(x) and RR intervals vary by factors.
        by_error = Table._of(np.exp(_quantiles(np.log(error))))  # noqa: SLF001 - of this module
        by_rhythm = Table._of(np.exp(-_quantiles(-np.log(rr_ratio[known]))))  # noqa: SLF001 - likewise
        both = by_error(error[known]) + by_rhythm(rr_ratio[known])
        return cls(by_error, by_rhythm, Table.measure(both), len(error))

    def to_dict(self) -> dict[str, Any]:
        """Return the tables as plain lists and numbers, for JSON."""
        return {
            "error": self.error.to_dict(),
            "rhythm": self.rhythm.to_dict(),
            "combined": self.combined.to_dict(),
            "beats": self.beats,
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """Make a calibration from :meth:`to_dict`'s answer.

        Raises
        ------
        CalibrationError
            If something is missing, or a table is not one: see :class:`Table`.
        """
        try:
            tables = {name: Table.from_dict(plain[name]) for name in ("error", "rhythm", "combined")}
            calibration = cls(**tables, beats=int(plain["beats"]))
        except (KeyError, TypeError, ValueError) as error:
            raise CalibrationError(f"the calibration lacks one of error, rhythm, combined, beats: {error!r}") from error
        for name, odd_end in (("error", -1), ("rhythm", 0), ("combined", -1)):
            if tables[name].surprise[odd_end] != tables[name].surprise.max():
                raise CalibrationError(f"the table '{name}' runs the wrong way: an odder beat would score lower")
        return calibration


_GRID: Final = np.arange(0, CAP + KNOT / 2, KNOT)


def _quantiles(oddness: NDArray[Any]) -> NDArray[np.float64]:
    """Find how odd a beat has to be for each surprise of the grid."""
    measured = np.quantile(oddness, 1 - 10 ** -np.minimum(_GRID, TAIL))
    excess = oddness[oddness > measured[-1]] - measured[-1]
    if len(excess) == 0:
        raise CalibrationError("the oddest normal beats are all alike; expected measurements that vary")
    # Of an exponential tail, a tenth is left after every ln(10) mean excesses.
    beyond: NDArray[np.float64] = measured + np.maximum(_GRID - TAIL, 0) * np.log(10) * excess.mean()
    return beyond
