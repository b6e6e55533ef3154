"""Loops over the beats of a stream: what is kept of a window, and how far a beat is from those before it.

Each function has a twin in plain numpy in ``tests/models/kernels/test_history.py``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np

from ecgmon.models.features import (
    ADMITTED,
    BEATS,
    FOLLOWED,
    INTERVALS,
    JUMP_INTERVALS,
    LAGS,
    LATE,
    LEAST_BEATS,
    LEAST_INTERVALS,
    LEAST_IRREGULARITY,
    MOST_UNUSUAL,
    NAMES,
    OUTLINE,
    OUTLINE_TICKS,
    P_TICKS,
    PERCENTILE,
    QRS_TICKS,
    SPREAD_INTERVALS,
    UNUSUAL_EARLY,
    UNUSUAL_QRS,
    USUAL_BEATS,
    USUAL_INTERVALS,
)
from ecgmon.models.kernels.compiled import compiled, limited

if TYPE_CHECKING:
    from numpy.typing import NDArray

TICKS: Final = np.concatenate([P_TICKS, QRS_TICKS])
"""Ticks of a window that are kept, those of the P wave first."""

_P: Final = len(P_TICKS)
_OUTLINE_STEP: Final = OUTLINE_TICKS.step
_HIGHEST: Final = np.float32(1000)  # mV; no electrode gives more, and squares of it stay finite
_LEAST_SPREAD: Final = 5e-3  # so that the logarithm of a perfectly regular rhythm is finite
_LEAST_DISTANCE: Final = 1e-5  # so that the logarithm of a perfect match is finite
_FLAT: Final = 1e-3  # mV, half a step of common converters: a lead whose beats span less shows nothing

FIRST: Final = NAMES.index("early")
"""Column of the first feature that :func:`compare` finds; it finds all from there on."""


class Memory(NamedTuple):
    """What a stream remembers of its beats.  Beats come last in an array, so that a loop over them reads consecutive values.

    The :data:`BEATS` remembered beats are not simply the last ones: see :func:`compare`.
    """

    counts: NDArray[np.int64]
    """Beats taken, unusual beats among them, RR intervals known, and places with a beat, shape (4,)."""
    intervals: NDArray[np.float32]
    """Logs of the last known RR intervals in seconds, shape (INTERVALS,), as a ring."""
    usual: NDArray[np.float32]
    """Means over usual beats: of the log RR interval, then of the followed features, shape (1 + FOLLOWED,)."""
    usual_of: NDArray[np.int64]
    """Values that each mean is over, at most the number that it forgets after, shape (1 + FOLLOWED,)."""
    span: NDArray[np.float32]
    """Range of each remembered window in mV, shape (leads, BEATS)."""
    shape: NDArray[np.uint16]
    """Remembered windows at :data:`TICKS` in mV, as the bits of float16, shape (leads, ticks, BEATS)."""
    unusual: NDArray[np.uint8]
    """1 for a remembered beat that was unusual and not admitted, shape (BEATS,)."""
    taken: NDArray[np.int64]
    """Number of each remembered beat, from 1, shape (BEATS,); 0 for a place without a beat."""

    @classmethod
    def empty(cls, leads: int) -> Self:
        """Make a memory without beats."""
        return cls(
            np.zeros(4, np.int64),
            np.zeros(INTERVALS, np.float32),
            np.zeros(1 + FOLLOWED, np.float32),
            np.zeros(1 + FOLLOWED, np.int64),
            np.zeros((leads, BEATS), np.float32),
            np.zeros((leads, len(TICKS), BEATS), np.uint16),
            np.zeros(BEATS, np.uint8),
            np.zeros(BEATS, np.int64),
        )


class Kept(NamedTuple):
    """What is known of ``n`` beats, as contiguous arrays: numba compiles a loop again for every layout of its arguments."""

    rr: NDArray[np.float32]
    """RR intervals in seconds, shape (n,); NaN where not known."""
    log_ax: NDArray[np.float32]
    """The features ``log_ax`` and ``log_ax_qrs``, shape (n, 2); NaN where not known."""
    span: NDArray[np.float32]
    """Range of each window in mV, shape (n, leads)."""
    shapes: NDArray[np.uint16]
    """Windows at :data:`TICKS` in mV, as the bits of float16, shape (n, leads, ticks)."""

    def of(self, part: slice) -> Self:
        """Return the part that some beats have, as views."""
        return type(self)(self.rr[part], self.log_ax[part], self.span[part], self.shapes[part])


class Replaced(NamedTuple):
    """What was in the places of a memory where ``n`` beats are now, in order, for :func:`put_back`."""

    place: NDArray[np.int64]
    """Shape (n,)."""
    span: NDArray[np.float32]
    """Shape (n, leads)."""
    shapes: NDArray[np.uint16]
    """Shape (n, leads, ticks)."""
    unusual: NDArray[np.uint8]
    """Shape (n,)."""
    taken: NDArray[np.int64]
    """Shape (n,)."""

    @classmethod
    def empty(cls, n: int, leads: int) -> Self:
        """Make room for ``n`` beats."""
        return cls(
            np.empty(n, np.int64),
            np.empty((n, leads), np.float32),
            np.empty((n, leads, len(TICKS)), np.uint16),
            np.empty(n, np.uint8),
            np.empty(n, np.int64),
        )

    def of(self, part: slice) -> Self:
        """Return the part that some beats have, as views."""
        return type(self)(self.place[part], self.span[part], self.shapes[part], self.unusual[part], self.taken[part])


class Compared(NamedTuple):
    """The features of ``n`` beats, and the memory's small arrays after each."""

    features: NDArray[np.float32]
    """The columns of ``NAMES`` from :data:`FIRST` on, shape (n, len(NAMES) - FIRST); NaN where not known."""
    unusual: NDArray[np.uint8]
    """1 for a beat that is unusual for its stream and not admitted, shape (n,)."""
    counts: NDArray[np.int64]
    """Shape (n, 4)."""
    intervals: NDArray[np.float32]
    """Shape (n, INTERVALS)."""
    usual: NDArray[np.float32]
    """Shape (n, 1 + FOLLOWED)."""
    usual_of: NDArray[np.int64]
    """Shape (n, 1 + FOLLOWED)."""

    @classmethod
    def empty(cls, n: int) -> Self:
        """Make room for ``n`` beats."""
        return cls(
            np.full((n, len(NAMES) - FIRST), np.nan, np.float32),
            np.empty(n, np.uint8),
            np.empty((n, 4), np.int64),
            np.empty((n, INTERVALS), np.float32),
            np.empty((n, 1 + FOLLOWED), np.float32),
            np.empty((n, 1 + FOLLOWED), np.int64),
        )

    def of(self, part: slice) -> Self:
        """Return the part that some beats have, as views."""
        return type(self)(
            self.features[part], self.unusual[part], self.counts[part], self.intervals[part], self.usual[part],
            self.usual_of[part],
        )  # fmt: skip


def compare(memory: Memory, kept: Kept, replaced: Replaced, compared: Compared) -> None:
    """Compare beats with what their stream remembers, and take each into the memory.

    A beat is unusual if it is early by :data:`UNUSUAL_EARLY` or its QRS complex is further from the remembered ones
    than usual by :data:`UNUSUAL_QRS`.  Unusual beats do not make themselves the norm: they hold at most
    :data:`MOST_UNUSUAL` places of the memory, where a new one replaces the oldest of them, and they have no part in the
    usual values.  Only every :data:`ADMITTED`-th of them is admitted like a usual beat.

    Parameters
    ----------
    memory : Memory
        Changed.
    kept : Kept
        The beats, in order.
    replaced : Replaced
        Filled in.  A copy of the whole memory would take longer.
    compared : Compared
        Filled in; its ``features`` must be NaN before.
    """
    # numba takes plain tuples faster than named ones
    _compare(tuple(memory), tuple(kept), tuple(replaced), tuple(compared))


def put_back(memory: Memory, replaced: Replaced) -> None:
    """Undo what :func:`compare` did to the remembered beats; the caller restores the small arrays from copies."""
    for k in range(len(replaced.place) - 1, -1, -1):
        place = replaced.place[k]
        memory.span[:, place] = replaced.span[k]
        memory.shape[..., place] = replaced.shapes[k]
        memory.unusual[place] = replaced.unusual[k]
        memory.taken[place] = replaced.taken[k]


@compiled
def look(
    windows_mv: NDArray[np.float32],
    first: int,
    span: NDArray[np.float32],
    shapes: NDArray[np.float32],
    outline: NDArray[np.float32],
) -> None:
    """Take from windows the range and the kept ticks of every lead, and the outline of the first one.

    A NaN makes the range and what it touches NaN.  The outline is that of :func:`ecgmon.models.windows.scale`, to the
    same bits.

    Parameters
    ----------
    windows_mv : ndarray of float32, shape (beats, leads or more, 320), contiguous
    first : int
        Row of the outputs that the first of these windows belongs to.
    span : ndarray of float32, shape (n, leads)
        Filled in: range in mV.
    shapes : ndarray of float32, shape (n, leads, ticks)
        Filled in: values at :data:`TICKS`, less the mean of their part.
    outline : ndarray of float32, shape (n, OUTLINE)
        Filled in.
    """
    bits = windows_mv.view(np.int32)
    range_bits = np.empty(2, np.int32)
    range_mv = range_bits.view(np.float32)
    for k in range(len(windows_mv)):
        for lead in range(span.shape[1]):
            window = windows_mv[k, lead]
            range_bits[0], range_bits[1] = _range(bits[k, lead])
            low, high = limited(range_mv[0], _HIGHEST), limited(range_mv[1], _HIGHEST)
            if np.isnan(low) or np.isnan(high):
                low = high = np.float32(np.nan)
            span[first + k, lead] = high - low
            _centre(window, P_TICKS, shapes[first + k, lead, :_P])
            _centre(window, QRS_TICKS, shapes[first + k, lead, _P:])
            if lead == 0:
                own = outline[first + k]
                if high - low <= 0:
                    own[:] = 0
                else:
                    factor = np.float32(2) / (high - low)
                    for tick in range(OUTLINE):
                        own[tick] = (limited(window[tick * _OUTLINE_STEP], _HIGHEST) - low) * factor - np.float32(1)


@compiled
def _range(bits: NDArray[np.int32]) -> tuple[np.int32, np.int32]:
    """Find the bits of the lowest and the highest of floats from theirs; of a NaN, if there is one.

    Integers are compared many at a time, which floats are not for the sake of NaN: turned over where the sign is set,
    the bits have the order of the numbers, and a NaN lies beyond infinity.
    """
    low, high = np.int32(0x7FFFFFFF), np.int32(-0x80000000)
    for i in range(bits.size):
        ordered = bits[i] ^ ((bits[i] >> np.int32(31)) & np.int32(0x7FFFFFFF))
        low, high = min(low, ordered), max(high, ordered)
    return low ^ ((low >> np.int32(31)) & np.int32(0x7FFFFFFF)), high ^ ((high >> np.int32(31)) & np.int32(0x7FFFFFFF))


@compiled
def _centre(window: NDArray[np.float32], ticks: NDArray[np.int64], shape: NDArray[np.float32]) -> None:
    """Take the ticks of a window, less their mean.

    The sum runs in eight lanes, as numpy's does: what older stores remember was made so.
    """
    n = len(ticks)
    for i in range(n):
        shape[i] = limited(window[ticks[i]], _HIGHEST)
    lanes = shape[:8].copy()
    whole = n - n % 8
    for start in range(8, whole, 8):
        for lane in range(8):
            lanes[lane] += shape[start + lane]
    total = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]))
    for i in range(whole, n):
        total += shape[i]
    mean = total / np.float32(n)
    for i in range(n):
        shape[i] -= mean


@compiled
def _widen(halves: NDArray[np.uint16], bits: NDArray[np.uint32], values: NDArray[np.float32]) -> None:
    """Turn the bits of float16 into float32; ``values`` is a view of ``bits``.

    A float16's bits, moved to where a float32 has them, are its value over 2 ** 112; NaN and infinity, which have the
    highest exponent, become NaN.
    """
    for i in range(halves.size):
        half = np.uint32(halves[i])
        bits[i] = ((half & np.uint32(0x8000)) << np.uint32(16)) | ((half & np.uint32(0x7FFF)) << np.uint32(13))
    for i in range(halves.size):
        values[i] = values[i] * np.float32(2.0**112) if (halves[i] & 0x7C00) != 0x7C00 else np.float32(np.nan)  # noqa: PLR2004


@compiled
def _ranked(values: NDArray[np.float32], count: int, rank: int) -> np.float32:
    """Return the value among the first ``count`` that ``rank`` others come before.

    Counting for each value how many are less takes the same time for all values.  Sorting and selecting branch on the
    values, which a processor cannot predict, and take twice as long.
    """
    less = np.zeros(count, np.int32)
    for k in range(count):
        value = values[k]
        for i in range(count):
            less[i] += value < values[i]
    found = -np.float32(np.inf)
    for i in range(count):
        if less[i] <= rank:
            found = max(found, values[i])
    return found


@compiled
def _log(value: float | np.floating[Any]) -> np.float32:
    """Take the natural logarithm; rounded to float32, it does not depend on the processor."""
    return np.float32(math.log(value))


@compiled
def _irregularity(recent: NDArray[np.float32], known: int, work: NDArray[np.float32]) -> np.float32:
    """Return the least median difference of log intervals one to :data:`LAGS` beats apart.

    Bigeminy repeats every second interval and trigeminy every third, so both are regular; atrial fibrillation is not.
    """
    least = np.float32(np.inf)
    for lag in range(1, LAGS + 1):
        pairs = known - lag
        if lag > 1 and pairs < LEAST_INTERVALS:
            break
        for k in range(pairs):
            work[k] = abs(recent[k + lag] - recent[k])
        least = min(least, _ranked(work, pairs, (pairs - 1) // 2))
    return least


@compiled
def _rhythm(
    own: np.float32,
    memory: tuple[NDArray[Any], ...],
    recent: NDArray[np.float32],
    work: NDArray[np.float32],
    features: NDArray[np.float32],
) -> None:
    """Find ``early``, ``spread`` and ``jump`` of a beat with the log RR interval ``own``."""
    counts, intervals, usual, usual_of = memory[:4]
    known = min(counts[2], INTERVALS)
    if np.isnan(own) or known < LEAST_INTERVALS:
        return
    for k in range(known):  # oldest first
        recent[k] = intervals[(counts[2] - known + k) % INTERVALS]
    recent[known] = own
    irregularity = _irregularity(recent, known, work)
    work[:known] = recent[:known]
    late = _ranked(work, known, int(np.rint(LATE * (known - 1)))) - own
    if usual_of[0] >= LEAST_INTERVALS:
        late = max(late, usual[0] - own)
    features[0] = late / (irregularity + np.float32(LEAST_IRREGULARITY))
    first = max(0, known - SPREAD_INTERVALS + 1)
    size = known + 1 - first
    mean = 0.0
    for k in range(first, known + 1):
        mean += recent[k]
    mean /= size
    variance = 0.0
    for k in range(first, known + 1):
        variance += (recent[k] - mean) ** 2
    features[1] = _log(math.sqrt(variance / size) + _LEAST_SPREAD)
    jump = 0.0
    steps = min(size, JUMP_INTERVALS) - 1
    for k in range(known + 1 - steps, known + 1):
        jump += abs(recent[k] - recent[k - 1])
    features[2] = jump / steps


@compiled
def _distance(
    distances: NDArray[np.float32], known: int, work: NDArray[np.float32], scale: float | np.floating[Any]
) -> np.float32:
    """Return the log of the percentile of squared distances, times ``scale``; NaN if too few of them are numbers."""
    for beat in range(known):
        work[beat] = np.float32(np.inf) if np.isnan(distances[beat]) else distances[beat]
    ranked = _ranked(work, known, known * PERCENTILE // 100)
    return np.float32(np.nan) if np.isinf(ranked) else _log(ranked * scale + _LEAST_DISTANCE)


@compiled
def _shape(
    own: NDArray[np.float32],
    own_span: NDArray[np.float32],
    before: NDArray[np.float32],
    spans: NDArray[np.float32],
    known: int,
    work: NDArray[np.float32],
    values: NDArray[np.float32],
) -> None:
    """Find how far QRS complex and P wave of a beat are from the remembered ones, for every lead."""
    leads, ticks, beats = before.shape
    distances = np.empty(beats, np.float32)
    for lead in range(leads):
        work[:known] = spans[lead, :known]
        for beat in range(known):
            if np.isnan(work[beat]):
                work[beat] = np.float32(np.inf)
        usual = _ranked(work, known, known // 2)
        # a lead that is flat, now or usually, shows nothing; a NaN is not above the limit
        if not (_FLAT < usual < np.inf and own_span[lead] > _FLAT):
            continue
        scale = (2.0 / usual) ** 2
        for part, first, last in ((0, _P, ticks), (1, 0, _P)):
            distances[:] = 0
            for tick in range(first, last):
                value = own[lead, tick]
                for beat in range(beats):
                    difference = before[lead, tick, beat] - value
                    distances[beat] += difference * difference
            values[2 * lead + part] = _distance(distances, known, work, scale / (last - first))


@compiled
def _place(memory: tuple[NDArray[Any], ...], known: int, most: int) -> int:
    """Choose where to remember a beat: in place of the oldest unusual one if ``most`` are, else of the oldest."""
    flags, taken = memory[6], memory[7]
    oldest, oldest_unusual, held = 0, -1, 0
    for beat in range(known):
        if taken[beat] < taken[oldest]:
            oldest = beat
        if flags[beat]:
            held += 1
            if oldest_unusual < 0 or taken[beat] < taken[oldest_unusual]:
                oldest_unusual = beat
    if held >= most:
        return oldest_unusual
    return known if known < BEATS else oldest


@compiled
def _average(memory: tuple[NDArray[Any], ...], which: int, value: np.float32, most: int) -> None:
    """Take a value into a running mean that forgets after ``most`` values."""
    if np.isnan(value):
        return
    usual, usual_of = memory[2], memory[3]
    usual_of[which] = min(usual_of[which] + 1, most)
    usual[which] += (value - usual[which]) / usual_of[which]


@compiled
def _compare(
    memory: tuple[NDArray[Any], ...],
    kept: tuple[NDArray[Any], ...],
    replaced: tuple[NDArray[Any], ...],
    compared: tuple[NDArray[Any], ...],
) -> None:
    """Do :func:`compare`, with plain tuples of the same arrays."""
    counts, intervals, usual, usual_of, spans, ring, flags, taken = memory
    rr, log_ax, span, shapes = kept
    places, old_span, old_shapes, old_flags, old_taken = replaced
    features, unusual, counts_after, intervals_after, usual_after, usual_of_after = compared
    leads, ticks, beats = ring.shape
    bits = np.empty(ring.shape, np.uint32)
    before = bits.view(np.float32)
    _widen(ring.ravel(), bits.ravel(), before.ravel())
    own_bits = np.empty((leads, ticks), np.uint32)
    own = own_bits.view(np.float32)
    recent = np.empty(INTERVALS + 1, np.float32)
    work = np.empty(max(beats, INTERVALS), np.float32)
    values = np.empty(FOLLOWED, np.float32)
    for k in range(rr.size):
        known = counts[3]
        interval = _log(rr[k]) if rr[k] > 0 else np.float32(np.nan)
        _rhythm(interval, memory, recent, work, features[k])
        _widen(shapes[k].ravel(), own_bits.ravel(), own.ravel())
        values[:] = np.nan
        values[4:] = log_ax[k]
        if known >= LEAST_BEATS:
            _shape(own, span[k], before, spans, known, work, values)
            features[k, 3:7] = values[:4]
        for which in range(FOLLOWED):
            if usual_of[1 + which] >= LEAST_BEATS:
                features[k, 7 + which] = values[which] - usual[1 + which]
        is_unusual = features[k, 0] > UNUSUAL_EARLY or features[k, 7] > UNUSUAL_QRS  # a NaN is neither
        counts[0] += 1
        as_usual = not is_unusual
        if is_unusual:
            counts[1] += 1
            as_usual = counts[1] % ADMITTED == 0
        place = _place(memory, known, BEATS + 1 if as_usual else MOST_UNUSUAL)
        places[k], old_flags[k], old_taken[k] = place, flags[place], taken[place]
        flags[place], taken[place] = not as_usual, counts[0]
        counts[3] = max(counts[3], place + 1)
        for lead in range(leads):
            old_span[k, lead] = spans[lead, place]
            spans[lead, place] = span[k, lead]
            for tick in range(ticks):
                old_shapes[k, lead, tick] = ring[lead, tick, place]
                ring[lead, tick, place] = shapes[k, lead, tick]
                before[lead, tick, place] = own[lead, tick]
        if not np.isnan(interval):
            intervals[counts[2] % INTERVALS] = interval
            counts[2] += 1
        if as_usual:
            _average(memory, 0, interval, USUAL_INTERVALS)
            for which in range(FOLLOWED):
                _average(memory, 1 + which, values[which], USUAL_BEATS)
        unusual[k] = not as_usual
        counts_after[k], intervals_after[k] = counts, intervals
        usual_after[k], usual_of_after[k] = usual, usual_of
