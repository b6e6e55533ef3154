"""Score records offline: the daemon's segmenter and scorer, run over a record from its beginning.

Nothing here decides anything about a beat: what the daemon stores for a record equals what
:func:`score_record` returns for it, bit for bit.
"""

from __future__ import annotations

import csv
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ecgmon.models.inference.ticks import relative
from ecgmon.models.score.history import History
from ecgmon.models.windows import BEFORE, FS
from ecgmon.pipelines.items import Items, Kind, Quality
from ecgmon.pipelines.segmentation.rhythm import RHYTHM, around
from ecgmon.pipelines.segmentation.segmenter import Segmenter, SegmentSettings
from ecgmon.pipelines.sources.errors import RangeError, SourceError
from ecgmon.pipelines.sources.record import format_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ecgmon.models.inference.reconstruction import Scorer
    from ecgmon.pipelines.sources.record import RecordSource

CHUNK_SECONDS: Final = 60.0
"""Signal segmented and scored at a time, in seconds: enough beats to fill the scorer's tiles."""

ANNOTATOR: Final = "ecg"
"""Suffix of the annotation files written here."""

NORMAL_SYMBOL: Final = "N"
"""WFDB symbol of a beat that scores under the threshold: normal."""

ANOMALOUS_SYMBOL: Final = "Q"
"""WFDB symbol of a beat at or over the threshold: unclassifiable, since a score says how odd, not why."""

UNSCORED_SYMBOL: Final = "?"
"""WFDB symbol of a beat that could not be scored: not classified."""

STRIP_SECONDS: Final = 5.0
"""Signal on either side of an explained beat, in seconds."""

NEAREST_SECONDS: Final = 2.0
"""Farthest R peak from the time asked for that is still taken for the beat that was meant, in seconds."""

_LOOK_AHEAD_SECONDS: Final = 4.0  # longest wait for a beat: search-back, window and filter


class OutputError(Exception):
    """Results that cannot be written; the message says where and why."""


@dataclass(frozen=True, slots=True)
class ScoredRecord:
    """What was found in a record.

    Attributes
    ----------
    stream : str
    fs : float
        Sampling frequency in Hz.
    lead : str
        The lead that the windows are from.
    substituted : bool
        True where the lead is neither MLII nor II, which the model knows.
    first : int
        Sample of the record that is sample 0 of ``beats``.
    samples : int
        Samples that were read.
    beats : ndarray of ITEM, shape (n,)
        The beats, as the segmenter gave them.
    error : ndarray of float32, shape (n,)
        A(x); NaN where a beat could not be scored.
    score : ndarray of float32, shape (n,)
        Surprise; NaN where a beat could not be scored.
    windows : ndarray of float32, shape (n, 1, LENGTH)
        Filtered windows in mV; no rows unless they were asked for.
    seconds : dict from Quality to int
        Seconds of signal by quality.
    failure : SourceError or None
        Why the record ended before its end; what came before is here all the same.
    """

    stream: str
    fs: float
    lead: str
    substituted: bool
    first: int
    samples: int
    beats: NDArray[np.void]
    error: NDArray[np.float32]
    score: NDArray[np.float32]
    windows: NDArray[np.float32]
    seconds: dict[Quality, int]
    failure: SourceError | None

    def table(self, threshold: float) -> dict[str, NDArray[Any]]:
        """Columns of the results, in the order in which they are written.

        Parameters
        ----------
        threshold : float
            Score from which on a beat is called anomalous.

        Returns
        -------
        dict from str to ndarray, each of shape (n,)
            ============== ======= ================================================================
            seq            int64   number of the beat in the stream
            sample         int64   R peak as a sample index into the record
            seconds        float64 the same in seconds from the record's beginning
            rr             float32 RR interval to the beat before, in s; NaN where there is none
            rr_ratio       float32 ``rr`` over the mean of up to eight before; NaN until four are known
            rr_after       float32 RR interval to the beat after, in s; NaN where there is none
            rr_after_ratio float32 ``rr_after`` over the same mean; NaN as ``rr_ratio``
            rate           float32 local heart rate in beats/min: 60 over that mean
            quality        str     usable, noisy, saturated, flat or missing: the signal under the beat
            error          float32 A(x); NaN where the beat could not be scored
            score          float32 -log10 of the share of normal beats that look at least this odd
            anomalous      bool    score at or over the threshold
            ============== ======= ================================================================
        """
        sample = self.beats["sample"] + self.first
        rhythm = around(sample / self.fs, self.beats["rr"], self.beats["rr_ratio"])
        return {
            "seq": self.beats["seq"].astype(np.int64),
            "sample": sample,
            "seconds": sample / self.fs,
            "rr": self.beats["rr"],
            "rr_ratio": self.beats["rr_ratio"],
            **{name: rhythm[name] for name in RHYTHM.names or ()},
            "quality": np.array([Quality(quality).name.lower() for quality in self.beats["quality"]], np.str_),
            "error": self.error,
            "score": self.score,
            "anomalous": self.score >= threshold,
        }


def score_record(
    source: RecordSource,
    scorer: Scorer,
    *,
    settings: SegmentSettings | None = None,
    until: int | None = None,
    keep_windows: bool = False,
    progress: Callable[[int], None] | None = None,
) -> ScoredRecord:
    """Segment and score a record.

    Parameters
    ----------
    source : RecordSource
        Read from its beginning, whatever its position; it has to end.
    scorer : ecgmon.models.inference.reconstruction.Scorer
    settings : SegmentSettings, optional
        The segmenter's own by default, which are the daemon's.
    until : int, optional
        Sample index of the stream at which to break off; to the end by default.
    keep_windows : bool
        Keep the windows, which are 1.3 kB a beat.
    progress : callable, optional
        Called after every chunk with the samples read so far.

    Returns
    -------
    ScoredRecord
        Up to where the record could be read, with the reason in ``failure``.

    Raises
    ------
    ecgmon.pipelines.segmentation.segmenter.SegmentationError
        If the segmenter refuses the source.
    ValueError
        If the source never ends.
    """
    if source.length is None and until is None:
        raise ValueError(f"{source.stream} is repeated for ever and cannot be scored as a whole")
    segmenter = Segmenter(source.fs, source.leads, settings=settings or SegmentSettings())
    history = History(len(segmenter.leads))
    results: list[_Scored] = []
    samples, failure = 0, None

    def take(items: Items) -> None:
        raw = scorer.score(items.windows[:, : scorer.info.leads])
        evidence, _ = history.observe(items.windows, raw.error, raw.ticks, items.beats["rr"], items.beats["rr_ratio"])
        score = scorer.info.score.score(evidence)
        windows = items.windows if keep_windows else Items.empty(items.windows.shape[1]).windows
        results.append(_Scored(items.table, raw.error, score, windows))

    try:
        for chunk in source.at(0).chunks(CHUNK_SECONDS):
            part = chunk if until is None else chunk[: until - samples]
            take(segmenter.push(part))
            samples += len(part)
            if progress is not None:
                progress(samples)
            if until is not None and samples >= until:
                break
    except SourceError as error:
        failure = error
    if until is None or failure is not None:
        take(segmenter.finish())

    table = np.concatenate([result.table for result in results])
    qualities = table["quality"][table["kind"] == Kind.SECOND]
    return ScoredRecord(
        stream=source.stream,
        fs=source.fs,
        lead=segmenter.lead,
        substituted=segmenter.substituted,
        first=source.first,
        samples=samples,
        beats=table[table["kind"] == Kind.BEAT],
        error=np.concatenate([result.error for result in results]),
        score=np.concatenate([result.score for result in results]),
        windows=np.concatenate([result.windows for result in results]),
        seconds={quality: int(np.count_nonzero(qualities == quality)) for quality in Quality},
        failure=failure,
    )


@dataclass(frozen=True, slots=True)
class _Scored:
    """Items of one chunk with what their beats scored."""

    table: NDArray[np.void]
    error: NDArray[np.float32]
    score: NDArray[np.float32]
    windows: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Explanation:
    """One beat, what the generator makes of it, and the signal around it.

    Attributes
    ----------
    stream : str
    lead : str
    fs : float
        Sampling frequency of ``signal`` in Hz.
    start : float
        Time of the first sample of ``signal`` in the record, in s.
    signal : ndarray of float32, shape (samples,)
        The window's lead around the beat, as recorded, in mV.
    beat_seconds : ndarray of float64, shape (beats,)
        R peaks in ``signal``, as times in the record.
    beat_scores : ndarray of float32, shape (beats,)
    seq : int
        The explained beat.
    seconds : float
        Its R peak, as a time in the record.
    score, error, rr, rr_ratio : float
        As in :meth:`ScoredRecord.table`.
    quality : Quality
    window, reconstruction : ndarray of float32, shape (LENGTH,)
        What the generator saw and what it made of it, both in mV (filtered, without offset).
    ticks : ndarray of float32, shape (LENGTH,)
        Squared difference of both per tick, with the window scaled to [-1, 1]; their mean is ``error``.
    oddness : ndarray of float32, shape (LENGTH,)
        The error around each tick as a multiple of what is usual there: :func:`ecgmon.models.inference.ticks.relative`.
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
    error: float
    rr: float
    rr_ratio: float
    quality: Quality
    window: NDArray[np.float32]
    reconstruction: NDArray[np.float32]
    ticks: NDArray[np.float32]
    oddness: NDArray[np.float32]

    @property
    def oddest_seconds(self) -> float | None:
        """Where the beat is oddest, in s from the R peak; None where it could not be scored."""
        if not np.isfinite(self.oddness).all():
            return None
        return (int(self.oddness.argmax()) - BEFORE) / FS


def explain_beat(
    source: RecordSource,
    scorer: Scorer,
    at: float,
    *,
    settings: SegmentSettings | None = None,
    progress: Callable[[int], None] | None = None,
) -> Explanation:
    """Explain the beat next to a time.

    The record is segmented from its beginning, so that the beat is the one that the daemon would
    have cut and has the score that the daemon would have given.

    Parameters
    ----------
    source : RecordSource
    scorer : ecgmon.models.inference.reconstruction.Scorer
    at : float
        Time in the record, in s.
    settings, progress
        As in :func:`score_record`.

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
    beat_seconds = scored.table(threshold=np.inf)["seconds"]
    distance = np.abs(beat_seconds - at)
    if not distance.size or distance.min() > NEAREST_SECONDS:
        raise RangeError(
            f"{source.stream}: no beat within {NEAREST_SECONDS:g} s of {format_time(at)}; "
            + (
                f"the nearest is at {format_time(float(beat_seconds[distance.argmin()]))}"
                if distance.size
                else "none at all"
            )
        )
    index = int(distance.argmin())
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
        error=float(scored.error[index]),
        rr=float(beat["rr"]),
        rr_ratio=float(beat["rr_ratio"]),
        quality=Quality(int(beat["quality"])),
        window=window[0, 0],
        reconstruction=unscale(reconstruction[0, 0], window[0, 0]),
        ticks=ticks[0],
        oddness=relative(ticks, scorer.info.usual)[0],
    )


def unscale(scaled: NDArray[np.float32], window: NDArray[np.float32]) -> NDArray[np.float32]:
    """Undo :func:`ecgmon.models.windows.scale`, to show a reconstruction in mV.

    Parameters
    ----------
    scaled : ndarray of float32, shape (LENGTH,)
        In [-1, 1].
    window : ndarray of float32, shape (LENGTH,)
        The window, in mV, whose minimum and maximum became -1 and 1.

    Returns
    -------
    ndarray of float32, shape (LENGTH,)
        In mV.
    """
    low, high = window.min(), window.max()
    in_mv: NDArray[np.float32] = low + (scaled + np.float32(1)) * ((high - low) / np.float32(2))
    return in_mv


def write_annotations(folder: Path, scored: ScoredRecord, threshold: float) -> Path:
    """Write the beats as a WFDB annotation file, ``<stream>.ecg``.

    A beat under the threshold is ``N``, one at or over it ``Q``, one that could not be scored ``?``;
    the auxiliary note is the score with two decimals.

    Parameters
    ----------
    folder : Path
        Made if need be; an existing file is replaced as a whole.
    scored : ScoredRecord
    threshold : float

    Returns
    -------
    Path
        The file: ``wfdb.rdann(str(path.with_suffix("")), "ecg")`` reads it.

    Raises
    ------
    OutputError
        If it cannot be written, or there is no beat: WFDB has no empty annotation files.
    """
    if not len(scored.beats):
        raise OutputError(f"{scored.stream}: there are no beats to write annotations of; choose another format")
    table = scored.table(threshold)
    unscored = np.isnan(scored.score)
    symbol = np.where(unscored, UNSCORED_SYMBOL, np.where(table["anomalous"], ANOMALOUS_SYMBOL, NORMAL_SYMBOL))
    note = ["" if missing else f"{score:.2f}" for score, missing in zip(scored.score, unscored, strict=True)]

    def write(path: Path) -> None:
        import wfdb

        # the R peak of a complex that the record's beginning cuts through may lie before it; WFDB has no such times
        samples = np.maximum(table["sample"], 0)
        wfdb.wrann(
            path.stem, ANNOTATOR, samples, symbol.tolist(), aux_note=note, fs=scored.fs, write_dir=str(path.parent)
        )

    return _write(folder, scored.stream, ANNOTATOR, write)


def write_csv(folder: Path, scored: ScoredRecord, threshold: float) -> Path:
    """Write the columns of :meth:`ScoredRecord.table` as ``<stream>.csv``.

    Numbers are written with as many digits as bring back the same bits; a missing value is an empty
    field, ``anomalous`` is 0 or 1.

    Parameters
    ----------
    folder : Path
        Made if need be; an existing file is replaced as a whole.
    scored : ScoredRecord
    threshold : float

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    table = scored.table(threshold)

    def text(value: Any) -> str:  # noqa: ANN401 - a scalar of any of the columns
        if isinstance(value, np.floating):
            return "" if np.isnan(value) else str(value)
        return str(int(value)) if isinstance(value, np.bool_) else str(value)

    def write(path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(table)
            writer.writerows([text(value) for value in row] for row in zip(*table.values(), strict=True))

    return _write(folder, scored.stream, "csv", write)


def write_parquet(folder: Path, scored: ScoredRecord, threshold: float, model: str) -> Path:
    """Write the columns of :meth:`ScoredRecord.table` as ``<stream>.parquet``.

    The file's metadata has ``stream``, ``fs`` (Hz), ``lead``, ``threshold`` and ``model``.

    Parameters
    ----------
    folder : Path
        Made if need be; an existing file is replaced as a whole.
    scored : ScoredRecord
    threshold : float
    model : str
        Fingerprint of the checkpoint.

    Raises
    ------
    OutputError
        If it cannot be written, or pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise OutputError(
            "Parquet needs the package pyarrow, which is missing; pip install 'ecgmon[parquet]', or choose --format csv"
        ) from error
    about = {
        "stream": scored.stream,
        "fs": str(scored.fs),
        "lead": scored.lead,
        "threshold": str(threshold),
        "model": model,
    }
    table = pa.table(scored.table(threshold)).replace_schema_metadata(about)
    return _write(folder, scored.stream, "parquet", lambda path: parquet.write_table(table, path))


def _write(folder: Path, stream: str, suffix: str, write: Callable[[Path], None]) -> Path:
    """Write a file beside its place and move it there whole, so that nobody ever reads half of one."""
    target = folder / f"{stream}.{suffix}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unfinished-") as own:
            unfinished = Path(own, f"beats.{suffix}")  # wfdb takes fewer names than a stream may have
            write(unfinished)
            unfinished.replace(target)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}; choose another folder") from error
    return target
