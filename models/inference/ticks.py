"""Error of the reconstruction per tick: smoothed, and divided by the usual error at the tick."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ecgmon.models.windows import FS

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMOOTHING_SECONDS: Final = 0.1
"""Length of the moving mean: about that of a QRS complex, the shortest wave of a beat."""


def smooth(ticks: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Compute the moving mean over :data:`SMOOTHING_SECONDS`; the first and last value continue the window at its ends.

    Parameters
    ----------
    ticks : ndarray of float, shape (..., 320)
        Squared difference per tick.

    Returns
    -------
    ndarray of float32, same shape
    """
    half = round(SMOOTHING_SECONDS * FS / 2)
    ends = [(0, 0)] * (ticks.ndim - 1) + [(half, half)]
    padded = np.pad(ticks.astype(np.float32), ends, mode="edge")
    mean: NDArray[np.float32] = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1, axis=-1).mean(axis=-1)
    return mean


def relative(ticks: NDArray[np.floating[Any]], usual: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Divide the error around each tick by the usual error there: 1 is usual, 10 is ten times as much.

    In every beat, steep parts, such as the QRS complex, have a larger error than flat parts.

    Parameters
    ----------
    ticks : ndarray of float, shape (n, 320)
        Squared difference per tick.
    usual : ndarray of float, shape (320,)
        Mean squared difference per tick of normal beats, not zero everywhere.

    Returns
    -------
    ndarray of float32, shape (n, 320)
    """
    return smooth(ticks) / smooth(usual)
