"""Cut a stream of samples into beats and seconds, as the samples arrive.

The stages: choose the leads, hold missing samples, bring everything to 360 Hz
(:mod:`pipelines.resampling`), find the beats (:mod:`pipelines.qrs`), judge the signal
(:mod:`pipelines.quality`), cut and filter the windows (:mod:`models.windows`).

Every stage depends on the samples alone, not on how they were cut into chunks: the items are the same, bit for
bit, in chunks of one sample and of a million.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
import numpy as np

from models.compiled import Record, compiled
from models.windows import FS, LENGTH, PREFERRED_LEADS, RAW_AFTER, RAW_BEFORE, RAW_LENGTH, taps
from pipelines import qrs, quality
from pipelines.items import ITEM, Items, Kind
from pipelines.qrs import QrsSettings
from pipelines.resampling import Resampler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LOWEST_FS: Final = 100.0
"""Least sampling frequency in Hz; below, the windows' 45 Hz would be lost."""

HIGHEST_FS: Final = 1000.0
"""Highest sampling frequency in Hz."""

MOST_LEADS: Final = 2
"""Most leads of a stream that beats are looked for and windows cut in."""

SECOND_LOOK_AHEAD: Final = FS
"""Samples at 360 Hz from the end of a second to its item: the beats of that second normally come first."""

FLUSH_SECONDS: Final = 4
"""Seconds for which the last value is held at the end, so that what was seen is also decided."""

NEVER: Final = 2**62

LARGEST: Final = 1e9
"""Sample values beyond this, in any unit, are taken for missing; sums over them could overflow."""

LONGEST_RUN: Final = 9000
"""Samples without change that are counted at most, so that the count of a lead that stays off fits 16 bits at 360 Hz."""

RR_REMEMBERED: Final = 8
RR_NEEDED: Final = 4
"""RR intervals that the recent rhythm is the mean of, and how many of them have to be known."""

HISTORY: Final = qrs.HISTORY + RAW_BEFORE
WAITING: Final = 32
"""Beats that may wait for the end of their windows from one call to the next; in the 0.8 s of it there are no more than 4."""

SECONDS_REMEMBERED: Final = 32
"""Seconds whose noise is kept; a block has 23, and the detector may be behind the seconds or before them."""

_MAGIC: Final = b"ecgmon segmenter 5\n"
_CHECK: Final = struct.Struct("<II")  # CRC-32 of all that follows, length of the header


class SegmentationError(ValueError):
    """A stream cannot be segmented as asked, or a snapshot is not one of a segmenter."""


class SegmentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of a segmenter.

    Attributes
    ----------
    qrs : QrsSettings
        Figures of the beat detector.
    """

    qrs: QrsSettings = QrsSettings()


DEFAULT_SETTINGS: Final = SegmentSettings()


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a snapshot was taken of."""

    fs: float
    leads: list[str]
    settings: SegmentSettings


_STATE: Final = np.dtype(
    [
        ("samples", "i8"),  # taken, in the stream's own rate
        ("received", "i8"),  # samples at 360 Hz
        ("pending", "i8"),  # detections that wait
        ("beats", "i8"),
        ("seconds", "i8"),
        ("last_beat", "i8"),  # R peak at 360 Hz
        ("intervals", "i8"),  # known RR intervals
        ("finished", "u1"),
    ]
)


@compiled
def _hold(
    samples: NDArray[np.float32],
    columns: NDArray[np.int64],
    last: NDArray[np.float32],
    run: NDArray[np.int64],
    signal: NDArray[np.float32],
    marks: NDArray[np.int32],
) -> None:
    """Pick leads, hold the last value over missing samples, and mark per sample: missing, samples without change."""
    leads = columns.size
    for lead in range(leads):
        column, held, unchanged = columns[lead], last[lead], run[lead]
        for i in range(samples.shape[0]):
            value = samples[i, column]
            missing = not abs(value) <= LARGEST  # also true of NaN
            # Choices between two values compile without a jump: whether a sample repeats can not be predicted
            value = held if missing or value == held else value
            unchanged = min(unchanged + 1, LONGEST_RUN) if value == held else 0
            held = value
            signal[lead, i] = held
            marks[lead, i] = missing
            marks[leads + lead, i] = unchanged
        last[lead], run[lead] = held, unchanged


@compiled
def _emit(
    states: Record,
    ranges: Record,
    pending: Record,
    noise: Record,
    intervals: NDArray[np.float64],
    signals: NDArray[np.float32],
    unchanged: NDArray[np.int16],
    window_taps: NDArray[np.float32],
    up: int,
    down: int,
    half: int,
    limit: int,
    ending: bool,  # noqa: FBT001 - compiled functions take no keyword-only arguments
    table: Record,
    windows: NDArray[np.float32],
) -> tuple[int, int]:
    """Write the items that the first ``limit`` samples at 360 Hz determine, in order; return how many, and the beats.

    Where the stream is ``ending``, nothing waits for its look-ahead; what follows ``limit`` is a value that is held.
    """
    state = states[0]  # arrays of one go into a compiled function four times as fast as their records
    seen = ranges[0]
    signal = signals[0]  # the lead that is judged and scored; another is cut along
    base = state.received - signal.size
    items = 0
    beats = 0
    taken = 0
    before = 0  # R peak of the window before
    while True:
        if taken < state.pending and pending[taken].sample < 0:
            taken += 1  # the stream began in the middle of this beat: its R peak was not recorded
            continue
        second_ready = (state.seconds + 1) * FS - 1 + SECOND_LOOK_AHEAD
        beat_ready = NEVER
        if taken < state.pending:
            beat_ready = max(pending[taken].ready, pending[taken].sample + RAW_AFTER - 1)
        if ending:
            if (state.seconds + 1) * FS > limit:
                second_ready = NEVER
            if taken < state.pending and pending[taken].sample + qrs.REFINE >= limit:
                taken += 1  # its R peak may be still to come, in what was not recorded
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
            # Where two windows overlap they have the same values, for each depends on the signal around it alone
            shared = max(0, before + LENGTH - peak) if beats and peak > before else 0
            for lead in range(signals.shape[0]):
                for i in range(shared):
                    windows[beats, lead, i] = windows[beats - 1, lead, LENGTH - shared + i]
                qrs.correlate(signals[lead, first + shared : last], window_taps, windows[beats, lead, shared:])
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
def _cut(
    fresh: NDArray[np.float32],
    marks: NDArray[np.int32],
    up: int,
    down: int,
    half: int,
    end: int,
    window_taps: NDArray[np.float32],
    qrs_taps: NDArray[np.float32],
    settings: Record,
    states: Record,
    ranges: Record,
    signal: NDArray[np.float32],
    unchanged: NDArray[np.int16],
    waiting: Record,
    noise: Record,
    intervals: NDArray[np.float64],
    qrs_states: Record,
    envelope: NDArray[np.float32],
    dead: NDArray[np.uint8],
    qrs_level: NDArray[np.float64],
    qrs_noise: NDArray[np.float64],
    qrs_heights: NDArray[np.float64],
    qrs_intervals: NDArray[np.float64],
    qrs_candidates: Record,
) -> tuple[Record, NDArray[np.float32]]:
    """Take the next samples at 360 Hz through all stages, and give the items and their windows.

    One call, because a chunk of a quarter of a second is worked on in less time than it takes to call five functions.

    Parameters
    ----------
    fresh : ndarray of float32, shape (leads, n)
    marks : ndarray of int32, shape (2 * leads, n)
        Of each lead whether a sample is missing, then of each lead for how many samples it has been the same.
    end : int
        Samples at 360 Hz in the stream, where it is at its end and what follows is a value that is held; else -1.
    """
    leads, n = fresh.shape
    state = states[0]
    if state.received == 0 and n:
        for lead in range(leads):
            signal[lead, :] = fresh[lead, 0]
    state.received += n
    whole = qrs.extend(signal, fresh)
    newest = np.empty((1, n), np.int16)
    for i in range(n):
        run = marks[leads, i]
        newest[0, i] = ~run if marks[0, i] else run
    whole_unchanged = qrs.extend(unchanged, newest)
    detections, seconds = qrs.detect(
        settings,
        qrs_states,
        whole,
        marks[leads:],
        qrs_taps,
        envelope,
        dead,
        qrs_level,
        qrs_noise,
        qrs_heights,
        qrs_intervals,
        qrs_candidates,
    )
    pending = np.empty(state.pending + detections.size, waiting.dtype)
    for i in range(state.pending):
        pending[i] = waiting[i]
    for i in range(detections.size):
        pending[state.pending + i] = detections[i]
    state.pending = pending.size
    for i in range(seconds.size):
        noise[seconds[i].second % noise.size] = seconds[i]
    table = np.empty(n // FS + state.pending + 2 + FLUSH_SECONDS, ITEM)
    windows = np.empty((state.pending, leads, LENGTH), np.float32)
    items, beats = _emit(
        states,
        ranges,
        pending,
        noise,
        intervals,
        whole,
        whole_unchanged[0],
        window_taps,
        up,
        down,
        half,
        end if end >= 0 else state.received,
        end >= 0,
        table,
        windows,
    )
    qrs.remember(whole, signal)
    qrs.remember(whole_unchanged, unchanged)
    for i in range(state.pending):
        waiting[i] = pending[i]
    return table[:items].copy(), windows[:beats].copy()  # without the room that was left


class Segmenter:
    """Segment one stream: push samples, get items.

    Parameters
    ----------
    fs : float
        Sampling frequency in Hz, from :data:`LOWEST_FS` to :data:`HIGHEST_FS`; it may be fractional.
    leads : sequence of str
        Names of the stream's leads, in the order of its columns.
    settings : SegmentSettings
        Figures of the methods.

    Attributes
    ----------
    lead : str
        The lead that is scored, the first of each window: MLII, else II, else the stream's first.
    leads : tuple of str
        The leads of each window: ``lead`` and, where the stream has one, a second.
    substituted : bool
        True where ``lead`` is neither MLII nor II: the model has not learnt such a lead.

    Raises
    ------
    SegmentationError
        If the rate is out of range or there is no lead.

    Notes
    -----
    *When an item is there.*  ``ready`` names the last input sample that an item depends on.  A beat has to wait for
    its window, 0.8 s after its R peak with the filter's margin, and for its detection, about 0.7 s; beats found by
    searching back come later.  A second comes 1 s after its end.  Resampling adds its filter's half length.

    *Missing samples.*  NaN, infinities and absurd values are replaced by the value before them; what they touch is
    marked :attr:`~pipelines.items.Quality.MISSING`.

    *The ends.*  Before its first sample the stream is taken to have had that sample's value, so that early beats have
    windows too.  Where a stream ends within a window, its last value is held, and the beat's quality says that
    samples are missing.
    """

    def __init__(self, fs: float, leads: Sequence[str], *, settings: SegmentSettings = DEFAULT_SETTINGS) -> None:
        if not LOWEST_FS <= fs <= HIGHEST_FS:
            raise SegmentationError(
                f"sampling frequency {fs} Hz is outside {LOWEST_FS:g} to {HIGHEST_FS:g} Hz; resample the source first"
            )
        if not leads:
            raise SegmentationError("the stream has no leads; at least one is needed")
        self._header = _Header(float(fs), list(leads), settings)
        preferred = [lead for lead in PREFERRED_LEADS if lead in leads]
        self.lead = preferred[0] if preferred else leads[0]
        self.substituted = not preferred
        first = list(leads).index(self.lead)
        others = [column for column in range(len(leads)) if column != first]
        self._columns = np.array([first, *others][:MOST_LEADS], np.int64)
        self.leads = tuple(leads[column] for column in self._columns)
        count = len(self._columns)
        self._resampler = Resampler(fs, count, 2 * count)
        self._settings = qrs.settings_array(settings.qrs)
        self._held: dict[str, NDArray[Any]] = {"last": np.zeros(count, np.float32), "run": np.zeros(count, np.int64)}
        self._arrays: dict[str, NDArray[Any]] = {
            "state": np.zeros(1, _STATE),
            "seen": np.zeros(1, quality.RANGE),
            "signal": np.zeros((count, HISTORY), np.float32),
            "unchanged": np.zeros((1, HISTORY), np.int16),
            "waiting": np.zeros(WAITING, qrs.DETECTION),
            "noise": np.zeros(SECONDS_REMEMBERED, qrs.NOISE),
            "intervals": np.zeros(RR_REMEMBERED),
            **qrs.remembered(count, HISTORY),
        }
        self._nothing = Items.empty(count)
        up, down = self._resampler.up, self._resampler.down
        self._block = max(1, qrs.BLOCK * down // up)  # input samples that make at most a block at 360 Hz

    def push(self, samples: NDArray[np.float32]) -> Items:
        """Take the next samples and give the items that they determine.

        Parameters
        ----------
        samples : ndarray of float32, shape (n, leads)
            In mV; NaN where a sample is missing; ``n >= 0``.

        Returns
        -------
        Items
            In the order of their ``ready``, which is below the number of samples pushed so far.

        Raises
        ------
        SegmentationError
            If the shape is wrong or the stream was finished.
        """
        leads = len(self._header.leads)
        if samples.ndim != 2 or samples.shape[1] != leads:  # noqa: PLR2004 - samples by leads
            raise SegmentationError(f"samples have shape {samples.shape}; this stream needs (n, {leads})")
        if self._arrays["state"]["finished"][0]:
            raise SegmentationError("the stream was finished; start a new segmenter for more samples")
        samples = np.asarray(samples, np.float32)
        parts = [
            self._take(samples[start : start + self._block], ending=False)
            for start in range(0, len(samples), self._block)
        ]
        return Items.concatenate(parts) if parts else Items.empty(len(self.leads))

    def finish(self) -> Items:
        """Say what can still be said, and that the stream has ended.

        Returns
        -------
        Items
            The last one of kind END.

        Raises
        ------
        SegmentationError
            If the stream was finished before.
        """
        state = self._arrays["state"]
        if state["finished"][0]:
            raise SegmentationError("the stream was finished before; ask once")
        n = int(state["samples"][0])
        held = np.full((round(FLUSH_SECONDS * self._header.fs), len(self._header.leads)), np.nan, np.float32)
        rest = self._take(held, ending=True)
        state["samples"] = n
        state["finished"] = 1
        end = np.zeros(1, ITEM)
        end["kind"] = Kind.END
        end["seq"] = state["beats"]
        end["sample"] = n
        end["ready"] = n - 1
        end["rr"] = end["rr_ratio"] = np.nan
        return Items(np.concatenate((rest.table, end)), rest.windows)

    def _take(self, samples: NDArray[np.float32], *, ending: bool) -> Items:
        """Run at most one block through all stages."""
        state = self._arrays["state"]
        leads = len(self._columns)
        up, down = self._resampler.up, self._resampler.down
        before = int(state["samples"][0])
        state["samples"] += len(samples)
        held = np.empty((leads, len(samples)), np.float32)
        marks = np.empty((2 * leads, len(samples)), np.int32)
        _hold(samples, self._columns, self._held["last"], self._held["run"], held, marks)
        fresh, marks = self._resampler.push(held, marks)
        if up != down:
            marks[leads:] = marks[leads:].astype(np.int64) * up // down
        end = -(-before * up // down) if ending else -1
        table, windows = _cut(
            fresh,
            marks,
            up,
            down,
            self._resampler.half,
            end,
            taps(),
            qrs.gabor(),
            self._settings,
            *self._arrays.values(),
        )
        if not len(table):
            return self._nothing
        if ending:
            np.minimum(table["ready"], before - 1, out=table["ready"])
        return Items(table, windows)

    def _everything(self) -> list[NDArray[Any]]:
        """All arrays that a snapshot holds, in a fixed order."""
        return [*self._held.values(), *self._arrays.values(), *self._resampler.arrays.values()]

    def snapshot(self) -> bytes:
        """All that is needed to go on from here, in another process.

        Returns
        -------
        bytes
            Of a size that depends on the sampling frequency and the number of leads only, below 100 kB.
        """
        header = msgspec.msgpack.encode(self._header)
        body = header + b"".join(array.tobytes() for array in self._everything())
        length = struct.pack("<I", len(header))
        return _MAGIC + struct.pack("<I", zlib.crc32(length + body)) + length + body

    @classmethod
    def restore(cls, data: bytes) -> Self:
        """Go on from a snapshot.

        Parameters
        ----------
        data : bytes
            From :meth:`snapshot`.

        Returns
        -------
        Segmenter
            Gives the items that the one the snapshot was taken of would give.

        Raises
        ------
        SegmentationError
            If ``data`` is not a snapshot of this version, or was damaged.
        """
        start = len(_MAGIC) + _CHECK.size
        if data[: len(_MAGIC)] != _MAGIC or len(data) < start:
            raise SegmentationError(
                f"{len(data)} bytes that begin with {data[:20]!r} are not a segmenter's snapshot of this version; start the stream anew"
            )
        check, length = _CHECK.unpack_from(data, len(_MAGIC))
        if zlib.crc32(data[len(_MAGIC) + 4 :]) != check:
            raise SegmentationError("the segmenter's snapshot is damaged: its checksum is wrong; start the stream anew")
        try:
            header = msgspec.msgpack.decode(data[start : start + length], type=_Header)
        except msgspec.MsgspecError as error:
            raise SegmentationError(f"the segmenter's snapshot has an unreadable header: {error}") from error
        segmenter = cls(header.fs, header.leads, settings=header.settings)
        arrays = segmenter._everything()
        expected = sum(array.nbytes for array in arrays)
        at = start + length
        if len(data) - at != expected:
            raise SegmentationError(
                f"the segmenter's snapshot has {len(data) - at} bytes of state, expected {expected}"
            )
        for array in arrays:
            array[...] = np.frombuffer(data, array.dtype, array.size, at).reshape(array.shape)
            at += array.nbytes
        return segmenter
