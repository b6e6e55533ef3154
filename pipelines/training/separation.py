"""Measure how well a score separates normal and abnormal beats: AUC, average precision, and the best F1."""

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


def scaled(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale values to [0, 1] by their own minimum and maximum, as BeatGAN's published code does with A(x).

    Parameters
    ----------
    values : ndarray of float32, shape (n,)
        Finite.

    Returns
    -------
    ndarray of float32, shape (n,)
        Zero if all values are equal.

    Examples
    --------
    >>> scaled(np.float32([2, 6, 3])).tolist()
    [0.0, 1.0, 0.25]
    """
    if values.size == 0:
        return values.astype(np.float32)
    least = values.min()
    span = values.max() - least
    found: NDArray[np.float32] = ((values - least) / (span if span > 0 else 1)).astype(np.float32)
    return found


def best_f1(negative: NDArray[np.float32], positive: NDArray[np.float32]) -> tuple[float, float]:
    """Find the threshold with the highest F1 among all values, where a value at the threshold counts as positive.

    The thresholds of a ROC curve, among which BeatGAN's published code searches, are some of the values.  They have
    the same best F1, because F1 is monotonic between the corners of the curve.

    Parameters
    ----------
    negative, positive : ndarray of float32, shape (n,), (m,)
        At least one value in all.

    Returns
    -------
    threshold : float
        The highest one, if several have the same F1.
    f1 : float
        2 TP / (2 TP + FP + FN).

    Examples
    --------
    >>> best_f1(np.float32([1, 2, 5]), np.float32([4, 6]))
    (4.0, 0.8)
    """
    thresholds = np.unique(np.concatenate([negative, positive]))[::-1]
    true = len(positive) - np.searchsorted(np.sort(positive), thresholds, side="left")
    false = len(negative) - np.searchsorted(np.sort(negative), thresholds, side="left")
    f1 = 2 * true / (true + false + len(positive))  # TP + FN is the number of positives
    best = int(np.argmax(f1))
    return float(thresholds[best]), float(f1[best])


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
