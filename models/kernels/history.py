"""Loops over the beats of a stream: what is kept of a window, and how far a beat is from those before it.

Each function has a twin in plain numpy in ``tests/models/kernels/test_history.py``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np

from ecgmon.models.features import (
    BEATS,
    INTERVALS,
    JUMP_INTERVALS,
    LEAST_INTERVALS,
    OUTLINE,
    OUTLINE_TICKS,
    P_TICKS,
    QRS_TICKS,
    SPREAD_INTERVALS,
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


class Memory(NamedTuple):
    """The last beats of a stream as a ring.  Beats come last, so that a loop over them reads consecutive values."""

    taken: NDArray[np.int64]
    """Beats taken, shape (1,); the ring's next place is that modulo its size."""
    rr: NDArray[np.float32]
    """RR intervals in seconds, shape (BEATS,); NaN where not known."""
    span: NDArray[np.float32]
    """Range of each window in mV, shape (leads, BEATS)."""
    shape: NDArray[np.uint16]
    """Windows at :data:`TICKS` in mV, as the bits of float16, shape (leads, ticks, BEATS)."""

    @classmethod
    def empty(cls, leads: int) -> Self:
        """Make a memory without beats."""
        return cls(
            np.zeros(1, np.int64),
            np.zeros(BEATS, np.float32),
            np.zeros((leads, BEATS), np.float32),
            np.zeros((leads, len(TICKS), BEATS), np.uint16),
        )


class Kept(NamedTuple):
    """What is kept of ``n`` beats, as contiguous arrays: numba compiles a loop again for every layout of its arguments."""

    rr: NDArray[np.float32]
    """RR intervals in seconds, shape (n,); NaN where not known."""
    span: NDArray[np.float32]
    """Range of each window in mV, shape (n, leads)."""
    shapes: NDArray[np.uint16]
    """Windows at :data:`TICKS` in mV, as the bits of float16, shape (n, leads, ticks)."""

    @classmethod
    def empty(cls, n: int, leads: int) -> Self:
        """Make room for ``n`` beats."""
        return cls(
            np.empty(n, np.float32), np.empty((n, leads), np.float32), np.empty((n, leads, len(TICKS)), np.uint16)
        )

    def of(self, part: slice) -> Self:
        """Give the part that some beats have, as views."""
        return type(self)(self.rr[part], self.span[part], self.shapes[part])


class Compared(NamedTuple):
    """What ``n`` beats are ranked among; NaN where there was no beat, which sorts last."""

    known: NDArray[np.int64]
    """Beats before each that it was compared with, shape (n,)."""
    apart: NDArray[np.float32]
    """Squared distances of QRS complex and P wave to those before, summed over ticks, shape (n, leads, 2, BEATS)."""
    spans: NDArray[np.float32]
    """Of the beats before, shape (n, leads, BEATS)."""
    intervals: NDArray[np.float32]
    """Log RR intervals before, shape (n, INTERVALS)."""
    rhythm: NDArray[np.float32]
    """Own log RR, ``spread`` and ``jump``, shape (n, 3); NaN where not known."""

    @classmethod
    def empty(cls, n: int, leads: int) -> Self:
        """Make room for ``n`` beats."""
        return cls(
            np.empty(n, np.int64),
            np.empty((n, leads, 2, BEATS), np.float32),
            np.empty((n, leads, BEATS), np.float32),
            np.empty((n, INTERVALS), np.float32),
            np.empty((n, 3), np.float32),
        )

    def of(self, part: slice) -> Self:
        """Give the part that some beats have, as views."""
        return type(self)(self.known[part], self.apart[part], self.spans[part], self.intervals[part], self.rhythm[part])


def compare(memory: Memory, kept: Kept, written_over: Kept, compared: Compared) -> None:
    """Measure how far beats are from those before them, and take each into the memory.

    Parameters
    ----------
    memory : Memory
        Changed: the beats are its last ones afterwards.
    kept : Kept
        The beats, in order.
    written_over : Kept
        Filled in: what was in the memory where each of the beats is now, for :func:`put_back`.  A copy of the whole
        memory would take longer.
    compared : Compared
        Filled in.
    """
    _compare(
        tuple(memory), tuple(kept), tuple(written_over), tuple(compared)
    )  # numba takes these faster than named ones


def put_back(memory: Memory, written_over: Kept) -> None:
    """Undo what :func:`compare` did to a memory."""
    _put_back(tuple(memory), tuple(written_over))


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
def _rhythm(
    logs: NDArray[np.float32],
    count: int,
    recent: NDArray[np.float32],
    intervals: NDArray[np.float32],
    rhythm: NDArray[np.float32],
) -> None:
    """Find the intervals before a beat that ``count`` came before, its own, ``spread`` and ``jump``."""
    own = logs[count % BEATS]
    intervals[:] = np.nan
    rhythm[:] = np.nan
    known = 0
    for k in range(max(0, count - INTERVALS), count):  # oldest first
        interval = logs[k % BEATS]
        if not np.isnan(interval):
            recent[known] = interval
            intervals[known] = interval
            known += 1
    if np.isnan(own) or known < LEAST_INTERVALS:
        return
    recent[known] = own
    first = max(0, known - SPREAD_INTERVALS + 1)
    size = known + 1 - first
    mean = 0.0
    for k in range(first, known + 1):
        mean += recent[k]
    mean /= size
    variance = 0.0
    for k in range(first, known + 1):
        variance += (recent[k] - mean) ** 2
    jump = 0.0
    steps = min(size, JUMP_INTERVALS) - 1
    for k in range(known + 1 - steps, known + 1):
        jump += abs(recent[k] - recent[k - 1])
    rhythm[0] = own
    rhythm[1] = math.log(math.sqrt(variance / size) + _LEAST_SPREAD)
    rhythm[2] = jump / steps


@compiled
def _compare(
    memory: tuple[NDArray[Any], ...],
    kept: tuple[NDArray[Any], ...],
    over: tuple[NDArray[Any], ...],
    compared: tuple[NDArray[Any], ...],
) -> None:
    """Do :func:`compare`, with plain tuples of the same arrays."""
    counts, rr_before, spans_before, ring = memory
    rr, span, shapes = kept
    rr_over, span_over, shapes_over = over
    known, apart, spans, intervals, rhythm = compared
    leads, ticks, beats = ring.shape
    bits = np.empty(ring.shape, np.uint32)
    before = bits.view(np.float32)
    _widen(ring.ravel(), bits.ravel(), before.ravel())
    own_bits = np.empty((leads, ticks), np.uint32)
    own = own_bits.view(np.float32)
    recent = np.empty(INTERVALS + 1, np.float32)
    logs = np.log(rr_before)
    for k in range(rr.size):
        now = counts[0] % beats
        known[k] = min(counts[0], beats)
        _widen(shapes[k].ravel(), own_bits.ravel(), own.ravel())
        spans[k] = spans_before
        for lead in range(leads):
            for part, first, last in ((0, _P, ticks), (1, 0, _P)):
                distance = apart[k, lead, part]
                distance[:] = 0
                for tick in range(first, last):
                    value = own[lead, tick]
                    for beat in range(beats):
                        difference = before[lead, tick, beat] - value
                        distance[beat] += difference * difference
                distance[known[k] :] = np.nan
            spans[k, lead, known[k] :] = np.nan
        rr_over[k] = rr_before[now]
        rr_before[now] = rr[k]
        logs[now] = np.log(rr[k])
        _rhythm(logs, counts[0], recent, intervals[k], rhythm[k])
        for lead in range(leads):
            span_over[k, lead] = spans_before[lead, now]
            spans_before[lead, now] = span[k, lead]
            for tick in range(ticks):
                shapes_over[k, lead, tick] = ring[lead, tick, now]
                ring[lead, tick, now] = shapes[k, lead, tick]
                before[lead, tick, now] = own[lead, tick]
        counts[0] += 1


@compiled
def _put_back(memory: tuple[NDArray[Any], ...], over: tuple[NDArray[Any], ...]) -> None:
    """Do :func:`put_back`, with plain tuples of the same arrays."""
    counts, rr_before, spans_before, ring = memory
    rr_over, span_over, shapes_over = over
    leads, ticks, beats = ring.shape
    for k in range(rr_over.size - 1, -1, -1):
        counts[0] -= 1
        now = counts[0] % beats
        rr_before[now] = rr_over[k]
        for lead in range(leads):
            spans_before[lead, now] = span_over[k, lead]
            for tick in range(ticks):
                ring[lead, tick, now] = shapes_over[k, lead, tick]
