"""The stages of a segmenter as compiled loops, and the one array of bytes that holds their state.

:mod:`ecgmon.pipelines.segmentation.segmenter` calls them.  The numpy twin of all of them together is in
``tests/pipelines/segmentation/reference.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import numpy as np

from ecgmon.models.kernels.compiled import Record, compiled
from ecgmon.models.kernels.correlation import correlate
from ecgmon.models.windows import FS, LENGTH, MOST_LEADS, RAW_AFTER, RAW_BEFORE, RAW_LENGTH
from ecgmon.pipelines.items import ITEM, Kind
from ecgmon.pipelines.limits import RR_NEEDED, RR_REMEMBERED
from ecgmon.pipelines.segmentation import qrs, quality

if TYPE_CHECKING:
    from numpy.typing import NDArray

SECOND_LOOK_AHEAD: Final = FS
"""Samples at 360 Hz from the end of a second to its item, so that the beats of that second normally precede it."""

FLUSH_SECONDS: Final = 4
"""Seconds for which the last value is held at the end, so that every candidate is judged."""

NEVER: Final = 2**62

LARGEST: Final = 1e9
"""Larger sample values, in any unit, count as missing: sums over them could overflow."""

LONGEST_RUN: Final = 9000
"""The count of samples without change stops here, so that at 360 Hz it fits 16 bits however long a lead is off."""

KEPT_STEP: Final = FS // 4
"""The length of the signal kept between calls is a multiple of this, so that its array is seldom replaced."""

MOST_KEPT: Final = 6 * FS
"""Most samples of signal kept between calls.

The detector waits for 2.4 s of signal to learn from, then searches 1.9 s back; a window begins 0.8 s before its R peak.
"""

WAITING: Final = 16
"""Room for beats that wait for the end of their windows between calls; at the shortest refractory time 6 can."""

SECONDS_REMEMBERED: Final = 32
"""Seconds whose noise is known in a call; a block has 23, and the detector may be behind the seconds or ahead of them."""

SECONDS_KEPT: Final = 4
"""Of those, the seconds kept between calls: the detector is at most two seconds ahead."""

STATE: Final = np.dtype(
    [
        ("received", "i8"),  # samples at 360 Hz
        ("pending", "i8"),  # detections that wait
        ("beats", "i8"),
        ("seconds", "i8"),
        ("last_beat", "i8"),  # R peak at 360 Hz
        ("intervals", "i8"),  # known RR intervals
    ]
)


class _Places:
    """Layout of all state of a fixed size in one array of bytes.

    A separate numpy array for each part would take more memory than most of the parts hold.
    """

    def __init__(self) -> None:
        self.size = 0

    def take(self, kind: np.dtype[Any], count: int) -> slice:
        """Return the next place; each begins at a multiple of eight bytes."""
        start, end = self.size, self.size + kind.itemsize * count
        self.size = -(-end // 8) * 8
        return slice(start, end)


_FLOAT: Final = np.dtype(np.float64)
_PLACES: Final = _Places()
_LAST: Final = _PLACES.take(np.dtype(np.float32), MOST_LEADS)
_RUN: Final = _PLACES.take(np.dtype(np.int64), MOST_LEADS)
OWN: Final = _PLACES.take(STATE, 1)
_SEEN: Final = _PLACES.take(quality.RANGE, 1)
_INTERVALS: Final = _PLACES.take(_FLOAT, RR_REMEMBERED)
_WAITING: Final = _PLACES.take(qrs.DETECTION, WAITING)
_NOISE: Final = _PLACES.take(qrs.NOISE, SECONDS_KEPT)
QRS: Final = _PLACES.take(qrs.STATE, 1)
_QRS_LEVEL: Final = _PLACES.take(_FLOAT, MOST_LEADS)
_QRS_NOISE: Final = _PLACES.take(_FLOAT, MOST_LEADS)
_QRS_HEIGHTS: Final = _PLACES.take(_FLOAT, MOST_LEADS * qrs.REMEMBERED)
QRS_INTERVALS: Final = _PLACES.take(_FLOAT, qrs.REMEMBERED)
_QRS_CANDIDATES: Final = _PLACES.take(qrs.CANDIDATE, qrs.CAPACITY)
ENVELOPE: Final = _PLACES.size
"""From here on: float32, shape (leads, qrs.ENVELOPE_KEPT)."""

Rate: TypeAlias = tuple[int, int, int]
"""``up``, ``down`` and ``half`` of :class:`ecgmon.pipelines.segmentation.resampling.Resampler`."""

Constants: TypeAlias = tuple["NDArray[np.float32]", "NDArray[np.float32]", Record]
"""Taps of the window filter, taps of the QRS filter, settings of the detector; the same for streams of one kind.

A plain tuple: a named one costs 1 us more in every call from Python.
"""


class _Memory(NamedTuple):
    """The state of a segmenter besides its samples, as views of one array of bytes."""

    states: Record
    """ndarray of STATE, shape (1,): an array of one enters a compiled function four times as fast as its record."""
    ranges: Record
    """ndarray of quality.RANGE, shape (1,)."""
    intervals: NDArray[np.float64]
    """The last RR intervals in seconds, shape (RR_REMEMBERED,): a ring."""
    waiting: Record
    """ndarray of qrs.DETECTION, shape (WAITING,): beats whose windows are not complete."""
    noise: Record
    """ndarray of qrs.NOISE, shape (SECONDS_KEPT,): a ring."""


class _Samples(NamedTuple):
    """The samples that a call works on, kept ones and new ones."""

    signals: NDArray[np.float32]
    """Shape (leads, n)."""
    unchanged: NDArray[np.int16]
    """Shape (n,), of the first lead: for how many samples its value is the same; inverted where a sample is missing."""


@compiled
def hold(
    samples: NDArray[np.float32],
    columns: NDArray[np.int64],
    fixed: NDArray[np.uint8],
    signal: NDArray[np.float32],
    marks: NDArray[np.int32],
) -> None:
    """Pick leads, hold the last value over missing samples, and mark per sample: missing, samples without change."""
    leads = columns.size
    last = fixed[_LAST].view(np.float32)
    run = fixed[_RUN].view(np.int64)
    for lead in range(leads):
        column, held, unchanged = columns[lead], last[lead], run[lead]
        for i in range(samples.shape[0]):
            value = samples[i, column]
            missing = not abs(value) <= LARGEST  # also true of NaN
            # Choices between two values compile without a jump: whether a sample repeats cannot be predicted
            value = held if missing or value == held else value
            unchanged = min(unchanged + 1, LONGEST_RUN) if value == held else 0
            held = value
            signal[lead, i] = held
            marks[lead, i] = missing
            marks[leads + lead, i] = unchanged
        last[lead], run[lead] = held, unchanged


@compiled
def _emit(
    memory: _Memory,
    samples: _Samples,
    pending: Record,
    noise: Record,
    window_taps: NDArray[np.float32],
    rate: Rate,
    limit: int,
    ending: bool,  # noqa: FBT001 - compiled functions take no keyword-only arguments
    table: Record,
    windows: NDArray[np.float32],
) -> tuple[int, int]:
    """Write the items that the first ``limit`` samples at 360 Hz determine, in order; return how many, and the beats.

    Where the stream is ``ending``, no item waits for its look-ahead: the samples after ``limit`` repeat the last value.
    """
    state = memory.states[0]
    seen = memory.ranges[0]
    intervals = memory.intervals
    signals, unchanged = samples
    up, down, half = rate
    signal = signals[0]  # the lead that is judged and scored; windows are cut from the other one too
    base = state.received - signal.size
    items = 0
    beats = 0
    taken = 0
    before = 0  # R peak of the window before
    while True:
        if taken < state.pending and pending[taken].sample < 0:
            taken += 1  # the stream began within this beat: its R peak was not recorded
            continue
        second_ready = (state.seconds + 1) * FS - 1 + SECOND_LOOK_AHEAD
        beat_ready = NEVER
        if taken < state.pending:
            beat_ready = max(pending[taken].ready, pending[taken].sample + RAW_AFTER - 1)
        if ending:
            if (state.seconds + 1) * FS > limit:
                second_ready = NEVER
            if taken < state.pending and pending[taken].sample + qrs.REFINE >= limit:
                taken += 1  # its R peak may lie after the end of the recording
                continue
        if min(beat_ready, second_ready) >= (NEVER if ending else limit):
            break
        item = table[items]
        items += 1
        item.flags = 0
        item.rr = np.nan
        item.rr_ratio = np.nan
        if beat_ready <= second_ready:
            beat = pending[taken]
            taken += 1
            peak = beat.sample
            first = peak - RAW_BEFORE - base
            last = first + RAW_LENGTH
            # Overlapping windows share their values: each value depends only on the signal around it
            shared = max(0, before + LENGTH - peak) if beats and peak > before else 0
            for lead in range(signals.shape[0]):
                for i in range(shared):
                    windows[beats, lead, i] = windows[beats - 1, lead, LENGTH - shared + i]
                correlate(signals[lead, first + shared : last], window_taps, windows[beats, lead, shared:])
            before = peak
            beats += 1
            if beat.restart:
                state.intervals = 0
            elif state.beats > 0:
                interval = (peak - state.last_beat) / FS
                known = min(state.intervals, RR_REMEMBERED)
                item.rr = interval
                if known >= RR_NEEDED:
                    item.rr_ratio = interval / intervals[:known].mean()
                intervals[state.intervals % RR_REMEMBERED] = interval
                state.intervals += 1
            item.kind = Kind.BEAT.value
            item.quality = quality.judge(seen, signal[first:last], unchanged[first:last], beat.noise)
            item.flags = beat.flags
            item.seq = state.beats
            item.sample = (2 * peak * down + up) // (2 * up)
            item.ready = beat_ready * down // up + half
            state.last_beat = peak
            state.beats += 1
        else:
            second = state.seconds
            first = second * FS - base
            stretch = signal[first : first + FS]
            heard = noise[second % noise.size]
            item.kind = Kind.SECOND.value
            item.quality = quality.judge(
                seen,
                stretch,
                unchanged[first : first + FS],
                heard.noise if heard.second == second and heard.ready <= second_ready else 0.0,
            )
            quality.remember(seen, stretch, item.quality)
            item.seq = second
            item.sample = -(-second * FS * down // up)
            item.ready = second_ready * down // up + half
            state.seconds += 1
    for i in range(taken, state.pending):
        pending[i - taken] = pending[i]
    state.pending -= taken
    return items, beats


@compiled
def _oldest(states: Record, pending: Record, settings: Record, qrs_states: Record, candidates: Record) -> int:
    """Return the first sample at 360 Hz that a later item may depend on, at least 0."""
    state = states[0]
    oldest: int = min(state.seconds * FS, qrs.looked_back_on(qrs_states))
    oldest = min(oldest, qrs.undecided(settings, qrs_states, candidates) - qrs.REFINE - RAW_BEFORE)
    for i in range(state.pending):
        oldest = min(oldest, pending[i].sample - RAW_BEFORE)
    return max(oldest, 0)


@compiled
def bytes_of_sample(leads: int) -> int:
    """Return the bytes that one kept sample of all leads takes: see :func:`parts`."""
    return 4 * leads + 3


@compiled
def parts(recent: NDArray[np.uint8], leads: int) -> tuple[NDArray[np.float32], NDArray[np.int16], NDArray[np.uint8]]:
    """Split the bytes of kept samples: values, shape (leads, h), unchanged, shape (1, h), and bits of dead leads, shape (h,)."""
    kept = recent.size // bytes_of_sample(leads)
    signal = recent[: 4 * leads * kept].view(np.float32).reshape((leads, kept))
    marks = recent[4 * leads * kept : (4 * leads + 2) * kept].view(np.int16).reshape((1, kept))
    return signal, marks, recent[(4 * leads + 2) * kept :]


@compiled
def cut(
    fresh: NDArray[np.float32],
    marks: NDArray[np.int32],
    rate: Rate,
    constants: Constants,
    end: int,
    fixed: NDArray[np.uint8],
    recent: NDArray[np.uint8],
) -> tuple[Record, NDArray[np.float32], NDArray[np.uint8]]:
    """Take the next samples at 360 Hz through all stages; return the items, their windows, and the new ``recent``.

    All stages are in one call, because a chunk of a quarter of a second takes less time than five calls from Python.

    Parameters
    ----------
    fresh : ndarray of float32, shape (leads, n)
    marks : ndarray of int32, shape (2 * leads, n)
        First, for each lead, whether a sample is missing; then, for each lead, for how many samples its value is the same.
    rate : Rate
    constants : Constants
    end : int
        Number of samples at 360 Hz in the stream if it has ended and the samples after that repeat the last value; else -1.
    fixed : ndarray of uint8
        State of a fixed size; updated.
    recent : ndarray of uint8
        The last samples: see :func:`parts`.
    """
    window_taps, qrs_taps, settings = constants
    leads, n = fresh.shape
    memory = _Memory(
        fixed[OWN].view(STATE),
        fixed[_SEEN].view(quality.RANGE),
        fixed[_INTERVALS].view(np.float64),
        fixed[_WAITING].view(qrs.DETECTION),
        fixed[_NOISE].view(qrs.NOISE),
    )
    detector = qrs.Memory(
        fixed[QRS].view(qrs.STATE),
        fixed[_QRS_CANDIDATES].view(qrs.CANDIDATE),
        fixed[_QRS_LEVEL].view(np.float64)[:leads],
        fixed[_QRS_NOISE].view(np.float64)[:leads],
        fixed[_QRS_HEIGHTS].view(np.float64)[: leads * qrs.REMEMBERED].reshape((leads, qrs.REMEMBERED)),
        fixed[QRS_INTERVALS].view(np.float64),
        fixed[ENVELOPE:].view(np.float32).reshape((leads, qrs.ENVELOPE_KEPT)),
    )
    waiting, heard = memory.waiting, memory.noise
    signal, unchanged, deaths = parts(recent, leads)
    kept = deaths.size
    state = memory.states[0]
    if state.received == 0 and n:
        for lead in range(leads):
            signal[lead, :] = fresh[lead, 0]
    # Before its first sample a stream has the value of that sample: this part is filled in instead of kept
    room = max(0, qrs.SIGNAL_KEPT + state.received - kept) if state.received <= kept else 0
    state.received += n
    whole = qrs.extend(signal, fresh, room)
    newest = np.empty((1, n), np.int16)
    for i in range(n):
        run = marks[leads, i]
        newest[0, i] = ~run if marks[0, i] else run
    whole_unchanged = qrs.extend(unchanged, newest, room)
    for lead in range(leads):
        whole[lead, :room] = signal[lead, 0]
    whole_unchanged[0, :room] = 0
    detections, seconds, dead = qrs.detect(settings, detector, whole, marks[leads:], qrs_taps, deaths)
    pending = np.empty(state.pending + detections.size, waiting.dtype)
    for i in range(state.pending):
        pending[i] = waiting[i]
    for i in range(detections.size):
        pending[state.pending + i] = detections[i]
    state.pending = pending.size
    noise = np.zeros(SECONDS_REMEMBERED, heard.dtype)
    for i in range(heard.size):
        if heard[i].ready > 0:  # else this place was never used
            noise[heard[i].second % noise.size] = heard[i]
    for i in range(seconds.size):
        noise[seconds[i].second % noise.size] = seconds[i]
        heard[seconds[i].second % heard.size] = seconds[i]
    table = np.empty(n // FS + state.pending + 2 + FLUSH_SECONDS, ITEM)
    windows = np.empty((state.pending, leads, LENGTH), np.float32)
    items, beats = _emit(
        memory,
        _Samples(whole, whole_unchanged[0]),
        pending,
        noise,
        window_taps,
        rate,
        end if end >= 0 else state.received,
        end >= 0,
        table,
        windows,
    )
    needed = state.received - _oldest(memory.states, pending, settings, detector.states, detector.candidates)
    needed = max(qrs.SIGNAL_KEPT, -(-needed // KEPT_STEP) * KEPT_STEP)
    if needed != kept:
        recent = np.empty(bytes_of_sample(leads) * needed, np.uint8)
        signal, unchanged, deaths = parts(recent, leads)
    qrs.remember(whole, signal)
    qrs.remember(whole_unchanged, unchanged)
    qrs.pack(dead, deaths)
    for i in range(state.pending):
        waiting[i] = pending[i]
    return table[:items].copy(), windows[:beats].copy(), recent  # copies free the unused end of both arrays
