"""Beats of annotated records, as models are trained and judged on them.

The data set is the one of BeatGAN (Zhou et al., IJCAI 2019) on the MIT-BIH Arrhythmia Database: 44
records, those with paced beats left out; lead MLII; a window around every annotated R peak.
Here no normal beat is dropped.

On disk it is a folder of three files.  ``signal.npy`` holds the filtered records end to end,
``beats.npy`` says where in it each beat lies and what it is, ``dataset.json`` says what both were
made from.  A window is a slice of the signal: nothing is stored twice, and an augmentation that
shifts or warps a window reads real signal at its edges.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models import windows
from pipelines.records import RecordRef
from pipelines.wfdb_files import open_record, read_annotations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from numpy.typing import NDArray

PACED: Final = ("102", "104", "107", "217")
"""The records of MIT-BIH with paced beats, which AAMI EC57 and the protocol leave out."""

RECORDS: Final = tuple(
    str(number)
    for number in (*range(100, 125), *range(200, 235))
    if number not in {110, 120, 204, 206, 211, 216, 218, 224, 225, 226, 227, 229} and str(number) not in PACED
)
"""The 44 records of the protocol, as numbered by MIT-BIH, which skips some numbers."""

LEAD: Final = "MLII"
"""The lead that the published protocol uses; in record 114 it is the second signal."""

PARTS: Final = 10
"""Random tenths that the beats are dealt into."""

HELD_OUT: Final = PARTS - 1
"""The tenth that a model trained on all records does not see: its normal beats calibrate the score."""


class BeatClass(IntEnum):
    """Class of a beat after AAMI EC57, as the BeatGAN protocol groups the annotations.

    The protocol counts the escape beats e and j as S, though AAMI counts them as N.
    """

    N = 0
    S = 1
    V = 2
    F = 3
    Q = 4


SYMBOLS: Final = {
    BeatClass.N: "NLR",
    BeatClass.S: "aJASje",
    BeatClass.V: "VE",
    BeatClass.F: "F",
    BeatClass.Q: "/fQ",
}
"""MIT-BIH annotation symbols of each class."""

_CLASS_OF: Final = {symbol: aami for aami, symbols in SYMBOLS.items() for symbol in symbols}

FLUTTER: Final = "!"
"""MIT-BIH annotation of a ventricular flutter wave."""

COUNTS: Final = {BeatClass.N: 89_836, BeatClass.S: 3_026, BeatClass.V: 7_008, BeatClass.F: 802, BeatClass.Q: 15}
"""Beats of each class that the protocol finds in :data:`RECORDS`; the N are those that Zhou et al. publish."""

RATIO_INTERVALS: Final = 8
"""RR intervals that an RR interval is compared with."""

RATIO_LEAST: Final = 4
"""RR intervals that have to be known before a comparison means something."""

MATCH: Final = 0.15
"""Most that a detected beat may be off an annotated one to be the same, in seconds (AAMI EC57)."""

BEAT: Final = np.dtype(
    [
        ("record", "<u2"),
        ("symbol", "S1"),
        ("aami", "u1"),
        ("part", "u1"),
        ("sample", "<i4"),
        ("column", "<i4"),
        ("rr", "<f4"),
        ("rr_ratio", "<f4"),
    ]
)
"""One annotated beat.

========  ==========================================================================================
record    its number, as in the record's name
symbol    its annotation
aami      :class:`BeatClass`
part      the random tenth that it is in, 0 to 9
sample    annotated R peak, sample index into the record
column    the same R peak as an index into the columns of the data set's signal
rr        RR interval to the beat before, in seconds; NaN for a record's first beat
rr_ratio  ``rr`` over the mean of the (up to) eight RR intervals before it; NaN until four are known
========  ==========================================================================================
"""


class DatasetError(Exception):
    """Records, or a prepared data set, that can not be used."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Annotated beats and the filtered signal that they lie in.

    Attributes
    ----------
    beats : ndarray of BEAT, shape (n,)
        In the order of the records, and of time within each.
    signal : ndarray of float32, shape (leads, samples)
        Filtered records end to end, in mV at 360 Hz.  Mapped from disk, read-only.
    spans : dict of int to (int, int)
        First column of each record in ``signal``, and the first one after it.
    about : dict
        What the data set was made from, as stored in ``dataset.json``.
    """

    beats: NDArray[np.void]
    signal: NDArray[np.float32]
    spans: dict[int, tuple[int, int]]
    about: dict[str, Any]

    @property
    def normal(self) -> NDArray[np.bool_]:
        """Which beats are normal, shape (n,)."""
        normal: NDArray[np.bool_] = self.beats["aami"] == BeatClass.N
        return normal

    @property
    def held_out(self) -> NDArray[np.bool_]:
        """Which beats are in the tenth that a model trained on all records does not see, shape (n,)."""
        held_out: NDArray[np.bool_] = self.beats["part"] == HELD_OUT
        return held_out

    def windows(self, beats: NDArray[np.void]) -> NDArray[np.float32]:
        """Cut the windows of some beats, exactly as :func:`models.windows.cut` does.

        Parameters
        ----------
        beats : ndarray of BEAT, shape (m,)

        Returns
        -------
        ndarray of float32, shape (m, leads, 320)
            In mV.
        """
        columns = beats["column"].astype(np.int64)[:, None] + np.arange(-windows.BEFORE, windows.AFTER)
        return np.ascontiguousarray(self.signal[:, columns].transpose(1, 0, 2))

    def resampled(
        self, beats: NDArray[np.void], shift: NDArray[np.float64], warp: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Cut windows with the R peak moved and the time axis stretched: an augmentation.

        Parameters
        ----------
        beats : ndarray of BEAT, shape (m,)
        shift : ndarray of float64, shape (m,)
            Samples by which each window is cut too late.
        warp : ndarray of float64, shape (m,)
            Samples of signal per sample of window: over 1 squeezes the beat, under 1 stretches it.

        Returns
        -------
        ndarray of float32, shape (m, leads, 320)
            In mV, interpolated linearly, from the beat's own record only.
        """
        ticks = np.arange(-windows.BEFORE, windows.AFTER)
        bounds = np.array([self.spans[int(record)] for record in beats["record"]])
        times = beats["column"][:, None] + shift[:, None] + ticks * warp[:, None]
        times = np.clip(times, bounds[:, :1], bounds[:, 1:] - 1.000_001)  # leaves room for the right neighbour
        left = times.astype(np.int64)
        part = (times - left).astype(np.float32)
        cut = self.signal[:, left] * (1 - part) + self.signal[:, left + 1] * part
        return np.ascontiguousarray(cut.transpose(1, 0, 2))


def rhythm(r_peaks: NDArray[np.int64], fs: float = windows.FS) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute RR intervals and how each compares with those before it.

    Parameters
    ----------
    r_peaks : ndarray of int64, shape (n,)
        Successive R peaks of one record, as sample indices.
    fs : float
        Sampling frequency in Hz.

    Returns
    -------
    rr : ndarray of float32, shape (n,)
        RR interval to the beat before, in seconds; NaN for the first beat.
    rr_ratio : ndarray of float32, shape (n,)
        ``rr`` over the mean of the (up to) :data:`RATIO_INTERVALS` intervals before it; NaN until
        :data:`RATIO_LEAST` of those are known.

    Examples
    --------
    >>> rr, rr_ratio = rhythm(np.array([0, 360, 720, 1080, 1440, 1620]))
    >>> rr.tolist(), rr_ratio.tolist()
    ([nan, 1.0, 1.0, 1.0, 1.0, 0.5], [nan, nan, nan, nan, nan, 0.5])
    """
    rr = np.full(len(r_peaks), np.nan)
    rr[1:] = np.diff(r_peaks) / fs
    ratio = np.full(len(r_peaks), np.nan)
    for k in range(1 + RATIO_LEAST, len(r_peaks)):
        ratio[k] = rr[k] / rr[max(1, k - RATIO_INTERVALS) : k].mean()
    return rr.astype(np.float32), ratio.astype(np.float32)


def prepare(
    db: Path,
    out: Path,
    *,
    records: Iterable[str] = RECORDS,
    lead: str = LEAD,
    seed: int = 0,
    done: Callable[[str], None] = lambda _: None,
) -> Dataset:
    """Build the data set from WFDB records and store it.

    Parameters
    ----------
    db : Path
        Folder with the records' .hea, .dat and .atr files.
    out : Path
        Folder to store the data set in; made where it is missing.
    records : iterable of str
        Names of records; all of :data:`RECORDS` gives the published protocol.
    lead : str
        Name of the signal to take.
    seed : int
        Decides which random tenth each beat is in.
    done : callable
        Called with the name of each record once it is read.

    Returns
    -------
    Dataset

    Raises
    ------
    pipelines.source_errors.SourceError
        If a record can not be read or lacks the lead.
    DatasetError
        If a record is not sampled at 360 Hz, or the counts of the full protocol are not the published ones.
    """
    names = list(records)
    if not names:
        raise DatasetError("no record was named; expected at least one, such as 100")
    signals, tables = [], []
    files: dict[str, str] = {}
    spans: dict[int, tuple[int, int]] = {}
    first = 0
    for name in names:
        signal, table = _read(db, name, lead)
        table["column"] = table["sample"] + first
        spans[int(name)] = (first, first + signal.shape[-1])
        first += signal.shape[-1]
        signals.append(signal)
        tables.append(table)
        files |= {f"{name}.{kind}": _sha256((db / f"{name}.{kind}").read_bytes()) for kind in ("atr", "dat", "hea")}
        done(name)
    beats = np.concatenate(tables)
    beats["part"] = _deal(beats["aami"], seed)
    counts = {aami: int(np.count_nonzero(beats["aami"] == aami)) for aami in BeatClass}
    if tuple(names) == RECORDS and counts != COUNTS:
        raise DatasetError(
            f"the records hold {_listing(counts)} beats; the published protocol finds {_listing(COUNTS)}"
        )
    joined = np.concatenate(signals, axis=-1)
    about = {
        "records": names,
        "lead": lead,
        "fs": windows.FS,
        "seed": seed,
        "counts": {aami.name: count for aami, count in counts.items()},
        "spans": {name: list(spans[int(name)]) for name in names},
        "files": files,
        "sha256": {
            "files": _sha256(json.dumps(files, sort_keys=True).encode()),
            "beats": _sha256(beats.tobytes()),
            "signal": _sha256(joined.tobytes()),
        },
    }
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "signal.npy", joined)
    np.save(out / "beats.npy", beats)
    (out / "dataset.json").write_text(json.dumps(about, indent=1) + "\n")  # last: its presence says that all is there
    return load(out)


def load(folder: Path) -> Dataset:
    """Open a data set that :func:`prepare` stored; the signal is mapped, not read.

    Raises
    ------
    DatasetError
        If the folder holds no data set, or one whose files do not belong together.
    """
    try:
        about = json.loads((folder / "dataset.json").read_text())
        beats = np.load(folder / "beats.npy", allow_pickle=False)
        signal = np.load(folder / "signal.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{folder} holds no prepared data set ({error}); make one with 'ecgmon train prepare'"
        ) from error
    spans = {int(name): (int(first), int(stop)) for name, (first, stop) in about["spans"].items()}
    if (
        beats.dtype != BEAT
        or _sha256(beats.tobytes()) != about["sha256"]["beats"]
        or signal.shape[-1] != max(stop for _, stop in spans.values())
    ):
        raise DatasetError(
            f"the files in {folder} do not belong to its dataset.json; make them again with 'ecgmon train prepare'"
        )
    return Dataset(beats, signal, spans, about)


def streamed(dataset: Dataset, db: Path, wanted: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cut annotated beats as a stream would: at detected R peaks, with the rhythm of detected beats.

    Parameters
    ----------
    dataset : Dataset
    db : Path
        Folder of the records that it was made from.
    wanted : ndarray of bool, shape (n,)
        Which of the data set's beats to cut.

    Returns
    -------
    windows : ndarray of float32, shape (m, 1, 320)
        In mV; of every detected beat within :data:`MATCH` of a wanted one, and nearer to that than
        to any other annotated beat.
    rr_ratio : ndarray of float32, shape (m,)
        As detected; NaN where not known.

    Raises
    ------
    pipelines.source_errors.SourceError
        If a record can not be read.
    """
    from pipelines.segmentation import Segmenter  # compiles its loops when it is first used

    cut, ratios = [], []
    for name in dataset.about["records"]:
        here = dataset.beats["record"] == int(name)
        annotated = dataset.beats["sample"][here].astype(np.int64)
        record = open_record(RecordRef(name, db / name))
        segmenter = Segmenter(record.fs, record.leads)
        for items in (segmenter.push(record.read(0, record.length)), segmenter.finish()):
            detected = items.beats["sample"]
            nearest = _nearest(annotated, detected)
            taken = (np.abs(annotated[nearest] - detected) <= MATCH * windows.FS) & wanted[here][nearest]
            cut.append(items.windows[taken])
            ratios.append(items.beats["rr_ratio"][taken])
    return np.concatenate(cut), np.concatenate(ratios)


def _nearest(sorted_samples: NDArray[np.int64], samples: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find for each sample index the nearest of some sorted ones; answers with its place among those."""
    between = (sorted_samples[1:] + sorted_samples[:-1]) / 2
    return np.searchsorted(between, samples)


def _read(db: Path, name: str, lead: str) -> tuple[NDArray[np.float32], NDArray[np.void]]:
    """Read one record: its filtered signal (1, samples) and its beats."""
    ref = RecordRef(name, db / name)
    record = open_record(ref, leads=[lead])
    if record.fs != windows.FS:
        raise DatasetError(f"record {name} is sampled at {record.fs:g} Hz; expected {windows.FS} Hz")
    signal = _filter_whole(np.ascontiguousarray(record.read(0, record.length).T))
    annotations = read_annotations(ref)
    # Flutter waves belong to no class, but a detector takes them for beats, so they end RR intervals.
    known = np.isin(annotations.symbol, [*_CLASS_OF, FLUTTER])
    table = np.zeros(np.count_nonzero(known), BEAT)
    table["record"] = int(name)
    table["sample"] = annotations.sample[known]
    table["symbol"] = annotations.symbol[known]
    table["aami"] = [_CLASS_OF.get(symbol, BeatClass.Q) for symbol in annotations.symbol[known]]
    table["rr"], table["rr_ratio"] = rhythm(annotations.sample[known])
    inside = (table["sample"] >= windows.BEFORE) & (table["sample"] + windows.AFTER <= signal.shape[-1])
    return signal, table[inside & (table["symbol"] != FLUTTER.encode())]


def _filter_whole(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """Filter a record to its very ends, continuing it by its mirror image through its end points.

    A stream can not know samples that were never taken and emits no beat there; the published
    protocol has them, 34 of its normal beats.
    """
    half = windows.FILTER_HALF
    head = 2 * signal[:, :1] - signal[:, half:0:-1]
    tail = 2 * signal[:, -1:] - signal[:, -2 : -half - 2 : -1]
    return windows.filter_raw(np.concatenate([head, signal, tail], axis=-1))


def _deal(aami: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Deal the beats of each class into random tenths of equal size (to one beat)."""
    random = np.random.default_rng(seed)
    part = np.empty(len(aami), np.uint8)
    for kind in BeatClass:
        members = np.flatnonzero(aami == kind)
        part[random.permutation(members)] = np.arange(len(members)) % PARTS
    return part


def _listing(counts: dict[BeatClass, int]) -> str:
    return ", ".join(f"{count} {aami.name}" for aami, count in counts.items())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
