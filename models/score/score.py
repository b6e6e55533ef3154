"""One number from all that is known of a beat: how rarely a normal beat looks this odd.

The score is a surprise with the meaning that :mod:`ecgmon.models.score.calibration` gives it.  It joins three
opinions, each itself a surprise measured on normal beats that nothing was fitted to:

*   **the sum**: reconstruction error, rhythm and distance to the stream's own beats as standard
    scores, added with equal weights.  Its parts know no patient, so it holds for those never seen;
*   **the density** (:mod:`ecgmon.models.score.normalizing_flow`): how improbable these and further features are together,
    given the shape of the beat.  It knows what goes together, and so finds a beat that is early in a
    stream that is never early.  Fitted to few patients it would know them by their shapes;
*   **the error alone**: what no patient's normal beats look like stays odd, however long a stream goes on so.
    The other two compare a beat with the stream's own, and a stream of nothing but paced beats is its own norm.

The first two are added, which is Fisher's method for surprises.  Of that and the third the higher counts, which is
Tippett's, the error alone with half the weight: see :data:`HANDICAP`.  After either a table measures what the result means.

How far the density may learn patients by the shape of their beats (``blur``) is decided by the
likelihood of normal beats that it was not fitted to: beats of the same patients where those are
what the score will meet, patients left out in turn where it will meet others.  The tables, and the
weight of the density beside the sum, are measured on the same beats.  The table of the error alone asks for
errors of generators that have not seen the patient, where the score will meet others.  No abnormal beat takes part in this.

Chosen with abnormal beats in sight were which features are added or joined, the weight of the error alone, the two values that
``blur`` is chosen from, and the size of the networks: on the first fold and the patients of DS1.  That
the errors and the second lead stay out of a density for other patients was decided after a look at DS2,
where a density with them failed; the reasons stand at :data:`KNOWN`.

Where less is known of a beat fewer features are used: see :data:`KNOWN`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from ecgmon.models.features import NAMES, OWN, OWN_2, RHYTHM
from ecgmon.models.score.calibration import LEAST_BEATS, Table
from ecgmon.models.score.evidence import Evidence, log_error
from ecgmon.models.score.normalizing_flow import LEAST, Density

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLURS: Final = (0.2, 2.0)
"""Blurs of the condition that :meth:`Score.fit` chooses from, in standard deviations of a component."""

HANDICAP: Final = float(np.log10(2))
"""What is taken off the surprise of the error alone, so that it has one of three false alarms and the other opinions two."""

ROUNDS: Final = 5
"""Groups of patients that are left out in turn where patients are kept apart."""


class ScoreError(Exception):
    """A score that cannot be fitted, or stored parts that are none."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a beat is scored by.

    Attributes
    ----------
    name : str
    added : tuple of str
        Features whose standard scores are added.
    joined : tuple of str
        Features of the density where it meets the patients it was fitted to; none where there is no density.
    carried : tuple of str
        Features of the density where it meets others.
    """

    name: str
    added: tuple[str, ...]
    joined: tuple[str, ...] = ()
    carried: tuple[str, ...] = ()

    @property
    def compares(self) -> bool:
        """Whether beats are compared with those of their stream, so that the error alone has to be heard, too."""
        return not set(OWN).isdisjoint(self.added)

    @property
    def by_second_lead(self) -> bool:
        """Whether a second lead is asked for, which not every record has."""
        return not set(OWN_2).isdisjoint(self.added)


_RHYTHM: Final = tuple(name for name in RHYTHM if name != "fast")
_ERROR: Final = ("error", "error_qrs")

# For other patients the errors stay out of the density: the generator has seen those that it is fitted to, and makes smaller
# errors of them.  So do the heart rate, which is the patient's own, and the second lead, which is not the same one in all records.
KNOWN: Final = (
    Known(
        "two leads",
        ("error", "early", "spread", *OWN, "own_qrs_2"),
        (*_ERROR, "fast", *_RHYTHM, *OWN, *OWN_2),
        (*_RHYTHM, *OWN),
    ),
    Known("one lead", ("error", "early", "spread", *OWN), (*_ERROR, "fast", *_RHYTHM, *OWN), (*_RHYTHM, *OWN)),
    Known("no rhythm", ("error", *OWN)),
    Known("no own beats", ("error", "early", "spread")),
    Known("reconstruction", ("error",)),
)
"""Sets of features, best first.  A beat is scored by the first whose features are all known of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Joint:
    """The density's opinion.

    Attributes
    ----------
    names : tuple of str
        Its features.
    density : Density
    surprise : Table
        The density's surprisal to its surprise.
    weight : float
        Of its surprise beside that of the sum, above 0: how far the density carries over to beats it was not fitted
        to.  It is the standard deviation of the surprisal over the beats it was fitted to, divided by
        how far on a root mean square it lies from their mean over others; about 1 where both are alike.
    both : Table
        The weighted sum of both surprises to its own.
    blur : float
        The blur that the density was fitted with.
    """

    names: tuple[str, ...]
    density: Density
    surprise: Table
    weight: float
    both: Table
    blur: float

    def add(self, surprise: NDArray[np.float64], evidence: Evidence) -> NDArray[np.float64]:
        """Combine surprises of the sum, shape (n,), with the density's."""
        return self.both(surprise + self.weight * self.surprise(_surprisal(self.density, self.names, evidence)))

    def to_dict(self) -> dict[str, Any]:
        """Return all but the density as plain lists, strings and numbers."""
        return {
            "names": list(self.names),
            "surprise": self.surprise.to_dict(),
            "weight": self.weight,
            "both": self.both.to_dict(),
            "blur": self.blur,
        }

    @classmethod
    def restore(cls, plain: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        """Make it from :meth:`to_dict`'s answer and the density's arrays: see :meth:`Score.restore`."""
        names, density = tuple(plain["names"]), Density.from_arrays(arrays)
        if not set(names) <= set(NAMES) or len(names) != len(density.mean):
            raise ScoreError(
                f"a density of {len(density.mean)} features is said to be of {names}; expected names among {NAMES}"
            )
        weight = float(plain["weight"])
        if not 0 < weight < np.inf:
            raise ScoreError(f"the density has the weight {weight}; expected a positive number")
        tables = (Table.from_dict(plain[name]) for name in ("surprise", "both"))
        surprise, both = tables
        return cls(names, density, surprise, weight, both, float(plain["blur"]))


@dataclass(frozen=True, slots=True, eq=False)
class Alone:
    """The opinion of the reconstruction error alone.

    Attributes
    ----------
    surprise : Table
        Log of A(x) to its surprise.
    either : Table
        The higher of both surprises to its own.
    """

    surprise: Table
    either: Table

    def add(self, surprise: NDArray[np.float64], evidence: Evidence) -> NDArray[np.float64]:
        """Combine surprises of the other opinions, shape (n,), with that of the error."""
        return self.either(_higher(surprise, self.surprise, _columns(evidence, ("error",))[:, 0]))

    def to_dict(self) -> dict[str, Any]:
        """Return both tables as plain lists."""
        return {"surprise": self.surprise.to_dict(), "either": self.either.to_dict()}

    @classmethod
    def measure(cls, surprise: NDArray[np.float64], error: NDArray[np.floating[Any]]) -> Self:
        """Measure both tables on the surprises of the other opinions and the logs of A(x) of normal beats."""
        table = Table.measure(error)
        return cls(table, Table.measure(_higher(surprise, table, error)))

    @classmethod
    def restore(cls, plain: dict[str, Any]) -> Self:
        """Make it from :meth:`to_dict`'s answer."""
        return cls(Table.from_dict(plain["surprise"]), Table.from_dict(plain["either"]))


def _higher(surprise: NDArray[np.float64], of_error: Table, error: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    higher: NDArray[np.float64] = np.maximum(surprise, of_error(error) - HANDICAP)
    return higher


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What scores the beats of which one set of features is known.

    Attributes
    ----------
    mean, scale : ndarray of float64, shape (len(known.added),)
        What standardises the features that are added.
    added : Table
        Sum of the standard scores to its surprise.
    joint : Joint or None
    alone : Alone or None
        Where beats are compared with their stream's own.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    added: Table
    joint: Joint | None = None
    alone: Alone | None = None

    def score(self, known: Known, evidence: Evidence) -> NDArray[np.float64]:
        """Score beats of which all of ``known`` is known; shape (n,)."""
        surprise = self.added(_total(known, evidence, self.mean, self.scale))
        if self.joint is not None:
            surprise = self.joint.add(surprise, evidence)
        return surprise if self.alone is None else self.alone.add(surprise, evidence)

    def to_dict(self, known: Known) -> dict[str, Any]:
        """Return all but the density as plain lists, strings and numbers."""
        plain: dict[str, Any] = {
            "mean": dict(zip(known.added, self.mean.tolist(), strict=True)),
            "scale": dict(zip(known.added, self.scale.tolist(), strict=True)),
            "added": self.added.to_dict(),
        }
        opinions = {"joint": self.joint, "alone": self.alone}
        return plain | {name: opinion.to_dict() for name, opinion in opinions.items() if opinion is not None}

    @classmethod
    def restore(cls, known: Known, plain: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        """Make a part from :meth:`to_dict`'s answer and the density's arrays: see :meth:`Score.restore`."""
        mean, scale = (
            np.array([plain[which][name] for name in known.added], np.float64) for which in ("mean", "scale")
        )
        if not (np.isfinite(mean).all() and np.isfinite(scale).all() and (scale > 0).all()):
            raise ScoreError(f"the standardisation of the part '{known.name}' is not finite and positive")
        joint = Joint.restore(plain["joint"], arrays) if known.joined else None
        alone = Alone.restore(plain["alone"]) if known.compares else None
        return cls(mean, scale, Table.from_dict(plain["added"]), joint, alone)


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """What turns evidence into scores.

    Attributes
    ----------
    parts : tuple of Part or None
        One for each of :data:`KNOWN`, in order; None where too few normal beats had a second lead to fit a part to it.
    beats : int
        Normal beats that the tables were measured on.
    """

    parts: tuple[Part | None, ...]
    beats: int

    def score(self, evidence: Evidence) -> NDArray[np.float32]:
        """Score beats.

        Parameters
        ----------
        evidence : Evidence
            Of ``n`` beats, of any streams.

        Returns
        -------
        ndarray of float32, shape (n,)
            From 0 to :data:`ecgmon.models.score.calibration.CAP`; NaN where A(x) is not known.  A beat's score depends
            on that beat's evidence alone.  Without a density (the last three of :data:`KNOWN`) a larger
            A(x) never scores lower; a density may find a larger one less odd beside the rest.
        """
        scores = np.full(len(evidence), np.nan, np.float32)
        open_ = np.ones(len(evidence), np.bool_)
        for known, part in zip(KNOWN, self.parts, strict=True):
            if part is None:
                continue
            now = open_ & _complete(known, evidence)
            if now.any():
                scores[now] = part.score(known, evidence[now])
            open_ &= ~now
        return scores

    @classmethod
    def fit(
        cls,
        train: Evidence,
        held_out: Evidence,
        *,
        patients: NDArray[np.integer[Any]] | None = None,
        unseen: NDArray[np.floating[Any]] | None = None,
        seed: int = 0,
    ) -> Self:
        """Fit the densities and measure the tables, on normal beats only.

        Parameters
        ----------
        train : Evidence
            Of the normal beats that the generator was trained on.
        held_out : Evidence
            Of normal beats that it was not.
        patients : ndarray of int, shape (len(train) + len(held_out),), optional
            Whose beat each is, those of ``train`` first.  Given where the score is for other patients: then
            everything is measured on patients left out in turn, and the density fitted to all.
        unseen : ndarray of float, same shape as ``patients``, optional
            A(x) of the same beats, each by a generator that has not seen its patient; given with ``patients``.  What the
            error alone means is measured on it: a generator makes smaller errors of patients that it was trained on.
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
            rounds, error = [(first, ~first)], _columns(everything, ("error",))[:, 0]
        else:
            if not len(patients) == len(unseen) == len(everything):
                raise ScoreError(
                    f"{len(patients)} patients and {len(unseen)} errors were named for {len(everything)} beats; "
                    "expected one for each beat"
                )
            rounds, error = [(~out, out) for out in _left_out(patients, seed)], log_error(unseen)
        parts: list[Part | None] = []
        blurs: tuple[float, ...] = BLURS
        for known in KNOWN:
            names = known.joined if patients is None else known.carried
            if known.by_second_lead and _too_few(known, everything, rounds):
                parts.append(None)
                continue
            part = _fit_part(known, names, everything, error, rounds, blurs, seed)
            if part.joint is not None:
                blurs = (part.joint.blur,)  # chosen once, where most is known
            parts.append(part)
        return cls(tuple(parts), sum(int(out.sum()) for _, out in rounds))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the densities' arrays, by names such as ``two leads/mean``, for storing."""
        return {
            f"{known.name}/{name}": array
            for known, part in zip(KNOWN, self.parts, strict=True)
            if part is not None and part.joint is not None
            for name, array in part.joint.density.to_arrays().items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Return all but the arrays as plain lists, strings and numbers, for JSON."""
        return {
            "features": list(NAMES),
            "beats": self.beats,
            "parts": {
                known.name: part.to_dict(known)
                for known, part in zip(KNOWN, self.parts, strict=True)
                if part is not None
            },
        }

    @classmethod
    def restore(cls, plain: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        """Make a score from the answers of :meth:`to_dict` and :meth:`to_arrays`.

        Raises
        ------
        ScoreError
            If something is missing, or was made for other features than this version's.
        ecgmon.models.score.calibration.CalibrationError, ecgmon.models.score.normalizing_flow.DensityError
            If a table or a density is none.
        """
        try:
            if plain["features"] != list(NAMES):
                raise ScoreError(f"the score was fitted to the features {plain['features']}; expected {list(NAMES)}")
            parts = tuple(
                Part.restore(
                    known,
                    plain["parts"][known.name],
                    {
                        name.removeprefix(f"{known.name}/"): array
                        for name, array in arrays.items()
                        if name.startswith(f"{known.name}/")
                    },
                )
                if known.name in plain["parts"] or not known.by_second_lead
                else None
                for known in KNOWN
            )
            return cls(parts, int(plain["beats"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ScoreError(f"the stored score lacks something: {error!r}") from error


def _too_few(known: Known, everything: Evidence, rounds: list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]) -> bool:
    """Tell whether the beats of which all of ``known`` is known are too few for a table or a density."""
    complete = _complete(known, everything)
    judged = sum(int(np.count_nonzero(unseen & complete)) for _, unseen in rounds)
    return judged < LEAST_BEATS or any(np.count_nonzero(seen & complete) < LEAST for seen, _ in rounds)


def _fit_part(
    known: Known,
    names: tuple[str, ...],
    everything: Evidence,
    error: NDArray[np.floating[Any]],
    rounds: list[tuple[NDArray[np.bool_], NDArray[np.bool_]]],
    blurs: tuple[float, ...],
    seed: int,
) -> Part:
    """Fit what scores by one set of features, with a density of ``names``: see :meth:`Score.fit`."""
    complete = _complete(known, everything)
    pairs = [(everything[seen & complete], everything[unseen & complete]) for seen, unseen in rounds]
    judged = Evidence.concatenate([unseen for _, unseen in pairs])
    if len(judged) < LEAST_BEATS:
        raise ScoreError(
            f"of {len(judged)} held-out normal beats all of {', '.join(known.added + known.joined)} is known; "
            f"expected at least {LEAST_BEATS}"
        )
    columns = _columns(judged, known.added)
    mean, scale = columns.mean(axis=0, dtype=np.float64), columns.std(axis=0, dtype=np.float64)
    if not (scale > 0).all():
        raise ScoreError(f"one of {', '.join(known.added)} is the same for all held-out beats; expected it to vary")
    total = _total(known, judged, mean, scale)
    added = Table.measure(total)
    surprise, joint = added(total), None
    if names:
        joint = _fit_joint(names, pairs, surprise, blurs, seed)
        surprise = joint.add(surprise, judged)
    alone = None
    if known.compares:
        alone = Alone.measure(surprise, np.concatenate([error[unseen & complete] for _, unseen in rounds]))
    return Part(mean, scale, added, joint, alone)


def _fit_joint(
    names: tuple[str, ...],
    pairs: list[tuple[Evidence, Evidence]],
    surprise: NDArray[np.float64],
    blurs: tuple[float, ...],
    seed: int,
) -> Joint:
    """Fit a density of ``names``, and measure it beside what the sum says of the beats not fitted to, round by round."""
    tried = [_try(names, pairs, blur, seed) for blur in blurs]
    best = int(np.argmin([unseen.mean() for _, _, unseen in tried]))
    density, seen, unseen = tried[best]
    if len(pairs) > 1:
        judged = Evidence.concatenate([unseen for _, unseen in pairs])
        density = Density.fit(_columns(judged, names), judged.outline, blur=blurs[best], seed=seed)
    table = Table.measure(unseen)
    weight = float(seen.std() / np.sqrt(np.square(unseen - seen.mean()).mean()))
    return Joint(names, density, table, weight, Table.measure(surprise + weight * table(unseen)), blurs[best])


def _try(
    names: tuple[str, ...], rounds: list[tuple[Evidence, Evidence]], blur: float, seed: int
) -> tuple[Density, NDArray[np.float64], NDArray[np.float64]]:
    """Fit a density in every round; return the first, and all surprisals of the beats fitted to, and of the others."""
    densities = [Density.fit(_columns(seen, names), seen.outline, blur=blur, seed=seed) for seen, _ in rounds]
    pairs = list(zip(densities, rounds, strict=True))
    seen = np.concatenate([_surprisal(density, names, seen) for density, (seen, _) in pairs])
    unseen = np.concatenate([_surprisal(density, names, unseen) for density, (_, unseen) in pairs])
    return densities[0], seen.astype(np.float64), unseen.astype(np.float64)


def _columns(evidence: Evidence, names: tuple[str, ...]) -> NDArray[np.float32]:
    return evidence.features[:, [NAMES.index(name) for name in names]]


def _complete(known: Known, evidence: Evidence) -> NDArray[np.bool_]:
    """Tell of which beats all of a set of features is known, and the outline where there is a density."""
    complete = np.asarray(np.isfinite(_columns(evidence, known.added + known.joined)).all(axis=1))
    return complete & np.isfinite(evidence.outline).all(axis=1) if known.joined else complete


def _total(
    known: Known, evidence: Evidence, mean: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Add standard scores."""
    total: NDArray[np.float64] = ((_columns(evidence, known.added) - mean) / scale).sum(axis=1)
    return total


def _surprisal(density: Density, names: tuple[str, ...], evidence: Evidence) -> NDArray[np.float32]:
    return density.surprisal(_columns(evidence, names), evidence.outline)


def _left_out(patients: NDArray[np.integer[Any]], seed: int) -> list[NDArray[np.bool_]]:
    """Tell for each round whose beats are left out; every patient is, once."""
    each = np.unique(patients)
    if len(each) < ROUNDS:
        raise ScoreError(f"{len(each)} patients are too few to leave some out in turn; expected at least {ROUNDS}")
    dealt = np.random.default_rng(seed).permutation(each)
    return [np.isin(patients, dealt[k::ROUNDS]) for k in range(ROUNDS)]
