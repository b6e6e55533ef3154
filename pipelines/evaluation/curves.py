"""ROC and precision-recall curves with their bands over patients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from ecgmon.pipelines.evaluation.bootstrap import GRID, LEVEL, Band, PatientBootstrap
from ecgmon.pipelines.evaluation.charts import ERROR, QUIET, RECONSTRUCTION, figure_of
from ecgmon.pipelines.training.classes import BeatClass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """The curves of some values; a point for each threshold, the highest first.

    Attributes
    ----------
    false, true : ndarray of float64, shape (t,)
        Share of the normal and of the abnormal beats at or over the threshold.
    precision : ndarray of float64, shape (t,)
    bands : (Band, Band) or None
        Of the ROC curve and of the precision-recall curve.
    name : str
        Text in the key; empty for none.
    """

    false: NDArray[np.float64]
    true: NDArray[np.float64]
    precision: NDArray[np.float64]
    bands: tuple[Band, Band] | None = None
    name: str = ""

    @classmethod
    def of(
        cls,
        values: NDArray[np.float32],
        aami: NDArray[np.uint8],
        patient: ArrayLike | None = None,
        *,
        name: str = "",
    ) -> Self:
        """Make the curves from values, classes and patients of beats, each of shape (n,); no bands without patients.

        There must be normal and abnormal beats.
        """
        thresholds = np.unique(values)[::-1]
        normal, abnormal = np.sort(values[aami == BeatClass.N]), np.sort(values[aami != BeatClass.N])
        false = len(normal) - np.searchsorted(normal, thresholds)
        true = len(abnormal) - np.searchsorted(abnormal, thresholds)
        bands = None if patient is None else PatientBootstrap.of(values, aami, patient).bands()
        return cls(false / len(normal), true / len(abnormal), true / (true + false), bands, name)


def curves_figure(curves: Sequence[Curve]) -> Figure:
    """Draw curves: thin ones of one colour if only the first has a name, else each in its colour."""
    figure, ((roc, recall),) = figure_of(2, size=(10, 4.6))
    apart = sum(bool(curve.name) for curve in curves) == len(curves)
    shown = any(curve.bands for curve in curves)
    for place, curve in enumerate(curves):
        colour = RECONSTRUCTION if not apart or place == 0 else ERROR
        style = {"color": colour, "linewidth": 1.6 if apart else 0.9, "label": curve.name or None}
        roc.plot(np.append(0, curve.false), np.append(0, curve.true), **style)
        recall.plot(curve.true, curve.precision, **style)
        for axes, band in zip((roc, recall), curve.bands or (), strict=False):
            axes.fill_between(GRID, band.low, band.high, color=colour, alpha=0.18, linewidth=0)
    roc.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=":")
    title = f", {LEVEL:.0%} band over patients" if shown else ""
    roc.set(
        xlabel="share of normal beats at or over the threshold", ylabel="share of abnormal beats", title=f"ROC{title}"
    )
    recall.set(xlabel="recall", ylabel="precision", title=f"Precision and recall{title}")
    for part in (roc, recall):
        part.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    roc.legend(loc="lower right", frameon=False)
    return figure
