"""Which beats of a data set train a model, which calibrate its score, and which test it.

Two published protocols and the model that is shipped:

========  =========================================================================================
fold0-4   BeatGAN's five folds (Zhou et al., IJCAI 2019): a fifth of the normal beats tests, the
          rest trains, less a tenth; all abnormal beats test, less a tenth.  The same patients are
          in training and test.
ds1       Patients apart (de Chazal et al., IEEE Trans. Biomed. Eng. 51, 2004): the normal beats of
          22 records train, all beats of the 22 others test.
all       The normal beats of all records train: the model that the daemon runs.  Nothing is left to
          test it on.
ds1-a, -b The normal beats of every other patient of ``ds1`` train, of the first or of the second on;
          the patients of ``ds1`` that are left out test.
all-a, -b The same of ``all``.
========  =========================================================================================

The halves tell how large the errors of patients are that a generator has not seen, without a look at
any patient that the whole is tested on.

The tenth that does not train is held out of training in every split.  Only its normal beats are
used: they say what a score means.  Abnormal beats appear in ``test`` and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ecgmon.pipelines.training.dataset import FOLDS, BeatClass

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ecgmon.pipelines.training.dataset import Dataset

DS1: Final = (
    101, 106, 108, 109, 112, 114, 115, 116, 118, 119, 122, 124,
    201, 203, 205, 207, 208, 209, 215, 220, 223, 230,
)  # fmt: skip
"""The records that train where patients are kept apart."""

DS2: Final = (
    100, 103, 105, 111, 113, 117, 121, 123, 200, 202, 210, 212,
    213, 214, 219, 221, 222, 228, 231, 232, 233, 234,
)  # fmt: skip
"""The records that test where patients are kept apart."""

FOLD_NAMES: Final = tuple(f"fold{k}" for k in range(FOLDS))
"""BeatGAN's folds."""

WHOLE_NAMES: Final = (*FOLD_NAMES, "ds1", "all")
"""The splits whose models are shipped."""

HALVES: Final = {"ds1": ("ds1-a", "ds1-b"), "all": ("all-a", "all-b")}
"""The splits for other patients, and the halves of each."""

NAMES: Final = (*WHOLE_NAMES, *HALVES["ds1"], *HALVES["all"])
"""The splits that :func:`split` knows."""

_SAME_PATIENT: Final = {202: 201}  # the only patient with two records among those used

_HELD_OUT: Final = 0  # the tenth


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Beats of a data set by what they are used for; no beat is used for two things.

    Attributes
    ----------
    name : str
        One of :data:`NAMES`.
    train, held_out, test : ndarray of bool, shape (n,)
        Over the beats of the data set.  ``train`` and ``held_out`` hold normal beats only.
    """

    name: str
    train: NDArray[np.bool_]
    held_out: NDArray[np.bool_]
    test: NDArray[np.bool_]


def split(dataset: Dataset, name: str, *, only_confirmed: bool = False) -> Split:
    """Look up a split.

    Parameters
    ----------
    dataset : Dataset
    name : str
        One of :data:`NAMES`.
    only_confirmed : bool
        Leave out the normal beats that a second detector does not find, about as the original
        experiment does.  It makes the normal beats look more alike than they are: for comparison only.

    Raises
    ------
    ValueError
        If there is no split of that name.
    """
    if name not in NAMES:
        raise ValueError(f"there is no split {name!r}; expected one of {', '.join(NAMES)}")
    beats = dataset.beats
    aside = beats["tenth"] == _HELD_OUT
    normal = beats["aami"] == BeatClass.N
    if only_confirmed:
        normal &= beats["confirmed"]
    abnormal = beats["aami"] != BeatClass.N
    whole, _, half = name.partition("-")
    if half:
        patient = patients(dataset)
        of_whole = (normal | abnormal) & (np.isin(beats["record"], DS1) if whole == "ds1" else True)
        inside = np.isin(patient, np.unique(patient[of_whole])[HALVES[whole].index(name) :: 2])
        own, test = normal & of_whole & inside, of_whole & ~inside
    elif name == "ds1":
        own = normal & np.isin(beats["record"], DS1)
        test = (normal | abnormal) & np.isin(beats["record"], DS2)
    elif name == "all":
        own, test = normal, np.zeros(len(beats), np.bool_)
    else:
        fold = beats["fold"] == int(name.removeprefix("fold"))
        own, test = normal & ~fold, (normal & fold) | (abnormal & ~aside)
    return Split(name, own & ~aside, own & aside, test)


def patients(dataset: Dataset) -> NDArray[np.int64]:
    """Tell whose each beat of a data set is, by a record of that patient; shape (n,)."""
    records: NDArray[np.int64] = dataset.beats["record"].astype(np.int64)
    for record, same in _SAME_PATIENT.items():
        records[records == record] = same
    return records
