"""Rhythm around a beat: the interval after it, its ratio to the recent rhythm, and the local rate.

An item holds the values that are known with its beat (:data:`ecgmon.pipelines.items.ITEM`: ``rr`` and ``rr_ratio``).
The interval after a beat is the one before the next beat, so it is added when beats are read, not when they are cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

SAME_INTERVAL_SECONDS: Final = 0.1
"""Largest difference between the distance of two beats and the RR interval of the later one.

Rounding of sample indices to the stream's own rate gives at most 0.01 s; a dropped beat between the two gives at least
the refractory time of the detector (0.23 s).
"""

RHYTHM: Final = np.dtype([("rr_after", "f4"), ("rr_after_ratio", "f4"), ("rate", "f4")])
"""Rhythm of one beat.

==============  =================================================================================
rr_after        RR interval to the beat after, in seconds
rr_after_ratio  ``rr_after`` over the mean of the (up to) eight RR intervals before the beat, as in
                ``rr_ratio``; a value above 1 is the pause after a premature beat
rate            local heart rate in beats/min: 60 over that mean
==============  =================================================================================
"""


def around(seconds: ArrayLike, rr: ArrayLike, rr_ratio: ArrayLike) -> NDArray[np.void]:
    """Compute the rhythm around successive beats of a stream.

    Parameters
    ----------
    seconds : array_like of float, shape (n,)
        R peaks in stream time, in s, in order.
    rr : array_like of float, shape (n,)
        RR interval to the beat before, in s; NaN where it is not known, such as after a stretch without signal.
    rr_ratio : array_like of float, shape (n,)
        ``rr`` over the mean of the (up to) eight RR intervals before it; NaN where those are not known.

    Returns
    -------
    ndarray of RHYTHM, shape (n,)
        NaN where a value is not known: ``rr_after`` for the last beat, before a stretch without signal, and
        where the next beat is not in the table (dropped by a live source); the others where ``rr_ratio`` is NaN.

    Raises
    ------
    ValueError
        If the three differ in shape.

    Examples
    --------
    >>> beats = around([4.0, 4.5, 6.0], [1.0, 0.5, 1.5], [1.0, 0.5, 1.6])
    >>> beats["rr_after"].tolist(), beats["rate"][:2].tolist()
    ([0.5, 1.5, nan], [60.0, 60.0])
    >>> beats["rr_after_ratio"].tolist()
    [0.5, 1.5, nan]
    """
    time, interval, ratio = (np.asarray(values, np.float64) for values in (seconds, rr, rr_ratio))
    if not time.shape == interval.shape == ratio.shape:
        raise ValueError(
            f"seconds, rr and rr_ratio have shapes {time.shape}, {interval.shape} and {ratio.shape}; give one of each per beat"
        )
    after = np.full(len(time), np.nan)
    follows = np.abs(np.diff(time) - interval[1:]) <= SAME_INTERVAL_SECONDS  # False of NaN
    after[:-1] = np.where(follows, interval[1:], np.nan)
    mean = interval / ratio
    table = np.empty(len(time), RHYTHM)
    table["rr_after"] = after
    table["rr_after_ratio"] = after / mean
    table["rate"] = 60.0 / mean
    return table
