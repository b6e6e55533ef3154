"""How a beat is scored by what is known of it: sets of features, and the scores that are combined for each.

:mod:`ecgmon.models.score.score` explains the method.  The keys of the stored form (``surprise``, ``joint``, ``alone``) and
the names of features in it are those of the first release.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from ecgmon.models.features import NAMES, OWN, OWN_2, RHYTHM, STORED_NAMES
from ecgmon.models.score.calibration import Table
from ecgmon.models.score.normalizing_flow import Density

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ecgmon.models.score.evidence import Evidence

HANDICAP: Final = float(np.log10(2))
"""Subtracted from the score of A(x) alone, so that it causes one of three false alarms and the other scores two."""


class ScoreError(Exception):
    """A score cannot be fitted, or stored parts are damaged."""


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """Features that a beat is scored by, where all of those in ``added`` and ``joined`` are known.

    Attributes
    ----------
    name : str
    added : tuple of str
        Features whose standard scores are added.
    joined : tuple of str
        Features of the density, if it is for the patients that it was fitted to; empty where there is no density.
    carried : tuple of str
        Features of the density, if it is for other patients.
    """

    name: str
    added: tuple[str, ...]
    joined: tuple[str, ...] = ()
    carried: tuple[str, ...] = ()

    @property
    def compares(self) -> bool:
        """Whether beats are compared with those of their stream, so that the score of A(x) alone counts, too."""
        return not set(OWN).isdisjoint(self.added)

    @property
    def by_second_lead(self) -> bool:
        """Whether a second lead is needed, which not every record has."""
        return not set(OWN_2).isdisjoint(self.added)


_RHYTHM: Final = tuple(name for name in RHYTHM if name != "fast")
_AX: Final = ("log_ax", "log_ax_qrs")

# For other patients, A(x) stays out of the density: the generator was trained on the patients that the density is fitted to, and
# reconstructs them better.  The heart rate stays out because it is the patient's own, the second lead because it differs between
# records.
FEATURE_SETS: Final = (
    FeatureSet(
        "two leads",
        ("log_ax", "early", "spread", *OWN, "own_qrs_2"),
        (*_AX, "fast", *_RHYTHM, *OWN, *OWN_2),
        (*_RHYTHM, *OWN),
    ),
    FeatureSet("one lead", ("log_ax", "early", "spread", *OWN), (*_AX, "fast", *_RHYTHM, *OWN), (*_RHYTHM, *OWN)),
    FeatureSet("no rhythm", ("log_ax", *OWN)),
    FeatureSet("no own beats", ("log_ax", "early", "spread")),
    FeatureSet("reconstruction", ("log_ax",)),
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
            "names": list(_stored(self.names)),
            "surprise": self.score.to_dict(),
            "weight": self.weight,
            "both": self.both.to_dict(),
            "blur": self.blur,
        }

    @classmethod
    def restore(cls, plain: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        """Make it from :meth:`to_dict`'s answer and the density's arrays: see :meth:`ecgmon.models.score.score.Score.restore`."""
        stored, density = tuple(plain["names"]), Density.from_arrays(arrays)
        if not set(stored) <= set(STORED_NAMES) or len(stored) != len(density.mean):
            raise ScoreError(
                f"a density of {len(density.mean)} features has the names {stored}; expected names among {STORED_NAMES}"
            )
        names = tuple(NAMES[STORED_NAMES.index(name)] for name in stored)
        weight = float(plain["weight"])
        if not 0 < weight < np.inf:
            raise ScoreError(f"the density has the weight {weight}; expected a positive number")
        tables = (Table.from_dict(plain[name]) for name in ("surprise", "both"))
        score, both = tables
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
        return {"surprise": self.score.to_dict(), "either": self.either.to_dict()}

    @classmethod
    def measure(cls, score: NDArray[np.float64], log_ax: NDArray[np.floating[Any]]) -> Self:
        """Measure both tables on other scores and the logs of A(x) of normal beats, each of shape (n,)."""
        table = Table.measure(log_ax)
        return cls(table, Table.measure(_higher(score, table, log_ax)))

    @classmethod
    def restore(cls, plain: dict[str, Any]) -> Self:
        """Make it from :meth:`to_dict`'s answer."""
        return cls(Table.from_dict(plain["surprise"]), Table.from_dict(plain["either"]))


def _higher(score: NDArray[np.float64], by_ax: Table, log_ax: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    higher: NDArray[np.float64] = np.maximum(score, by_ax(log_ax) - HANDICAP)
    return higher


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """How beats are scored of which one set of features is known.

    Attributes
    ----------
    mean, scale : ndarray of float64, shape (len(known.added),)
        Of the features that are added, to standardise them.
    added : Table
        From the sum of the standard scores.
    joint : JointScore or None
    alone : AxScore or None
        Given where beats are compared with those of their own stream.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    added: Table
    joint: JointScore | None = None
    alone: AxScore | None = None

    def score(self, known: FeatureSet, evidence: Evidence) -> NDArray[np.float64]:
        """Score beats of which all of ``known`` is known; shape (n,)."""
        score = self.added(total_of(known, evidence, self.mean, self.scale))
        if self.joint is not None:
            score = self.joint.add(score, evidence)
        return score if self.alone is None else self.alone.add(score, evidence)

    def to_dict(self, known: FeatureSet) -> dict[str, Any]:
        """Return all but the density as plain lists, strings and numbers."""
        plain: dict[str, Any] = {
            "mean": dict(zip(_stored(known.added), self.mean.tolist(), strict=True)),
            "scale": dict(zip(_stored(known.added), self.scale.tolist(), strict=True)),
            "added": self.added.to_dict(),
        }
        combined = {"joint": self.joint, "alone": self.alone}
        return plain | {name: each.to_dict() for name, each in combined.items() if each is not None}

    @classmethod
    def restore(cls, known: FeatureSet, plain: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        """Make a part from :meth:`to_dict`'s answer and the density's arrays: see :meth:`ecgmon.models.score.score.Score.restore`."""
        mean, scale = (
            np.array([plain[which][name] for name in _stored(known.added)], np.float64) for which in ("mean", "scale")
        )
        if not (np.isfinite(mean).all() and np.isfinite(scale).all() and (scale > 0).all()):
            raise ScoreError(f"the standardisation of the part '{known.name}' is not finite and positive")
        joint = JointScore.restore(plain["joint"], arrays) if known.joined else None
        alone = AxScore.restore(plain["alone"]) if known.compares else None
        return cls(mean, scale, Table.from_dict(plain["added"]), joint, alone)


def _stored(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of features in a checkpoint."""
    return tuple(STORED_NAMES[NAMES.index(name)] for name in names)


def columns_of(evidence: Evidence, names: tuple[str, ...]) -> NDArray[np.float32]:
    """Give the columns of some features, shape (n, names)."""
    return evidence.features[:, [NAMES.index(name) for name in names]]


def is_complete(known: FeatureSet, evidence: Evidence) -> NDArray[np.bool_]:
    """Find the beats of which all of a set of features is known, and the outline where there is a density; shape (n,)."""
    complete = np.asarray(np.isfinite(columns_of(evidence, known.added + known.joined)).all(axis=1))
    return complete & np.isfinite(evidence.outline).all(axis=1) if known.joined else complete


def total_of(
    known: FeatureSet, evidence: Evidence, mean: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Add the standard scores of ``known.added``; shape (n,)."""
    total: NDArray[np.float64] = ((columns_of(evidence, known.added) - mean) / scale).sum(axis=1)
    return total


def surprisal_of(density: Density, names: tuple[str, ...], evidence: Evidence) -> NDArray[np.float32]:
    """Give the surprisal of a density of some features; shape (n,)."""
    return density.surprisal(columns_of(evidence, names), evidence.outline)
