"""``ecgmon evaluate ablation``: what A(x), the rhythm and the stream's own beats contribute to the score.

The score is fitted again without a group of features and measured in three ways: on BeatGAN's five folds, with patients
apart (fitted to DS1, tested on DS2), and the same as a stream, where the detector finds and cuts the beats.  A group that
is left out when the score is fitted costs less than one that is only hidden from a finished score, because the other
features take its part.

The first beats of a stream have no score if none of the remaining features is known; they count as the median normal beat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ecgmon.models.features import AX, OWN, OWN_2, RHYTHM
from ecgmon.models.score.fitting import BLURS, fit_score
from ecgmon.models.weights.checkpoint import shipped
from ecgmon.pipelines.evaluation.protocols import Evaluated, prepared
from ecgmon.pipelines.training import score_fitting, steps
from ecgmon.pipelines.training.mitdb import FOLD_NAMES, RECORDS
from ecgmon.pipelines.training.mitdb import split as split_of
from ecgmon.pipelines.training.separation import separation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from ecgmon.models.networks.generator import AnyGenerator
    from ecgmon.pipelines.training.dataset import Dataset
    from ecgmon.pipelines.training.score_fitting import Gathered
    from ecgmon.pipelines.training.splits import Split

LEFT_OUT: Final[dict[str, tuple[str, ...]]] = {
    "nothing": (),
    "A(x)": AX,
    "the rhythm": RHYTHM,
    "the stream's own beats": (*OWN, *OWN_2),
    "the second lead": OWN_2,
}
"""Groups of features by name.  A(x) compared with the stream's usual A(x) belongs to two of them."""

WAYS: Final = ("folds", "apart", "streamed")
"""The ways to measure."""

_MEDIAN: Final = float(np.log10(2))  # score of the median normal beat


def evaluate(
    db: Path,
    halves: Sequence[Path],
    *,
    folds: Sequence[str] = FOLD_NAMES,
    done: Callable[[str], None] = lambda _: None,
) -> Evaluated:
    """Fit and measure the score without each group of features.

    Parameters
    ----------
    db : Path
        Folder with all records of the protocol.
    halves : sequence of Path
        Folders of the trainings on the two halves of DS1.
    folds : sequence of str
        Folds to use.
    done : callable
        Called with a description after each of :func:`steps_of` steps.

    Returns
    -------
    Evaluated
        The figures are ``splits``, the folds used, and by :data:`WAYS` and :data:`LEFT_OUT` ``auc``, ``ap`` and the AUC
        of each class; means over the folds.

    Raises
    ------
    ecgmon.pipelines.training.fitting.TrainingError
        If ``halves`` are not the trainings on the halves of DS1.
    ecgmon.pipelines.sources.errors.SourceError, ecgmon.pipelines.training.dataset.DatasetError
        If the records cannot be used.
    ecgmon.models.weights.checkpoint.CheckpointError
        If a shipped model is missing or damaged.
    """
    generators = steps.trained_halves("ds1", halves)  # before the records are read, which takes longer
    with prepared(db, RECORDS, done) as dataset:
        return Evaluated({"splits": list(folds), **_measured(dataset, db, generators, folds, done)}, {})


def steps_of(folds: Sequence[str]) -> int:
    """Return the number of records read and scores fitted."""
    return len(RECORDS) + len(LEFT_OUT) * (len(folds) + 2)


def _measured(
    dataset: Dataset,
    db: Path,
    generators: dict[str, AnyGenerator],
    folds: Sequence[str],
    done: Callable[[str], None],
) -> dict[str, dict[str, dict[str, float]]]:
    """Measure in all of :data:`WAYS`."""
    from ecgmon.models.inference.reconstruction import Reconstructor, Scorer

    unseen = score_fitting.Halves(
        dataset, [(split_of(dataset, name), Reconstructor(generator)) for name, generator in generators.items()]
    )
    of_folds: list[dict[str, dict[str, float]]] = []
    for fold in folds:
        scorer = Scorer(shipped(fold))
        found = score_fitting.annotated(dataset, score_fitting.reconstructed(dataset, scorer))
        joint = next(part.joint for part in scorer.info.score.parts if part is not None)
        blurs = BLURS if joint is None else (joint.blur,)
        of_folds.append(_found(fold, dataset, found, found, split_of(dataset, fold), blurs, done))
    scorer, used = Scorer(shipped("ds1")), split_of(dataset, "ds1")
    raw = score_fitting.reconstructed(dataset, scorer)
    to_fit, to_test = (score_fitting.annotated(dataset, raw, halves=each) for each in (unseen, None))
    apart = _found("patients apart", dataset, to_fit, to_test, used, BLURS, done)
    to_fit, to_test = (score_fitting.streamed(dataset, db, scorer, halves=each) for each in (unseen, None))
    streamed = _found("streamed", dataset, to_fit, to_test, used, BLURS, done)
    return {"folds": _mean(of_folds), "apart": apart, "streamed": streamed}


def _found(
    name: str,
    dataset: Dataset,
    to_fit: Gathered,
    to_test: Gathered,
    used: Split,
    blurs: tuple[float, ...],
    done: Callable[[str], None],
) -> dict[str, dict[str, float]]:
    """Fit the score to the normal beats of a split without each group, and measure it on its test beats."""
    train, held_out = used.train[to_fit.beats], used.held_out[to_fit.beats]
    test = used.test[to_test.beats]
    aami = dataset.beats["aami"][to_test.beats[test]]
    results = {}
    for what, features in LEFT_OUT.items():
        fitted = fit_score(
            to_fit.evidence[train],
            to_fit.evidence[held_out],
            for_other_patients=to_fit.of_unseen,
            without=features,
            blurs=blurs,
        )
        score = fitted.score(to_test.evidence[test])
        results[what] = _figures(separation(np.nan_to_num(score, nan=_MEDIAN), aami))
        done(f"{name}, without {what}")
    return results


def _figures(found: dict[str, Any]) -> dict[str, float]:
    return {"auc": found["auc"], "ap": found["ap"], **found["per_class"]}


def _mean(found: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Average the figures of folds."""

    def of(what: str) -> Iterator[tuple[str, float]]:
        for key in found[0][what]:
            yield key, float(np.mean([fold[what][key] for fold in found]))

    return {what: dict(of(what)) for what in LEFT_OUT}
