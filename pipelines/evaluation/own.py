"""Evaluate a model on a user's own annotated records, scored as a stream."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgmon.models.inference.threads import threads_restored
from ecgmon.pipelines.evaluation.bootstrap import PatientBootstrap
from ecgmon.pipelines.evaluation.ec57 import (
    BeatCounts,
    Reference,
    compare,
    match_beats,
    stream_record,
)
from ecgmon.pipelines.limits import MATCH_SECONDS
from ecgmon.pipelines.sources.annotations import read_annotations
from ecgmon.pipelines.sources.wfdb_record import open_record
from ecgmon.pipelines.training import splits
from ecgmon.pipelines.training.classes import BeatClass
from ecgmon.pipelines.training.dataset import DatasetError
from ecgmon.pipelines.training.own import no_progress, prepared, record_counter, rule_of
from ecgmon.pipelines.training.records import ANNOTATOR, reference
from ecgmon.pipelines.training.separation import auc, average_precision
from ecgmon.pipelines.training.splits import SplitError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

    from ecgmon.models.inference.reconstruction import Scorer
    from ecgmon.pipelines.training.beat_tables import BeatTable
    from ecgmon.pipelines.training.dataset import Dataset
    from ecgmon.pipelines.training.own import Progress
    from ecgmon.pipelines.training.splits import Rule


@dataclass(frozen=True, slots=True)
class Separation:
    """How well values separate abnormal beats from normal beats.

    Attributes
    ----------
    auc, ap : float or None
        Area under the ROC curve and average precision, all abnormal beats against the normal ones; None if there are no
        normal or no abnormal beats.
    per_class : dict of str to float
        AUC of each abnormal class that is present, against the normal beats.
    auc_interval, ap_interval : (float, float) or None
        95 % intervals by resampling patients, see :mod:`ecgmon.pipelines.evaluation.bootstrap`; None if there are fewer
        than two patients, or no figures.
    """

    __module__ = "ecgmon"

    auc: float | None
    ap: float | None
    per_class: dict[str, float]
    auc_interval: tuple[float, float] | None = None
    ap_interval: tuple[float, float] | None = None

    @classmethod
    def of(cls, values: NDArray[np.float32], aami: NDArray[np.uint8], patient: NDArray[np.int64]) -> Separation:
        """Calculate the figures from values, classes and patients of beats, each of shape (n,)."""
        normal, abnormal = values[aami == BeatClass.N], values[aami != BeatClass.N]
        if not len(normal) or not len(abnormal):
            return cls(None, None, {})
        present = [kind for kind in BeatClass if kind != BeatClass.N and (aami == kind).any()]
        per_class = {kind.name: auc(normal, values[aami == kind]) for kind in present}
        intervals = PatientBootstrap.of(values, aami, patient).intervals()
        return cls(
            auc(normal, abnormal), average_precision(normal, abnormal), per_class, intervals["auc"], intervals["ap"]
        )


@dataclass(frozen=True, slots=True)
class Figures:
    """Result of an evaluation.

    Attributes
    ----------
    model, fingerprint : str
        Name of the model, and its fingerprint.
    part : str
        ``test``; or ``all`` if no split was given, where beats may be among those that trained the model.
    records : tuple of str
        Records with tested beats.
    left_out : dict of str to str
        Records that could not be used, with the reason.
    beats : dict of str to int
        Number of annotated beats of each class to test.
    scored : dict of str to int
        Number of those that have a detected beat within 150 ms, with a score.
    score, ax : Separation
        Separation by the score, and by A(x).
    over_threshold : dict of str to float or None
        Share of the scored beats of each class whose score is at least 2; about one normal beat in a hundred has such a
        score.
    detection : dict or None
        Detection of the beats of these records after AAMI EC57, as
        :meth:`ecgmon.pipelines.evaluation.ec57.BeatCounts.as_dict`; None for a table of beats, which may omit beats.
    patients : int
        Number of patients with scored beats.
    curves : dict of str to ndarray
        The scored beats, arrays of shape (n,): ``score`` and ``ax``, float32; ``aami``, uint8,
        :class:`ecgmon.pipelines.training.classes.BeatClass`; ``patient``, int64, a number for each patient.
    """

    __module__ = "ecgmon"

    model: str
    fingerprint: str
    part: str
    records: tuple[str, ...]
    left_out: dict[str, str]
    beats: dict[str, int]
    scored: dict[str, int]
    score: Separation
    ax: Separation
    over_threshold: dict[str, float | None]
    detection: dict[str, float | None] | None
    patients: int = 0
    curves: dict[str, NDArray[Any]] = field(default_factory=dict, repr=False, compare=False)

    def dict(self) -> dict[str, Any]:
        """Return the result without the curves as plain values, for JSON."""
        plain = asdict(replace(self, curves={})) | {"records": list(self.records)}
        del plain["curves"]
        return plain

    def plot(self) -> Figure:
        """Draw the ROC and precision-recall curves of the score and of A(x), with 95 % bands over patients.

        Returns
        -------
        matplotlib.figure.Figure
            A notebook displays it; ``savefig`` writes it to a file.

        Raises
        ------
        ecgmon.errors.DatasetError
            If there are no normal or no abnormal beats.
        ImportError
            If matplotlib is not installed.
        """
        from ecgmon.pipelines.evaluation.curves import Curve, curves_figure

        if self.score.auc is None:
            raise DatasetError("there are no curves to draw: expected normal and abnormal beats")
        of_beats = self.curves["aami"], self.curves["patient"]
        return curves_figure(
            [Curve.of(self.curves[key], *of_beats, name=name) for key, name in (("score", "score"), ("ax", "A(x)"))]
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Tested:
    """The scored beats among the tested beats of a record, arrays of shape (n,), and the counts of its detection."""

    aami: NDArray[np.uint8]
    score: NDArray[np.float32]
    ax: NDArray[np.float32]
    counts: BeatCounts


THRESHOLD = 2.0
"""Score for :attr:`Figures.over_threshold`: one normal beat in a hundred scores at least as high."""


@threads_restored()
def evaluate(
    db: Path | str,
    weights: Path | str | None = None,
    *,
    split: Rule | Mapping[str, str] | Path | str | None = None,
    annotator: str = ANNOTATOR,
    beats: BeatTable | Mapping[str, ArrayLike] | Path | str | None = None,
    records: Iterable[str] | None = None,
    patients: Mapping[str, str] | Path | str | None = None,
    progress: Progress | None = None,
) -> Figures:
    """Stream annotated records through segmenter and scorer, and compare the beats of the test part.

    Parameters
    ----------
    db : Path or str
        Folder of WFDB records, also in sub-folders.
    weights : Path or str, optional
        Checkpoint; by default the shipped one.
    split, annotator, beats, records, patients
        As given to :func:`ecgmon.train`, so that the same beats are tested.
    progress : callable, optional
        See :class:`ecgmon.pipelines.training.own.Progress`.

    Returns
    -------
    Figures

    Raises
    ------
    ecgmon.errors.Stopped
        If ``progress`` returns False.
    ecgmon.errors.CheckpointError
        If the checkpoint cannot be used.
    ecgmon.errors.DatasetError
        If records, beats, patients or the split do not fit each other, or no beats are left to test.
    ecgmon.errors.SourceError
        If a named record cannot be read.

    Examples
    --------
    >>> import ecgmon
    >>> from ecgmon.testing import synthetic_ecg
    >>> path = synthetic_ecg(60, ectopic=[40, 42, 44]).write(".")
    >>> figures = ecgmon.evaluate(".")
    >>> figures.scored["V"], figures.score.auc, figures.detection["fp"]
    (3, 1.0, 0)
    """
    from ecgmon.models.inference.reconstruction import Scorer

    scorer = Scorer(None if weights is None else Path(weights))
    rule = rule_of(split)

    watch = progress or no_progress
    with tempfile.TemporaryDirectory(prefix="ecgmon-evaluate-") as folder:
        dataset = prepared(
            Path(db), Path(folder), rule, records=records, annotator=annotator, beats=beats, patients=patients,
            progress=watch,
        )  # fmt: skip
        test = np.ones(len(dataset.beats), np.bool_) if rule is None else splits.split(dataset, rule).test
        if not test.any():
            raise SplitError("the split leaves no beat to test; expected a part named test, with beats")
        places = np.unique(dataset.beats["record"][test]).tolist()
        tested = []
        advance = record_counter("scoring records", len(places), watch)
        for place in places:
            found = _tested(dataset, Path(db), place, test, scorer, annotator if beats is None else None)
            tested.append(found)
            advance(dataset.records[place])
        return _figures(
            dataset, scorer, test, places, tested, part="all" if rule is None else "test", judged=beats is None
        )


evaluate.__module__ = "ecgmon"


def _tested(
    dataset: Dataset, db: Path, place: int, test: NDArray[np.bool_], scorer: Scorer, annotator: str | None
) -> _Tested:
    """Stream a record, and find the beats to test among the detected beats."""
    from ecgmon.pipelines.scoring.chain import Chain

    ref = reference(db, dataset.records[place])
    record = open_record(ref)
    items, segmenter = stream_record(record)
    scored = Chain(items.windows.shape[1]).score(items, scorer)
    score = scored.score
    here = np.flatnonzero(dataset.beats["record"] == place)
    detected = items.beats["sample"].astype(np.int64)
    pairs = match_beats(dataset.beats["sample"][here].astype(np.int64), detected, round(MATCH_SECONDS * record.fs))
    pairs = pairs[test[here[pairs[:, 0]]] & np.isfinite(score[pairs[:, 1]])]
    counts = BeatCounts()
    if annotator is not None:
        truth = Reference.of(read_annotations(ref, annotator), record.length)
        counts = compare(items, truth, lead=segmenter.lead, fs=record.fs).counts
    return _Tested(dataset.beats["aami"][here[pairs[:, 0]]], score[pairs[:, 1]], scored.ax[pairs[:, 1]], counts)


def _figures(
    dataset: Dataset,
    scorer: Scorer,
    test: NDArray[np.bool_],
    places: list[int],
    tested: list[_Tested],
    *,
    part: str,
    judged: bool,
) -> Figures:
    aami, score = np.concatenate([one.aami for one in tested]), np.concatenate([one.score for one in tested])
    ax = np.concatenate([one.ax for one in tested])
    first = dataset.patient_of_beats()[np.searchsorted(dataset.beats["record"], places)]
    patient = np.repeat(first, [len(one.aami) for one in tested])
    members = {kind.name: aami == kind for kind in BeatClass}
    return Figures(
        model=scorer.info.name,
        fingerprint=scorer.info.fingerprint,
        part=part,
        records=tuple(dataset.records[place] for place in places),
        left_out=dataset.left_out,
        beats={kind.name: int(np.count_nonzero(dataset.beats["aami"][test] == kind)) for kind in BeatClass},
        scored={name: int(np.count_nonzero(found)) for name, found in members.items()},
        score=Separation.of(score, aami, patient),
        ax=Separation.of(ax, aami, patient),
        over_threshold={
            name: float(np.mean(score[found] >= THRESHOLD)) if found.any() else None for name, found in members.items()
        },
        detection=sum((one.counts for one in tested), BeatCounts()).as_dict() if judged else None,
        patients=len(np.unique(patient)),
        curves={"score": score, "ax": ax, "aami": aami, "patient": patient},
    )
