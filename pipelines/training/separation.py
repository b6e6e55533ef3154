"""Measure how well a score separates normal and abnormal beats: AUC and average precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ecgmon.pipelines.training.classes import BeatClass

if TYPE_CHECKING:
    from numpy.typing import NDArray


def auc(negative: NDArray[np.float32], positive: NDArray[np.float32]) -> float:
    """Area under the ROC curve: the probability that a positive is higher than a negative; ties count half.

    Examples
    --------
    >>> auc(np.float32([1, 2]), np.float32([2, 3]))
    0.875
    """
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left") + np.searchsorted(ordered, positive, side="right")
    return float(below.mean() / 2 / len(negative))


def average_precision(negative: NDArray[np.float32], positive: NDArray[np.float32]) -> float:
    """Mean precision over all positives, with tied scores taken together.

    Examples
    --------
    >>> average_precision(np.float32([1, 2]), np.float32([3, 1.5]))
    0.8333333333333333
    """
    # The precision at a positive counts all beats whose score is at least as high.
    true = len(positive) - np.searchsorted(np.sort(positive), positive, side="left")
    false = len(negative) - np.searchsorted(np.sort(negative), positive, side="left")
    return float(np.mean(true / (true + false)))


def separation(values: NDArray[np.float32], aami: NDArray[np.uint8]) -> dict[str, Any]:
    """Measure how well values separate abnormal beats from normal beats.

    Parameters
    ----------
    values : ndarray of float32, shape (n,)
        Scores, or A(x): higher for more anomalous beats.
    aami : ndarray of uint8, shape (n,)
        :class:`ecgmon.pipelines.training.classes.BeatClass` of each.

    Returns
    -------
    dict
        ``auc`` and ``ap`` of all abnormal beats against the normal ones; ``per_class``: the AUC of
        each abnormal class that is present; ``beats``: the number of beats of each class.
    """
    normal = values[aami == BeatClass.N]
    present = [kind for kind in BeatClass if kind != BeatClass.N and (aami == kind).any()]
    return {
        "auc": auc(normal, values[aami != BeatClass.N]),
        "ap": average_precision(normal, values[aami != BeatClass.N]),
        "per_class": {kind.name: auc(normal, values[aami == kind]) for kind in present},
        "beats": {kind.name: int(np.count_nonzero(aami == kind)) for kind in BeatClass},
    }
