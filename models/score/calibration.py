"""Turn a measured value into a score: how rarely a normal beat has a value at least as high.

A score is -log10 of the share of normal beats with at least that value: 2 means one
normal beat in a hundred, 3 one in a thousand.  Tables of it are measured on normal beats that no model
was fitted to.  Beyond the last hundredth of the measured beats they follow an exponential tail fitted to that
hundredth (Pickands, 1975, with shape 0), so that a higher value always means a higher score, up to :data:`CAP`.
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
"""Score from which the tables follow the fitted tail: the last hundredth of the beats."""

KNOT: Final = 0.05
"""Score between two knots of a table."""

LEAST_BEATS: Final = 1000
"""Normal beats that a calibration needs, so that ten lie in the tail."""


class CalibrationError(Exception):
    """A calibration that cannot be measured or has no meaning."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A monotone piecewise linear function from a measured value to its score.

    Parameters
    ----------
    values : ndarray of float64, shape (knots,)
        Strictly increasing.
    score : ndarray of float64, shape (knots,)
        From 0 to :data:`CAP`, never falling.

    Raises
    ------
    CalibrationError
        If the knots are none of that.
    """

    values: NDArray[np.float64]
    score: NDArray[np.float64]

    def __post_init__(self) -> None:
        values, score = self.values, self.score
        if values.ndim != 1 or values.shape != score.shape or len(values) < 2:  # noqa: PLR2004 - a line has two ends
            raise CalibrationError(
                f"a table has {values.shape} values and {score.shape} scores; expected one list of each, equally long"
            )
        if not (np.isfinite(values).all() and np.isfinite(score).all()):
            raise CalibrationError("a table has values that are not finite")
        if not (np.diff(values) > 0).all():
            raise CalibrationError("the values of a table do not increase from knot to knot")
        steps = np.diff(score)
        if (steps < 0).any():
            how = "both rises and falls" if (steps > 0).any() else "runs the wrong way"
            raise CalibrationError(f"the score of a table {how}: a higher value could score lower")
        if score.min() < 0 or score.max() > CAP:
            raise CalibrationError(f"a table has scores from {score.min()} to {score.max()}; expected 0 to {CAP}")

    def __call__(self, value: NDArray[Any]) -> NDArray[np.float64]:
        """Look up scores; values beyond the ends get those of the ends, NaN stays NaN."""
        score: NDArray[np.float64] = np.interp(value, self.values, self.score)
        return score

    @classmethod
    def measure(cls, values: NDArray[Any]) -> Self:
        """Measure how rarely normal beats have at least each value.

        Parameters
        ----------
        values : ndarray, shape (n,)
            Of normal beats that no model was fitted to, finite; higher is more abnormal.

        Raises
        ------
        CalibrationError
            If there are fewer than :data:`LEAST_BEATS`, one is not finite, or the highest are all equal.
        """
        if len(values) < LEAST_BEATS:
            raise CalibrationError(
                f"{len(values)} normal beats are too few for a table; expected at least {LEAST_BEATS}"
            )
        if not np.isfinite(values).all():
            raise CalibrationError("a beat to measure a table on has a value that is not finite")
        # of several knots with one value, the one with the lowest score is kept
        knots, first = np.unique(_quantiles(values).round(9), return_index=True)
        return cls(knots, _GRID[first])

    def to_dict(self) -> dict[str, list[float]]:
        """Return the knots as plain lists."""
        return {"values": self.values.tolist(), "score": self.score.tolist()}

    @classmethod
    def from_dict(cls, plain: dict[str, list[float]]) -> Self:
        """Make a table from :meth:`to_dict`'s answer, checking it."""
        try:
            return cls(np.array(plain["values"], np.float64), np.array(plain["score"], np.float64))
        except (KeyError, TypeError, ValueError) as error:
            raise CalibrationError(f"a table lacks a list of numbers, 'values' or 'score': {error!r}") from error


_GRID: Final = np.arange(0, CAP + KNOT / 2, KNOT)


def _quantiles(values: NDArray[Any]) -> NDArray[np.float64]:
    """Find the value that each score of the grid needs."""
    measured = np.quantile(values, 1 - 10 ** -np.minimum(_GRID, TAIL))
    excess = values[values > measured[-1]] - measured[-1]
    if len(excess) == 0:
        raise CalibrationError("the highest values of normal beats are all equal; expected measurements that vary")
    # Of an exponential tail, a tenth is left after every ln(10) mean excesses.
    beyond: NDArray[np.float64] = measured + np.maximum(_GRID - TAIL, 0) * np.log(10) * excess.mean()
    return beyond
