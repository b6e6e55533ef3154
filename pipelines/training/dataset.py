"""Data sets of annotated beats, to train and test models.

The records can have any names, sampling frequencies and leads.  They are resampled to 360 Hz and reduced to the leads
that the daemon chooses, so that a model sees the same windows as in a stream.
:mod:`ecgmon.pipelines.training.mitdb` handles the MIT-BIH Arrhythmia Database.  No normal beat is dropped; normal beats
that a second detector does not find can be marked.

On disk a data set is a folder of three files.  ``signal.npy`` holds the filtered records end to end,
``beats.npy`` the place in it and the class of each beat, ``dataset.json`` the sources of both.
A window is a slice of the signal: nothing is stored twice, and an augmentation that shifts or warps a
window reads real signal at its edges.  :mod:`ecgmon.pipelines.training.splits` decides which beats train,
calibrate and test.
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
"""Version of the folder's format.  In version 1 a record was a number, as in MIT-BIH."""

FOLDS: Final = 5
"""Number of random folds for cross-validation."""

TENTHS: Final = 10
"""Number of random parts of each fold; one of them neither trains nor tests."""


class DatasetError(Exception):
    """Records or a prepared data set cannot be used."""

    __module__ = "ecgmon.errors"


@dataclass(frozen=True, slots=True)
class Dataset:
    """Annotated beats and their filtered signal.

    Attributes
    ----------
    beats : ndarray of BEAT, shape (n,)
        In the order of the records, and of time within each.
    signal : ndarray of int16, shape (LEADS, samples)
        Filtered records end to end at 360 Hz, in steps of :data:`ecgmon.pipelines.training.records.STEP`.
        Mapped from disk, read-only.
    spans : tuple of (int, int)
        First column of each record in ``signal``, and the column after its last.
    about : dict
        Contents of ``dataset.json``: the sources of the data set.
    """

    beats: NDArray[np.void]
    signal: NDArray[np.int16]
    spans: tuple[tuple[int, int], ...]
    about: dict[str, Any]

    @property
    def records(self) -> tuple[str, ...]:
        """Names of the records; ``beats["record"]`` is an index into them."""
        return tuple(self.about["records"])

    @property
    def patients(self) -> tuple[str, ...]:
        """Patient of each record; a record without a named patient counts as a patient of its own."""
        named = self.about.get("patients", {})
        return tuple(named.get(name, name) for name in self.records)

    @property
    def left_out(self) -> dict[str, str]:
        """Records of the folder that could not be used, with the reason."""
        found: dict[str, str] = self.about.get("left_out", {})
        return found

    @property
    def normal(self) -> NDArray[np.bool_]:
        """Which beats are normal, shape (n,)."""
        normal: NDArray[np.bool_] = self.beats["aami"] == BeatClass.N
        return normal

    def of_records(self, names: Collection[str]) -> NDArray[np.bool_]:
        """Return which beats belong to the named records, shape (n,); unknown names are ignored."""
        return np.isin(self.beats["record"], [place for place, name in enumerate(self.records) if name in names])

    def patient_of_beats(self) -> NDArray[np.int64]:
        """Return the patient of each beat, shape (n,), as the index of the patient's first record."""
        patients = self.patients
        first = np.array([patients.index(patient) for patient in patients], np.int64)
        of_beats: NDArray[np.int64] = first[self.beats["record"]]
        return of_beats

    def names(self, beats: NDArray[np.void]) -> NDArray[np.str_]:
        """Return the name of the record of each of some beats, shape (m,)."""
        names: NDArray[np.str_] = np.array(self.records)[beats["record"]]
        return names

    def windows(self, beats: NDArray[np.void]) -> NDArray[np.float32]:
        """Cut the windows of some beats: as :func:`ecgmon.models.windows.cut`, but rounded to :data:`STEP`.

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
        """Cut augmented windows: the R peak is moved and the time axis stretched.

        Parameters
        ----------
        beats : ndarray of BEAT, shape (m,)
        lead : ndarray of int64, shape (m,)
            Row of the signal from which each window is cut.
        shift : ndarray of float64, shape (m,)
            Number of samples by which each window is cut too late.
        warp : ndarray of float64, shape (m,)
            Samples of signal per sample of window: over 1 compresses the beat, under 1 stretches it.

        Returns
        -------
        ndarray of float32, shape (m, 1, 320)
            In mV, interpolated linearly, from the record of the beat only.
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


def request_for(
    *,
    records: Iterable[str] | None = None,
    annotator: str = ANNOTATOR,
    beats: BeatTable | None = None,
    patients: Mapping[str, str] | None = None,
    confirm: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Describe the inputs of a data set, as :func:`prepare` stores them: equal descriptions give equal data sets."""
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
        Folder with the records, also in sub-folders.
    out : Path
        Folder to store the data set in; made if it is missing.
    records : iterable of str, optional
        Names of records, as paths inside the folder.  By default all records of the folder are read, and those that
        cannot be used are left out and listed in :attr:`Dataset.left_out`.
    annotator : str
        Suffix of the annotation files.
    beats : BeatTable, optional
        Table of beats, used instead of annotation files.
    patients : mapping of str to str, optional
        Patient of each record, before those of the table of beats; a record in neither is a patient of its own.
    confirm : bool
        Mark the beats that a second detector (sleepecg's) finds as well.
    seed : int
        Seed for the random fold and tenth of each beat.
    counts : mapping of BeatClass to int, optional
        Required number of beats of each class, such as those of a published protocol.
    done : callable
        Called with the name of each record after it is read or left out.

    Returns
    -------
    Dataset

    Raises
    ------
    ecgmon.pipelines.sources.errors.SourceError
        If a named record cannot be read, or the folder has no records.
    DatasetError
        If no record is left, a named record has no beats, ``beats`` or ``patients`` name unknown records only, there
        are too many records, or the numbers of beats are not those required.
    """
    request = request_for(
        records=records, annotator=annotator, beats=beats, patients=patients, confirm=confirm, seed=seed
    )
    names = _names(db, request["records"])
    patient_of = (beats.patients if beats is not None else {}) | dict(patients or {})
    _check_known(names, patient_of, beats)
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
        "patients": {name: patient_of[name] for name in read if name in patient_of},
        "left_out": left_out,
        "seed": seed,
        "counts": {aami.name: count for aami, count in found.items()},
        "spans": [list(span) for span in spans],
        **_described(read, joined, table, _hashes(db, read, annotator if beats is None else None)),
    }
    _store(out, joined, table, about)
    return load(out)


def _names(db: Path, named: list[str] | None) -> list[str]:
    """Return the records to read: the named ones, or all in the folder."""
    if named == []:
        raise DatasetError("no record was named; expected at least one, as a path inside the folder, such as 100")
    names = named or annotated.find(db)
    if len(names) != len(set(names)):
        raise DatasetError("a record is named twice; name it once")
    return names


def _checked_counts(aami: NDArray[np.uint8], expected: Mapping[BeatClass, int] | None) -> dict[BeatClass, int]:
    """Count the beats of each class; raise an error if the counts differ from the expected ones."""
    found = {kind: int(np.count_nonzero(aami == kind)) for kind in BeatClass}
    if expected is not None and found != expected:
        raise DatasetError(f"the records hold {_listing(found)} beats; the published protocol has {_listing(expected)}")
    return found


def _store(out: Path, signal: NDArray[np.int16], beats: NDArray[np.void], about: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "signal.npy", signal)
    np.save(out / "beats.npy", beats)
    # last: if this file exists, the data set is complete
    (out / "dataset.json").write_text(json.dumps(about, indent=1) + "\n")


def _read_all(
    db: Path,
    names: Collection[str],
    read: Callable[[str], annotated.AnnotatedRecord],
    done: Callable[[str], None],
    *,
    named: bool,
) -> tuple[dict[str, annotated.AnnotatedRecord], dict[str, str]]:
    """Read records; return them, and for each unusable record the reason.  If ``named``, none may be unusable."""
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
    """Describe the contents of a data set, with its hashes."""
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
    """Open a data set that :func:`prepare` stored; the signal is mapped from disk.

    Raises
    ------
    DatasetError
        If the folder holds no data set, one of another format, or files of different data sets.
    """
    try:
        about = json.loads((folder / "dataset.json").read_text())
        # open_memmap reads arrays only; np.load would also open archives
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


def _check_known(names: Collection[str], patient_of: Mapping[str, str], beats: BeatTable | None) -> None:
    """Refuse a table of beats or list of patients that names only unknown records: a typo would drop data silently."""
    for what, named in (
        ("table of beats", beats.records if beats is not None else ()),
        ("list of patients", patient_of),
    ):
        unknown = [name for name in named if name not in set(names)]
        if unknown and len(unknown) == len(set(named)):
            raise DatasetError(
                f"the {what} names {names_shown(unknown)}; expected the names of records of the folder, such as "
                f"{names_shown(names, 3)}"
            )


def _joined(
    read: Mapping[str, annotated.AnnotatedRecord],
) -> tuple[NDArray[np.int16], NDArray[np.void], list[tuple[int, int]]]:
    """Join records end to end; return the signal, the beats with their columns in it, and the span of each record."""
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
    """Return the SHA-256 of the files of the records, except signal files of other names; the signal has its own."""
    kinds = sorted({"dat", "hea"} | ({annotator} if annotator is not None else set()))
    paths = [f"{name}.{kind}" for name in names for kind in kinds]
    return {path: _sha256((db / path).read_bytes()) for path in paths if (db / path).is_file()}


def _random_parts(aami: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Assign the beats of each class to 50 random parts, whose sizes differ by at most one beat."""
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
