"""Explain a beat: the signal around it, and the places in its window where the reconstruction differs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ecgmon.models.inference.ticks import relative
from ecgmon.models.windows import BEFORE, FS
from ecgmon.pipelines.items import Quality
from ecgmon.pipelines.offline.pictures import Beat, Strip
from ecgmon.pipelines.offline.record import score_record
from ecgmon.pipelines.sources.errors import RangeError
from ecgmon.pipelines.sources.record import format_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ecgmon.models.inference.reconstruction import Scorer
    from ecgmon.pipelines.offline.record import ScoredRecord
    from ecgmon.pipelines.segmentation.segmenter import SegmentSettings
    from ecgmon.pipelines.sources.record import RecordSource

STRIP_SECONDS: Final = 5.0
"""Length of the signal before and after an explained beat, in seconds."""

NEAREST_SECONDS: Final = 2.0
"""Largest distance between the requested time and the R peak of the explained beat, in seconds."""

_LOOK_AHEAD_SECONDS: Final = 4.0  # signal needed after a beat at most: search-back, window and filter


@dataclass(frozen=True, slots=True)
class Explanation:
    """One beat, its reconstruction, and the signal around it.

    Attributes
    ----------
    stream : str
    lead : str
    fs : float
        Sampling frequency of ``signal`` in Hz.
    start : float
        Time of the first sample of ``signal`` in the record, in s.
    signal : ndarray of float32, shape (samples,)
        Lead of the window around the beat, as recorded, in mV.
    beat_seconds : ndarray of float64, shape (beats,)
        R peaks in ``signal``, as times in the record.
    beat_scores : ndarray of float32, shape (beats,)
    seq : int
        Number of the explained beat in the stream.
    seconds : float
        Its R peak, as a time in the record.
    score, ax, rr, rr_ratio : float
        As in :meth:`ecgmon.pipelines.offline.record.ScoredRecord.table`.
    quality : Quality
    window, reconstruction : ndarray of float32, shape (LENGTH,)
        Input and output of the generator, both in mV (filtered, without offset).
    ticks : ndarray of float32, shape (LENGTH,)
        Squared difference of both per tick, with the window scaled to [-1, 1]; the mean is ``ax``.
    relative_error : ndarray of float32, shape (LENGTH,)
        Error around each tick, as a multiple of the usual error at this tick:
        :func:`ecgmon.models.inference.ticks.relative`.
    """

    stream: str
    lead: str
    fs: float
    start: float
    signal: NDArray[np.float32]
    beat_seconds: NDArray[np.float64]
    beat_scores: NDArray[np.float32]
    seq: int
    seconds: float
    score: float
    ax: float
    rr: float
    rr_ratio: float
    quality: Quality
    window: NDArray[np.float32]
    reconstruction: NDArray[np.float32]
    ticks: NDArray[np.float32]
    relative_error: NDArray[np.float32]

    @property
    def largest_error_seconds(self) -> float | None:
        """Time at which ``relative_error`` is largest, in s from the R peak; None if the beat could not be scored."""
        if not np.isfinite(self.relative_error).all():
            return None
        return (int(self.relative_error.argmax()) - BEFORE) / FS

    @property
    def drawn(self) -> tuple[Strip, Beat]:
        """The parts that :func:`ecgmon.pipelines.offline.pictures.strip_figure` draws."""
        strip = Strip(
            stream=self.stream, lead=self.lead, fs=self.fs, start=self.start, signal=self.signal,
            beat_seconds=self.beat_seconds, beat_scores=self.beat_scores,
        )  # fmt: skip
        beat = Beat(
            seq=self.seq, seconds=self.seconds, score=self.score, ax=self.ax, rr=self.rr, rr_ratio=self.rr_ratio,
            window=self.window, reconstruction=self.reconstruction, relative_error=self.relative_error,
        )  # fmt: skip
        return strip, beat


def explain_beat(
    source: RecordSource,
    scorer: Scorer,
    at: float,
    *,
    settings: SegmentSettings | None = None,
    progress: Callable[[int], None] | None = None,
) -> Explanation:
    """Explain the beat nearest to a time.

    The record is segmented from its beginning, so the beat and its score are the same as in the daemon.

    Parameters
    ----------
    source : RecordSource
    scorer : ecgmon.models.inference.reconstruction.Scorer
    at : float
        Time in the record, in s.
    settings, progress
        As in :func:`ecgmon.pipelines.offline.record.score_record`.

    Raises
    ------
    RangeError
        If the time is outside the source or no beat lies within :data:`NEAREST_SECONDS` of it.
    """
    first_second = source.first / source.fs
    last_second = source.stop / source.fs
    if not first_second <= at < last_second:
        raise RangeError(
            f"{source.stream}: {format_time(at)} is outside the record; expected {format_time(first_second)} to {format_time(last_second)}"
        )
    until = round((at + STRIP_SECONDS + _LOOK_AHEAD_SECONDS) * source.fs) - source.first
    scored = score_record(
        source,
        scorer,
        settings=settings,
        until=until if until < source.stop - source.first else None,
        keep_windows=True,
        progress=progress,
    )
    beat_seconds = scored.seconds
    distance = np.abs(beat_seconds - at)
    if not distance.size or distance.min() > NEAREST_SECONDS:
        raise RangeError(
            f"{source.stream}: no beat within {NEAREST_SECONDS:g} s of {format_time(at)}; "
            + (
                f"the nearest is at {format_time(float(beat_seconds[distance.argmin()]))}"
                if distance.size
                else "none was found"
            )
        )
    return explanation_of(source, scored, scorer, int(distance.argmin()))


def explanation_of(source: RecordSource, scored: ScoredRecord, scorer: Scorer, index: int) -> Explanation:
    """Explain a beat of a scored record.

    Parameters
    ----------
    source : RecordSource
        The record.
    scored : ScoredRecord
        The scored record, with its windows.
    scorer : ecgmon.models.inference.reconstruction.Scorer
        The scorer that was used.
    index : int
        Index of the beat in ``scored``.
    """
    beat_seconds = scored.seconds
    seconds = float(beat_seconds[index])
    begin = round((seconds - STRIP_SECONDS) * source.fs) - source.first
    signal = source.read(begin, begin + round(2 * STRIP_SECONDS * source.fs))[:, source.leads.index(scored.lead)]
    start = (max(begin, 0) + source.first) / source.fs
    shown = (beat_seconds >= start) & (beat_seconds < start + len(signal) / source.fs)
    window = scored.windows[index : index + 1, : scorer.info.leads]
    scaled, reconstruction = scorer.reconstruct(window)
    ticks = np.square(scaled - reconstruction).mean(axis=1)
    beat = scored.beats[index]
    return Explanation(
        stream=scored.stream,
        lead=scored.lead,
        fs=scored.fs,
        start=start,
        signal=signal,
        beat_seconds=beat_seconds[shown],
        beat_scores=scored.score[shown],
        seq=int(beat["seq"]),
        seconds=seconds,
        score=float(scored.score[index]),
        ax=float(scored.ax[index]),
        rr=float(beat["rr"]),
        rr_ratio=float(beat["rr_ratio"]),
        quality=Quality(int(beat["quality"])),
        window=window[0, 0],
        reconstruction=unscale(reconstruction[0, 0], window[0, 0]),
        ticks=ticks[0],
        relative_error=relative(ticks, scorer.info.usual)[0],
    )


def unscale(scaled: NDArray[np.float32], window: NDArray[np.float32]) -> NDArray[np.float32]:
    """Undo :func:`ecgmon.models.windows.scale`, to show a reconstruction in mV.

    Parameters
    ----------
    scaled : ndarray of float32, shape (LENGTH,)
        In [-1, 1].
    window : ndarray of float32, shape (LENGTH,)
        The window in mV; its minimum and maximum were scaled to -1 and 1.

    Returns
    -------
    ndarray of float32, shape (LENGTH,)
        In mV.
    """
    low, high = window.min(), window.max()
    in_mv: NDArray[np.float32] = low + (scaled + np.float32(1)) * ((high - low) / np.float32(2))
    return in_mv
