"""Fit a score: its densities and its tables, on normal beats only.  :mod:`ecgmon.models.score.score` explains the method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from ecgmon.models.score.calibration import LEAST_BEATS, Table
from ecgmon.models.score.evidence import Evidence
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


def fit_score(
    train: Evidence,
    held_out: Evidence,
    *,
    for_other_patients: bool = False,
    without: tuple[str, ...] = (),
    blurs: tuple[float, ...] = BLURS,
    seed: int = 0,
) -> Score:
    """Fit the densities and measure the tables, on normal beats only.

    Parameters
    ----------
    train : Evidence
        Of the normal beats that the generator was trained on.
    held_out : Evidence
        Of normal beats that it was not.
    for_other_patients : bool
        Whether the score is for patients who are not among these.  It then has no density, which would know the
        patients that it was fitted to, and the tables are measured on all beats.  The evidence of each must be that of
        a generator that has not seen its patient: a generator reconstructs patients better that it was trained on.
    without : tuple of str
        Features that the score does not use, to measure what they contribute.  Such a score cannot be stored.
    blurs : tuple of float
        Blurs to choose from.
    seed : int
        Decides all that is random in fitting.

    Raises
    ------
    ScoreError
        If the beats do not suffice.  If only those with a second lead do not, no beat is scored by it.
    ecgmon.models.score.normalizing_flow.DensityError
        If the features cannot be fitted.
    """
    judged = Evidence.concatenate([train, held_out]) if for_other_patients else held_out
    parts: list[Part | None] = []
    for known in (known.without(without) for known in FEATURE_SETS):
        joined = () if for_other_patients else known.joined
        if not known.weights or (known.by_second_lead and _too_few(known, joined, train, judged)):
            parts.append(None)
            continue
        part = _fit_part(known, joined, train, judged, without, blurs, seed)
        if part.joint is not None:
            blurs = (part.joint.blur,)  # chosen once, where most is known
        parts.append(part)
    return Score(tuple(parts), len(judged))


def _too_few(known: FeatureSet, joined: tuple[str, ...], train: Evidence, judged: Evidence) -> bool:
    """Return whether too few beats have all features for a table or a density."""
    names = known.added + joined
    few_to_fit = joined and _usable(names, train).sum() < LEAST
    return bool(few_to_fit or _usable(names, judged).sum() < LEAST_BEATS)


def _usable(names: tuple[str, ...], beats: Evidence) -> NDArray[np.bool_]:
    """Return which beats have all of some features and a whole outline."""
    return is_complete(names, beats) & np.isfinite(beats.outline).all(axis=1)


def _fit_part(
    known: FeatureSet,
    joined: tuple[str, ...],
    train: Evidence,
    judged: Evidence,
    without: tuple[str, ...],
    blurs: tuple[float, ...],
    seed: int,
) -> Part:
    """Fit the part for one set of features, with a density of ``joined``: see :func:`fit_score`."""
    names = known.added + joined
    train, judged = (beats[_usable(names, beats)] for beats in (train, judged))
    if len(judged) < LEAST_BEATS:
        raise ScoreError(
            f"of {len(judged)} held-out normal beats all of {', '.join(names)} is known; "
            f"expected at least {LEAST_BEATS}"
        )
    columns = columns_of(judged, known.added)
    if not (columns.std(axis=0) > 0).all():
        raise ScoreError(f"one of {', '.join(known.added)} is the same for all held-out beats; expected it to vary")
    weights, tables = dict(known.weights), tuple(Table.measure(column) for column in columns.T)
    total = total_of(weights, tables, judged)
    added = Table.measure(total)
    score, joint = added(total), None
    if joined:
        joint = _fit_joint(joined, train, judged, score, blurs, seed)
        score = joint.add(score, judged)
    alone = None
    if known.compares and "log_ax" not in without:
        alone = AxScore.measure(score, columns_of(judged, ("log_ax",))[:, 0])
    return Part(weights, tables, added, joint, alone)


def _fit_joint(
    names: tuple[str, ...],
    train: Evidence,
    judged: Evidence,
    score: NDArray[np.float64],
    blurs: tuple[float, ...],
    seed: int,
) -> JointScore:
    """Fit a density of ``names``, and measure it together with the scores of the beats that it was not fitted to."""
    densities = [Density.fit(columns_of(train, names), train.outline, blur=blur, seed=seed) for blur in blurs]
    unseen = [surprisal_of(density, names, judged).astype(np.float64) for density in densities]
    best = int(np.argmin([surprisal.mean() for surprisal in unseen]))
    density, surprisal = densities[best], unseen[best]
    seen = surprisal_of(density, names, train).astype(np.float64)
    table = Table.measure(surprisal)
    weight = float(seen.std() / np.sqrt(np.square(surprisal - seen.mean()).mean()))
    return JointScore(names, density, table, weight, Table.measure(score + weight * table(surprisal)), blurs[best])
