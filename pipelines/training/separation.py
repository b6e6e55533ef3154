"""How well a score tells beats apart: the areas under two curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ecgmon.pipelines.training.classes import BeatClass

if TYPE_CHECKING:
    from numpy.typing import NDArray


def auc(negative: NDArray[np.float32], positive: NDArray[np.float32]) -> float:
    """Area under the ROC curve: the chance that a positive scores over a negative, ties counting half.

    Examples
    --------
    >>> auc(np.float32([1, 2]), np.float32([2, 3]))
    0.875
    """
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left") + np.searchsorted(ordered, positive, side="right")
    return float(below.mean() / 2 / len(negative))


def average_precision(negative: NDArray[np.float32], positive: NDArray[np.float32]) -> float:
    """Mean of the precision over all recalled positives, tied scores taken together.

    Examples
    --------
    >>> average_precision(np.float32([1, 2]), np.float32([3, 1.5]))
    0.8333333333333333
    """
    # Precision at each positive's own threshold counts all that score at least as high.
    true = len(positive) - np.searchsorted(np.sort(positive), positive, side="left")
    false = len(negative) - np.searchsorted(np.sort(negative), positive, side="left")
    return float(np.mean(true / (true + false)))


def separation(values: NDArray[np.float32], aami: NDArray[np.uint8]) -> dict[str, Any]:
    """Measure how well values tell abnormal beats from normal ones.

    Parameters
    ----------
    values : ndarray of float32, shape (n,)
        Larger for what looks odder.
    aami : ndarray of uint8, shape (n,)
        :class:`ecgmon.pipelines.training.classes.BeatClass` of each.

    Returns
    -------
    dict
        ``auc`` and ``ap`` of all abnormal beats against the normal ones, ``per_class``: the AUC of
        each abnormal class that there is, ``beats``: how many of each class.
    """
    normal = values[aami == BeatClass.N]
    present = [kind for kind in BeatClass if kind != BeatClass.N and (aami == kind).any()]
    return {
        "auc": auc(normal, values[aami != BeatClass.N]),
        "ap": average_precision(normal, values[aami != BeatClass.N]),
        "per_class": {kind.name: auc(normal, values[aami == kind]) for kind in present},
        "beats": {kind.name: int(np.count_nonzero(aami == kind)) for kind in BeatClass},
    }
