"""Beats of annotated records, as models are trained and judged on them.

The records are those of any folder: whatever their names, sampling frequencies and leads, they come to 360 Hz and to
the leads that the daemon chooses, so that a model sees the windows that a stream will bring.  What is particular to
the MIT-BIH Arrhythmia Database is the subject of :mod:`ecgmon.pipelines.training.mitdb`.  No normal beat is dropped;
those that a second detector does not find can be marked.

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
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ecgmon.models import windows
from ecgmon.pipelines.sources.errors import SourceError
from ecgmon.pipelines.training import records as annotated
from ecgmon.pipelines.training.classes import BeatClass
from ecgmon.pipelines.training.records import ANNOTATOR, BEAT, STEP, NoBeatsError, names_shown

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgmon.pipelines.training.beat_tables import BeatTable

FORMAT: Final = 2
"""Of the folder.  In the first one a record was a number, as MIT-BIH's are."""

FOLDS: Final = 5
"""Random fifths, for a cross-validation."""

TENTHS: Final = 10
"""Random tenths of every fold, one of which neither trains nor tests."""


class DatasetError(Exception):
    """Records, or a prepared data set, that cannot be used."""

    __module__ = "ecgmon.errors"


@dataclass(frozen=True, slots=True)
class Dataset:
    """Annotated beats and the filtered signal that they lie in.

    Attributes
    ----------
    beats : ndarray of BEAT, shape (n,)
        In the order of the records, and of time within each.
    signal : ndarray of int16, shape (LEADS, samples)
        Filtered records end to end at 360 Hz, in steps of :data:`ecgmon.pipelines.training.records.STEP`.
        Mapped from disk, read-only.
    spans : tuple of (int, int)
        Of each record the first column in ``signal``, and the first one after it.
    about : dict
        What the data set was made from, as stored in ``dataset.json``.
    """

    beats: NDArray[np.void]
    signal: NDArray[np.int16]
    spans: tuple[tuple[int, int], ...]
    about: dict[str, Any]

    @property
    def records(self) -> tuple[str, ...]:
        """Names of the records, in the order that ``beats["record"]`` counts in."""
        return tuple(self.about["records"])

    @property
    def patients(self) -> tuple[str, ...]:
        """Whose each record is; a record of which nothing is said is a patient by itself."""
        named = self.about.get("patients", {})
        return tuple(named.get(name, name) for name in self.records)

    @property
    def left_out(self) -> dict[str, str]:
        """Records of the folder that could not be used, and why."""
        found: dict[str, str] = self.about.get("left_out", {})
        return found

    @property
    def normal(self) -> NDArray[np.bool_]:
        """Which beats are normal, shape (n,)."""
        normal: NDArray[np.bool_] = self.beats["aami"] == BeatClass.N
        return normal

    def of_records(self, names: Collection[str]) -> NDArray[np.bool_]:
        """Tell which beats are of the records of some names, shape (n,); names of other records say nothing."""
        return np.isin(self.beats["record"], [place for place, name in enumerate(self.records) if name in names])

    def whose(self) -> NDArray[np.int64]:
        """Tell whose each beat is, by the place of that patient's first record; shape (n,)."""
        patients = self.patients
        first = np.array([patients.index(patient) for patient in patients], np.int64)
        whose: NDArray[np.int64] = first[self.beats["record"]]
        return whose

    def names(self, beats: NDArray[np.void]) -> NDArray[np.str_]:
        """Name the record of some beats; shape (m,)."""
        names: NDArray[np.str_] = np.array(self.records)[beats["record"]]
        return names

    def windows(self, beats: NDArray[np.void]) -> NDArray[np.float32]:
        """Cut the windows of some beats, as :func:`ecgmon.models.windows.cut` does but for half a step.

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
        bounds = np.array(self.spans)[beats["record"]]
        times = beats["column"][:, None] + shift[:, None] + ticks * warp[:, None]
        times = np.clip(times, bounds[:, :1], bounds[:, 1:] - 1.000_001)  # leaves room for the right neighbour
        left = times.astype(np.int64)
        part = (times - left).astype(np.float32)
        row = lead[:, None]
        cut = self.signal[row, left] * (1 - part) + self.signal[row, left + 1] * part
        return (cut * np.float32(STEP))[:, None]


def asked(
    *,
    records: Iterable[str] | None = None,
    annotator: str = ANNOTATOR,
    beats: BeatTable | None = None,
    patients: Mapping[str, str] | None = None,
    confirm: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Describe what a data set is to be made from, as :func:`prepare` writes it down: the same answer, the same data set."""
    return {
        "records": None if records is None else list(records),
        "annotator": annotator if beats is None else None,
        "beats": None if beats is None else beats.fingerprint(),
        "patients": dict(patients or {}),
        "confirm": confirm,
        "seed": seed,
    }


def prepare(
    db: Path,
    out: Path,
    *,
    records: Iterable[str] | None = None,
    annotator: str = ANNOTATOR,
    beats: BeatTable | None = None,
    patients: Mapping[str, str] | None = None,
    confirm: bool = False,
    seed: int = 0,
    counts: Mapping[BeatClass, int] | None = None,
    done: Callable[[str], None] = lambda _: None,
) -> Dataset:
    """Build the data set from WFDB records and store it.

    Parameters
    ----------
    db : Path
        Folder with the records, in sub-folders, too.
    out : Path
        Folder to store the data set in; made where it is missing.
    records : iterable of str, optional
        Names of records, as paths inside the folder; by default all in it, and those that cannot be used are left out
        and listed in :attr:`Dataset.left_out`.
    annotator : str
        Suffix of the annotation files.
    beats : BeatTable, optional
        What is annotated, in place of annotation files.
    patients : mapping of str to str, optional
        Whose each record is; one that is not named is a patient by itself, unless the table of beats says whose it is.
    confirm : bool
        Ask a second detector (sleepecg's) about every beat.
    seed : int
        Decides which random fold and tenth each beat is in.
    counts : mapping of BeatClass to int, optional
        Beats of each class that there have to be: those of a published protocol.
    done : callable
        Called with the name of each record once it is read, or left out.

    Returns
    -------
    Dataset

    Raises
    ------
    ecgmon.pipelines.sources.errors.SourceError
        If a record that was named cannot be read, or the folder has none.
    DatasetError
        If no record is left, one that was named has no beats, ``beats`` or ``patients`` name records that there are
        none of, there are too many, or the counts are not those that there have to be.
    """
    request = asked(records=records, annotator=annotator, beats=beats, patients=patients, confirm=confirm, seed=seed)
    names = _names(db, request["records"])
    whose = (beats.patients if beats is not None else {}) | dict(patients or {})
    _check_known(names, whose, beats)
    read, left_out = _read_all(
        db,
        names,
        lambda name: _read(db, name, annotator, beats, confirm=confirm),
        done,
        named=request["records"] is not None,
    )
    joined, table, spans = _joined(read)
    table["fold"], table["tenth"] = np.divmod(_random_parts(table["aami"], seed), TENTHS)
    found = _checked_counts(table["aami"], counts)
    about = {
        "format": FORMAT,
        "asked": request,
        "records": list(read),
        "patients": {name: whose[name] for name in read if name in whose},
        "left_out": left_out,
        "seed": seed,
        "counts": {aami.name: count for aami, count in found.items()},
        "spans": [list(span) for span in spans],
        **_described(read, joined, table, _hashes(db, read, annotator if beats is None else None)),
    }
    _store(out, joined, table, about)
    return load(out)


def _names(db: Path, named: list[str] | None) -> list[str]:
    """Return the records to read: those that were named, or else all in the folder."""
    if named == []:
        raise DatasetError("no record was named; expected at least one, as a path inside the folder, such as 100")
    names = named or annotated.find(db)
    if len(names) != len(set(names)):
        raise DatasetError("a record is named twice; name it once")
    return names


def _checked_counts(aami: NDArray[np.uint8], expected: Mapping[BeatClass, int] | None) -> dict[BeatClass, int]:
    """Count the beats of each class, and refuse other counts than the expected ones."""
    found = {kind: int(np.count_nonzero(aami == kind)) for kind in BeatClass}
    if expected is not None and found != expected:
        raise DatasetError(f"the records hold {_listing(found)} beats; the published protocol has {_listing(expected)}")
    return found


def _store(out: Path, signal: NDArray[np.int16], beats: NDArray[np.void], about: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "signal.npy", signal)
    np.save(out / "beats.npy", beats)
    (out / "dataset.json").write_text(json.dumps(about, indent=1) + "\n")  # last: its presence says that all is there


def _read_all(
    db: Path,
    names: Collection[str],
    read: Callable[[str], annotated.AnnotatedRecord],
    done: Callable[[str], None],
    *,
    named: bool,
) -> tuple[dict[str, annotated.AnnotatedRecord], dict[str, str]]:
    """Read records; return them, and why the others cannot be used.  None of the ``named`` records may be left out."""
    found: dict[str, annotated.AnnotatedRecord] = {}
    left_out: dict[str, str] = {}
    for name in names:
        try:
            found[name] = read(name)
        except (SourceError, DatasetError) as error:
            if named:
                raise
            left_out[name] = str(error)
        done(name)
    if not found:
        raise DatasetError(
            f"none of the {len(names)} records of {db} can be used ({next(iter(left_out.values()))}); "
            "expected records with annotated beats"
        )
    return found, left_out


def _read(db: Path, name: str, annotator: str, beats: BeatTable | None, *, confirm: bool) -> annotated.AnnotatedRecord:
    """Read a record with the beats of its annotation file, or of a table."""
    annotations = None if beats is None else beats.annotations(name, annotated.reference(db, name))
    try:
        return annotated.read(db, name, annotator=annotator, annotations=annotations, confirm=confirm)
    except NoBeatsError as error:
        raise DatasetError(str(error)) from error


def _described(
    read: Mapping[str, annotated.AnnotatedRecord],
    signal: NDArray[np.int16],
    beats: NDArray[np.void],
    files: dict[str, str],
) -> dict[str, Any]:
    """Say what is in a data set, and by which hashes it is known."""
    return {
        "leads": {name: list(record.leads) for name, record in read.items()},
        "recorded_at": {name: record.fs for name, record in read.items()},
        "without_signal": {name: record.without_signal for name, record in read.items() if record.without_signal},
        "fs": windows.FS,
        "millivolts_per_step": STEP,
        "unconfirmed": int(np.count_nonzero(~beats["confirmed"] & (beats["aami"] == BeatClass.N))),
        "files": files,
        "sha256": {
            "files": _sha256(json.dumps(files, sort_keys=True).encode()),
            "beats": _sha256(beats.tobytes()),
            "signal": _sha256(signal.tobytes()),
        },
    }


def load(folder: Path) -> Dataset:
    """Open a data set that :func:`prepare` stored; the signal is mapped, not read.

    Raises
    ------
    DatasetError
        If the folder holds no data set, one of another version, or one whose files do not belong together.
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
    if about.get("format") != FORMAT:
        raise DatasetError(
            f"{folder} holds a data set of format {about.get('format', 1)}; this version of ecgmon reads format {FORMAT}: "
            f"make it again with 'ecgmon train prepare --db DIR --data {folder}'"
        )
    spans = tuple((int(first), int(stop)) for first, stop in about["spans"])
    if (
        beats.dtype != BEAT
        or _sha256(beats.tobytes()) != about["sha256"]["beats"]
        or signal.shape[-1] != max(stop for _, stop in spans)
    ):
        raise DatasetError(
            f"the files in {folder} do not belong to its dataset.json; make them again with 'ecgmon train prepare'"
        )
    return Dataset(beats, signal, spans, about)


def _check_known(names: Collection[str], whose: Mapping[str, str], beats: BeatTable | None) -> None:
    """Refuse a table of beats or of patients that is about other records: a typing error would drop data in silence."""
    for what, named in (("table of beats", beats.records if beats is not None else ()), ("list of patients", whose)):
        unknown = [name for name in named if name not in set(names)]
        if unknown and len(unknown) == len(set(named)):
            raise DatasetError(
                f"the {what} is about {names_shown(unknown)}; expected the names of records of the folder, such as "
                f"{names_shown(names, 3)}"
            )


def _joined(
    read: Mapping[str, annotated.AnnotatedRecord],
) -> tuple[NDArray[np.int16], NDArray[np.void], list[tuple[int, int]]]:
    """Lay records end to end: the signal, the beats with their place in it, and where each record lies."""
    tables, spans = [], []
    first = 0
    for place, record in enumerate(read.values()):
        stop = first + record.signal.shape[-1]
        if stop > np.iinfo(BEAT["column"]).max or place > np.iinfo(BEAT["record"]).max:
            raise DatasetError(
                f"{len(read)} records are too many or too long for one data set, which holds "
                f"{np.iinfo(BEAT['record']).max + 1} records and {np.iinfo(BEAT['column']).max / windows.FS / 86_400:.0f} "
                "days; name fewer of them"
            )
        record.beats["record"] = place
        record.beats["column"] += first
        tables.append(record.beats)
        spans.append((first, stop))
        first = stop
    return np.concatenate([record.signal for record in read.values()], axis=-1), np.concatenate(tables), spans


def _hashes(db: Path, names: Iterable[str], annotator: str | None) -> dict[str, str]:
    """SHA-256 of the files that records were read from, signal files of other names apart: the signal has its own."""
    kinds = sorted({"dat", "hea"} | ({annotator} if annotator is not None else set()))
    paths = [f"{name}.{kind}" for name in names for kind in kinds]
    return {path: _sha256((db / path).read_bytes()) for path in paths if (db / path).is_file()}


def _random_parts(aami: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Assign the beats of each class to random fiftieths, whose sizes differ by at most one beat."""
    random = np.random.default_rng(seed)
    part = np.empty(len(aami), np.uint8)
    for kind in BeatClass:
        members = np.flatnonzero(aami == kind)
        part[random.permutation(members)] = np.arange(len(members)) % (FOLDS * TENTHS)
    return part


def _listing(counts: Mapping[BeatClass, int]) -> str:
    return ", ".join(f"{count} {aami.name}" for aami, count in counts.items())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
