"""Pictures of the model card, drawn without pyplot: no window, no global state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ecgmon.models.windows import BEFORE, FS, LENGTH
from ecgmon.pipelines.evaluation.charts import ERROR, INK, QUIET, RECONSTRUCTION, figure_of
from ecgmon.pipelines.training.classes import BeatClass

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


FAILING: Final = (BeatClass.N, BeatClass.S, BeatClass.V, BeatClass.F)
"""Classes whose failure cases are shown; there are too few Q beats."""

# Okabe and Ito's colours (2008), which people with red-green colour blindness can tell apart
_COLOURS: Final = {
    BeatClass.N: "#7b8794",
    BeatClass.S: "#0072b2",
    BeatClass.V: "#d55e00",
    BeatClass.F: "#009e73",
    BeatClass.Q: "#cc79a7",
}
_SCORE_BINS: Final = np.arange(0.0, 6.26, 0.25)  # the largest score is 6
_LARGEST_MARKER: Final = 500.0  # marker area of the fastest size, in square points


def draw_distributions(path: Path, curves: dict[str, NDArray[Any]]) -> None:
    """Draw a histogram of the scores for each class, in percent of its beats."""
    present = [kind for kind in BeatClass if (curves["aami"] == kind).any()]
    figure, axes = figure_of(1, len(present), size=(8, 1.25 * len(present) + 0.6))
    for row, (kind, part) in enumerate(zip(present, axes[:, 0], strict=True)):
        score = curves["score"][curves["aami"] == kind]
        inside = np.clip(score, _SCORE_BINS[0], _SCORE_BINS[-1])
        part.hist(inside, _SCORE_BINS, weights=np.full(len(score), 100 / len(score)), color=_COLOURS[kind])
        part.set_xlim(_SCORE_BINS[0], _SCORE_BINS[-1])
        part.text(0.95, 0.9, f"{kind.name}: {len(score):,} beats", transform=part.transAxes, ha="right", va="top")
        part.set_ylabel("%")
        part.tick_params(labelbottom=row == len(present) - 1)
    axes[-1, 0].set_xlabel("score: 2 is one normal beat in a hundred, 3 one in a thousand")
    figure.savefig(path)


def draw_frontier(path: Path, sizes: list[dict[str, Any]], teacher: dict[str, Any]) -> None:
    """Draw AUC against multiply-adds; the area of a marker is proportional to beats per second."""
    figure, ((axes,),) = figure_of(1, size=(8, 4.8))
    fastest = max(size["beats_per_second"] for size in sizes)
    work = [size["multiply_adds"] for size in sizes]
    auc = [size["auc"] for size in sizes]
    area = [_LARGEST_MARKER * size["beats_per_second"] / fastest for size in sizes]
    axes.plot(work, auc, color=QUIET, linewidth=0.8, zorder=1)
    axes.scatter(work, auc, s=area, color=RECONSTRUCTION, alpha=0.75, zorder=2)
    for size in sizes:
        axes.annotate(
            f"{size['name']}\n{size['beats_per_second']:,.0f}/s",
            (size["multiply_adds"], size["auc"]),
            xytext=(0, -16),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=8,
            color=INK,
        )
    axes.scatter(
        [teacher["multiply_adds"]], [teacher["auc"]], marker="*", s=160, color=ERROR, label="teacher", zorder=3
    )
    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.25)
    axes.set(xlabel="multiply-adds a beat", ylabel="AUC of A(x)", title="Marker area: beats a second on one CPU")
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path)


def draw_ablation(path: Path, variants: list[dict[str, Any]]) -> None:
    """Draw the AUC of every variant and seed, with mean and standard deviation."""
    figure, ((axes,),) = figure_of(1, size=(8, 0.42 * len(variants) + 1.1))
    for row, variant in enumerate(variants):
        auc = np.array(variant["auc"])
        axes.plot(auc, np.full(len(auc), row), "o", color=QUIET, markersize=4, alpha=0.7)
        spread = float(auc.std(ddof=1)) if len(auc) > 1 else 0.0
        axes.errorbar(auc.mean(), row, xerr=spread, fmt="D", color=RECONSTRUCTION, capsize=4, markersize=6)
    axes.set_ylim(-0.5, len(variants) - 0.5)
    axes.set_yticks(range(len(variants)), [variant["name"] for variant in variants])
    axes.invert_yaxis()
    axes.set_xlabel("AUC: seeds (dots), mean and standard deviation")
    figure.savefig(path)


def draw_failures(path: Path, cases: dict[str, NDArray[Any]]) -> None:
    """Draw the worst beats with their reconstructions, and the error per tick below each; one row for each class."""
    kinds = [kind for kind in FAILING if (cases["aami"] == kind).any()]
    columns = max(int(np.count_nonzero(cases["aami"] == kind)) for kind in kinds)
    figure, axes = figure_of(columns, 2 * len(kinds), size=(3.6 * columns, 2.6 * len(kinds)))
    axes[0, 0].get_gridspec().set_height_ratios([3, 1] * len(kinds))
    seconds = (np.arange(LENGTH) - BEFORE) / FS
    errors = np.square(cases["window"] - cases["reconstruction"])
    for row, kind in enumerate(kinds):
        members = np.flatnonzero(cases["aami"] == kind)
        for column in range(columns):
            beat, error = axes[2 * row, column], axes[2 * row + 1, column]
            if column >= len(members):
                beat.set_axis_off()
                error.set_axis_off()
                continue
            case = members[column]
            beat.plot(seconds, cases["window"][case], color=INK, linewidth=1.2, label="beat")
            beat.plot(
                seconds,
                cases["reconstruction"][case],
                color=RECONSTRUCTION,
                linewidth=1.2,
                linestyle="--",
                label="G(x)",
            )
            title = f"{kind.name} · record {cases['record'][case]} · {cases['sample'][case] / FS:.1f} s · score {cases['score'][case]:.2f}"
            beat.set_title(title, fontsize=9)
            beat.set_ylim(-1.15, 1.15)
            beat.tick_params(labelbottom=False, labelsize=7)
            error.fill_between(seconds, errors[case], color=ERROR, linewidth=0)
            error.set_ylim(0, max(0.05, 1.05 * float(errors[case].max())))
            error.tick_params(labelsize=7)
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower right", ncols=2, fontsize=8, frameon=False
    )
    axes[1, 0].set_ylabel("error", fontsize=8)
    for part in axes[-1]:
        part.set_xlabel("seconds from the R peak", fontsize=8)
    figure.savefig(path)
