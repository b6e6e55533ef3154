"""``ecgmon evaluate beatgan`` and ``inter-patient``: published protocols, with shipped weights and without training.

Every beat is cut at its annotation.  The beats of a record pass the generator, the evidence and the score in order,
as in the daemon; nothing after a beat is used for its score.  Each fold has its own generator and score, made
from the normal beats of the training part of that fold only.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ecgmon.models.features import OWN, OWN_2, RHYTHM
from ecgmon.models.weights.checkpoint import shipped
from ecgmon.pipelines.evaluation import bootstrap, explanation
from ecgmon.pipelines.evaluation.bootstrap import PatientBootstrap
from ecgmon.pipelines.evaluation.model_card import HEAVY, failure_cases
from ecgmon.pipelines.training import mitdb
from ecgmon.pipelines.training.classes import BeatClass
from ecgmon.pipelines.training.mitdb import FOLD_NAMES
from ecgmon.pipelines.training.mitdb import split as split_of
from ecgmon.pipelines.training.score_fitting import annotated, reconstructed
from ecgmon.pipelines.training.separation import separation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from ecgmon.models.weights.checkpoint import ModelInfo
    from ecgmon.pipelines.training.dataset import Dataset

STEPS: Final = {"beatgan": len(FOLD_NAMES), "inter-patient": 1, "explanation": 1}
"""Evaluations by name, with the number of models that each runs, one after the other."""

WITHOUT: Final = {
    "the second lead": OWN_2,
    "rhythm": RHYTHM,
    "own beats": OWN + OWN_2,
    "rhythm and own beats": RHYTHM + OWN + OWN_2,
}
"""Names of features that are left out of the score, to measure what they contribute."""


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """Result of an evaluation.

    Attributes
    ----------
    figures : dict
        Figures, ready for JSON.
    arrays : dict of str to dict of str to ndarray
        Arrays for the model card, by file name; :mod:`ecgmon.pipelines.evaluation.model_card` describes the files.
    """

    figures: dict[str, Any]
    arrays: dict[str, dict[str, NDArray[Any]]]

    def store(self, folder: Path, name: str) -> None:
        """Write ``NAME.json`` and the arrays as ``.npz`` files."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(self.figures, indent=1) + "\n")
        for file, arrays in self.arrays.items():
            np.savez_compressed(folder / f"{file}.npz", allow_pickle=False, **arrays)


def evaluate(
    name: str,
    db: Path,
    *,
    records: Iterable[str] = mitdb.RECORDS,
    done: Callable[[str], None] = lambda _: None,
) -> Evaluated:
    """Evaluate the shipped models on the MIT-BIH Arrhythmia Database.

    Parameters
    ----------
    name : str
        One of :data:`STEPS`.
    db : Path
        Folder with the records.
    records : iterable of str
        Records to use; the protocol needs all of them.
    done : callable
        Called with the name of each record after it is read, and of each model after its evaluation.

    Returns
    -------
    Evaluated
        For ``beatgan`` and ``inter-patient`` the figures are ``score`` and ``raw`` (A(x)): ``auc`` and ``ap``, each
        with ``mean`` and ``std`` over the folds; ``teacher_raw``: the same, as recorded when the teacher was trained;
        ``per_class``: mean AUC of the score by class; ``without``: the score without some features, see
        :data:`WITHOUT`; ``folds``: the figures of each fold; ``intervals`` of ``score`` and ``raw`` over patients: see
        :func:`ecgmon.pipelines.evaluation.bootstrap.figures`; ``model`` and ``teacher``: ``parameters`` and
        ``multiply_adds``.  ``inter-patient`` has the DS2 records as its only fold, and ``without_232``.  For
        ``explanation``: the result of :func:`ecgmon.pipelines.evaluation.explanation.evaluate`.

    Raises
    ------
    ecgmon.pipelines.sources.errors.SourceError
        If a record cannot be read.
    ecgmon.pipelines.training.dataset.DatasetError
        If the records are not those of the protocol.
    ecgmon.models.weights.checkpoint.CheckpointError
        If a shipped model is missing or damaged.
    """
    with prepared(db, records, done) as dataset:
        if name == "explanation":
            from ecgmon.models.inference.reconstruction import Scorer

            return Evaluated(explanation.evaluate(Scorer(), dataset, "all"), {})
        names = FOLD_NAMES if name == "beatgan" else ("ds1",)
        return _rescored(name, dataset, names, done)


@contextmanager
def prepared(db: Path, records: Iterable[str], done: Callable[[str], None]) -> Iterator[Dataset]:
    """Prepare the data set in a temporary folder, which is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="ecgmon-evaluate-") as folder:
        yield mitdb.prepare(db, Path(folder), records=records, done=done)


def _rescored(name: str, dataset: Dataset, splits: tuple[str, ...], done: Callable[[str], None]) -> Evaluated:
    from ecgmon.models.inference.reconstruction import Scorer

    folds: list[dict[str, Any]] = []
    tested: list[dict[str, NDArray[Any]]] = []
    ax: list[NDArray[np.float32]] = []
    patient: list[NDArray[np.int64]] = []
    arrays: dict[str, dict[str, NDArray[Any]]] = {}
    for number, split in enumerate(splits):
        scorer = Scorer(shipped(split))
        raw = reconstructed(dataset, scorer)
        evidence = annotated(dataset, raw).evidence
        test = split_of(dataset, split).test
        beats = dataset.beats[test]
        score = scorer.info.score.score(evidence[test])
        folds.append(
            {
                "split": split,
                "score": separation(score, beats["aami"]),
                "raw": separation(raw.ax[test], beats["aami"]),
                "without": {
                    what: separation(scorer.info.score.score(evidence[test].without(features)), beats["aami"])
                    for what, features in WITHOUT.items()
                },
            }
        )
        tested.append(
            {
                "score": score,
                "aami": beats["aami"],
                "record": dataset.names(beats),
                "fold": np.full(len(beats), number, "u1"),
            }
        )
        ax.append(raw.ax[test])
        patient.append(dataset.patient_of_beats()[test])
        if name == "beatgan" and number == 0:
            arrays["failures"] = failure_cases(scorer, dataset, beats, score)
        done(split)
    curves = {key: np.concatenate([part[key] for part in tested]) for key in tested[0]}
    arrays[name] = curves
    figures: dict[str, Any] = {
        "score": _spread([fold["score"] for fold in folds]),
        "raw": _spread([fold["raw"] for fold in folds]),
        "without": {what: _spread([fold["without"][what] for fold in folds]) for what in WITHOUT},
        "per_class": _per_class(folds),
        "folds": folds,
        "intervals": bootstrap.figures(
            {
                what: PatientBootstrap.of(values, curves["aami"], np.concatenate(patient), curves["fold"])
                for what, values in (("score", curves["score"]), ("raw", np.concatenate(ax)))
            }
        ),
        "model": _size(scorer.info),
        **_teacher(splits),
    }
    if name == "inter-patient":
        light = curves["record"] != HEAVY
        figures[f"without_{HEAVY}"] = separation(curves["score"][light], curves["aami"][light])
    return Evaluated(figures, arrays)


def _spread(found: list[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Calculate mean and standard deviation over folds; the standard deviation of one fold is None."""
    return {
        key: {
            "mean": float(np.mean([row[key] for row in found])),
            "std": float(np.std([row[key] for row in found], ddof=1)) if len(found) > 1 else None,
        }
        for key in ("auc", "ap")
    }


def _per_class(folds: list[dict[str, Any]]) -> dict[str, float]:
    kinds = [kind.name for kind in BeatClass if kind != BeatClass.N]
    return {
        kind: float(np.mean([fold["score"]["per_class"][kind] for fold in folds]))
        for kind in kinds
        if all(kind in fold["score"]["per_class"] for fold in folds)
    }


def _size(info: ModelInfo) -> dict[str, int]:
    return {"parameters": info.parameters, "multiply_adds": info.multiply_adds}


def _teacher(splits: tuple[str, ...]) -> dict[str, Any]:
    """Read the figures recorded when the teachers were trained; the weights of the teachers are not shipped."""
    recorded = json.loads(shipped("teacher", ".json").read_text())
    found = [recorded["folds"][split] for split in splits if split in recorded["folds"]]
    return {
        "teacher_raw": _spread(found) | {"folds": len(found)} if found else None,
        "teacher": {key: recorded[key] for key in ("what", "parameters", "multiply_adds")},
    }
