"""The published protocols on the MIT-BIH Arrhythmia Database: records, patients and splits.

The data set is that of BeatGAN (Zhou et al., IJCAI 2019): 44 records, those without paced beats; lead MLII and the
record's other lead; a window around every annotated R peak.  The splits of two protocols and of the shipped model:

========  =========================================================================================
fold0-4   BeatGAN's five folds (Zhou et al., IJCAI 2019): a fifth of the normal beats tests, the
          rest except a tenth trains; all abnormal beats except a tenth test.  The same patients are
          in training and test.
ds1       Patients apart (de Chazal et al., IEEE Trans. Biomed. Eng. 51, 2004): the normal beats of
          22 records train, all beats of the 22 others test.
all       The normal beats of all records train the model that the daemon runs.  No beats are left to
          test it.
ds1-a, -b The normal beats of every second patient of ``ds1`` train, from the first (a) or the second
          (b); the other patients of ``ds1`` test.
all-a, -b The same for ``all``.
========  =========================================================================================

The halves (a, b) measure how large the errors of a patient are whom a generator has not seen, without the
patients that test the whole split.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from ecgmon.pipelines.training import dataset as datasets
from ecgmon.pipelines.training.classes import BeatClass
from ecgmon.pipelines.training.dataset import FOLDS, DatasetError
from ecgmon.pipelines.training.splits import HELD_OUT_TENTH, Split, half

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from ecgmon.pipelines.training.dataset import Dataset

PACED: Final = ("102", "104", "107", "217")
"""Records with paced beats, which AAMI EC57 and the protocol leave out."""

RECORDS: Final = tuple(
    str(number)
    for number in (*range(100, 125), *range(200, 235))
    if number not in {110, 120, 204, 206, 211, 216, 218, 224, 225, 226, 227, 229} and str(number) not in PACED
)
"""The 44 records of the protocol.  MIT-BIH skips some numbers."""

COUNTS: Final = {BeatClass.N: 89_836, BeatClass.S: 3_026, BeatClass.V: 7_008, BeatClass.F: 802, BeatClass.Q: 15}
"""Number of beats of each class in :data:`RECORDS`; that of N is the one published by Zhou et al."""

PATIENTS: Final = {"202": "201"}
"""The only patient with two records."""

DS1: Final = (
    "101", "106", "108", "109", "112", "114", "115", "116", "118", "119", "122", "124",
    "201", "203", "205", "207", "208", "209", "215", "220", "223", "230",
)  # fmt: skip
"""Training records if patients are kept apart."""

DS2: Final = (
    "100", "103", "105", "111", "113", "117", "121", "123", "200", "202", "210", "212",
    "213", "214", "219", "221", "222", "228", "231", "232", "233", "234",
)  # fmt: skip
"""Test records if patients are kept apart."""

FOLD_NAMES: Final = tuple(f"fold{k}" for k in range(FOLDS))
"""BeatGAN's folds."""

WHOLE_NAMES: Final = (*FOLD_NAMES, "ds1", "all")
"""The splits whose models are shipped."""

HALVES: Final = {"ds1": ("ds1-a", "ds1-b"), "all": ("all-a", "all-b")}
"""Splits whose score is for other patients, and the halves of each."""

NAMES: Final = (*WHOLE_NAMES, *HALVES["ds1"], *HALVES["all"])
"""The splits that :func:`split` knows."""


def prepare(
    db: Path,
    out: Path,
    *,
    records: Iterable[str] = RECORDS,
    seed: int = 0,
    done: Callable[[str], None] = lambda _: None,
) -> Dataset:
    """Build the protocol's data set: see :func:`ecgmon.pipelines.training.dataset.prepare`.

    Parameters
    ----------
    db : Path
        Folder with the records' .hea, .dat and .atr files.
    out : Path
        Folder to store the data set in; made if it is missing.
    records : iterable of str
        Some of :data:`RECORDS`; all of them are the published protocol.
    seed : int
        Seed for the random fold and tenth of each beat.
    done : callable
        Called with the name of each record after it is read.

    Raises
    ------
    ecgmon.pipelines.sources.errors.SourceError
        If a record cannot be read.
    ecgmon.pipelines.training.dataset.DatasetError
        If a record is not part of the protocol, or the counts of the full protocol are not the published ones.
    """
    names = tuple(records)
    if unknown := [name for name in names if name not in RECORDS]:
        raise DatasetError(
            f"{', '.join(unknown)} is not among the protocol's records; expected some of {', '.join(RECORDS)}"
        )
    return datasets.prepare(
        db,
        out,
        records=names,
        patients={name: patient for name, patient in PATIENTS.items() if name in names},
        confirm=True,
        seed=seed,
        counts=COUNTS if names == RECORDS else None,
        done=done,
    )


def split(dataset: Dataset, name: str, *, only_confirmed: bool = False) -> Split:
    """Look up a split.

    Parameters
    ----------
    dataset : Dataset
    name : str
        One of :data:`NAMES`.
    only_confirmed : bool
        Leave out the normal beats that a second detector does not find, similar to the original experiment.
        The remaining normal beats are more alike than all of them: for comparison only.

    Raises
    ------
    ValueError
        If there is no split of that name.
    """
    if name not in NAMES:
        raise ValueError(f"there is no split {name!r}; expected one of {', '.join(NAMES)}")
    whole, _, which = name.partition("-")
    held_out = dataset.beats["tenth"] == HELD_OUT_TENTH
    normal, abnormal = dataset.normal, ~dataset.normal
    if only_confirmed:
        normal &= dataset.beats["confirmed"]
    everything = np.ones(len(dataset.beats), np.bool_)
    if which:
        of_whole = (normal | abnormal) & (dataset.of_records(DS1) if whole == "ds1" else everything)
        return half(dataset, name, of_whole, "ab".index(which))
    if name == "ds1":
        own, test = normal & dataset.of_records(DS1), (normal | abnormal) & dataset.of_records(DS2)
    elif name == "all":
        own, test = normal, ~everything
    else:
        fold = dataset.beats["fold"] == int(name.removeprefix("fold"))
        own, test = normal & ~fold, (normal & fold) | (abnormal & ~held_out)
    return Split(name, own & ~held_out, own & held_out, test)
