"""Find the annotated records of a folder, and read the signal and the beats of each for a data set."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ecgmon.models import windows
from ecgmon.pipelines.limits import RR_NEEDED, RR_REMEMBERED
from ecgmon.pipelines.sources.annotations import Annotations, read_annotations
from ecgmon.pipelines.sources.errors import RecordNotFoundError, UnsafeNameError
from ecgmon.pipelines.sources.finding import RecordRef
from ecgmon.pipelines.sources.wfdb_record import open_record
from ecgmon.pipelines.training.classes import FLUTTER, SYMBOL_CLASSES, BeatClass

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgmon.pipelines.sources.interfaces import Record

LEADS: Final = 2
"""Rows of the signal: the lead that the daemon scores, and the record's other lead (all zero if it has none)."""

STEP: Final = 0.0005
"""Step of the stored signal in mV: a tenth of that of MIT-BIH; 16 mV fit into 16 bits."""

ANNOTATOR: Final = "atr"
"""Default suffix of the files with reference annotations."""

CONFIRMING: Final = 0.05
"""Largest distance in seconds at which a peak of a second detector confirms an annotation."""

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
record     record of the beat, as an index into the data set's list of records
symbol     annotation symbol
aami       :class:`ecgmon.pipelines.training.classes.BeatClass`
fold       random fold of the beat, 0 to 4
tenth      random tenth of this fold, 0 to 9
confirmed  whether a second detector also has a peak there, see :data:`CONFIRMING`; true if none was used
sample     annotated R peak, sample index into the record
column     the same R peak at 360 Hz, as an index into the columns of the data set's signal
rr         RR interval to the previous beat, in seconds; NaN for a record's first beat
rr_ratio   ``rr`` over the mean of the (up to) eight RR intervals before it; NaN until four are known
rr_after   RR interval to the next beat, in seconds; NaN for a record's last beat
=========  =========================================================================================
"""

_BLOCK_SECONDS: Final = 600.0  # length of the signal that is read from disk at once
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class NoBeatsError(Exception):
    """A record has no beat with a complete window."""


@dataclass(frozen=True, slots=True, eq=False)
class AnnotatedRecord:
    """Signal and beats of one record, prepared for a data set.

    Attributes
    ----------
    fs : float
        Sampling frequency of the record in Hz.
    leads : tuple of str
        Leads of the signal: the one or two that the daemon chooses.
    signal : ndarray of int16, shape (LEADS, n)
        Filtered, at 360 Hz, in steps of :data:`STEP`.
    beats : ndarray of BEAT, shape (m,)
        Beats with a complete window; ``column`` is an index into ``signal``; ``record``, ``fold`` and ``tenth`` are not
        set.
    without_signal : int
        Number of beats left out because a sample of their window is missing or too large to store.
    """

    fs: float
    leads: tuple[str, ...]
    signal: NDArray[np.int16]
    beats: NDArray[np.void]
    without_signal: int


def find(db: Path) -> list[str]:
    """List the records of a folder.

    Parameters
    ----------
    db : Path
        Folder with WFDB records, also in sub-folders.

    Returns
    -------
    list of str
        Paths inside the folder without suffix, such as ``100`` or ``patient_a/rec-01``: those in its RECORDS file, in
        that order; without such a file, all headers, sorted.

    Raises
    ------
    ecgmon.pipelines.sources.errors.SourceError
        If there is no record, or the RECORDS file points outside the folder.
    """
    listing = db / "RECORDS"
    if listing.is_file():
        names = listing.read_text(encoding="utf-8", errors="replace").split()
    else:
        names = sorted(header.relative_to(db).with_suffix("").as_posix() for header in db.rglob("*.hea"))
    if not names:
        raise RecordNotFoundError(
            f"{db}: no records in this folder; neither it nor a sub-folder has a RECORDS or .hea file"
        )
    for name in names:
        _check_inside(name)
    return list(dict.fromkeys(names))


def reference(db: Path, name: str) -> RecordRef:
    """Return the reference to open a record of a folder.

    Raises
    ------
    ecgmon.pipelines.sources.errors.UnsafeNameError
        If the name points outside the folder.
    """
    _check_inside(name)
    return RecordRef(name, db / name)


def _check_inside(name: str) -> None:
    if not name or _CONTROL.search(name) or name.startswith(("/", "~")) or ".." in name.split("/"):
        raise UnsafeNameError(
            f"{name!r} points outside the folder; expected a record inside it, such as patient_a/rec-01"
        )


def read(
    db: Path,
    name: str,
    *,
    annotator: str = ANNOTATOR,
    annotations: Annotations | None = None,
    confirm: bool = False,
) -> AnnotatedRecord:
    """Read one record: its filtered signal and its beats.

    Parameters
    ----------
    db : Path
        Folder of the record.
    name : str
        One of the names that :func:`find` returns.
    annotator : str
        Suffix of its annotation file.
    annotations : Annotations, optional
        Annotations to use instead of the annotation file.
    confirm : bool
        Mark the beats that a second detector finds as well; this takes longer than everything else.

    Raises
    ------
    ecgmon.pipelines.sources.errors.SourceError
        If the record or its annotations cannot be read.
    NoBeatsError
        If no annotated beat has a complete window.

    Notes
    -----
    The windows equal those that a stream of the record cuts at the same R peaks: the same leads, resampled by the same
    filter, missing samples replaced by the previous value.  They differ only at the ends of the record, see
    :func:`_filter_whole`.
    """
    ref = reference(db, name)
    record = open_record(ref)
    found = read_annotations(ref, annotator) if annotations is None else annotations
    # Flutter waves have no class, but a detector takes them for beats, so they end RR intervals.
    known = np.isin(found.symbol, [*SYMBOL_CLASSES, FLUTTER])
    sample, symbol = found.sample[known], found.symbol[known]
    if not np.isin(symbol, list(SYMBOL_CLASSES)).any():
        raise NoBeatsError(
            f"{name}: none of its {len(found.sample)} annotations stands for a beat; expected symbols such as N or V"
        )
    leads, unfiltered = _signal(record)
    unfiltered, missing = _filled(unfiltered)
    unfiltered, missing, (up, down) = _resampled(unfiltered, missing, record.fs)
    steps, beyond = _steps(_filter_whole(unfiltered))
    signal = np.zeros((LEADS, steps.shape[-1]), np.int16)
    signal[: len(leads)] = steps
    table = np.zeros(len(sample), BEAT)
    table["sample"] = sample
    table["column"] = column = (2 * sample * up + down) // (2 * down)
    table["symbol"] = symbol
    table["aami"] = [SYMBOL_CLASSES.get(str(one), BeatClass.Q) for one in symbol]
    table["confirmed"] = _confirmed(column, unfiltered[0]) if confirm else True
    table["rr"], table["rr_ratio"] = rhythm(sample, record.fs)
    table["rr_after"] = np.append(table["rr"][1:], np.float32(np.nan))
    inside = (column >= windows.BEFORE) & (column + windows.AFTER <= signal.shape[-1])
    table, column = table[inside & (symbol != FLUTTER)], column[inside & (symbol != FLUTTER)]
    unusable = np.append(0, np.cumsum(missing[0] | beyond[0]))
    whole = unusable[column + windows.AFTER] == unusable[column - windows.BEFORE]
    if not whole.any():
        raise NoBeatsError(
            f"{name}: none of its {np.count_nonzero(symbol != FLUTTER)} annotated beats has a whole window of signal "
            f"in the lead {leads[0]}"
        )
    return AnnotatedRecord(record.fs, leads, signal, table[whole], int(np.count_nonzero(~whole)))


def rhythm(r_peaks: NDArray[np.int64], fs: float = windows.FS) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute RR intervals, and the ratio of each to the mean of those before it.

    Parameters
    ----------
    r_peaks : ndarray of int64, shape (n,)
        Successive R peaks of one record, as sample indices.
    fs : float
        Sampling frequency in Hz.

    Returns
    -------
    rr : ndarray of float32, shape (n,)
        RR interval to the previous beat, in seconds; NaN for the first beat.
    rr_ratio : ndarray of float32, shape (n,)
        ``rr`` over the mean of the (up to) :data:`ecgmon.pipelines.limits.RR_REMEMBERED` intervals
        before it; NaN until :data:`ecgmon.pipelines.limits.RR_NEEDED` of those are known.

    Examples
    --------
    >>> rr, rr_ratio = rhythm(np.array([0, 360, 720, 1080, 1440, 1620]))
    >>> rr.tolist(), rr_ratio.tolist()
    ([nan, 1.0, 1.0, 1.0, 1.0, 0.5], [nan, nan, nan, nan, nan, 0.5])
    """
    rr = np.full(len(r_peaks), np.nan)
    rr[1:] = np.diff(r_peaks) / fs
    ratio = np.full(len(r_peaks), np.nan)
    for k in range(1 + RR_NEEDED, len(r_peaks)):
        ratio[k] = rr[k] / rr[max(1, k - RR_REMEMBERED) : k].mean()
    return rr.astype(np.float32), ratio.astype(np.float32)


def nearest_of(ordered: NDArray[np.int64], samples: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return, for each sample index, the position of the nearest one in a sorted array."""
    return np.searchsorted((ordered[1:] + ordered[:-1]) / 2, samples)


def _signal(record: Record) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Read the leads that the daemon chooses, shape (leads, n), in blocks: a record may have many other leads."""
    from ecgmon.pipelines.segmentation.segmenter import chosen_leads

    columns = list(chosen_leads(record.leads))[:LEADS]
    block = round(_BLOCK_SECONDS * record.fs)
    signal = np.empty((len(columns), record.length), np.float32)
    for start in range(0, record.length, block):
        stop = min(start + block, record.length)
        signal[:, start:stop] = record.read(start, stop)[:, columns].T
    return tuple(record.leads[column] for column in columns), signal


def _filled(signal: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Replace missing samples by the previous value, or by 0, as the segmenter does; also return which are missing."""
    from ecgmon.pipelines.segmentation.stages import LARGEST

    missing = ~(np.abs(signal) <= LARGEST)  # also true for NaN
    if missing.any():
        before = np.maximum.accumulate(np.where(missing, -1, np.arange(signal.shape[-1])), axis=-1)
        signal = np.where(before < 0, np.float32(0), np.take_along_axis(signal, np.maximum(before, 0), axis=-1))
    return signal, missing


def _resampled(
    signal: NDArray[np.float32], missing: NDArray[np.bool_], fs: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_], tuple[int, int]]:
    """Resample signal and marks to 360 Hz as in a stream, with the last value held; also return ``up`` and ``down``."""
    from ecgmon.pipelines.segmentation.resampling import Resampler

    resampler = Resampler(fs, len(signal), len(signal))
    half = resampler.half
    held = np.repeat(signal[:, -1:], half, axis=-1)
    marks = np.concatenate([missing, np.repeat(missing[:, -1:], half, axis=-1)], axis=-1).astype(np.int32)
    out, marked = resampler.push(np.concatenate([signal, held], axis=-1), marks)
    return out, marked.astype(np.bool_), (resampler.up, resampler.down)


def _steps(signal: NDArray[np.float32]) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """Round a signal in mV to stored steps; also return which samples are too large to store."""
    most = np.iinfo(np.int16).max
    steps = np.round(signal / STEP)
    return np.clip(steps, -most, most).astype(np.int16), np.abs(steps) > most


def _confirmed(r_peaks: NDArray[np.int64], signal: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which annotated beats a second detector also finds; the original experiment drops other normal beats."""
    from sleepecg import detect_heartbeats

    found = detect_heartbeats(signal.astype(np.float64), windows.FS)
    if len(found) == 0:
        return np.zeros(len(r_peaks), np.bool_)
    nearest = found[nearest_of(found, r_peaks)]
    confirmed: NDArray[np.bool_] = np.abs(nearest - r_peaks) <= CONFIRMING * windows.FS
    return confirmed


def _filter_whole(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """Filter a record up to its ends; beyond them it is continued by its point reflection at the first and last sample.

    A stream has no samples outside the record: it repeats the first value before it, and gives no beat whose window
    lacks samples at the end.  The published protocol has such beats; 34 of them are normal.
    """
    half = windows.FILTER_HALF
    head = 2 * signal[:, :1] - signal[:, half:0:-1]
    tail = 2 * signal[:, -1:] - signal[:, -2 : -half - 2 : -1]
    return windows.filter_raw(np.concatenate([head, signal, tail], axis=-1))


def names_shown(names: Iterable[str], most: int = 5) -> str:
    """Format names for a message: the first few, and the number of the others."""
    every = list(names)
    rest = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + rest
