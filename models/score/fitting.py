"""Fit a score: its densities and its tables, on normal beats only.  :mod:`ecgmon.models.score.score` explains the method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ecgmon.models.score.calibration import LEAST_BEATS, Table
from ecgmon.models.score.evidence import Evidence, log_ax
from ecgmon.models.score.normalizing_flow import LEAST, Density
from ecgmon.models.score.parts import (
    FEATURE_SETS,
    AxScore,
    FeatureSet,
    JointScore,
    Part,
    ScoreError,
    columns_of,
    is_complete,
    surprisal_of,
    total_of,
)
from ecgmon.models.score.score import Score

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLURS: Final = (0.2, 2.0)
"""Blurs of the condition that :func:`fit_score` chooses from, in standard deviations of a component."""

ROUNDS: Final = 5
"""Groups of patients that are left out in turn where patients are kept apart."""


def fit_score(
    train: Evidence,
    held_out: Evidence,
    *,
    patients: NDArray[np.integer[Any]] | None = None,
    unseen: NDArray[np.floating[Any]] | None = None,
    seed: int = 0,
) -> Score:
    """Fit the densities and measure the tables, on normal beats only.

    Parameters
    ----------
    train : Evidence
        Of the normal beats that the generator was trained on.
    held_out : Evidence
        Of normal beats that it was not.
    patients : ndarray of int, shape (len(train) + len(held_out),), optional
        Patient of each beat, those of ``train`` first.  Given where the score is for other patients: then
        everything is measured on patients left out in turn, and the density fitted to all.
    unseen : ndarray of float, same shape as ``patients``, optional
        A(x) of the same beats, each by a generator that has not seen its patient; given with ``patients``.  The
        table of A(x) alone is measured on it: a generator reconstructs patients better that it was trained on.
    seed : int
        Decides which patients are left out together, and all that is random in fitting.

    Raises
    ------
    ScoreError
        If the beats do not suffice.  If only those with a second lead do not, no beat is scored by it.
    ecgmon.models.score.normalizing_flow.DensityError
        If the features cannot be fitted.
    """
    everything = Evidence.concatenate([train, held_out])
    if (patients is None) != (unseen is None):
        raise ScoreError(
            "patients come with their beats' A(x) by generators that have not seen them; expected both or neither"
        )
    if patients is None or unseen is None:
        first = np.arange(len(everything)) < len(train)
        rounds, own_ax = [(first, ~first)], columns_of(everything, ("log_ax",))[:, 0]
    else:
        if not len(patients) == len(unseen) == len(everything):
            raise ScoreError(
                f"{len(patients)} patients and {len(unseen)} values of A(x) were given for {len(everything)} beats; "
                "expected one for each beat"
            )
        rounds, own_ax = [(~out, out) for out in _left_out(patients, seed)], log_ax(unseen)
    parts: list[Part | None] = []
    blurs: tuple[float, ...] = BLURS
    for known in FEATURE_SETS:
        names = known.joined if patients is None else known.carried
        if known.by_second_lead and _too_few(known, everything, rounds):
            parts.append(None)
            continue
        part = _fit_part(known, names, everything, own_ax, rounds, blurs, seed)
        if part.joint is not None:
            blurs = (part.joint.blur,)  # chosen once, where most is known
        parts.append(part)
    return Score(tuple(parts), sum(int(out.sum()) for _, out in rounds))


def _too_few(
    known: FeatureSet, everything: Evidence, rounds: list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]
) -> bool:
    """Return whether the beats of which all of ``known`` is known are too few for a table or a density."""
    complete = is_complete(known, everything)
    judged = sum(int(np.count_nonzero(unseen & complete)) for _, unseen in rounds)
    return judged < LEAST_BEATS or any(np.count_nonzero(seen & complete) < LEAST for seen, _ in rounds)


def _fit_part(
    known: FeatureSet,
    names: tuple[str, ...],
    everything: Evidence,
    log_ax: NDArray[np.floating[Any]],
    rounds: list[tuple[NDArray[np.bool_], NDArray[np.bool_]]],
    blurs: tuple[float, ...],
    seed: int,
) -> Part:
    """Fit the part for one set of features, with a density of ``names``: see :func:`fit_score`."""
    complete = is_complete(known, everything)
    pairs = [(everything[seen & complete], everything[unseen & complete]) for seen, unseen in rounds]
    judged = Evidence.concatenate([unseen for _, unseen in pairs])
    if len(judged) < LEAST_BEATS:
        raise ScoreError(
            f"of {len(judged)} held-out normal beats all of {', '.join(known.added + known.joined)} is known; "
            f"expected at least {LEAST_BEATS}"
        )
    columns = columns_of(judged, known.added)
    mean, scale = columns.mean(axis=0, dtype=np.float64), columns.std(axis=0, dtype=np.float64)
    if not (scale > 0).all():
        raise ScoreError(f"one of {', '.join(known.added)} is the same for all held-out beats; expected it to vary")
    total = total_of(known, judged, mean, scale)
    added = Table.measure(total)
    score, joint = added(total), None
    if names:
        joint = _fit_joint(names, pairs, score, blurs, seed)
        score = joint.add(score, judged)
    alone = None
    if known.compares:
        alone = AxScore.measure(score, np.concatenate([log_ax[unseen & complete] for _, unseen in rounds]))
    return Part(mean, scale, added, joint, alone)


def _fit_joint(
    names: tuple[str, ...],
    pairs: list[tuple[Evidence, Evidence]],
    score: NDArray[np.float64],
    blurs: tuple[float, ...],
    seed: int,
) -> JointScore:
    """Fit a density of ``names``, and measure it together with the scores of the beats that it was not fitted to."""
    tried = [_try(names, pairs, blur, seed) for blur in blurs]
    best = int(np.argmin([unseen.mean() for _, _, unseen in tried]))
    density, seen, unseen = tried[best]
    if len(pairs) > 1:
        judged = Evidence.concatenate([unseen for _, unseen in pairs])
        density = Density.fit(columns_of(judged, names), judged.outline, blur=blurs[best], seed=seed)
    table = Table.measure(unseen)
    weight = float(seen.std() / np.sqrt(np.square(unseen - seen.mean()).mean()))
    return JointScore(names, density, table, weight, Table.measure(score + weight * table(unseen)), blurs[best])


def _try(
    names: tuple[str, ...], rounds: list[tuple[Evidence, Evidence]], blur: float, seed: int
) -> tuple[Density, NDArray[np.float64], NDArray[np.float64]]:
    """Fit a density in every round; return the first, and all surprisals of the beats fitted to, and of the others."""
    densities = [Density.fit(columns_of(seen, names), seen.outline, blur=blur, seed=seed) for seen, _ in rounds]
    pairs = list(zip(densities, rounds, strict=True))
    seen = np.concatenate([surprisal_of(density, names, seen) for density, (seen, _) in pairs])
    unseen = np.concatenate([surprisal_of(density, names, unseen) for density, (_, unseen) in pairs])
    return densities[0], seen.astype(np.float64), unseen.astype(np.float64)


def _left_out(patients: NDArray[np.integer[Any]], seed: int) -> list[NDArray[np.bool_]]:
    """Choose for each round the beats that are left out; every patient is left out once."""
    each = np.unique(patients)
    if len(each) < ROUNDS:
        raise ScoreError(f"{len(each)} patients are too few to leave some out in turn; expected at least {ROUNDS}")
    dealt = np.random.default_rng(seed).permutation(each)
    return [np.isin(patients, dealt[k::ROUNDS]) for k in range(ROUNDS)]
