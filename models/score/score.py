"""One number from all that is known of a beat: how rarely a normal beat looks so abnormal.

The score has the meaning that :mod:`ecgmon.models.score.calibration` gives it.  It combines three scores, each measured on
normal beats that nothing was fitted to:

*   **the sum**: every feature has a score of its own, from a table, and a beat has the weighted sum of what these count.
    A feature counts from the most unusual quarter of normal beats on (:func:`ecgmon.models.score.parts.opinion`), because
    an early beat of ordinary shape is no more normal for its shape.  Nothing in it is learnt from a patient, so it holds
    for patients never seen;
*   **the density** (:mod:`ecgmon.models.score.normalizing_flow`): how improbable these and further features are together,
    given the shape of the beat.  It knows which values occur together.  Fitted to few patients, it would recognise them by
    the shapes of their beats;
*   **A(x) alone**: what no patient's normal beats look like must keep a high score, however long a stream continues so.
    The other two compare a beat with the stream's own; a stream of paced beats only would be its own norm.

The first two are added, which is Fisher's method for -log10 of probabilities.  Of that and the third, the higher counts, which
is Tippett's method, A(x) alone with half the weight: see :data:`ecgmon.models.score.parts.HANDICAP`.  After either step, a
table measures what the result means.

A score for other patients has no density: it would know the patients that it was fitted to.  How far a density may learn
patients by the shape of their beats (``blur``) is decided by the likelihood of normal beats that it was not fitted to.  The
tables, and the weight of the density, are measured on the same beats.  If the score is for others, the evidence of each
beat comes from a generator that has not seen its patient.  No abnormal beat takes part in this.

Chosen with the results on abnormal beats known: docs/model.md lists these choices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ecgmon.models.features import NAMES
from ecgmon.models.score.parts import FEATURE_SETS, Part, ScoreError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ecgmon.models.score.evidence import Evidence


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """A fitted score: what :func:`ecgmon.models.score.fitting.fit_score` gives.

    Attributes
    ----------
    parts : tuple of Part or None
        One for each of :data:`FEATURE_SETS`, in order; None where too few normal beats had a second lead to fit a part to it.
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
            on that beat's evidence alone.  Without a density (the last three of :data:`FEATURE_SETS`) a larger
            A(x) never scores lower; a density may find a larger one more probable, given the other features.
        """
        scores = np.full(len(evidence), np.nan, np.float32)
        open_ = np.ones(len(evidence), np.bool_)
        for part in self.parts:
            if part is None:
                continue
            now = open_ & part.scorable(evidence)
            if now.any():
                scores[now] = part.score(evidence[now])
            open_ &= ~now
        return scores

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the densities' arrays, by names such as ``two leads/mean``, for storing."""
        return {
            f"{known.name}/{name}": array
            for known, part in zip(FEATURE_SETS, self.parts, strict=True)
            if part is not None and part.joint is not None
            for name, array in part.joint.density.to_arrays().items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Return all but the arrays as plain lists, strings and numbers, for JSON."""
        return {
            "features": list(NAMES),
            "beats": self.beats,
            "parts": {
                known.name: part.to_dict()
                for known, part in zip(FEATURE_SETS, self.parts, strict=True)
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
                for known in FEATURE_SETS
            )
            return cls(parts, int(plain["beats"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ScoreError(f"the stored score lacks something: {error!r}") from error
