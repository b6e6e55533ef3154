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
    "early",
    "fast",
    "late_run",
    "spread",
    "jump",
    "own_qrs",
    "own_p",
    "own_qrs_2",
    "own_p_2",
)
"""The features, in the order of the columns of :attr:`Evidence.features`."""

STORED_NAMES: Final = tuple({"log_ax": "error", "log_ax_qrs": "error_qrs"}.get(name, name) for name in NAMES)
"""The names of the same features in a checkpoint, which are those of the first release."""

RHYTHM: Final = ("early", "fast", "late_run", "spread", "jump")
OWN: Final = ("own_qrs", "own_p")
OWN_2: Final = ("own_qrs_2", "own_p_2")
"""The features by what they are about."""

BEATS: Final = 64
"""Beats before that a stream is remembered by; with 200 the distances tell hardly more."""

LEAST_BEATS: Final = 8
"""Beats before that a distance to the stream's own beats needs."""

LEAST_INTERVALS: Final = 4
"""Intervals before that a percentile or a spread of intervals needs; ``rr_ratio`` needs as many."""

PERCENTILE: Final = 30
"""Percentile of the distances to the beats before that counts as the distance to them."""

INTERVALS: Final = 32
"""Intervals before that the ninetieth percentile is taken of."""

SPREAD_INTERVALS: Final = 17
"""Intervals, the beat's own included, that the spread is taken of."""

JUMP_INTERVALS: Final = 3
"""Intervals, the beat's own included, that are compared one with the next."""

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
