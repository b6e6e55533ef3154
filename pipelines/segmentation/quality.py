"""Quality of a second of signal, or of the signal under a beat.

The rules compare a lead only with itself, so units and gain do not matter.  From the worst down:

=========  ============================================================================================
missing    more than 5 % of the samples were not delivered (NaN)
flat       the value did not change for nine tenths of the stretch (a lead that is off)
saturated  the signal stays at the highest or lowest value that the stream ever had, away from its
           baseline, for at least 22 ms and three times as long as at any other value
noisy      half of the time the envelope in the QRS band is above 0.15 of an ordinary QRS hump; QRS
           complexes take up less than half of the time, so in a clean signal it is well below
usable     none of these
=========  ============================================================================================

An asystole with the usual faint noise is usable by these rules, because it must raise its alarm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from ecgmon.models.kernels.compiled import Record, compiled
from ecgmon.pipelines.items import Quality

if TYPE_CHECKING:
    from numpy.typing import NDArray

MISSING_SHARE: Final = 0.05
"""Share of samples not delivered above which a stretch counts as missing."""

FLAT_SHARE: Final = 0.9
"""Share of a stretch without any change at or above which it counts as flat."""

RAIL_RUN: Final = 8
"""Samples in a row at the stream's extreme value that make a plateau (22 ms; an R peak has 2 or 3)."""

RAIL_RATIO: Final = 3
"""A plateau lasts this many times as long as any other value; distinguishes clipping from coarse quantisation."""

RAIL_TOLERANCE: Final = 0.01
"""Distance from the extreme value within which a sample counts as extreme, as a share of the stream's range."""

RAIL_DISTANCE: Final = 0.25
"""Least distance of a plateau from the baseline, as a share of the stream's range."""

NOISY: Final = 0.15
"""Median of the envelope, as a share of an ordinary QRS hump, above which a stretch counts as noisy."""

RANGE: Final = np.dtype([("low", "f8"), ("high", "f8"), ("baseline", "f8"), ("seconds", "i8")])
"""State of a lead for the rules: extremes and baseline of its signal, and the number of seconds."""

BASELINE_RATE: Final = 0.1
"""Weight of a new second in the running baseline."""


@compiled
def judge(
    seen: Record,
    signal: NDArray[np.float32],
    unchanged: NDArray[np.int16],
    noise: float,
) -> int:
    """Judge a stretch of one lead.

    Parameters
    ----------
    seen : RANGE record
        State of the lead from the seconds before.
    signal : ndarray of float32, shape (n,)
        The stretch; a missing sample has the value before it.
    unchanged : ndarray of int16, shape (n,)
        Number of samples for which the lead has had the same value; its bitwise complement where a sample was not delivered.
    noise : float
        Median of the envelope in the QRS band, as a share of an ordinary QRS hump.

    Returns
    -------
    int
        A value of :class:`ecgmon.pipelines.items.Quality`.
    """
    n = signal.size
    lost = 0
    longest = 0
    for i in range(n):
        lost += unchanged[i] < 0
        longest = max(longest, _run(unchanged[i]))
    if lost > MISSING_SHARE * n:
        return Quality.MISSING.value
    if longest >= RAIL_RUN:
        span = seen.high - seen.low
        at_rail = 0
        elsewhere = 0
        for i in range(n):
            extreme = signal[i] >= seen.high - RAIL_TOLERANCE * span or signal[i] <= seen.low + RAIL_TOLERANCE * span
            if extreme and seen.seconds > 0 and abs(signal[i] - seen.baseline) > RAIL_DISTANCE * span:
                at_rail = max(at_rail, _run(unchanged[i]))
            else:
                elsewhere = max(elsewhere, _run(unchanged[i]))
        if at_rail >= RAIL_RUN and at_rail >= RAIL_RATIO * (elsewhere + 1):
            return Quality.SATURATED.value
        if longest >= FLAT_SHARE * n:
            return Quality.FLAT.value
    if noise > NOISY:
        return Quality.NOISY.value
    return Quality.USABLE.value


@compiled
def _run(unchanged: int) -> int:
    return unchanged if unchanged >= 0 else ~unchanged


@compiled
def remember(seen: Record, signal: NDArray[np.float32], quality: int) -> None:
    """Update range and baseline with a second: not if it is missing or flat; only the range if it is saturated."""
    if quality == Quality.MISSING.value or quality == Quality.FLAT.value:  # noqa: PLR1714 - numba has no sets of enumerations
        return
    low = signal[0]
    high = signal[0]
    total = np.float32(0)
    for value in signal:  # one loop: the three chains of operations run in parallel and take the time of one
        low = value if value < low else low  # noqa: FURB136 - compiles to one instruction; min() is slower here
        high = value if value > high else high  # noqa: FURB136 - as above
        total += value
    mean = total / signal.size
    if seen.seconds == 0:
        seen.low = low
        seen.high = high
        seen.baseline = mean
    seen.low = min(seen.low, low)
    seen.high = max(seen.high, high)
    if quality != Quality.SATURATED.value:
        seen.baseline += BASELINE_RATE * (mean - seen.baseline)
    seen.seconds += 1
