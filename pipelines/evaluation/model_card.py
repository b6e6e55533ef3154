"""Tables and pictures of the model card, made from result files and nothing else.

The card is a page of text written by hand.  This module writes what is between a pair of markers, such as
``<!-- beatgan -->`` and ``<!-- /beatgan -->``.  A run replaces that and leaves the other text as it is.
Pictures go into a folder beside the card with the same name.

==================  ================================================================================
result file         what it holds
==================  ================================================================================
beatgan.json        ``ecgmon evaluate beatgan --json``: ``score``, ``raw``, ``teacher_raw``: ``auc``
                    and ``ap``, each ``mean`` and ``std``; ``per_class``, ``model``, ``teacher``
inter-patient.json  the same of ``ecgmon evaluate inter-patient --json``
beatgan.npz,        every tested beat: ``score`` float32, ``aami`` uint8, ``record`` str,
inter-patient.npz   ``fold`` uint8, each of shape (n,)
frontier.json       ``sizes``: ``name``, ``parameters``, ``multiply_adds``, ``auc``, ``ap``,
                    ``beats_per_second``; ``teacher``: the same, its speed where it was measured
ablation.json       ``variants``: ``name``, ``what``, and per seed ``seeds``, ``auc``, ``ap``
explanation.json    :func:`ecgmon.pipelines.evaluation.explanation.evaluate`
failures.npz        :func:`failure_cases`
==================  ================================================================================

A section whose files are missing says how to make them.  Figures are made without pyplot: there is
no window and no global state.
"""

from __future__ import annotations

import json
import re
import zipfile
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ecgmon.models.windows import BEFORE, FS, LENGTH
from ecgmon.pipelines.evaluation import explanation
from ecgmon.pipelines.training.classes import BeatClass
from ecgmon.pipelines.training.separation import separation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgmon.models.inference.reconstruction import Scorer
    from ecgmon.pipelines.training.dataset import Dataset

CASES: Final = 3
"""Failure cases that are shown of each class."""

FAILING: Final = (BeatClass.N, BeatClass.S, BeatClass.V, BeatClass.F)
"""Classes that failure cases are shown of; there are too few Q."""

HEAVY: Final = "232"
"""The record that holds almost half of all S beats, in long runs; figures are given with and without it."""

_DPI: Final = 120
_INK: Final = "#17202a"
_QUIET: Final = "#7b8794"
_GRID: Final = "#e3e7ea"
_RECONSTRUCTION: Final = "#1f6fb2"
_ERROR: Final = "#d9480f"
# Okabe and Ito's colours (2008), which differ also for people who cannot see red or green
_COLOURS: Final = {
    BeatClass.N: "#7b8794",
    BeatClass.S: "#0072b2",
    BeatClass.V: "#d55e00",
    BeatClass.F: "#009e73",
    BeatClass.Q: "#cc79a7",
}
_SCORE_BINS: Final = np.arange(0.0, 6.26, 0.25)  # a score ends at 6
_LARGEST_MARKER: Final = 500.0  # area in square points of the fastest size


class CardError(Exception):
    """A card without its markers, or a result file that is damaged."""


def write(results: Path, card: Path) -> list[str]:
    """Bring the tables and pictures of a card up to date.

    Parameters
    ----------
    results : Path
        Folder of the result files named in the module.
    card : Path
        Page with markers for every one of :data:`SECTIONS`; it is replaced as a whole.

    Returns
    -------
    list of str
        Sections that were left out because a result file is missing.

    Raises
    ------
    CardError
        If the card cannot be read or has no place for a section, or a result file is damaged.
    """
    try:
        text = card.read_text()
    except OSError as error:
        raise CardError(f"{card} cannot be read ({error}); expected the model card with its markers") from error
    pictures = card.parent / card.stem
    pictures.mkdir(exist_ok=True)
    left_out = []
    for name, (make, files, command) in SECTIONS.items():
        place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if len(place.findall(text)) != 1:
            raise CardError(
                f"{card} has not exactly one place for {name}; expected <!-- {name} --> and <!-- /{name} --> once"
            )
        missing = [file for file in files if not (results / file).exists()]
        if missing:
            left_out.append(name)
            body = f"Not measured yet (no {', no '.join(missing)} among the results): run `{command}`."
        else:
            try:
                body = make(results, pictures)
            except (LookupError, TypeError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
                raise CardError(
                    f"{' or '.join(files)} in {results} is not as expected ({type(error).__name__}: {error}); "
                    f"make it again with '{command}'"
                ) from error
        text = place.sub(lambda found, body=body: f"{found[1]}\n{body}\n\n{found[2]}", text)  # type: ignore[misc]  # mypy has no type for a default that binds
    unfinished = card.with_name(f".unfinished-{card.name}")
    unfinished.write_text(text)
    unfinished.replace(card)
    return left_out


def worst(score: NDArray[np.float32], aami: NDArray[np.uint8], cases: int = CASES) -> NDArray[np.int64]:
    """Find the beats that a score is most wrong about: normal ones with the highest scores, others with the lowest.

    Parameters
    ----------
    score : ndarray of float32, shape (n,)
        Finite.
    aami : ndarray of uint8, shape (n,)
        :class:`ecgmon.pipelines.training.classes.BeatClass` of each.
    cases : int
        Of each class in :data:`FAILING`, at most.

    Returns
    -------
    ndarray of int64, shape (m,)
        Indices, class by class, the worst first.

    Examples
    --------
    >>> worst(np.float32([0, 5, 3, 1, 4]), np.uint8([0, 0, 2, 2, 2]), cases=1).tolist()
    [1, 3]
    """
    found = []
    for kind in FAILING:
        members = np.flatnonzero(aami == kind)
        order = np.argsort(-score[members] if kind == BeatClass.N else score[members], kind="stable")
        found.append(members[order[:cases]])
    return np.concatenate(found)


def failure_cases(
    scorer: Scorer, dataset: Dataset, beats: NDArray[np.void], score: NDArray[np.float32]
) -> dict[str, NDArray[Any]]:
    """Collect what pictures of the worst beats need, for ``failures.npz``.

    Parameters
    ----------
    scorer : Scorer
    dataset : Dataset
    beats : ndarray of ecgmon.pipelines.training.records.BEAT, shape (n,)
        Tested beats.
    score : ndarray of float32, shape (n,)

    Returns
    -------
    dict of str to ndarray
        ``score``, ``aami``, ``record`` and ``sample``, shape (m,); ``window`` and ``reconstruction``
        of the first lead, float32, shape (m, 320), scaled to [-1, 1].
    """
    chosen = worst(score, beats["aami"])
    rows = beats[chosen]
    windows, reconstruction = scorer.reconstruct(dataset.windows(rows)[:, : scorer.info.leads])
    return {
        "score": score[chosen],
        "aami": rows["aami"],
        "record": dataset.names(rows),
        "sample": rows["sample"],
        "window": windows[:, 0],
        "reconstruction": reconstruction[:, 0],
    }


def _beatgan(results: Path, pictures: Path) -> str:
    curves = _curves(results / "beatgan.npz")
    folds = [curves["fold"] == fold for fold in np.unique(curves["fold"])]
    _draw_curves(pictures / "beatgan-curves.png", curves, folds, "five folds")
    _draw_distributions(pictures / "beatgan-scores.png", curves)
    figures = json.loads((results / "beatgan.json").read_text())
    return "\n\n".join(
        [
            _figures(figures),
            f"![ROC and precision-recall of the five folds]({pictures.name}/beatgan-curves.png)",
            f"![Distribution of the score by class]({pictures.name}/beatgan-scores.png)",
        ]
    )


def _inter_patient(results: Path, pictures: Path) -> str:
    curves = _curves(results / "inter-patient.npz")
    everything = np.ones(len(curves["score"]), np.bool_)
    without = curves["record"] != HEAVY
    _draw_curves(
        pictures / "inter-patient-curves.png", curves, [everything, without], "all records", f"without {HEAVY}"
    )
    _draw_distributions(pictures / "inter-patient-scores.png", curves)
    figures = json.loads((results / "inter-patient.json").read_text())
    return "\n\n".join(
        [
            _figures(figures),
            _with_and_without(curves, everything, without),
            _by_record(curves),
            f"![ROC and precision-recall, patients apart]({pictures.name}/inter-patient-curves.png)",
            f"![Distribution of the score by class, patients apart]({pictures.name}/inter-patient-scores.png)",
        ]
    )


def _frontier(results: Path, pictures: Path) -> str:
    found = json.loads((results / "frontier.json").read_text())
    teacher, sizes = found["teacher"], sorted(found["sizes"], key=lambda size: size["multiply_adds"])
    _draw_frontier(pictures / "frontier.png", sizes, teacher)
    rows = [
        (
            size["name"],
            f"{size['parameters']:,}",
            f"{size['multiply_adds']:,}",
            f"{teacher['multiply_adds'] / size['multiply_adds']:.0f}",
            _four(size["auc"]),
            _four(size["ap"]),
            f"{size['beats_per_second']:,.0f}" if size.get("beats_per_second") else "not measured",
        )
        for size in [*sizes, {"name": "teacher", **teacher}]
    ]
    head = ("size", "parameters", "multiply-adds", "times fewer", "AUC", "AP", "beats/s")
    return _table(head, rows) + f"\n\n![AUC against multiply-adds]({pictures.name}/frontier.png)"


def _ablation(results: Path, pictures: Path) -> str:
    variants = json.loads((results / "ablation.json").read_text())["variants"]
    variants = [variant for variant in variants if variant["auc"]]  # a plan that goes on has some without a run
    _draw_ablation(pictures / "ablation.png", variants)
    rows = [
        (variant["name"], variant["what"], str(len(variant["auc"])), _spread(variant["auc"]), _spread(variant["ap"]))
        for variant in variants
    ]
    head = ("variant", "what", "seeds", "AUC", "AP")
    return _table(head, rows) + f"\n\n![AUC of the variants]({pictures.name}/ablation.png)"


def _explanation(results: Path, pictures: Path) -> str:
    del pictures
    return explanation.table(json.loads((results / "explanation.json").read_text()))


def _failures(results: Path, pictures: Path) -> str:
    cases = _arrays(results / "failures.npz", ("score", "aami", "record", "sample", "window", "reconstruction"))
    _draw_failures(pictures / "failures.png", cases)
    rows = [
        (BeatClass(aami).name, str(record), f"{sample / FS:.1f}", f"{score:.2f}")
        for aami, record, sample, score in zip(
            *(cases[name].tolist() for name in ("aami", "record", "sample", "score")), strict=True
        )
    ]
    head = ("class", "record", "R peak, s", "score")
    return _table(head, rows) + f"\n\n![Beats that the score is most wrong about]({pictures.name}/failures.png)"


SECTIONS: Final[dict[str, tuple[Callable[[Path, Path], str], tuple[str, ...], str]]] = {
    "beatgan": (_beatgan, ("beatgan.json", "beatgan.npz"), "ecgmon evaluate beatgan --db DIR"),
    "inter-patient": (
        _inter_patient,
        ("inter-patient.json", "inter-patient.npz"),
        "ecgmon evaluate inter-patient --db DIR",
    ),
    "frontier": (_frontier, ("frontier.json",), "ecgmon train plan frontier"),
    "ablation": (_ablation, ("ablation.json",), "ecgmon train plan ablation"),
    "explanation": (_explanation, ("explanation.json",), "ecgmon evaluate explanation --db DIR"),
    "failures": (_failures, ("failures.npz",), "ecgmon evaluate beatgan --db DIR"),
}
"""Sections by marker: what makes each, the result files it needs, and the command that makes those."""


def _arrays(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Read the named arrays, all of one length."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in names}
    if "record" in arrays:
        arrays["record"] = arrays["record"].astype(np.str_)  # a number in files of earlier versions
    if len({len(array) for array in arrays.values()}) != 1:
        raise ValueError(f"the arrays {', '.join(names)} differ in length")
    return arrays


def _curves(path: Path) -> dict[str, NDArray[Any]]:
    return _arrays(path, ("score", "aami", "record", "fold"))


def _figures(found: dict[str, Any]) -> str:
    """Tables of AUC and AP, by class, and of the networks' sizes."""
    names = {"score": "score", "raw": "A(x) of the student", "teacher_raw": "A(x) of the teacher"}
    rows = [
        (text, *(_mean_and_std(found[name][figure]) for figure in ("auc", "ap")))
        for name, text in names.items()
        if found.get(name)  # a teacher that was not trained has no figures
    ]
    classes = [(name, _four(value)) for name, value in found["per_class"].items()]
    sizes = [
        (name, f"{found[name]['parameters']:,}", f"{found[name]['multiply_adds']:,}")
        for name in ("model", "teacher")
        if found.get(name)
    ]
    return "\n\n".join(
        [
            _table(("", "AUC", "AP"), rows),
            _table(("class", "AUC of the score against N"), classes),
            _table(("network", "parameters", "multiply-adds a beat"), sizes),
        ]
    )


def _with_and_without(
    curves: dict[str, NDArray[Any]], everything: NDArray[np.bool_], without: NDArray[np.bool_]
) -> str:
    rows = []
    for name, part in (("all records", everything), (f"without {HEAVY}", without)):
        found = separation(curves["score"][part], curves["aami"][part])
        by_class = (_four(found["per_class"].get(kind)) for kind in ("S", "V", "F", "Q"))
        rows.append((name, _four(found["auc"]), _four(found["ap"]), *by_class))
    return _table(("", "AUC", "AP", "S", "V", "F", "Q"), rows)


def _by_record(curves: dict[str, NDArray[Any]]) -> str:
    rows = []
    for record in np.unique(curves["record"]):
        part = curves["record"] == record
        score, is_normal = curves["score"][part], curves["aami"][part] == BeatClass.N
        both = is_normal.any() and not is_normal.all()
        rows.append(
            (
                str(record),
                f"{np.count_nonzero(is_normal):,}",
                f"{np.count_nonzero(~is_normal):,}",
                _four(separation(score, curves["aami"][part])["auc"] if both else None),
                f"{np.median(score[is_normal]):.2f}" if is_normal.any() else "-",
                f"{np.median(score[~is_normal]):.2f}" if not is_normal.all() else "-",
            )
        )
    return _table(("record", "N", "abnormal", "AUC", "median score of N", "of abnormal"), rows)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Write a table in Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ("---",) * len(head), *rows])


def _four(share: float | None) -> str:
    return "-" if share is None else f"{share:.4f}".removeprefix("0")


def _mean_and_std(found: dict[str, float | None]) -> str:
    spread = "" if not found.get("std") else f" ± {_four(found['std'])}"
    return _four(found["mean"]) + spread


def _spread(values: list[float]) -> str:
    """Write mean and standard deviation, the latter of a sample."""
    spread = f" ± {_four(float(np.std(values, ddof=1)))}" if len(values) > 1 else ""
    return _four(float(np.mean(values))) + spread


def _rates(
    score: NDArray[np.float32], aami: NDArray[np.uint8]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Share of the normal and of the abnormal beats at or over every threshold, and the precision there."""
    thresholds = np.unique(score)[::-1]
    normal, abnormal = np.sort(score[aami == BeatClass.N]), np.sort(score[aami != BeatClass.N])
    false = len(normal) - np.searchsorted(normal, thresholds)
    true = len(abnormal) - np.searchsorted(abnormal, thresholds)
    return false / len(normal), true / len(abnormal), true / (true + false)


def _figure(columns: int, rows: int = 1, *, size: tuple[float, float]) -> tuple[Any, Any]:
    """Make a figure with axes in rows and columns."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=_DPI, layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False)
    for part in axes.flat:
        part.grid(visible=True, color=_GRID, linewidth=0.7)
        part.set_axisbelow(True)
        for spine in part.spines.values():
            spine.set_color(_QUIET)
    return figure, axes


def _draw_curves(path: Path, curves: dict[str, NDArray[Any]], parts: list[NDArray[np.bool_]], *names: str) -> None:
    """Draw ROC and precision-recall of parts of the beats; with fewer names than parts, the last stands for the rest."""
    figure, ((roc, recall),) = _figure(2, size=(10, 4.6))
    lines = len(names) > 1
    for place, part in enumerate(parts):
        false, true, precision = _rates(curves["score"][part], curves["aami"][part])
        style = {
            "color": _RECONSTRUCTION if not lines or place == 0 else _ERROR,
            "linewidth": 1.6 if lines else 0.9,
            "label": names[place] if place < len(names) else None,
        }
        roc.plot(np.append(0, false), np.append(0, true), **style)
        recall.plot(true, precision, **style)
    roc.plot([0, 1], [0, 1], color=_QUIET, linewidth=0.8, linestyle=":")
    roc.set(xlabel="share of normal beats at or over the threshold", ylabel="share of abnormal beats", title="ROC")
    recall.set(xlabel="recall", ylabel="precision", title="Precision and recall")
    for part in (roc, recall):
        part.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    roc.legend(loc="lower right", frameon=False)
    figure.savefig(path)


def _draw_distributions(path: Path, curves: dict[str, NDArray[Any]]) -> None:
    """Draw for every class the share of its beats by score."""
    present = [kind for kind in BeatClass if (curves["aami"] == kind).any()]
    figure, axes = _figure(1, len(present), size=(8, 1.25 * len(present) + 0.6))
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


def _draw_frontier(path: Path, sizes: list[dict[str, Any]], teacher: dict[str, Any]) -> None:
    """Draw AUC against multiply-adds, the area of a marker in proportion to beats per second."""
    figure, ((axes,),) = _figure(1, size=(8, 4.8))
    fastest = max(size["beats_per_second"] for size in sizes)
    work = [size["multiply_adds"] for size in sizes]
    auc = [size["auc"] for size in sizes]
    area = [_LARGEST_MARKER * size["beats_per_second"] / fastest for size in sizes]
    axes.plot(work, auc, color=_QUIET, linewidth=0.8, zorder=1)
    axes.scatter(work, auc, s=area, color=_RECONSTRUCTION, alpha=0.75, zorder=2)
    for size in sizes:
        axes.annotate(
            f"{size['name']}\n{size['beats_per_second']:,.0f}/s",
            (size["multiply_adds"], size["auc"]),
            xytext=(0, -16),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=8,
            color=_INK,
        )
    axes.scatter(
        [teacher["multiply_adds"]], [teacher["auc"]], marker="*", s=160, color=_ERROR, label="teacher", zorder=3
    )
    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.25)
    axes.set(xlabel="multiply-adds a beat", ylabel="AUC of A(x)", title="Marker area: beats a second on one CPU")
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path)


def _draw_ablation(path: Path, variants: list[dict[str, Any]]) -> None:
    """Draw the AUC of every variant and seed, with mean and standard deviation."""
    figure, ((axes,),) = _figure(1, size=(8, 0.42 * len(variants) + 1.1))
    for row, variant in enumerate(variants):
        auc = np.array(variant["auc"])
        axes.plot(auc, np.full(len(auc), row), "o", color=_QUIET, markersize=4, alpha=0.7)
        spread = float(auc.std(ddof=1)) if len(auc) > 1 else 0.0
        axes.errorbar(auc.mean(), row, xerr=spread, fmt="D", color=_RECONSTRUCTION, capsize=4, markersize=6)
    axes.set_ylim(-0.5, len(variants) - 0.5)
    axes.set_yticks(range(len(variants)), [variant["name"] for variant in variants])
    axes.invert_yaxis()
    axes.set_xlabel("AUC: seeds (dots), mean and standard deviation")
    figure.savefig(path)


def _draw_failures(path: Path, cases: dict[str, NDArray[Any]]) -> None:
    """Draw the worst beats with their reconstruction, and below each the error per tick; a row for every class."""
    kinds = [kind for kind in FAILING if (cases["aami"] == kind).any()]
    columns = max(int(np.count_nonzero(cases["aami"] == kind)) for kind in kinds)
    figure, axes = _figure(columns, 2 * len(kinds), size=(3.6 * columns, 2.6 * len(kinds)))
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
            beat.plot(seconds, cases["window"][case], color=_INK, linewidth=1.2, label="beat")
            beat.plot(
                seconds,
                cases["reconstruction"][case],
                color=_RECONSTRUCTION,
                linewidth=1.2,
                linestyle="--",
                label="G(x)",
            )
            title = f"{kind.name} · record {cases['record'][case]} · {cases['sample'][case] / FS:.1f} s · score {cases['score'][case]:.2f}"
            beat.set_title(title, fontsize=9)
            beat.set_ylim(-1.15, 1.15)
            beat.tick_params(labelbottom=False, labelsize=7)
            error.fill_between(seconds, errors[case], color=_ERROR, linewidth=0)
            error.set_ylim(0, max(0.05, 1.05 * float(errors[case].max())))
            error.tick_params(labelsize=7)
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower right", ncols=2, fontsize=8, frameon=False
    )
    axes[1, 0].set_ylabel("error", fontsize=8)
    for part in axes[-1]:
        part.set_xlabel("seconds from the R peak", fontsize=8)
    figure.savefig(path)
