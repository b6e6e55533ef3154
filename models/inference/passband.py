"""What every filtered window has in common: it is known from a third of its samples.

The window filter lets nothing through from some 55 Hz on, and 320 samples at 360 Hz could tell
frequencies up to 180 Hz apart.  A window that has passed it, scaled and shifted or not, therefore
follows from samples a little closer than 110 a second; towards its ends, where there is no
neighbour on one side, they have to lie closer.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

from ecgmon.models.windows import BAND, FILTER_HALF, FS, LENGTH, convolve

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EVEN: Final = 96  # samples at even distances: 108 a second
_NEAR_ENDS: Final = (1, 2, 4, 5)  # and these ticks from either end
_CONSTANT: Final = 10.0  # variance of what scaling adds to a window, in variances of the window
_NOISE: Final = 1e-10  # variance of rounding, likewise: keeps what is solved for from magnifying it
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
"""Ticks that a filtered window is known from."""


@cache
def impulse_response() -> NDArray[np.float64]:
    """Impulse response of the window filter, as :func:`ecgmon.models.windows.taps` has it, without the second that scipy takes.

    Returns
    -------
    ndarray of float64, shape (2 * FILTER_HALF + 1,)
        Symmetric.
    """
    time = np.arange(FILTER_HALF + 1) - FILTER_HALF / 2
    low, high = (2 * edge / FS for edge in BAND)
    forward = (high * np.sinc(high * time) - low * np.sinc(low * time)) * np.hamming(FILTER_HALF + 1)
    # A gain of 1 in the middle of the band.  Not @: a BLAS library's sums depend on the processor and the threads.
    forward /= math.fsum(forward * np.cos(np.pi * (low + high) / 2 * time))
    return convolve(forward, forward[::-1])


@cache
def interpolation() -> NDArray[np.float64]:
    """How every sample of a filtered window follows from those at :data:`TICKS`.

    Returns
    -------
    ndarray of float64, shape (LENGTH, len(TICKS))
        Times the samples at :data:`TICKS`: the window.  The best linear estimate for filtered white noise on top of
        any constant.  It misses a window by some 1e-7 of its span, root mean square; a window that was not filtered
        it takes for a filtered one with the same samples there.
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

    To the same bits with any number of threads, which a library's solver does not give; of those the weights of a
    network, and so the last bits of every score, are made.
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
    """Weighted sums over a window that are near zero where it is known from its samples at :data:`TICKS`.

    Parameters
    ----------
    leads : int
        Of the window.

    Returns
    -------
    ndarray of float64, shape (4, leads * LENGTH)
        The mean square of the four sums estimates what :func:`interpolation` misses of a window: its mean square over
        all ticks, added up over the leads.  They are sums with random signs, so that nothing that is missed can hide.
    """
    missed = np.eye(LENGTH)
    missed[:, TICKS] -= interpolation()
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (_PROBES, leads, LENGTH))
    sums = np.einsum("pli,ij->plj", signs, missed).reshape(_PROBES, -1)  # not @, which depends on threads as well
    scaled: NDArray[np.float64] = sums / np.sqrt(LENGTH)
    return scaled
