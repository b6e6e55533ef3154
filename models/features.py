"""The features that the evidence of a beat consists of, and the ticks, beats and intervals that they are measured on.

:mod:`ecgmon.models.score.evidence` says what each feature means.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from ecgmon.models import windows

NAMES: Final = (
    "log_ax",
    "log_ax_qrs",
    "fast",
    "early",
    "spread",
    "jump",
    "own_qrs",
    "own_p",
    "own_qrs_2",
    "own_p_2",
    "qrs_over_usual",
    "p_over_usual",
    "qrs_2_over_usual",
    "p_2_over_usual",
    "ax_over_usual",
    "ax_qrs_over_usual",
)
"""The features, in the order of the columns of :attr:`Evidence.features`."""

RHYTHM: Final = ("early", "fast", "spread", "jump")
OWN: Final = ("own_qrs", "own_p", "ax_over_usual", "ax_qrs_over_usual", "qrs_over_usual", "p_over_usual")
OWN_2: Final = ("own_qrs_2", "own_p_2", "qrs_2_over_usual", "p_2_over_usual")
AX: Final = ("log_ax", "log_ax_qrs", "ax_over_usual", "ax_qrs_over_usual")
"""The features by what they are about: the rhythm, the stream's own beats, those on the second lead, and A(x)."""

FOLLOWED: Final = 6
"""Features whose usual value a stream remembers: the distances of both leads, and both logs of A(x)."""

BEATS: Final = 64
"""Beats before that a stream is remembered by; with 200 the distances tell hardly more."""

LEAST_BEATS: Final = 8
"""Beats before that a distance to the stream's own beats needs."""

LEAST_INTERVALS: Final = 4
"""Intervals before that a percentile or a spread of intervals needs; ``rr_ratio`` needs as many."""

PERCENTILE: Final = 30
"""Percentile of the distances to the beats before that counts as the distance to them."""

INTERVALS: Final = 32
"""Intervals before a beat by which it is judged early."""

LATE: Final = 0.9
"""Quantile of the intervals before: in bigeminy and in long runs of early beats, it is still that of the other beats."""

LAGS: Final = 4
"""Most intervals between two that are compared for the irregularity: an early beat may come every second to fourth beat."""

LEAST_IRREGULARITY: Final = 0.1
"""Added to the irregularity, which would be zero in a perfectly regular rhythm."""

SPREAD_INTERVALS: Final = 17
"""Intervals, the beat's own included, that the spread is taken of."""

JUMP_INTERVALS: Final = 3
"""Intervals, the beat's own included, that are compared one with the next."""

UNUSUAL_EARLY: Final = 2.5
"""``early`` from which a beat counts as unusual for its stream."""

UNUSUAL_QRS: Final = 2.0
"""``qrs_over_usual`` from which a beat counts as unusual for its stream: about seven times the usual squared distance."""

MOST_UNUSUAL: Final = 12
"""Unusual beats among the :data:`BEATS` that are remembered, besides those admitted."""

ADMITTED: Final = 8
"""Every how many unusual beats one is remembered like a usual one, so that the memory follows a lasting change.

In bigeminy, a ninth of the other 52 places is then theirs.  With the 12 these are 18 of 64, less than the thirtieth
percentile looks at: bigeminy does not become usual.  If no beat is like those before, a new shape becomes usual after some
64 beats, about a minute.
"""

USUAL_BEATS: Final = 128
"""Beats over which the usual value of a feature is averaged."""

USUAL_INTERVALS: Final = 32
"""Intervals over which the usual interval is averaged."""

P_TICKS: Final = np.arange(50, 128, 3)
"""Ticks of a window before the QRS complex: 250 to 36 ms before the R peak, every 8 ms."""

QRS_TICKS: Final = np.arange(118, 172, 2)
"""Ticks of a window around the QRS complex: 61 ms before the R peak to 83 ms after it, every 6 ms."""

AX_TICKS: Final = slice(122, 168)
"""Ticks over which ``log_ax_qrs`` has the mean error."""

OUTLINE_TICKS: Final = slice(0, windows.LENGTH, 4)
"""Ticks that :attr:`Evidence.outline` keeps of a window: 90 Hz holds the pass band's 45."""

OUTLINE: Final = windows.LENGTH // 4
"""Values in an outline."""
