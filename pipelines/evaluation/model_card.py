"""Tables and pictures of the model card, made from result files only.

The card is a page of text written by hand.  This module replaces the text between pairs of markers, such as
``<!-- beatgan -->`` and ``<!-- /beatgan -->``, and does not change the other text.
Pictures are written to a folder beside the card, with the card's name.

==================  ================================================================================
result file         contents
==================  ================================================================================
beatgan.json        ``ecgmon evaluate beatgan --json``: ``score``, ``raw``, ``teacher_raw``: ``auc``
                    and ``ap``, each ``mean`` and ``std``; ``per_class``, ``intervals``, ``model``,
                    ``teacher``
inter-patient.json  ``ecgmon evaluate inter-patient --json``, with the same keys
beatgan.npz,        every tested beat: ``score`` float32, ``aami`` uint8, ``record`` str,
inter-patient.npz   ``fold`` uint8, each of shape (n,)
frontier.json       ``sizes``: ``name``, ``parameters``, ``multiply_adds``, ``auc``, ``ap``,
                    ``beats_per_second``; ``teacher``: the same; its speed only if it was measured
ablation.json       ``variants``: ``name``, ``what``, and per seed ``seeds``, ``auc``, ``ap``
score-ablation.json :func:`ecgmon.pipelines.evaluation.ablation.evaluate`
explanation.json    :func:`ecgmon.pipelines.evaluation.explanation.evaluate`
failures.npz        :func:`failure_cases`
==================  ================================================================================

If the files of a section are missing, the section names the command that makes them.  Figures are drawn without
pyplot: no window, no global state.
"""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ecgmon.models.windows import FS
from ecgmon.pipelines.evaluation import explanation
from ecgmon.pipelines.evaluation.bootstrap import PatientBootstrap
from ecgmon.pipelines.evaluation.curves import Curve, curves_figure
from ecgmon.pipelines.evaluation.model_card_pictures import (
    FAILING,
    draw_ablation,
    draw_distributions,
    draw_failures,
    draw_frontier,
)
from ecgmon.pipelines.training.classes import BeatClass
from ecgmon.pipelines.training.mitdb import PATIENTS
from ecgmon.pipelines.training.separation import separation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgmon.models.inference.reconstruction import Scorer
    from ecgmon.pipelines.training.dataset import Dataset

CASES: Final = 3
"""Number of failure cases shown for each class."""

HEAVY: Final = "232"
"""Record with almost half of all S beats, in long runs; figures are given with and without it."""


class CardError(Exception):
    """A model card without its markers, or a damaged result file."""


def write(results: Path, card: Path) -> list[str]:
    """Update the tables and pictures of a model card.

    Parameters
    ----------
    results : Path
        Folder with the result files listed in the module's docstring.
    card : Path
        Page with markers for each of :data:`SECTIONS`; the file is replaced as a whole.

    Returns
    -------
    list of str
        Sections that were left out because a result file is missing.

    Raises
    ------
    CardError
        If the card cannot be read or lacks the markers of a section, or a result file is damaged.
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
                f"{card} does not have exactly one section {name}; expected <!-- {name} --> and <!-- /{name} --> once"
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
    """Find the beats whose score is most wrong: normal beats with the highest scores, other beats with the lowest.

    Parameters
    ----------
    score : ndarray of float32, shape (n,)
        Finite.
    aami : ndarray of uint8, shape (n,)
        :class:`ecgmon.pipelines.training.classes.BeatClass` of each beat.
    cases : int
        Largest number of beats of each class in :data:`FAILING`.

    Returns
    -------
    ndarray of int64, shape (m,)
        Indices, class by class, the worst beat first.

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
    """Collect the arrays from which the worst beats are drawn, for ``failures.npz``.

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
    first, *others = (Curve.of(curves["score"][fold], curves["aami"][fold]) for fold in folds)
    bands = PatientBootstrap.of(curves["score"], curves["aami"], _patients(curves), curves["fold"]).bands()
    curves_figure([replace(first, bands=bands, name="five folds"), *others]).savefig(pictures / "beatgan-curves.png")
    draw_distributions(pictures / "beatgan-scores.png", curves)
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
    lines = [
        Curve.of(curves["score"][part], curves["aami"][part], _patients(curves)[part], name=name)
        for name, part in (("all records", everything), (f"without {HEAVY}", without))
    ]
    curves_figure(lines).savefig(pictures / "inter-patient-curves.png")
    draw_distributions(pictures / "inter-patient-scores.png", curves)
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
    draw_frontier(pictures / "frontier.png", sizes, teacher)
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
    variants = [variant for variant in variants if variant["auc"]]  # in an unfinished plan some have no run yet
    draw_ablation(pictures / "ablation.png", variants)
    rows = [
        (variant["name"], variant["what"], str(len(variant["auc"])), _spread(variant["auc"]), _spread(variant["ap"]))
        for variant in variants
    ]
    head = ("variant", "what", "seeds", "AUC", "AP")
    return _table(head, rows) + f"\n\n![AUC of the variants]({pictures.name}/ablation.png)"


def _score_ablation(results: Path, pictures: Path) -> str:
    del pictures
    found = json.loads((results / "score-ablation.json").read_text())
    ways = {"folds": ", ".join(found["splits"]), "apart": "patients apart", "streamed": "patients apart, as streamed"}
    rows = [
        (what, *(" / ".join(_four(found[way][what][key]) for key in ("auc", "ap")) for way in ways))
        for what in found["folds"]
    ]
    return _table(("without", *ways.values()), rows)


def _explanation(results: Path, pictures: Path) -> str:
    del pictures
    return explanation.table(json.loads((results / "explanation.json").read_text()))


def _failures(results: Path, pictures: Path) -> str:
    cases = _arrays(results / "failures.npz", ("score", "aami", "record", "sample", "window", "reconstruction"))
    draw_failures(pictures / "failures.png", cases)
    rows = [
        (BeatClass(aami).name, str(record), f"{sample / FS:.1f}", f"{score:.2f}")
        for aami, record, sample, score in zip(
            *(cases[name].tolist() for name in ("aami", "record", "sample", "score")), strict=True
        )
    ]
    head = ("class", "record", "R peak, s", "score")
    return _table(head, rows) + f"\n\n![Beats whose score is most wrong]({pictures.name}/failures.png)"


SECTIONS: Final[dict[str, tuple[Callable[[Path, Path], str], tuple[str, ...], str]]] = {
    "beatgan": (_beatgan, ("beatgan.json", "beatgan.npz"), "ecgmon evaluate beatgan --db DIR"),
    "inter-patient": (
        _inter_patient,
        ("inter-patient.json", "inter-patient.npz"),
        "ecgmon evaluate inter-patient --db DIR",
    ),
    "frontier": (_frontier, ("frontier.json",), "ecgmon train plan frontier"),
    "ablation": (_ablation, ("ablation.json",), "ecgmon train plan ablation"),
    "score-ablation": (
        _score_ablation,
        ("score-ablation.json",),
        "ecgmon evaluate ablation --db DIR --halves DIR DIR",
    ),
    "explanation": (_explanation, ("explanation.json",), "ecgmon evaluate explanation --db DIR"),
    "failures": (_failures, ("failures.npz",), "ecgmon evaluate beatgan --db DIR"),
}
"""Sections by marker: the function that makes each, its result files, and the command that makes these files."""


def _arrays(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Read the named arrays; all must have the same length."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in names}
    if "record" in arrays:
        arrays["record"] = arrays["record"].astype(np.str_)  # files of earlier versions have numbers
    if len({len(array) for array in arrays.values()}) != 1:
        raise ValueError(f"the arrays {', '.join(names)} differ in length")
    return arrays


def _curves(path: Path) -> dict[str, NDArray[Any]]:
    return _arrays(path, ("score", "aami", "record", "fold"))


def _patients(curves: dict[str, NDArray[Any]]) -> NDArray[np.str_]:
    """Return the patient of each beat."""
    return np.array([PATIENTS.get(record, record) for record in curves["record"].tolist()])


def _figures(found: dict[str, Any]) -> str:
    """Return tables of AUC and AP, of the AUC by class, and of the sizes of the networks."""
    intervals = found.get("intervals", {})  # files of earlier versions have none
    names = {"score": "score", "raw": "A(x) of the student", "teacher_raw": "A(x) of the teacher"}
    rows = []
    for name, text in names.items():
        if found.get(name):  # a teacher that was not trained has no figures
            own = intervals.get(name, {})
            cells = ((_mean_and_std(found[name][figure]), _interval(own.get(figure))) for figure in ("auc", "ap"))
            rows.append((text, *(cell for pair in cells for cell in pair)))
    classes = [(name, _four(value)) for name, value in found["per_class"].items()]
    sizes = [
        (name, f"{found[name]['parameters']:,}", f"{found[name]['multiply_adds']:,}")
        for name in ("model", "teacher")
        if found.get(name)
    ]
    return "\n\n".join(
        [
            _table(("", "AUC", "95 %", "AP", "95 %"), rows),
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
    """Format a table in Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ("---",) * len(head), *rows])


def _four(share: float | None) -> str:
    return "-" if share is None else f"{share:.4f}".removeprefix("0")


def _mean_and_std(found: dict[str, float | None]) -> str:
    spread = "" if not found.get("std") else f" ± {_four(found['std'])}"
    return _four(found["mean"]) + spread


def _interval(found: list[float] | None) -> str:
    return "-" if found is None else " to ".join(f"{end:.3f}".removeprefix("0") for end in found)


def _spread(values: list[float]) -> str:
    """Format mean and sample standard deviation."""
    spread = f" ± {_four(float(np.std(values, ddof=1)))}" if len(values) > 1 else ""
    return _four(float(np.mean(values))) + spread
