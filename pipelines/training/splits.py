"""A user's own split of a data set: which beats train a model, which calibrate its score, and which test it.

Parts are named in a file or drawn at random, by record, by patient or by beat.  The normal beats of the training part
train, except the held-out beats, which calibrate the score.  The held-out beats are those of the part ``validation``;
if no part has this name, they are a tenth of the training part, or more tenths if these are too few.  Abnormal beats
are used in ``test`` only.  The splits of published protocols are in :mod:`ecgmon.pipelines.training.mitdb`.
"""

from __future__ import annotations

import csv
import io
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from ecgmon.pipelines.training.dataset import DatasetError
from ecgmon.pipelines.training.records import names_shown

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgmon.pipelines.training.dataset import Dataset

HELD_OUT_TENTH: Final = 0
"""Random tenth of the beats that never trains."""

HELD_OUT_BEATS: Final = 1500
"""Normal beats to hold out at least, in whole tenths: a table of the score needs 1000 with complete evidence."""

MOST_TENTHS: Final = 5
"""Largest number of tenths of the normal beats to hold out."""

PARTS: Final = {"train": "train", "validation": "validation", "held_out": "validation", "test": "test"}
"""Accepted names of parts, and the part that each means."""

BY: Final = ("patient", "record", "beat")
"""Units that can be kept together when parts are drawn at random."""


class SplitError(DatasetError):
    """A split cannot be read, or does not fit its data set."""

    __module__ = "ecgmon.errors"


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Beats of a data set by their use; each beat has at most one use.

    Attributes
    ----------
    name : str
    train, held_out, test : ndarray of bool, shape (n,)
        Masks over the beats of the data set.  ``train`` and ``held_out`` select normal beats only.
    """

    name: str
    train: NDArray[np.bool_]
    held_out: NDArray[np.bool_]
    test: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Drawn:
    """Parts that are drawn at random.

    Attributes
    ----------
    test : float
        Share of the patients, records or normal beats that test, above 0 and below 1.  If beats are drawn, all
        abnormal beats test, as in BeatGAN's protocol.
    by : str
        One of :data:`BY`.
    seed : int
    """

    __module__ = "ecgmon"

    test: float = 0.2
    by: str = "patient"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.test < 1:
            raise SplitError(f"the test share is {self.test}; expected a number above 0 and below 1, such as 0.2")
        if self.by not in BY:
            raise SplitError(f"parts cannot be drawn by {self.by!r}; expected {', '.join(BY)}")
        if self.seed < 0:
            raise SplitError(f"the seed is {self.seed}; expected 0 or more")


@dataclass(frozen=True, slots=True)
class Named:
    """Parts that are named.

    Attributes
    ----------
    parts : dict of str to str
        Part by the name of the record or patient: ``train``, ``validation`` or ``test``.  If none is ``train``, all
        records or patients that are not named train.
    by : str
        Whether the names are those of a ``record`` or of a ``patient``.
    patients : dict of str to str
        Patient of each record, where it is known.
    """

    parts: dict[str, str]
    by: str = "record"
    patients: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.by not in BY[:2]:
            raise SplitError(f"parts cannot be named by {self.by!r}; expected record or patient")
        for name, part in self.parts.items():
            if part not in PARTS:
                raise SplitError(f"{name!r} has the part {part!r}; expected one of {', '.join(PARTS)}")
        if not self.parts:
            raise SplitError("the split is empty; expected records or patients that train, validate or test")


Rule: TypeAlias = Drawn | Named
"""Rule by which the parts of a split are chosen."""


def read(path: Path) -> Named:
    """Read a split from a file.

    Parameters
    ----------
    path : Path
        TOML with lists ``train``, ``validation`` and ``test``, ``by = "patient"`` if they name patients, and a table
        ``[patients]`` with the patient of each record; or CSV with the columns ``record`` or ``patient``, or both, and
        ``part``.  With both columns the parts are of records, and ``patient`` is the patient of the record.

    Raises
    ------
    SplitError
        If the file cannot be read as one of these.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise SplitError(f"the split {path} cannot be read: {error}") from error
    try:
        return _from_csv(text) if path.suffix.lower() == ".csv" else _from_toml(tomllib.loads(text))
    except (SplitError, tomllib.TOMLDecodeError, csv.Error) as error:
        raise SplitError(f"{path}: {error}") from error


def read_patients(path: Path) -> dict[str, str]:
    """Read the patient of each record from a CSV file with the columns ``record`` and ``patient``.

    Raises
    ------
    SplitError
        If the file cannot be read as such a table, or a record has two patients.
    """
    try:
        rows = _rows(path.read_text(encoding="utf-8"), ("record", "patient"))
    except (OSError, ValueError, csv.Error, SplitError) as error:
        raise SplitError(f"{path}: {error}") from error
    patients: dict[str, str] = {}
    for row in rows:
        if patients.setdefault(row["record"], row["patient"]) != row["patient"]:
            raise SplitError(f"{path}: the record {row['record']!r} has two patients; expected one")
    return patients


def _from_csv(text: str) -> Named:
    rows = _rows(text, ("part",))
    by = "record" if "record" in rows[0] else "patient"
    if by not in rows[0]:
        raise SplitError(f"it has the columns {', '.join(rows[0])}; expected record or patient, and part")
    parts: dict[str, str] = {}
    for row in rows:
        if parts.setdefault(row[by], row["part"]) != row["part"]:
            raise SplitError(f"{row[by]!r} is in {parts[row[by]]} and in {row['part']}; expected one part")
    return Named(
        parts, by, {row["record"]: row["patient"] for row in rows} if {"record", "patient"} <= set(rows[0]) else {}
    )


def _rows(text: str, needed: tuple[str, ...]) -> list[dict[str, str]]:
    """Read a CSV table that has at least the needed columns; spaces around values are removed."""
    reader = csv.DictReader(io.StringIO(text), skipinitialspace=True, strict=True)
    columns = [name.strip() for name in reader.fieldnames or ()]
    if missing := [name for name in needed if name not in columns]:
        raise SplitError(f"the column {missing[0]!r} is missing; found {', '.join(columns) or 'no columns'}")
    reader.fieldnames = columns
    rows = []
    for row in reader:
        if None in row or None in row.values():
            raise SplitError(f"line {reader.line_num} has more or fewer fields than the first line")
        rows.append({name: value.strip() for name, value in row.items()})
    if not rows:
        raise SplitError("the table has no rows below the column names")
    return rows


def _from_toml(plain: dict[str, Any]) -> Named:
    if unknown := plain.keys() - {*PARTS, "by", "patients"}:
        raise SplitError(f"{min(unknown)!r} is not known; expected {', '.join(PARTS)}, by and [patients]")
    parts: dict[str, str] = {}
    for part in PARTS:
        names = plain.get(part, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise SplitError(f"{part!r} is {names!r}; expected a list of names in quotation marks")
        for name in names:
            if parts.setdefault(name, part) != part:
                raise SplitError(f"{name!r} is in {parts[name]} and in {part}; expected one part")
    patients = plain.get("patients", {})
    if not isinstance(patients, dict) or not all(isinstance(patient, str) for patient in patients.values()):
        raise SplitError('[patients] is not a table of strings; expected lines such as "rec-01" = "patient a"')
    return Named(parts, str(plain.get("by", "record")), patients)


def whole(dataset: Dataset, name: str = "all") -> Split:
    """Return a split in which the normal beats of all records train, and none test."""
    return _parted(dataset, name, np.ones(len(dataset.beats), np.bool_), np.zeros(len(dataset.beats), np.bool_))


def split(dataset: Dataset, rule: Rule, name: str = "own") -> Split:
    """Split a data set.

    Parameters
    ----------
    dataset : Dataset
    rule : Drawn or Named
    name : str
        Name of the split.

    Raises
    ------
    SplitError
        If the rule names unknown records or patients, or leaves no beats to train on.
    """
    if isinstance(rule, Named):
        found = _named(dataset, rule, name)
    elif rule.by == "beat":
        found = _drawn_beats(dataset, rule, name)
    else:
        found = _parted(dataset, name, *_drawn(dataset, rule))
    if not found.train.any():
        raise SplitError("no normal beat is left to train on; expected a part that trains, with normal beats")
    return found


def half(dataset: Dataset, name: str, of_whole: NDArray[np.bool_], which: int) -> Split:
    """Return a split in which every second patient trains, and the others test.

    Parameters
    ----------
    dataset : Dataset
    name : str
        Name of the half.
    of_whole : ndarray of bool, shape (n,)
        The beats of the whole split.
    which : int
        0: the first, third, ... patient train; 1: the second, fourth, ...
    """
    patients = dataset.patient_of_beats()
    inside = np.isin(patients, np.unique(patients[of_whole])[which::2])
    own, held_out = dataset.normal & of_whole & inside, dataset.beats["tenth"] == HELD_OUT_TENTH
    return Split(name, own & ~held_out, own & held_out, of_whole & ~inside)


def _named(dataset: Dataset, rule: Named, name: str) -> Split:
    there = {"record": (*dataset.records, *dataset.left_out), "patient": dataset.patients}[rule.by]
    if unknown := [one for one in rule.parts if one not in there]:
        raise SplitError(
            f"the split names {names_shown(unknown)}; the {rule.by}s of the data set are {names_shown(there)}"
        )
    own = dataset.records if rule.by == "record" else dataset.patients
    rest = None if "train" in rule.parts.values() else "train"
    part = np.array([PARTS.get(rule.parts.get(one, rest or ""), "") for one in own])[dataset.beats["record"]]
    if not (part == "validation").any():
        return _parted(dataset, name, part == "train", part == "test")
    return Split(name, dataset.normal & (part == "train"), dataset.normal & (part == "validation"), part == "test")


def _drawn(dataset: Dataset, rule: Drawn) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Draw the training and the test beats, with at least one patient or record each."""
    units = dataset.patient_of_beats() if rule.by == "patient" else dataset.beats["record"].astype(np.int64)
    each = np.unique(units)
    if len(each) < 2:  # noqa: PLR2004 - one trains, one tests
        raise SplitError(f"there is only one {rule.by}; draw parts by beat, or use more records")
    count = min(max(1, round(rule.test * len(each))), len(each) - 1)
    test = np.isin(units, np.random.default_rng(rule.seed).permutation(each)[:count])
    return ~test, test


def _drawn_beats(dataset: Dataset, rule: Drawn, name: str) -> Split:
    test = ~dataset.normal
    normal = np.flatnonzero(dataset.normal)
    drawn = np.random.default_rng(rule.seed).permutation(normal)[: max(1, round(rule.test * len(normal)))]
    test[drawn] = True
    return _parted(dataset, name, ~test, test)


def _parted(dataset: Dataset, name: str, train: NDArray[np.bool_], test: NDArray[np.bool_]) -> Split:
    """Hold out a tenth of the normal training beats, or more tenths until they are :data:`HELD_OUT_BEATS`."""
    own, tenth = dataset.normal & train, dataset.beats["tenth"]
    for most in range(1, MOST_TENTHS + 1):
        held_out = tenth < HELD_OUT_TENTH + most
        if np.count_nonzero(own & held_out) >= HELD_OUT_BEATS:
            break
    return Split(name, own & ~held_out, own & held_out, test)
