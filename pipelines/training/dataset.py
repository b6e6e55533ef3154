"""Beats of annotated records, as models are trained and judged on them.

The data set is the one of BeatGAN (Zhou et al., IJCAI 2019) on the MIT-BIH Arrhythmia Database: 44
records, those with paced beats left out; lead MLII, and beside it the record's other lead; a window
around every annotated R peak.  No normal beat is dropped; those that the original would drop are marked.

On disk it is a folder of three files.  ``signal.npy`` holds the filtered records end to end,
``beats.npy`` says where in it each beat lies and what it is, ``dataset.json`` says what both were
made from.  A window is a slice of the signal: nothing is stored twice, and an augmentation that
shifts or warps a window reads real signal at its edges.  Which beats train, calibrate and test is
the subject of :mod:`ecgmon.pipelines.training.splits`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ecgmon.models import windows
from ecgmon.pipelines.sources.annotations import read_annotations
from ecgmon.pipelines.sources.finding import RecordRef
from ecgmon.pipelines.sources.wfdb_record import open_record

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

LEADS: Final = 2
"""Rows of the signal: :data:`LEAD` and the record's other lead, all zero where it has none."""

STEP: Final = 0.0005
"""Step of the stored signal in mV: a tenth of MIT-BIH's own, and 16 mV fit into 16 bits."""

FOLDS: Final = 5
"""Random fifths of the protocol's cross-validation."""

TENTHS: Final = 10
"""Random tenths of every fold, one of which neither trains nor tests."""

CONFIRMING: Final = 0.05
"""Most that a second detector's peak may be off an annotation to confirm it, in seconds."""


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

BEAT: Final = np.dtype(
    [
        ("record", "<u2"),
        ("symbol", "S1"),
        ("aami", "u1"),
        ("fold", "u1"),
        ("tenth", "u1"),
        ("confirmed", "?"),
        ("sample", "<i4"),
        ("column", "<i4"),
        ("rr", "<f4"),
        ("rr_ratio", "<f4"),
        ("rr_after", "<f4"),
    ]
)
"""One annotated beat.

=========  =========================================================================================
record     its number, as in the record's name
symbol     its annotation
aami       :class:`BeatClass`
fold       the random fifth that it is in, 0 to 4
tenth      the random tenth of that fifth that it is in, 0 to 9
confirmed  whether sleepecg's detector has a peak there, too: see :data:`CONFIRMING`
sample     annotated R peak, sample index into the record
column     the same R peak as an index into the columns of the data set's signal
rr         RR interval to the beat before, in seconds; NaN for a record's first beat
rr_ratio   ``rr`` over the mean of the (up to) eight RR intervals before it; NaN until four are known
rr_after   RR interval to the beat after, in seconds; NaN for a record's last beat
=========  =========================================================================================
"""


class DatasetError(Exception):
    """Records, or a prepared data set, that cannot be used."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Annotated beats and the filtered signal that they lie in.

    Attributes
    ----------
    beats : ndarray of BEAT, shape (n,)
        In the order of the records, and of time within each.
    signal : ndarray of int16, shape (LEADS, samples)
        Filtered records end to end at 360 Hz, in steps of :data:`STEP`.  Mapped from disk, read-only.
    spans : dict of int to (int, int)
        First column of each record in ``signal``, and the first one after it.
    about : dict
        What the data set was made from, as stored in ``dataset.json``.
    """

    beats: NDArray[np.void]
    signal: NDArray[np.int16]
    spans: dict[int, tuple[int, int]]
    about: dict[str, Any]

    @property
    def normal(self) -> NDArray[np.bool_]:
        """Which beats are normal, shape (n,)."""
        normal: NDArray[np.bool_] = self.beats["aami"] == BeatClass.N
        return normal

    def windows(self, beats: NDArray[np.void]) -> NDArray[np.float32]:
        """Cut the windows of some beats, as :func:`ecgmon.models.windows.cut` does but for half a :data:`STEP`.

        Parameters
        ----------
        beats : ndarray of BEAT, shape (m,)

        Returns
        -------
        ndarray of float32, shape (m, LEADS, 320)
            In mV.
        """
        columns = beats["column"].astype(np.int64)[:, None] + np.arange(-windows.BEFORE, windows.AFTER)
        return np.ascontiguousarray(self.signal[:, columns].transpose(1, 0, 2)) * np.float32(STEP)

    def resampled(
        self,
        beats: NDArray[np.void],
        lead: NDArray[np.int64],
        shift: NDArray[np.float64],
        warp: NDArray[np.float64],
    ) -> NDArray[np.float32]:
        """Cut windows with the R peak moved and the time axis stretched: an augmentation.

        Parameters
        ----------
        beats : ndarray of BEAT, shape (m,)
        lead : ndarray of int64, shape (m,)
            Row of the signal to cut each from.
        shift : ndarray of float64, shape (m,)
            Samples by which each window is cut too late.
        warp : ndarray of float64, shape (m,)
            Samples of signal per sample of window: over 1 squeezes the beat, under 1 stretches it.

        Returns
        -------
        ndarray of float32, shape (m, 1, 320)
            In mV, interpolated linearly, from the beat's own record only.
        """
        ticks = np.arange(-windows.BEFORE, windows.AFTER)
        bounds = np.array([self.spans[int(record)] for record in beats["record"]])
        times = beats["column"][:, None] + shift[:, None] + ticks * warp[:, None]
        times = np.clip(times, bounds[:, :1], bounds[:, 1:] - 1.000_001)  # leaves room for the right neighbour
        left = times.astype(np.int64)
        part = (times - left).astype(np.float32)
        row = lead[:, None]
        cut = self.signal[row, left] * (1 - part) + self.signal[row, left + 1] * part
        return (cut * np.float32(STEP))[:, None]


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
    seed : int
        Decides which random fold and tenth each beat is in.
    done : callable
        Called with the name of each record once it is read.

    Returns
    -------
    Dataset

    Raises
    ------
    ecgmon.pipelines.sources.errors.SourceError
        If a record cannot be read or lacks :data:`LEAD`.
    DatasetError
        If a record is not sampled at 360 Hz, or the counts of the full protocol are not the published ones.
    """
    names = list(records)
    if not names:
        raise DatasetError("no record was named; expected at least one, such as 100")
    signals, tables = [], []
    files: dict[str, str] = {}
    spans: dict[int, tuple[int, int]] = {}
    leads: dict[str, list[str]] = {}
    first = 0
    for name in names:
        signal, table, leads[name] = _read(db, name)
        table["column"] = table["sample"] + first
        spans[int(name)] = (first, first + signal.shape[-1])
        first += signal.shape[-1]
        signals.append(signal)
        tables.append(table)
        files |= {f"{name}.{kind}": _sha256((db / f"{name}.{kind}").read_bytes()) for kind in ("atr", "dat", "hea")}
        done(name)
    beats = np.concatenate(tables)
    beats["fold"], beats["tenth"] = np.divmod(_deal(beats["aami"], seed), TENTHS)
    counts = {aami: int(np.count_nonzero(beats["aami"] == aami)) for aami in BeatClass}
    if tuple(names) == RECORDS and counts != COUNTS:
        raise DatasetError(
            f"the records hold {_listing(counts)} beats; the published protocol finds {_listing(COUNTS)}"
        )
    joined = np.concatenate(signals, axis=-1)
    about = {
        "records": names,
        "leads": leads,
        "fs": windows.FS,
        "millivolts_per_step": STEP,
        "seed": seed,
        "counts": {aami.name: count for aami, count in counts.items()},
        "unconfirmed": int(np.count_nonzero(~beats["confirmed"] & (beats["aami"] == BeatClass.N))),
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
        # reads arrays and nothing else, where np.load would also give what is in an archive
        beats = np.array(np.lib.format.open_memmap(folder / "beats.npy", mode="r"))
        signal = np.lib.format.open_memmap(folder / "signal.npy", mode="r")
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


def nearest_of(ordered: NDArray[np.int64], samples: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find for each sample index the nearest of some ordered ones; answers with its place among those."""
    return np.searchsorted((ordered[1:] + ordered[:-1]) / 2, samples)


def _read(db: Path, name: str) -> tuple[NDArray[np.int16], NDArray[np.void], list[str]]:
    """Read one record: its filtered signal (LEADS, samples), its beats, and the names of its leads."""
    ref = RecordRef(name, db / name)
    record = open_record(ref, leads=[LEAD])  # by itself, so that its absence is an error
    leads = [LEAD, *(lead for lead in open_record(ref).leads if lead != LEAD)][:LEADS]
    if len(leads) > 1:
        record = open_record(ref, leads=leads)
    if record.fs != windows.FS:
        raise DatasetError(f"record {name} is sampled at {record.fs:g} Hz; expected {windows.FS} Hz")
    unfiltered = np.ascontiguousarray(record.read(0, record.length).T)
    signal = np.zeros((LEADS, record.length), np.int16)
    signal[: len(leads)] = _steps(_filter_whole(unfiltered), name)
    annotations = read_annotations(ref)
    # Flutter waves belong to no class, but a detector takes them for beats, so they end RR intervals.
    known = np.isin(annotations.symbol, [*_CLASS_OF, FLUTTER])
    table = np.zeros(np.count_nonzero(known), BEAT)
    table["record"] = int(name)
    table["sample"] = annotations.sample[known]
    table["symbol"] = annotations.symbol[known]
    table["aami"] = [_CLASS_OF.get(symbol, BeatClass.Q) for symbol in annotations.symbol[known]]
    table["confirmed"] = _confirmed(annotations.sample[known], unfiltered[0])
    table["rr"], table["rr_ratio"] = rhythm(annotations.sample[known])
    table["rr_after"] = np.append(table["rr"][1:], np.float32(np.nan))
    inside = (table["sample"] >= windows.BEFORE) & (table["sample"] + windows.AFTER <= signal.shape[-1])
    return signal, table[inside & (table["symbol"] != FLUTTER.encode())], leads


def _steps(signal: NDArray[np.float32], name: str) -> NDArray[np.int16]:
    """Round a signal in mV to the steps that are stored."""
    most = np.iinfo(np.int16).max
    steps = np.round(signal / STEP)
    if not (np.abs(steps) <= most).all():  # NaN, too
        raise DatasetError(
            f"record {name} reaches {np.nanmax(np.abs(signal)):g} mV or has gaps; expected whole signal of at most "
            f"{most * STEP:g} mV"
        )
    return steps.astype(np.int16)


def _confirmed(r_peaks: NDArray[np.int64], signal: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Tell which annotated beats another detector finds, too, as the original experiment asks of normal ones."""
    from sleepecg import detect_heartbeats

    found = detect_heartbeats(signal.astype(np.float64), windows.FS)
    if len(found) == 0:
        return np.zeros(len(r_peaks), np.bool_)
    nearest = found[nearest_of(found, r_peaks)]
    confirmed: NDArray[np.bool_] = np.abs(nearest - r_peaks) <= CONFIRMING * windows.FS
    return confirmed


def _filter_whole(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """Filter a record to its very ends, continuing it by its mirror image through its end points.

    A stream cannot know samples that were never taken and emits no beat there; the published
    protocol has them, 34 of its normal beats.
    """
    half = windows.FILTER_HALF
    head = 2 * signal[:, :1] - signal[:, half:0:-1]
    tail = 2 * signal[:, -1:] - signal[:, -2 : -half - 2 : -1]
    return windows.filter_raw(np.concatenate([head, signal, tail], axis=-1))


def _deal(aami: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Deal the beats of each class into random fiftieths of equal size (to one beat)."""
    random = np.random.default_rng(seed)
    part = np.empty(len(aami), np.uint8)
    for kind in BeatClass:
        members = np.flatnonzero(aami == kind)
        part[random.permutation(members)] = np.arange(len(members)) % (FOLDS * TENTHS)
    return part


def _listing(counts: dict[BeatClass, int]) -> str:
    return ", ".join(f"{count} {aami.name}" for aami, count in counts.items())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
