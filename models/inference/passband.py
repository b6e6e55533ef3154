"""Interpolate filtered windows: all samples of a filtered window follow from a third of them.

The window filter passes nothing above about 55 Hz, while 320 samples at 360 Hz can represent
frequencies up to 180 Hz.  All samples of a filtered window, also after scaling and shifting, therefore
follow from about 108 samples a second.  Near the ends of a window, where neighbours are missing on one
side, the samples must lie closer together.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

from ecgmon.models.windows import LENGTH, convolve, impulse_response

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EVEN: Final = 96  # evenly spaced samples: 108 a second
_NEAR_ENDS: Final = (1, 2, 4, 5)  # further samples: their distances in ticks from either end
_CONSTANT: Final = 10.0  # variance of the constant that scaling adds, relative to the variance of the window
_NOISE: Final = 1e-10  # relative variance of rounding: keeps the solution from amplifying rounding errors
_PROBES: Final = 4

TICKS: Final[NDArray[np.int64]] = np.unique(
    np.concatenate(
        [
            np.round(np.linspace(0, LENGTH - 1, _EVEN)).astype(np.int64),
            np.array(_NEAR_ENDS, np.int64),
            LENGTH - 1 - np.array(_NEAR_ENDS, np.int64),
        ]
    )
)
"""Ticks from which a filtered window is interpolated."""


@cache
def interpolation() -> NDArray[np.float64]:
    """Return the matrix that computes a filtered window from its samples at :data:`TICKS`.

    Returns
    -------
    ndarray of float64, shape (LENGTH, len(TICKS))
        The matrix times the samples at :data:`TICKS` gives the window.  It is the best linear estimate for filtered
        white noise plus any constant.  The root mean square error is about 1e-7 of the span of the window.  For a
        window that was not filtered, the result is a filtered window with the same samples at :data:`TICKS`.
    """
    response = impulse_response()
    lags = np.zeros(LENGTH)
    correlation = convolve(response, response[::-1])[len(response) - 1 :]
    lags[: len(correlation)] = correlation[:LENGTH]
    apart = np.abs(np.subtract.outer(np.arange(LENGTH), np.arange(LENGTH)))
    covariance = lags[apart] / lags[0] + _CONSTANT
    known = covariance[np.ix_(TICKS, TICKS)] + _NOISE * np.eye(len(TICKS))
    return _solve(known, covariance[TICKS]).T


def _solve(matrix: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve equations with a positive definite matrix by Gauss-Jordan elimination.

    The result has the same bits with any number of threads; that of a library's solver does not.  The weights of a
    network, and so the last bits of every score, depend on these bits.
    """
    both = np.hstack([matrix, right])
    for k in range(len(matrix)):
        row = both[k] / both[k, k]
        both -= np.outer(both[:, k], row)
        both[k] = row
    solved: NDArray[np.float64] = both[:, len(matrix) :]
    return solved


@cache
def probes(leads: int = 1) -> NDArray[np.float64]:
    """Return weights of four sums over a window, which are near zero if the window is filtered.

    Parameters
    ----------
    leads : int
        Number of leads of the window.

    Returns
    -------
    ndarray of float64, shape (4, leads * LENGTH)
        The mean square of the four sums estimates the error of :func:`interpolation` for a window: the mean square
        error over all ticks, summed over the leads.  The signs in the sums are random, so that no error can cancel in
        all four.
    """
    missed = np.eye(LENGTH)
    missed[:, TICKS] -= interpolation()
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (_PROBES, leads, LENGTH))
    sums = np.einsum("pli,ij->plj", signs, missed).reshape(_PROBES, -1)  # not @, whose bits also depend on the threads
    scaled: NDArray[np.float64] = sums / np.sqrt(LENGTH)
    return scaled
