"""Measure the streaming segmenter against reference beats, as ANSI/AAMI EC57 defines it.

A detected beat and a reference beat match if they are within 150 ms of each other, one to one, nearest first.  Figures
are gross: over all beats of all records together.  Ventricular flutter (annotations from ``[`` to ``]``) is left out,
because it has no single beats.  Every figure is given twice: for whole records, and without their first five minutes,
which EC57 allows a detector for learning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ecgmon.pipelines.items import Items, Kind, Quality
from ecgmon.pipelines.limits import MATCH_SECONDS
from ecgmon.pipelines.segmentation.segmenter import DEFAULT_SETTINGS, Segmenter, SegmentSettings
from ecgmon.pipelines.sources.annotations import Annotations, read_annotations
from ecgmon.pipelines.sources.errors import AnnotationError
from ecgmon.pipelines.sources.wfdb_record import open_record
from ecgmon.pipelines.training.records import ANNOTATOR, find, reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgmon.pipelines.sources.interfaces import Record

LEARNING_SECONDS: Final = 300.0
"""Beginning of a record that EC57 allows for learning."""

CHUNK_SECONDS: Final = 1.0
"""Length of the chunks in which a record is fed to the segmenter."""

BEAT_SYMBOLS: Final = frozenset("NLRBAaJSVrFejnE/fQ?")
"""WFDB annotation symbols that stand for a beat (WFDB Applications Guide, annotation codes)."""

FLUTTER_STARTS: Final = "["
FLUTTER_ENDS: Final = "]"
"""WFDB annotation symbols around ventricular flutter or fibrillation."""

READ_SECONDS: Final = 600.0
"""Length of the signal that is read from disk at once."""


@dataclass(frozen=True, slots=True)
class BeatCounts:
    """Matches of detected beats with reference beats.

    Attributes
    ----------
    tp, fp, fn : int
        Matched, detected only, in the reference only.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: BeatCounts) -> BeatCounts:
        """Add the counts of two results."""
        return BeatCounts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def sensitivity(self) -> float | None:
        """Share of the reference beats that were detected; None where there are none."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else None

    @property
    def positive_predictivity(self) -> float | None:
        """Share of the detected beats that are in the reference; None where there are none."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of sensitivity and positive predictivity."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else None

    def as_dict(self) -> dict[str, float | None]:
        """Return the counts and shares as plain values, for JSON."""
        return {
            "tp": self.tp,
            "fp": self.fp,
            "fn": self.fn,
            "sensitivity": self.sensitivity,
            "positive_predictivity": self.positive_predictivity,
            "f1": self.f1,
        }


@dataclass(frozen=True, slots=True)
class Reference:
    """Reference beats of a record.

    Attributes
    ----------
    sample : ndarray of int64, shape (beats,)
        R peaks, in order.
    flutter : ndarray of int64, shape (stretches, 2)
        First and last sample of every stretch that is left out.
    """

    sample: NDArray[np.int64]
    flutter: NDArray[np.int64]

    @classmethod
    def of(cls, annotations: Annotations, length: int) -> Reference:
        """Pick beats and flutter from annotations of a record of ``length`` samples."""
        is_beat = np.isin(annotations.symbol, sorted(BEAT_SYMBOLS))
        starts = annotations.sample[annotations.symbol == FLUTTER_STARTS]
        ends = annotations.sample[annotations.symbol == FLUTTER_ENDS]
        stretches = []
        for start in starts:
            later = ends[ends > start]
            stretches.append((int(start), int(later[0]) if len(later) else length))
        return cls(annotations.sample[is_beat], np.array(stretches, np.int64).reshape(-1, 2))

    def outside_flutter(self, sample: NDArray[np.int64], margin: int = 0) -> NDArray[np.bool_]:
        """Return which samples are farther than ``margin`` from every stretch of flutter."""
        outside = np.ones(len(sample), np.bool_)
        for start, end in self.flutter:
            outside &= (sample < start - margin) | (sample > end + margin)
        return outside


def match_beats(reference: NDArray[np.int64], detected: NDArray[np.int64], window: int) -> NDArray[np.int64]:
    """Match detected beats with reference beats, one to one.

    Parameters
    ----------
    reference, detected : ndarray of int64, shape (m,) and (n,)
        Sample indices, in order.
    window : int
        Largest distance of a match, in samples.

    Returns
    -------
    ndarray of int64, shape (matches, 2)
        Positions in ``reference`` and in ``detected``.  Where two beats could match the same one, the nearer is
        matched.
    """
    pairs: list[tuple[int, int]] = []
    i = j = 0
    while i < len(reference) and j < len(detected):
        distance = abs(detected[j] - reference[i])
        last_i, last_j = pairs[-1] if pairs else (-1, -1)
        if distance > window:
            if detected[j] < reference[i]:
                j += 1
            else:
                i += 1
        elif j + 1 < len(detected) and abs(detected[j + 1] - reference[i]) < distance:
            # The next detected beat is nearer; the previous reference beat may take this one, if it has no match
            if last_i < i - 1 and abs(detected[j] - reference[i - 1]) <= window:
                pairs.append((i - 1, j))
            j += 1
        elif i + 1 < len(reference) and abs(detected[j] - reference[i + 1]) < distance:
            if last_j < j - 1 and abs(detected[j - 1] - reference[i]) <= window:  # likewise
                pairs.append((i, j - 1))
            i += 1
        else:
            pairs.append((i, j))
            i += 1
            j += 1
    return np.array(pairs, np.int64).reshape(-1, 2)


@dataclass(frozen=True, slots=True)
class RecordResult:
    """Result of the segmenter on one record.

    Attributes
    ----------
    lead : str
        Lead that windows were cut from.
    counts, counts_after_learning : BeatCounts
        Over the whole record, and without its first five minutes.
    offsets : ndarray of float64, shape (tp,)
        Detected R peak minus reference, in seconds.
    delays : ndarray of float64, shape (beats,)
        From an R peak to the sample at which its item was complete, in seconds.
    false_of_bad_quality : int
        Detected beats without a match whose quality is not usable.
    quality_seconds : dict of str to int
        Seconds of each quality.
    missed, invented : ndarray of int64
        Reference beats not detected, and detected beats not in the reference, as sample indices.
    """

    lead: str
    counts: BeatCounts
    counts_after_learning: BeatCounts
    offsets: NDArray[np.float64]
    delays: NDArray[np.float64]
    false_of_bad_quality: int
    quality_seconds: dict[str, int]
    missed: NDArray[np.int64]
    invented: NDArray[np.int64]

    def as_dict(self) -> dict[str, Any]:
        """Return the result as plain values, for JSON."""
        return {
            "lead": self.lead,
            **self.counts.as_dict(),
            "offset_seconds": _spread(np.abs(self.offsets), {"median": 50, "p95": 95}),
            "delay_seconds": _spread(self.delays, {"p50": 50, "p99": 99, "max": 100}),
            "false_of_bad_quality": self.false_of_bad_quality,
            "quality_seconds": self.quality_seconds,
        }


def compare(items: Items, reference: Reference, *, lead: str, fs: float) -> RecordResult:
    """Compare the items of a whole stream with its reference beats.

    Parameters
    ----------
    items : Items
        All items of the stream.
    reference : Reference
    lead : str
        Lead that windows were cut from.
    fs : float
        Sampling frequency of the stream in Hz.

    Returns
    -------
    RecordResult
    """
    window = round(MATCH_SECONDS * fs)
    beats = items.beats
    beats = beats[reference.outside_flutter(beats["sample"], window)]
    detected = beats["sample"].astype(np.int64)
    truth = reference.sample[reference.outside_flutter(reference.sample)]
    pairs = match_beats(truth, detected, window)
    missed = np.setdiff1d(np.arange(len(truth)), pairs[:, 0])
    invented = np.setdiff1d(np.arange(len(detected)), pairs[:, 1])
    learnt = round(LEARNING_SECONDS * fs)
    seconds = items.table[items.table["kind"] == Kind.SECOND]
    return RecordResult(
        lead=lead,
        counts=BeatCounts(len(pairs), len(invented), len(missed)),
        counts_after_learning=BeatCounts(
            int(np.count_nonzero(truth[pairs[:, 0]] >= learnt)),
            int(np.count_nonzero(detected[invented] >= learnt)),
            int(np.count_nonzero(truth[missed] >= learnt)),
        ),
        offsets=(detected[pairs[:, 1]] - truth[pairs[:, 0]]) / fs,
        delays=(items.beats["ready"] - items.beats["sample"]) / fs,
        false_of_bad_quality=int(np.count_nonzero(beats["quality"][invented] != Quality.USABLE)),
        quality_seconds={
            quality.name.lower(): int(np.count_nonzero(seconds["quality"] == quality)) for quality in Quality
        },
        missed=truth[missed],
        invented=detected[invented],
    )


def stream_record(
    record: Record, *, chunk_seconds: float = CHUNK_SECONDS, settings: SegmentSettings = DEFAULT_SETTINGS
) -> tuple[Items, Segmenter]:
    """Feed a record through a segmenter in chunks, as a source would.

    Returns
    -------
    items : Items
        All items, including those at the end.
    segmenter : Segmenter
        The segmenter that made them.
    """
    segmenter = Segmenter(record.fs, record.leads, settings=settings)
    parts = [segmenter.push(chunk) for chunk in _chunks(record, max(1, round(chunk_seconds * record.fs)))]
    parts.append(segmenter.finish())
    return Items.concatenate(parts), segmenter


def _chunks(record: Record, size: int) -> Iterator[NDArray[np.float32]]:
    """Cut a record into chunks, reading many of them from disk at once."""
    at_once = size * max(1, round(READ_SECONDS * record.fs / size))
    for start in range(0, record.length, at_once):
        samples = record.read(start, min(start + at_once, record.length))
        for offset in range(0, len(samples), size):
            yield samples[offset : offset + size]


def evaluate_records(
    folder: Path,
    *,
    annotator: str = ANNOTATOR,
    chunk_seconds: float = CHUNK_SECONDS,
    settings: SegmentSettings = DEFAULT_SETTINGS,
    progress: bool = True,
    inspect: Callable[[str, float, Annotations, Items], None] | None = None,
) -> dict[str, RecordResult]:
    """Stream every annotated record of a folder and compare it with its reference beats.

    Parameters
    ----------
    folder : Path
        WFDB records, also in sub-folders.  Records without annotated beats are left out: where only rhythms are
        annotated, every detected beat would count as false.
    annotator : str
        Suffix of the annotation files.
    chunk_seconds : float
        Length of the chunks in which records are fed to the segmenter; it does not change the result.
    settings : SegmentSettings
        Settings of the segmenter, the same for every record.
    progress : bool
        Show a progress bar on standard error.
    inspect : callable, optional
        Called for every record with its stream id, sampling frequency in Hz, annotations and items.

    Returns
    -------
    dict of str to RecordResult
        Results by stream id.

    Raises
    ------
    SourceError
        If the folder has no records or one of them cannot be read.
    AnnotationError
        If none of them has annotated beats.
    """
    from rich.console import Console
    from rich.progress import track

    refs = [reference(folder, name) for name in find(folder) if (folder / f"{name}.{annotator}").is_file()]
    if not refs:
        raise AnnotationError(
            f"{folder} has no record with reference annotations; name a folder with .hea, .dat and .{annotator} files"
        )
    results = {}
    for ref in track(refs, "Streaming", console=Console(stderr=True), disable=not progress, transient=True):
        record = open_record(ref)
        annotations = read_annotations(ref, annotator)
        truth = Reference.of(annotations, record.length)
        if not len(truth.sample):
            continue
        items, segmenter = stream_record(record, chunk_seconds=chunk_seconds, settings=settings)
        results[ref.stream] = compare(items, truth, lead=segmenter.lead, fs=record.fs)
        if inspect is not None:
            inspect(ref.stream, record.fs, annotations, items)
    if not results:
        raise AnnotationError(
            f"{folder}: no beat is annotated in the .{annotator} files of its {len(refs)} records; "
            "expected symbols such as N or V"
        )
    return results


def summarise(results: dict[str, RecordResult]) -> dict[str, Any]:
    """Calculate the gross figures from the results of all records.

    Parameters
    ----------
    results : dict of str to RecordResult
        Results by stream id.

    Returns
    -------
    dict
        Ready for JSON: ``records``, ``qrs`` and ``qrs_after_learning``.
    """
    whole = sum((result.counts for result in results.values()), BeatCounts())
    after = sum((result.counts_after_learning for result in results.values()), BeatCounts())
    offsets = np.concatenate([np.abs(result.offsets) for result in results.values()])
    delays = np.concatenate([result.delays for result in results.values()])
    return {
        "records": {name: result.as_dict() for name, result in results.items()},
        "qrs": {
            **whole.as_dict(),
            "offset_seconds": _spread(offsets, {"median": 50, "p95": 95}),
            "delay_seconds": _spread(delays, {"p50": 50, "p99": 99, "max": 100}),
        },
        "qrs_after_learning": after.as_dict(),
    }


def evaluate_stream(
    folder: Path,
    *,
    chunk_seconds: float = CHUNK_SECONDS,
    settings: SegmentSettings = DEFAULT_SETTINGS,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure the segmenter on a folder of records: :func:`evaluate_records`, then :func:`summarise`."""
    return summarise(evaluate_records(folder, chunk_seconds=chunk_seconds, settings=settings, progress=progress))


def _spread(values: NDArray[np.float64], percentiles: dict[str, int]) -> dict[str, float | None]:
    """Return percentiles by name; each is None if there are no values."""
    return {name: float(np.percentile(values, p)) if len(values) else None for name, p in percentiles.items()}
