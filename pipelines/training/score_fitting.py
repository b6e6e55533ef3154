"""Collect the evidence of a data set's beats, and fit the score to the normal beats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ecgmon.models.score.calibration import CalibrationError
from ecgmon.models.score.evidence import Evidence
from ecgmon.models.score.fitting import fit_score
from ecgmon.models.score.normalizing_flow import DensityError
from ecgmon.models.score.parts import ScoreError
from ecgmon.pipelines.items import ITEM, Items, Kind
from ecgmon.pipelines.limits import MATCH_SECONDS
from ecgmon.pipelines.sources.wfdb_record import open_record
from ecgmon.pipelines.training.fitting import TrainingError
from ecgmon.pipelines.training.records import nearest_of, reference

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgmon.models.inference.reconstruction import Reconstruction, Reconstructor
    from ecgmon.models.score.score import Score
    from ecgmon.pipelines.training.dataset import Dataset
    from ecgmon.pipelines.training.splits import Split


class Halves:
    """Two generators, each trained on half of the patients of a split.

    Parameters
    ----------
    dataset : Dataset
    halves : sequence of (Split, Reconstructor)
        Both halves, with the generator trained on each.

    Raises
    ------
    ecgmon.pipelines.training.fitting.TrainingError
        If there are not two generators, or both have seen the same patient.
    """

    def __init__(self, dataset: Dataset, halves: Sequence[tuple[Split, Reconstructor]]) -> None:
        patients = dataset.patient_of_beats()
        self._halves = [(set(patients[used.train].tolist()), generator) for used, generator in halves]
        if len(halves) != 2 or self._halves[0][0] & self._halves[1][0]:  # noqa: PLR2004 - halves
            raise TrainingError(
                f"generators of {', '.join(used.name for used, _ in halves) or 'nothing'} are not the halves of a split; "
                "expected two that have seen different patients"
            )
        self._patients = dict(zip(dataset.beats["record"].tolist(), patients.tolist(), strict=True))

    def unseen(self, record: int) -> Reconstructor:
        """Return the generator that has not seen the patient of a record."""
        return next(generator for seen, generator in self._halves if self._patients[record] not in seen)


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """Evidence of some beats of a data set.

    Attributes
    ----------
    beats : ndarray of int64, shape (n,)
        Indices of the beats in the data set.
    evidence : Evidence
    ticks : ndarray of float16, shape (n, 320)
        Squared difference of window and reconstruction, by the generator itself.
    of_unseen : bool
        Whether the evidence is of generators that have not seen the patients.
    """

    beats: NDArray[np.int64]
    evidence: Evidence
    ticks: NDArray[np.float16]
    of_unseen: bool = False


def reconstructed(dataset: Dataset, generator: Reconstructor) -> Reconstruction:
    """Reconstruct all beats of a data set, cut at their annotations, in order."""
    from ecgmon.models.inference.reconstruction import Reconstruction

    beats = dataset.beats
    parts = [generator.score(dataset.windows(part)[:, :1]) for part in _blocks(beats)]
    return Reconstruction(np.concatenate([part.ax for part in parts]), np.concatenate([part.ticks for part in parts]))


def annotated(
    dataset: Dataset,
    raw: Reconstruction,
    *,
    leads: int = 2,
    halves: Halves | None = None,
    done: Callable[[str], None] = lambda _: None,
) -> Gathered:
    """Collect the evidence of all beats, with windows cut at the annotations.

    Parameters
    ----------
    dataset : Dataset
    raw : Reconstruction
        Reconstruction of all beats of the data set: see :func:`reconstructed`.
    leads : int
        Number of leads to use, 1 or 2.
    halves : Halves, optional
        Generators for the evidence, each for the patients that it has not seen.
    done : callable
        Called with the name of each record after it is processed.

    Returns
    -------
    Gathered
        All beats of the data set, in order.  The history of a record contains all its previous beats, also the abnormal
        ones: a stream has no labels.
    """
    from ecgmon.models.inference.reconstruction import Reconstruction
    from ecgmon.pipelines.scoring.chain import Chain, Reconstructed  # first use compiles loops

    parts = []
    for place, name in enumerate(dataset.records):
        here = np.flatnonzero(dataset.beats["record"] == place)
        beats = dataset.beats[here]
        windows_mv = dataset.windows(beats)[:, :leads]
        own = Reconstruction(raw.ax[here], raw.ticks[here])
        if halves is not None:
            own = halves.unseen(place).score(windows_mv[:, :1])
        part = Reconstructed(_items(beats, windows_mv), own.ax, own.ticks)
        parts.append(Chain(leads).observe(part).evidence)
        done(name)
    return Gathered(np.arange(len(dataset.beats)), Evidence.concatenate(parts), raw.ticks, halves is not None)


def streamed(
    dataset: Dataset,
    db: Path,
    generator: Reconstructor,
    *,
    halves: Halves | None = None,
    done: Callable[[str], None] = lambda _: None,
) -> Gathered:
    """Collect the evidence of the beats that the detector finds, with the rhythm that it measures, as in a stream.

    Parameters
    ----------
    dataset : Dataset
    db : Path
        Folder of the records of the data set.
    generator : Reconstructor
    halves : Halves, optional
        Generators for the evidence, each for the patients that it has not seen.
    done : callable
        Called with the name of each record after it is processed.

    Returns
    -------
    Gathered
        All detected beats within :data:`ecgmon.pipelines.limits.MATCH_SECONDS` of an annotated beat.

    Raises
    ------
    ecgmon.pipelines.sources.errors.SourceError
        If a record cannot be read.
    """
    from ecgmon.pipelines.scoring.chain import Chain, reconstruct  # first use compiles loops
    from ecgmon.pipelines.segmentation.segmenter import Segmenter

    parts, numbers, ticks = [], [], []
    for place, name in enumerate(dataset.records):
        here = np.flatnonzero(dataset.beats["record"] == place)
        truth = dataset.beats["sample"][here].astype(np.int64)
        record = open_record(reference(db, name))
        segmenter = Segmenter(record.fs, record.leads)
        chain = Chain(len(segmenter.leads))
        for items in (segmenter.push(record.read(0, record.length)), segmenter.finish()):
            beats = items.beats
            part = reconstruct(items, generator)
            unseen = part if halves is None else reconstruct(items, halves.unseen(place))
            evidence = chain.observe(unseen).evidence
            nearest = nearest_of(truth, beats["sample"])
            matched = np.abs(truth[nearest] - beats["sample"]) <= MATCH_SECONDS * record.fs
            parts.append(evidence[matched])
            numbers.append(here[nearest[matched]])
            ticks.append(part.ticks[matched])
        done(name)
    return Gathered(np.concatenate(numbers), Evidence.concatenate(parts), np.concatenate(ticks), halves is not None)


def fitted(found: Gathered, used: Split) -> Score:
    """Fit the score of a split; it is for other patients if ``found`` is of generators that have not seen them.

    Parameters
    ----------
    found : Gathered
    used : Split
        Split whose normal beats are used.

    Raises
    ------
    ecgmon.pipelines.training.fitting.TrainingError
        If there are too few normal beats.
    """
    train, held_out = np.flatnonzero(used.train[found.beats]), np.flatnonzero(used.held_out[found.beats])
    try:
        return fit_score(found.evidence[train], found.evidence[held_out], for_other_patients=found.of_unseen)
    except (CalibrationError, DensityError, ScoreError) as error:
        raise TrainingError(f"no score can be fitted to the normal beats of {used.name}: {error}") from error


def usual_errors(found: Gathered, used: Split) -> NDArray[np.float32]:
    """Average the errors per tick of the held-out normal beats; shape (320,)."""
    ticks = found.ticks[used.held_out[found.beats]]
    usual: NDArray[np.float32] = ticks.mean(axis=0, dtype=np.float64).astype(np.float32)
    return usual


def _items(beats: NDArray[np.void], windows_mv: NDArray[np.float32]) -> Items:
    """Make the items that a segmenter would give if it found exactly the annotated beats."""
    table = np.zeros(len(beats), ITEM)
    table["kind"] = Kind.BEAT
    for name in ("sample", "rr", "rr_ratio"):
        table[name] = beats[name]
    return Items(table, windows_mv)


def _blocks(beats: NDArray[np.void]) -> list[NDArray[np.void]]:
    return [beats[first : first + _BLOCK] for first in range(0, len(beats), _BLOCK)]


_BLOCK: Final = 1024  # beats reconstructed at once
