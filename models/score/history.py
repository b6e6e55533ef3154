"""What a stream's last beats say of its next one: how :mod:`ecgmon.models.score.evidence` is measured."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np

from ecgmon.models import windows
from ecgmon.models.kernels.compiled import compiled, limited
from ecgmon.models.score.evidence import (
    BEATS,
    ERROR_TICKS,
    INTERVALS,
    JUMP_INTERVALS,
    LEAST_BEATS,
    LEAST_INTERVALS,
    NAMES,
    OUTLINE,
    OUTLINE_TICKS,
    P_TICKS,
    PERCENTILE,
    QRS_TICKS,
    SPREAD_INTERVALS,
    Evidence,
    EvidenceError,
    error_features,
    log,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_P: Final = len(P_TICKS)
_KEPT: Final = np.concatenate([P_TICKS, QRS_TICKS])

_HIGHEST: Final = np.float32(1000)  # mV; no electrode gives more, and squares of it stay finite
_FLAT: Final = 1e-3  # mV, half a step of common converters: a lead whose beats span less shows nothing

# So that the logarithm of a perfect match is finite: far below what is measured of any real beat.
_LEAST_DISTANCE: Final = np.float32(1e-5)
_LEAST_SPREAD: Final = 5e-3

_TICKS: Final = np.array([len(QRS_TICKS), len(P_TICKS)], np.float32)

_RHYTHM: Final = NAMES.index("late_run")
_OWN: Final = NAMES.index("own_qrs")
_OUTLINE_STEP: Final = OUTLINE_TICKS.step


def row_type(leads: int) -> np.dtype[np.void]:
    """Layout of what a history keeps of one beat, little-endian, as a store has it.

    ``rr`` is the RR interval in seconds, NaN where not known; ``span`` the range of each lead's
    window in mV; ``shape`` the ticks :data:`P_TICKS` and :data:`QRS_TICKS` of each lead in mV, the mean of
    either part removed.  114 bytes for one lead, 224 for two.
    """
    return np.dtype([("rr", "<f4"), ("span", "<f4", (leads,)), ("shape", "<f2", (leads, len(_KEPT)))])


class _Memory(NamedTuple):
    """The rows of the last beats as a ring, with the beats last, so that a loop over them runs over one stretch."""

    taken: NDArray[np.int64]
    """Beats taken, an array of one; the ring's next place is that modulo its size."""
    rr: NDArray[np.float32]
    span: NDArray[np.float32]
    """Shape (leads, BEATS)."""
    shape: NDArray[np.uint16]
    """Bits of float16, shape (leads, ticks, BEATS)."""

    @classmethod
    def empty(cls, leads: int) -> Self:
        return cls(
            np.zeros(1, np.int64),
            np.zeros(BEATS, np.float32),
            np.zeros((leads, BEATS), np.float32),
            np.zeros((leads, len(_KEPT), BEATS), np.uint16),
        )


class History:
    """The last beats of one stream, at most :data:`ecgmon.models.score.evidence.BEATS`.

    Parameters
    ----------
    leads : int
        Leads of the stream's windows, 1 or 2; further leads are not looked at.

    Notes
    -----
    A history is nothing but the rows of its last beats: one restored from stored rows goes on
    exactly as if it had never been interrupted.  The beats that it took last it can give back: see :meth:`forget`.
    """

    __slots__ = ("_memory", "_written_over", "leads")

    def __init__(self, leads: int) -> None:
        if leads < 1:
            raise EvidenceError(f"a stream of {leads} leads has no beats; expected 1 or 2")
        self.leads = min(leads, windows.MOST_LEADS)
        self._memory = _Memory.empty(self.leads)
        self._written_over: _Kept | None = None

    @classmethod
    def restore(cls, leads: int, rows: bytes) -> Self:
        """Make a history from rows that :meth:`snapshot` gave, or :meth:`observe` one by one, oldest first.

        Raises
        ------
        EvidenceError
            If the bytes are not whole rows for that number of leads.
        """
        history = cls(leads)
        kind = row_type(history.leads)
        if len(rows) % kind.itemsize:
            raise EvidenceError(
                f"a stored history has {len(rows)} bytes; expected a multiple of {kind.itemsize} for {leads} lead(s)"
            )
        last = np.frombuffer(rows, kind)[-BEATS:]
        memory = history._memory
        memory.taken[0] = len(last)
        memory.rr[: len(last)] = last["rr"]
        memory.span[:, : len(last)] = last["span"].T
        memory.shape[..., : len(last)] = last["shape"].view("<u2").transpose(1, 2, 0)
        return history

    def snapshot(self) -> bytes:
        """Return the rows that are remembered, oldest first, at most ``BEATS`` of them."""
        memory = self._memory
        count = int(memory.taken[0])
        order = np.arange(max(0, count - BEATS), count) % BEATS
        rows = np.empty(len(order), row_type(self.leads))
        rows["rr"] = memory.rr[order]
        rows["span"] = memory.span[:, order].T
        rows["shape"] = memory.shape[..., order].transpose(2, 0, 1).copy().view("<f2")
        return rows.tobytes()

    def observe(
        self,
        windows_mv: NDArray[np.float32],
        error: NDArray[np.float32],
        squared_error: NDArray[np.floating[Any]],
        rr: NDArray[np.float32],
        rr_ratio: NDArray[np.float32],
    ) -> tuple[Evidence, list[bytes]]:
        """Take the stream's next beats, in order: :func:`observe` of this history alone."""
        return observe([self], [len(windows_mv)], [windows_mv], error, [squared_error], rr, rr_ratio)

    def keep(self) -> None:
        """Keep the beats observed last for good; what :meth:`forget` would need is let go of."""
        self._written_over = None

    def forget(self) -> None:
        """Go back to before the beats that were observed last, unless they were kept or forgotten already."""
        if self._written_over is not None:
            _put_back(*self._memory, *self._written_over)
            self._written_over = None

    def take(self, kept: _Kept, compared: _Compared, rhythm: NDArray[np.float32], written_over: _Kept) -> None:
        """Compare beats with those before, and remember them: a step of :func:`observe`.

        Parameters
        ----------
        kept : _Kept
            Of the beats.
        compared : _Compared
            Filled in.
        rhythm : ndarray of float32, shape (n, 3)
            Filled in: own log RR, ``spread``, ``jump``; NaN where not known.
        written_over : _Kept
            Filled in: what was remembered where each of the beats is now.  A copy of all would be made, and be in the way,
            for every beat.
        """
        self._written_over = written_over
        _compare(
            *self._memory, *kept, *written_over,
            compared.known, compared.apart, compared.spans, compared.intervals, rhythm,
        )  # fmt: skip


class _Kept(NamedTuple):
    """What a history keeps of beats, as contiguous arrays: a loop is compiled anew for every layout that it is given."""

    rr: NDArray[np.float32]
    span: NDArray[np.float32]
    """Shape (n, leads)."""
    shapes: NDArray[np.uint16]
    """Bits of float16, shape (n, leads, ticks)."""

    @classmethod
    def empty(cls, n: int, leads: int) -> Self:
        return cls(
            np.empty(n, np.float32), np.empty((n, leads), np.float32), np.empty((n, leads, len(_KEPT)), np.uint16)
        )

    def rows(self) -> list[bytes]:
        """Give what a store keeps of each beat."""
        rows = np.empty(len(self.rr), row_type(self.span.shape[1]))
        rows["rr"], rows["span"], rows["shape"] = self.rr, self.span, self.shapes.view("<f2")
        stored, size = rows.tobytes(), rows.itemsize
        return [stored[at : at + size] for at in range(0, len(stored), size)]

    def of(self, part: slice) -> Self:
        """Give the part that some beats have, as views."""
        return type(self)(self.rr[part], self.span[part], self.shapes[part])


class _Compared(NamedTuple):
    """What beats are to be ranked among; NaN where no beat was, which comes last in any order."""

    known: NDArray[np.int64]
    """Beats before each that it was compared with, shape (n,)."""
    apart: NDArray[np.float32]
    """Squared distances of QRS complex and P wave to those before, summed over ticks, shape (n, leads, 2, BEATS)."""
    spans: NDArray[np.float32]
    """Of the beats before, shape (n, leads, BEATS)."""
    intervals: NDArray[np.float32]
    """Log RR intervals before, shape (n, INTERVALS)."""

    @classmethod
    def empty(cls, n: int, leads: int) -> Self:
        return cls(
            np.empty(n, np.int64),
            np.empty((n, leads, 2, BEATS), np.float32),
            np.empty((n, leads, BEATS), np.float32),
            np.empty((n, INTERVALS), np.float32),
        )

    def of(self, part: slice) -> Self:
        """Give the part that some beats have, as views."""
        return type(self)(self.known[part], self.apart[part], self.spans[part], self.intervals[part])


def observe(
    histories: Sequence[History],
    counts: Sequence[int],
    windows_mv: Sequence[NDArray[np.float32]],
    error: NDArray[np.float32],
    squared_error: Sequence[NDArray[np.floating[Any]]],
    rr: NDArray[np.float32],
    rr_ratio: NDArray[np.float32],
) -> tuple[Evidence, list[bytes]]:
    """Take the next beats of some streams, each stream's in order, one stream after the other.

    Parameters
    ----------
    histories : sequence of History
        One for each stream, all of the same number of leads.
    counts : sequence of int
        Beats of each stream, ``n`` in all.
    windows_mv : sequence of ndarray of float32, each of shape (beats, leads, 320)
        Filtered windows in mV, in the parts that they came in: to join them would take longer than to look at them.
    error : ndarray of float32, shape (n,)
        A(x), of the first lead; NaN where a beat could not be scored.
    squared_error : sequence of ndarray of float16 or float32, each of shape (beats, 320)
        Squared difference of window and reconstruction at each tick of the first lead, in the same parts or others.
    rr : ndarray of float32, shape (n,)
        RR interval to the beat before, in seconds; NaN where not known.
    rr_ratio : ndarray of float32, shape (n,)
        ``rr`` over the mean of the intervals before it; NaN where not known.

    Returns
    -------
    evidence : Evidence
        Of each beat, as it was known when that beat came.
    rows : list of bytes
        What a store has to keep of each, to :meth:`History.restore` from the last ``BEATS``.

    Raises
    ------
    EvidenceError
        If the windows have fewer leads than the histories, the histories not all as many, or the arrays do not have one
        entry a beat.

    Notes
    -----
    The evidence of a beat is the same to the last bit however many beats, of however many streams, are taken at a time.
    """
    leads, n = histories[0].leads, sum(counts)
    if any(history.leads != leads for history in histories):
        raise EvidenceError(
            "histories of one lead and of two were to be observed together; expected as many leads in all"
        )
    for each in windows_mv:
        if each.ndim != 3 or each.shape[1] < leads or each.shape[2] != windows.LENGTH:  # noqa: PLR2004 - beats, leads, ticks
            raise EvidenceError(
                f"windows of shape {each.shape} do not fit a history of {leads} lead(s); "
                f"expected (beats, {leads}, {windows.LENGTH})"
            )
    beats, ticks = sum(map(len, windows_mv)), sum(map(len, squared_error))
    if not beats == len(error) == ticks == len(rr) == len(rr_ratio) == n:
        raise EvidenceError(
            f"{beats} windows came with {len(error)} errors, {ticks} errors per tick, {len(rr)} "
            f"intervals and {len(rr_ratio)} ratios for {n} beats; expected as many of each"
        )
    kept, outline = _seen(windows_mv, n, leads, rr)
    rhythm = np.empty((n, 3), np.float32)
    features = np.full((n, len(NAMES)), np.nan, np.float32)
    features[:, :2] = error_features(error, np.concatenate([part[:, ERROR_TICKS] for part in squared_error]))
    features[:, 2] = -log(rr_ratio)
    features[:, 3] = -log(rr)
    compared = _Compared.empty(n, leads)
    written_over = _Kept.empty(n, leads)
    first = 0
    for history, count in zip(histories, counts, strict=True):
        if count:
            part = slice(first, first + count)
            history.take(kept.of(part), compared.of(part), rhythm[part], written_over.of(part))
            first = part.stop
    features[:, _RHYTHM] = _late(compared.intervals, rhythm[:, 0])
    features[:, _RHYTHM + 1 : _RHYTHM + 3] = rhythm[:, 1:]
    features[:, _OWN : _OWN + 2 * leads] = _own(compared, kept.span).reshape(n, 2 * leads)
    return Evidence(features, outline), kept.rows()


def _seen(
    windows_mv: Sequence[NDArray[np.float32]], n: int, leads: int, rr: NDArray[np.float32]
) -> tuple[_Kept, NDArray[np.float32]]:
    """Take from ``n`` windows what is kept of them, and their outlines."""
    span = np.empty((n, leads), np.float32)
    shapes = np.empty((n, leads, len(_KEPT)), np.float32)
    outline = np.empty((n, OUTLINE), np.float32)
    first = 0
    for part in windows_mv:
        if len(part):
            given = np.ascontiguousarray(part, np.float32).view()
            given.flags.writeable = False  # as in a message: a loop is compiled anew for every kind of array
            _look(given, first, span, shapes, outline)
            first += len(part)
    kept = _Kept(np.ascontiguousarray(rr, np.float32), span, shapes.astype("<f2").view("<u2"))
    return kept, outline


def _ranked(values: NDArray[np.float32], rank: NDArray[np.int64]) -> NDArray[np.float32]:
    """Find the value of each row, shape (..., m), that ``rank`` others come before; NaN comes last.  Sorts in place."""
    values.sort(axis=-1)
    return np.take_along_axis(values, rank[..., None], axis=-1)[..., 0]


def _late(intervals: NDArray[np.float32], own: NDArray[np.float32]) -> NDArray[np.float32]:
    """Find ``late_run`` from the log RR intervals before each beat and its own."""
    known = INTERVALS - np.isnan(intervals).sum(axis=1)
    late = _ranked(intervals, np.rint(0.9 * (known - 1)).astype(np.int64).clip(0)) - own
    late[known < LEAST_INTERVALS] = np.nan
    return late


def _own(compared: _Compared, span: NDArray[np.float32]) -> NDArray[np.float32]:
    """Find ``own_qrs`` and ``own_p`` of every lead, shape (n, leads, 2)."""
    leads = span.shape[1]
    known = compared.known[:, None]
    usual = _ranked(compared.spans, np.repeat(known // 2, leads, axis=1))
    apart = _ranked(compared.apart, np.broadcast_to((known * PERCENTILE // 100)[..., None], (len(known), leads, 2)))
    told = (known >= LEAST_BEATS) & (usual > _FLAT) & (span > _FLAT)  # another lead shows nothing
    scale = np.square(np.divide(np.float32(2), usual, out=np.full_like(usual, np.nan), where=told))
    return log(apart / _TICKS * scale[..., None] + _LEAST_DISTANCE)


@compiled
def _look(
    windows_mv: NDArray[np.float32],
    first: int,
    span: NDArray[np.float32],
    shapes: NDArray[np.float32],
    outline: NDArray[np.float32],
) -> None:
    """Look at windows once: range and kept ticks of every lead, the outline of the first one, from row ``first`` on.

    A NaN makes the range and what it touches NaN.  The outline is that of :func:`ecgmon.models.windows.scale`, to the same bits.
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
    counts: NDArray[np.int64],
    rr_before: NDArray[np.float32],
    spans_before: NDArray[np.float32],
    ring: NDArray[np.uint16],
    rr: NDArray[np.float32],
    span: NDArray[np.float32],
    shapes: NDArray[np.uint16],
    rr_over: NDArray[np.float32],
    span_over: NDArray[np.float32],
    shapes_over: NDArray[np.uint16],
    known: NDArray[np.int64],
    apart: NDArray[np.float32],
    spans: NDArray[np.float32],
    intervals: NDArray[np.float32],
    rhythm: NDArray[np.float32],
) -> None:
    """Measure how far each beat is from those before, then remember it: see :meth:`History.take`."""
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
def _put_back(
    counts: NDArray[np.int64],
    rr_before: NDArray[np.float32],
    spans_before: NDArray[np.float32],
    ring: NDArray[np.uint16],
    rr_over: NDArray[np.float32],
    span_over: NDArray[np.float32],
    shapes_over: NDArray[np.uint16],
) -> None:
    """Undo what :func:`_compare` did to a memory."""
    leads, ticks, beats = ring.shape
    for k in range(rr_over.size - 1, -1, -1):
        counts[0] -= 1
        now = counts[0] % beats
        rr_before[now] = rr_over[k]
        for lead in range(leads):
            spans_before[lead, now] = span_over[k, lead]
            for tick in range(ticks):
                ring[lead, tick, now] = shapes_over[k, lead, tick]


def warm_up() -> None:
    """Have what is compiled ready before the first beat comes: the first time on a machine that takes seconds."""
    one = np.zeros(1, np.float32)
    history = History(1)
    history.observe(
        np.zeros((1, 1, windows.LENGTH), np.float32), one, np.zeros((1, windows.LENGTH), np.float16), one + 1, one + 1
    )
    history.forget()
