"""How a beat is scored by what is known of it: sets of features, and the scores that are combined for each.

:mod:`ecgmon.models.score.score` explains the method.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from ecgmon.models.features import NAMES, OWN, OWN_2
from ecgmon.models.score.calibration import Table
from ecgmon.models.score.normalizing_flow import Density

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ecgmon.models.score.evidence import Evidence

HANDICAP: Final = float(np.log10(2))
"""Subtracted from the score of A(x) alone, so that it causes one of three false alarms and the other scores two."""

ORDINARY: Final = 0.6
"""Score of a feature up to which it hardly counts in the sum: that of the most unusual quarter of normal beats."""

FAINT: Final = 0.05
"""Share of a feature's score that counts up to :data:`ORDINARY`, so that beats without an unusual feature have an order, too."""


class ScoreError(Exception):
    """A score cannot be fitted, or stored parts are damaged."""


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """Features that a beat is scored by, where all of those in ``weights`` and ``joined`` are known.

    Attributes
    ----------
    name : str
    weights : mapping of str to float
        Features whose scores are added, and the weight of each.
    joined : tuple of str
        Features of the density, if the score is for the patients that it is fitted to; empty where there is none.
    """

    name: str
    weights: Mapping[str, float] = field(hash=False)
    joined: tuple[str, ...] = ()

    @property
    def added(self) -> tuple[str, ...]:
        """Names of the features whose scores are added."""
        return tuple(self.weights)

    def without(self, names: tuple[str, ...]) -> Self:
        """Leave out some features."""
        weights = {name: weight for name, weight in self.weights.items() if name not in names}
        return type(self)(self.name, weights, tuple(name for name in self.joined if name not in names))

    @property
    def compares(self) -> bool:
        """Whether beats are compared with those of their stream, so that the score of A(x) alone counts, too."""
        return not set(OWN).isdisjoint(self.added)

    @property
    def by_second_lead(self) -> bool:
        """Whether a second lead is needed, which not every record has."""
        return not set(OWN_2).isdisjoint(self.added)


_RHYTHM: Final = {"early": 2.0, "spread": 1.0}
_OWN: Final = {
    "qrs_over_usual": 1.0,
    "p_over_usual": 1.0,
    "ax_qrs_over_usual": 1.0,
    "own_qrs": 0.5,
    "own_p": 0.5,
}
_JOINED: Final = ("log_ax", "log_ax_qrs", "fast", "early", "spread", "jump", *OWN)

FEATURE_SETS: Final = (
    FeatureSet("two leads", {**_RHYTHM, **_OWN, "qrs_2_over_usual": 1.0}, (*_JOINED, *OWN_2)),
    FeatureSet("one lead", {**_RHYTHM, **_OWN}, _JOINED),
    FeatureSet("no rhythm", _OWN),
    FeatureSet("no own beats", {**_RHYTHM, "log_ax": 1.0}),
    FeatureSet("reconstruction", {"log_ax": 1.0}),
)
"""Sets of features, best first.  A beat is scored by the first set of which it has all features."""


@dataclass(frozen=True, slots=True, eq=False)
class JointScore:
    """The score of the density, and the sum of it and the score of :attr:`Part.added`.

    Attributes
    ----------
    names : tuple of str
        Its features.
    density : Density
    score : Table
        From the density's surprisal.
    weight : float
        Weight of this score in the sum, above 0: how well the density holds for beats that it was not fitted
        to.  It is the standard deviation of the surprisal over the beats it was fitted to, divided by
        how far on a root mean square it lies from their mean over others; about 1 where both distributions are the same.
    both : Table
        From the weighted sum of both scores.
    blur : float
        The blur that the density was fitted with.
    """

    names: tuple[str, ...]
    density: Density
    score: Table
    weight: float
    both: Table
    blur: float

    def add(self, score: NDArray[np.float64], evidence: Evidence) -> NDArray[np.float64]:
        """Combine the scores of ``n`` beats by :attr:`Part.added`, shape (n,), with those of the density."""
        return self.both(score + self.weight * self.score(surprisal_of(self.density, self.names, evidence)))

    def to_dict(self) -> dict[str, Any]:
        """Return all but the density as plain lists, strings and numbers."""
        return {
            "names": list(self.names),
            "score": self.score.to_dict(),
            "weight": self.weight,
            "both": self.both.to_dict(),
            "blur": self.blur,
        }

    @classmethod
    def restore(cls, plain: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        """Make it from :meth:`to_dict`'s answer and the density's arrays: see :meth:`ecgmon.models.score.score.Score.restore`."""
        names, density = tuple(plain["names"]), Density.from_arrays(arrays)
        if not set(names) <= set(NAMES) or len(names) != len(density.mean):
            raise ScoreError(
                f"a density of {len(density.mean)} features has the names {names}; expected names among {NAMES}"
            )
        weight = float(plain["weight"])
        if not 0 < weight < np.inf:
            raise ScoreError(f"the density has the weight {weight}; expected a positive number")
        score, both = (Table.from_dict(plain[name]) for name in ("score", "both"))
        return cls(names, density, score, weight, both, float(plain["blur"]))


@dataclass(frozen=True, slots=True, eq=False)
class AxScore:
    """The score of A(x) alone, and the higher of it and another score.

    Attributes
    ----------
    score : Table
        From the log of A(x).
    either : Table
        From the higher of both scores.
    """

    score: Table
    either: Table

    def add(self, score: NDArray[np.float64], evidence: Evidence) -> NDArray[np.float64]:
        """Combine other scores, shape (n,), with that of A(x)."""
        return self.either(_higher(score, self.score, columns_of(evidence, ("log_ax",))[:, 0]))

    def to_dict(self) -> dict[str, Any]:
        """Return both tables as plain lists."""
        return {"score": self.score.to_dict(), "either": self.either.to_dict()}

    @classmethod
    def measure(cls, score: NDArray[np.float64], log_ax: NDArray[np.floating[Any]]) -> Self:
        """Measure both tables on other scores and the logs of A(x) of normal beats, each of shape (n,)."""
        table = Table.measure(log_ax)
        return cls(table, Table.measure(_higher(score, table, log_ax)))

    @classmethod
    def restore(cls, plain: dict[str, Any]) -> Self:
        """Make it from :meth:`to_dict`'s answer."""
        return cls(Table.from_dict(plain["score"]), Table.from_dict(plain["either"]))


def _higher(score: NDArray[np.float64], by_ax: Table, log_ax: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    higher: NDArray[np.float64] = np.maximum(score, by_ax(log_ax) - HANDICAP)
    return higher


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """How beats are scored of which one set of features is known.

    Attributes
    ----------
    weights : dict of str to float
        Weight of each feature in the sum.
    tables : tuple of Table
        From each of these features to its score.
    added : Table
        From the weighted sum of :func:`opinion` of these scores.
    joint : JointScore or None
    alone : AxScore or None
        Given where beats are compared with those of their own stream.
    """

    weights: dict[str, float]
    tables: tuple[Table, ...]
    added: Table
    joint: JointScore | None = None
    alone: AxScore | None = None

    def scorable(self, evidence: Evidence) -> NDArray[np.bool_]:
        """Return which beats it can score: all its features are known, and the outline if there is a density."""
        if self.joint is None:
            return is_complete(tuple(self.weights), evidence)
        complete = is_complete((*self.weights, *self.joint.names), evidence)
        return complete & np.isfinite(evidence.outline).all(axis=1)

    def score(self, evidence: Evidence) -> NDArray[np.float64]:
        """Score beats of which all of the set is known; shape (n,)."""
        score = self.added(total_of(self.weights, self.tables, evidence))
        if self.joint is not None:
            score = self.joint.add(score, evidence)
        return score if self.alone is None else self.alone.add(score, evidence)

    def to_dict(self) -> dict[str, Any]:
        """Return all but the density as plain lists, strings and numbers."""
        plain: dict[str, Any] = {
            "weights": dict(self.weights),
            "tables": [table.to_dict() for table in self.tables],
            "added": self.added.to_dict(),
        }
        combined = {"joint": self.joint, "alone": self.alone}
        return plain | {name: each.to_dict() for name, each in combined.items() if each is not None}

    @classmethod
    def restore(cls, known: FeatureSet, plain: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        """Make a part from :meth:`to_dict`'s answer and the density's arrays: see :meth:`ecgmon.models.score.score.Score.restore`."""
        weights = {name: float(plain["weights"][name]) for name in known.added}
        if len(weights) != len(plain["weights"]) or not all(0 < weight < np.inf for weight in weights.values()):
            raise ScoreError(
                f"the part '{known.name}' adds {plain['weights']}; expected positive weights of {', '.join(known.added)}"
            )
        tables = tuple(Table.from_dict(table) for table in plain["tables"])
        if len(tables) != len(weights):
            raise ScoreError(f"the part '{known.name}' has {len(tables)} tables for {len(weights)} features")
        joint = JointScore.restore(plain["joint"], arrays) if "joint" in plain else None
        alone = AxScore.restore(plain["alone"]) if known.compares else None
        return cls(weights, tables, Table.from_dict(plain["added"]), joint, alone)


def columns_of(evidence: Evidence, names: tuple[str, ...]) -> NDArray[np.float32]:
    """Give the columns of some features, shape (n, names)."""
    return evidence.features[:, [NAMES.index(name) for name in names]]


def is_complete(names: tuple[str, ...], evidence: Evidence) -> NDArray[np.bool_]:
    """Return of which beats all of some features are known; shape (n,)."""
    return np.asarray(np.isfinite(columns_of(evidence, names)).all(axis=1))


def opinion(score: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how much the score of one feature counts, same shape: little up to :data:`ORDINARY`, fully from there on.

    A beat may be abnormal in one respect and ordinary in all others, so that an ordinary value is no sign of a normal
    beat.
    """
    counted: NDArray[np.float64] = np.maximum(score - ORDINARY, 0) + FAINT * score
    return counted


def total_of(weights: Mapping[str, float], tables: tuple[Table, ...], evidence: Evidence) -> NDArray[np.float64]:
    """Add the weighted opinions of some features; shape (n,)."""
    columns = columns_of(evidence, tuple(weights))
    total = np.zeros(len(columns))
    for column, table, weight in zip(columns.T, tables, weights.values(), strict=True):
        total += weight * opinion(table(column))
    return total


def surprisal_of(density: Density, names: tuple[str, ...], evidence: Evidence) -> NDArray[np.float32]:
    """Give the surprisal of a density of some features; shape (n,)."""
    return density.surprisal(columns_of(evidence, names), evidence.outline)
