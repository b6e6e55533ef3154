"""Confidence intervals of AUC, average precision and their curves, by resampling patients (bootstrap; Efron 1979).

Beats of one patient are alike, so they are not independent: what is drawn, with replacement, are patients, each with all
of its beats.  A resample is therefore a weight for each patient.  Beats are sorted once; a resample's counts at every
threshold are the counts of each patient there times the weights, one matrix product for all resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import numpy as np

from ecgmon.pipelines.training.classes import BeatClass

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

RESAMPLES: Final = 1000
"""Number of resamples."""

LEVEL: Final = 0.95
"""Share of the resamples inside an interval; as many are below as above."""

SEED: Final = 0
"""Seed of the resamples."""

GRID: Final = np.linspace(0, 1, 201)
"""Shares of normal beats, and of abnormal beats (recall), at which a band is known; shape (g,)."""

_LEAST_PATIENTS: Final = 2  # one patient gives the same resample every time
_BLOCK: Final = 1024  # thresholds at a time, to limit the memory to some 10 MB
_CURVE_THRESHOLDS: Final = 1000  # of normal and of abnormal beats, for a band

Interval = tuple[float, float]
"""Lower and upper end."""


def weights_of(patients: int, resamples: int = RESAMPLES, seed: int = SEED) -> NDArray[np.float64]:
    """Draw patients with replacement; return how often each was drawn, shape (resamples, patients)."""
    drawn = np.random.default_rng(seed).multinomial(patients, np.full(patients, 1 / patients), size=resamples)
    return drawn.astype(np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """Range of a curve over the resamples: arrays of shape (g,), with a value for each of :data:`GRID`.

    Attributes
    ----------
    low, high : ndarray of float64
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class PatientBootstrap:
    """Values, classes and patients of tested beats, to be resampled.

    Attributes
    ----------
    values : ndarray of float32, shape (n,)
        Scores, or A(x): higher for more anomalous beats.  Finite.
    abnormal : ndarray of bool, shape (n,)
    patient : ndarray of int64, shape (n,)
        From 0 to ``patients`` - 1.
    fold : ndarray of int64, shape (n,)
        Figures are means over the folds, each with the same patients drawn.
    patients : int
        Number of patients.
    """

    values: NDArray[np.float32]
    abnormal: NDArray[np.bool_]
    patient: NDArray[np.int64]
    fold: NDArray[np.int64]
    patients: int

    @classmethod
    def of(
        cls, values: NDArray[np.float32], aami: NDArray[np.uint8], patient: ArrayLike, fold: ArrayLike | None = None
    ) -> Self:
        """Make them from the class and the patient of each beat, any labels of shape (n,); by default one fold."""
        names, numbers = np.unique(np.asarray(patient), return_inverse=True)
        folds = np.zeros(len(values), np.int64) if fold is None else np.unique(np.asarray(fold), return_inverse=True)[1]
        return cls(values, aami != BeatClass.N, numbers, folds, len(names))

    def _each_fold(self) -> list[_Counts]:
        folds = (self.fold == number for number in np.unique(self.fold))
        return [_Counts(self.values[own], self.abnormal[own], self.patient[own], self.patients) for own in folds]

    def resampled(self, weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Calculate AUC and average precision of every resample.

        Parameters
        ----------
        weights : ndarray of float64, shape (resamples, patients)

        Returns
        -------
        auc, ap : ndarray of float64, shape (resamples,)
            As :func:`ecgmon.pipelines.training.separation.auc` and ``average_precision`` of the drawn beats; NaN for a
            resample without normal or without abnormal beats.
        """
        found = [counts.areas(weights) for counts in self._each_fold()]
        auc, ap = np.mean(found, axis=0)
        return auc, ap

    def intervals(self, *, resamples: int = RESAMPLES, seed: int = SEED) -> dict[str, Interval | None]:
        """Calculate the intervals of AUC and average precision.

        Returns
        -------
        dict of str to (float, float) or None
            ``auc`` and ``ap``.  Resamples without normal or without abnormal beats are left out.  None if there are fewer
            than two patients, or no resample is left.
        """
        if self.patients < _LEAST_PATIENTS:
            return {"auc": None, "ap": None}
        areas = self.resampled(weights_of(self.patients, resamples, seed))
        return {name: _interval(values) for name, values in zip(("auc", "ap"), areas, strict=True)}

    def bands(self, *, resamples: int = RESAMPLES, seed: int = SEED) -> tuple[Band, Band] | None:
        """Calculate the bands of the ROC curve and of the precision-recall curve.

        Returns
        -------
        (Band, Band) or None
            Share of abnormal beats at each share of normal beats of :data:`GRID`, and precision at each recall.  None if
            there are no intervals.
        """
        if self.patients < _LEAST_PATIENTS:
            return None
        weights = weights_of(self.patients, resamples, seed)
        roc, recall = np.mean([counts.curves(weights) for counts in self._each_fold()], axis=0)
        known = np.isfinite(roc[:, 0])
        return (_band(roc[known]), _band(recall[known])) if known.any() else None


def figures(tested: dict[str, PatientBootstrap]) -> dict[str, Any]:
    """Calculate the intervals of several values of the same beats, ready for JSON.

    Returns
    -------
    dict
        ``level``, ``resamples``, ``patients``, and under the names of ``tested`` the result of :meth:`PatientBootstrap.intervals`.
    """
    return {
        "level": LEVEL,
        "resamples": RESAMPLES,
        "patients": max((one.patients for one in tested.values()), default=0),
        **{
            name: {key: found and list(found) for key, found in one.intervals().items()} for name, one in tested.items()
        },
    }


def differences(first: PatientBootstrap, second: PatientBootstrap) -> dict[str, Interval | None]:
    """Calculate the intervals of the second's AUC and average precision less the first's, with the same patients drawn.

    Parameters
    ----------
    first, second : PatientBootstrap
        Values of two models for beats of the same patients.

    Returns
    -------
    dict of str to (float, float) or None
        ``auc`` and ``ap``, as of :meth:`PatientBootstrap.intervals`.

    Raises
    ------
    ValueError
        If the numbers of patients differ.
    """
    if first.patients != second.patients:
        raise ValueError(f"there are {first.patients} and {second.patients} patients; expected the same")
    if first.patients < _LEAST_PATIENTS:
        return {"auc": None, "ap": None}
    weights = weights_of(first.patients)
    areas = zip(("auc", "ap"), first.resampled(weights), second.resampled(weights), strict=True)
    return {name: _interval(other - one) for name, one, other in areas}


class _Counts:
    """Counts of the beats of each patient over thresholds."""

    def __init__(
        self, values: NDArray[np.float32], abnormal: NDArray[np.bool_], patient: NDArray[np.int64], patients: int
    ) -> None:
        each = [patient == number for number in range(patients)]
        self._normal = [np.sort(values[own & ~abnormal]) for own in each]
        self._abnormal = [np.sort(values[own & abnormal]) for own in each]
        self._values = values
        self._is_abnormal = abnormal

    def _over(
        self, beats: list[NDArray[np.float32]], thresholds: NDArray[np.float32], side: Literal["left", "right"]
    ) -> NDArray[np.float64]:
        """Count each patient's beats at or over (``left``) or over (``right``) thresholds, shape (patients, t)."""
        return np.array([len(own) - np.searchsorted(own, thresholds, side) for own in beats], np.float64)

    def areas(self, weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return AUC and average precision of every resample."""
        normal = weights @ np.array([len(own) for own in self._normal], np.float64)
        abnormal = weights @ np.array([len(own) for own in self._abnormal], np.float64)
        below, precise = np.zeros(len(weights)), np.zeros(len(weights))
        thresholds = np.unique(self._values[self._is_abnormal])
        for first in range(0, len(thresholds), _BLOCK):
            part = thresholds[first : first + _BLOCK]
            true = weights @ self._over(self._abnormal, part, "left")
            here = true - weights @ self._over(self._abnormal, part, "right")
            false = weights @ self._over(self._normal, part, "left")
            over = weights @ self._over(self._normal, part, "right")
            below += (here * (normal[:, None] - (false + over) / 2)).sum(axis=1)  # ties count half
            precise += (here * true / np.maximum(true + false, 1)).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            both = np.where((normal > 0) & (abnormal > 0), 1.0, np.nan)
            return both * below / (normal * abnormal), both * precise / abnormal

    def curves(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the ROC and the precision-recall curve of every resample on :data:`GRID`, shape (2, resamples, g).

        At some thousand thresholds, which divide normal and abnormal beats evenly; between them, a curve is straight.
        """
        found = np.full((2, len(weights), len(GRID)), np.nan)
        if not self._is_abnormal.any() or self._is_abnormal.all():
            return found
        shares = np.linspace(0, 1, _CURVE_THRESHOLDS)
        parts = [self._values[part] for part in (self._is_abnormal, ~self._is_abnormal)]
        thresholds = np.unique(np.concatenate([np.quantile(part, shares, method="nearest") for part in parts]))[::-1]
        true = weights @ self._over(self._abnormal, thresholds, "left")
        false = weights @ self._over(self._normal, thresholds, "left")
        for row, (one, other) in enumerate(zip(true, false, strict=True)):
            if one[-1] > 0 and other[-1] > 0:
                found[0, row] = np.interp(GRID, np.append(0, other / other[-1]), np.append(0, one / one[-1]))
                drawn = one + other > 0
                found[1, row] = np.interp(GRID, one[drawn] / one[-1], (one / np.maximum(one + other, 1))[drawn])
        return found


def _interval(values: NDArray[np.float64]) -> Interval | None:
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _band(curves: NDArray[np.float64]) -> Band:
    low, high = np.quantile(curves, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return Band(low, high)
