"""Where in a window the reconstruction error lies: smoothed, and compared with what is usual there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ecgmon.models.windows import FS

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMOOTHING_SECONDS: Final = 0.1
"""Span of the moving mean: a QRS complex, the shortest wave of a beat, is about as long."""


def smooth(ticks: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Take the moving mean over :data:`SMOOTHING_SECONDS`, the ends of the window continued by their last value.

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
    """Compare the error around each tick with what is usual there: 1 is usual, 10 is ten times as much.

    Steep parts of a beat, the QRS complex first of all, are reconstructed worse than flat ones in every beat.

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
