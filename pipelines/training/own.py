"""Make a checkpoint from a user's own annotated records, in one call that can be stopped and resumed.

The steps: make the data set, split it, train the student on the normal training beats, fit the score to the evidence
that a stream has of them, write the checkpoint.  If there are enough training patients, two more generators are trained
on half of them each, to measure the errors of patients that a generator has not seen: the score is then for other
patients.  With fewer patients, or if training and test beats are of the same patients, the score is for these patients.
"""

from __future__ import annotations

import math
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from ecgmon.models.inference.threads import threads_restored
from ecgmon.models.training.settings import STUDENT
from ecgmon.pipelines.training import dataset as datasets
from ecgmon.pipelines.training import fitting, splits
from ecgmon.pipelines.training.beat_tables import BeatTable
from ecgmon.pipelines.training.dataset import DatasetError
from ecgmon.pipelines.training.fitting import TrainingError
from ecgmon.pipelines.training.records import ANNOTATOR, find
from ecgmon.pipelines.training.splits import Drawn, Named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import ArrayLike

    from ecgmon.models.networks.generator import AnyGenerator
    from ecgmon.models.training.settings import Settings
    from ecgmon.models.weights.checkpoint import ModelInfo
    from ecgmon.pipelines.training.dataset import Dataset
    from ecgmon.pipelines.training.score_fitting import Halves
    from ecgmon.pipelines.training.splits import Rule, Split

LEAST_STEPS: Final = 3000
"""Smallest number of steps of a training if the number of epochs is not given: fewer beats get more epochs."""

NAME: Final = "own"
"""Name of the split, and of its training."""

_LEAST_PATIENTS: Final = 5  # with fewer, halves say little about others


class Stopped(TrainingError):  # noqa: N818 - not a failure
    """A training was stopped on request; its state is stored if a folder for it was given."""

    __module__ = "ecgmon.errors"


class Progress(Protocol):
    """Callback that reports the progress of a training or an evaluation."""

    def __call__(self, what: str, done: int, total: int, terms: Mapping[str, float], /) -> bool:
        """Receive the name of the current step, the work done, the total work and the losses; return False to stop."""


def no_progress(_what: str, _done: int, _total: int, _terms: Mapping[str, float], /) -> bool:
    """Report nothing and never stop: the default progress."""
    return True


def record_counter(what: str, total: int, progress: Progress) -> Callable[[str], None]:
    """Return a callback that counts finished records and raises :class:`Stopped` if ``progress`` returns False."""
    done = 0

    def advance(_: str) -> None:
        nonlocal done
        done += 1
        if not progress(what, done, total, {}):
            raise Stopped(f"stopped while {what}; the same command repeats this step")

    return advance


def rule_of(split: Rule | Mapping[str, str] | Path | str | None) -> Rule | None:
    """Convert a split in any accepted form to a rule.

    Parameters
    ----------
    split : Drawn, Named, mapping, Path or str, optional
        A rule; the part of each record by its name; or a file, see :func:`ecgmon.pipelines.training.splits.read`.

    Raises
    ------
    ecgmon.errors.SplitError
        If the split is not valid.
    """
    if split is None or isinstance(split, Drawn | Named):
        return split
    return splits.read(Path(split)) if isinstance(split, Path | str) else Named(dict(split))


def table_of(beats: BeatTable | Mapping[str, ArrayLike] | Path | str | None) -> BeatTable | None:
    """Convert a table of beats in any accepted form to a :class:`BeatTable`: a table, its columns, or a file.

    Raises
    ------
    ecgmon.errors.BeatTableError
        If the table is not valid.
    """
    if beats is None or isinstance(beats, BeatTable):
        return beats
    return BeatTable.read(Path(beats)) if isinstance(beats, Path | str) else BeatTable.of(beats)


def patients_of(patients: Mapping[str, str] | Path | str | None, rule: Rule | None) -> dict[str, str]:
    """Collect the patient of each record from a split and from a list or file; the list or file has priority.

    Raises
    ------
    ecgmon.errors.SplitError
        If the file is not such a list.
    """
    of_split = rule.patients if isinstance(rule, Named) else {}
    if patients is None:
        return dict(of_split)
    return of_split | (splits.read_patients(Path(patients)) if isinstance(patients, Path | str) else dict(patients))


def prepared(
    db: Path,
    data: Path,
    rule: Rule | None,
    *,
    records: Iterable[str] | None = None,
    annotator: str = ANNOTATOR,
    beats: BeatTable | Mapping[str, ArrayLike] | Path | str | None = None,
    patients: Mapping[str, str] | Path | str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Dataset:
    """Make the data set of a folder of records, or open the stored one if it was made with the same parameters.

    Parameters
    ----------
    db, records, annotator, seed
        See :func:`ecgmon.pipelines.training.dataset.prepare`.
    data : Path
        Folder for the data set.
    rule : Drawn, Named or None
        The split, which may name the patients of records.
    beats, patients
        See :func:`table_of` and :func:`patients_of`.
    progress : Progress

    Raises
    ------
    ecgmon.errors.Stopped
        If ``progress`` returns False.
    ecgmon.errors.SourceError, ecgmon.errors.DatasetError
        As :func:`ecgmon.pipelines.training.dataset.prepare`; or if ``data`` holds another data set.
    """
    progress = progress or no_progress
    table, patient_of = table_of(beats), patients_of(patients, rule)
    names = None if records is None else list(records)
    if (data / "dataset.json").exists():
        dataset = datasets.load(data)
        if dataset.about["asked"] != datasets.request_for(
            records=names, annotator=annotator, beats=table, patients=patient_of, seed=seed
        ):
            raise DatasetError(
                f"{data} holds a data set of other records, annotations or patients; give another folder for a new one"
            )
        return dataset
    advance = record_counter("reading records", len(names or find(db)), progress)
    return datasets.prepare(
        db, data, records=names, annotator=annotator, beats=table, patients=patient_of, seed=seed, done=advance
    )


@threads_restored()
def train(
    db: Path | str,
    out: Path | str,
    *,
    split: Rule | Mapping[str, str] | Path | str | None = None,
    annotator: str = ANNOTATOR,
    beats: BeatTable | Mapping[str, ArrayLike] | Path | str | None = None,
    records: Iterable[str] | None = None,
    patients: Mapping[str, str] | Path | str | None = None,
    epochs: int | None = None,
    seed: int = 0,
    work: Path | str | None = None,
    device: str = "cpu",
    threads: int = 1,
    progress: Progress | None = None,
) -> ModelInfo:
    """Train a model on annotated records.

    With few patients the score is for these patients only; with enough patients it is also for others.  About 2,000
    normal beats are needed at least.

    Parameters
    ----------
    db : Path or str
        Folder of WFDB records, also in sub-folders; sampled at 100 to 1000 Hz.
    out : Path or str
        Checkpoint to write, for ``[worker] weights``.
    split : Drawn, Named, mapping, Path or str, optional
        Training and test parts: see :func:`rule_of`.  By default all records train.
    annotator : str
        Suffix of the annotation files.
    beats : BeatTable, mapping, Path or str, optional
        A table of beats, used instead of annotation files: see :func:`table_of`.
    records : iterable of str, optional
        Paths of records inside the folder; by default all with beats.
    patients : mapping, Path or str, optional
        Patient of each record, by the name of the record, or in a CSV file with the columns record and patient.
    epochs : int, optional
        Passes over the normal training beats; by default as many as for the shipped model, and more for few beats.
    seed : int
        Seed for all random choices.
    work : Path or str, optional
        Folder for the data set and the trainings, from which a stopped training resumes.  By default a temporary
        folder.
    device, threads
        Torch device, and number of CPU threads; the weights depend on both.
    progress : callable, optional
        See :class:`Progress`.

    Returns
    -------
    ModelInfo
        Description of the model, as in the checkpoint.

    Raises
    ------
    ecgmon.errors.Stopped
        If ``progress`` returns False.
    ecgmon.errors.TrainingError
        If there are too few normal beats, or the device or the number of threads cannot be used.
    ecgmon.errors.DatasetError
        If records, beats, patients or the split do not fit each other.
    ecgmon.errors.SourceError
        If a named record cannot be read.
    ecgmon.errors.CheckpointError
        If the trained model cannot be used, for instance because its training diverged.

    Examples
    --------
    A whole training is in docs/how-to/train.md.

    >>> import ecgmon
    >>> ecgmon.train("nowhere", "own.safetensors")
    Traceback (most recent call last):
        ...
    ecgmon.errors.RecordNotFoundError: nowhere: no records in this folder...
    """
    watch = progress or no_progress
    rule = rule_of(split)
    if epochs is not None and epochs < 1:
        raise TrainingError(f"the number of epochs is {epochs}; expected at least 1")
    place = tempfile.TemporaryDirectory(prefix="ecgmon-train-") if work is None else nullcontext(work)
    with place as folder:
        dataset = prepared(
            Path(db), Path(folder) / "data", rule,
            records=records, annotator=annotator, beats=beats, patients=patients, seed=seed,
            progress=watch,
        )  # fmt: skip
        used = splits.whole(dataset, NAME) if rule is None else splits.split(dataset, rule, NAME)
        settings = _settings(used, epochs, seed)
        halves = [(half, _settings(half, epochs, seed, is_half=True)) for half in _halves(dataset, used, rule)]
        *of_halves, (_, generator) = [
            (part, _trained(dataset, Path(folder) / "runs" / part.name, part, of_part, device, threads, watch))
            for part, of_part in (*halves, (used, settings))
        ]
        return write_checkpoint(
            Path(out), dataset, Path(db), generator, used, of_halves,
            name=_model_name(generator, Path(db)),
            command=_command(Path(db), split, annotator, beats, settings),
            progress=watch,
        )  # fmt: skip


train.__module__ = "ecgmon"


def write_checkpoint(
    out: Path,
    dataset: Dataset,
    db: Path,
    generator: AnyGenerator,
    used: Split,
    halves: Iterable[tuple[Split, AnyGenerator]],
    *,
    name: str,
    command: str,
    as_stream: bool = True,
    progress: Progress = no_progress,
) -> ModelInfo:
    """Fit the score of a generator, and write both to a checkpoint.

    Parameters
    ----------
    out : Path
        Checkpoint to write.
    dataset : Dataset
    db : Path
        Folder of the records of the data set.
    generator : Generator or DenseGenerator
        Trained; its matrices are rounded to half precision here.
    used : Split
        Split that the generator was trained on.
    halves : iterable of (Split, Generator)
        The two halves of the split, with the generator trained on each: the score is then for other patients.  If
        empty, the score is for the same patients.
    name, command : str
        See :class:`ecgmon.models.weights.checkpoint.ModelInfo`.
    as_stream : bool
        True: the detector finds the beats, as in the daemon.  False: beats are cut at their annotations, as in
        protocols.
    progress : Progress

    Raises
    ------
    ecgmon.errors.Stopped
        If ``progress`` returns False while beats are read.
    ecgmon.errors.TrainingError
        If there are too few normal beats, or the halves are not the two halves of a split.
    ecgmon.errors.SourceError
        If a record cannot be read.
    ecgmon.errors.CheckpointError
        If the generator cannot be used.
    """
    from ecgmon.models.inference.reconstruction import Reconstructor
    from ecgmon.models.weights import checkpoint
    from ecgmon.pipelines.training import score_fitting

    checkpoint.round_weights(generator)
    runnable = Reconstructor(generator)
    parts = [(part, Reconstructor(half)) for part, half in halves]
    other: Halves | None = score_fitting.Halves(dataset, parts) if parts else None
    advance = record_counter("reading beats", len(dataset.records), progress)
    if as_stream:
        found = score_fitting.streamed(dataset, db, runnable, halves=other, done=advance)
    else:
        raw = score_fitting.reconstructed(dataset, runnable)
        found = score_fitting.annotated(dataset, raw, halves=other, done=advance)
    progress("fitting the score", 0, 1, {})
    score = score_fitting.fitted(found, used)
    info = checkpoint.save(
        out,
        generator,
        name=name,
        score=score,
        usual=score_fitting.usual_errors(found, used),
        command=command,
        data=dataset.about["sha256"],
    )
    progress("fitting the score", 1, 1, {})
    return info


def _halves(dataset: Dataset, used: Split, rule: Rule | None) -> list[Split]:
    """Return the two halves of the training patients; none if there are too few or the split is by beat."""
    own = np.isin(dataset.patient_of_beats(), dataset.patient_of_beats()[used.train | used.held_out]) & ~used.test
    if len(np.unique(dataset.patient_of_beats()[own])) < _LEAST_PATIENTS or (
        isinstance(rule, Drawn) and rule.by == "beat"
    ):
        return []
    return [splits.half(dataset, f"{NAME}-{'ab'[which]}", own, which) for which in (0, 1)]


def _trained(
    dataset: Dataset, run: Path, part: Split, settings: Settings, device: str, threads: int, progress: Progress
) -> AnyGenerator:
    """Train a generator on a part, or resume; raise :class:`Stopped` if ``progress`` returns False."""
    done = fitting.fit(
        dataset, run, settings, part, device=device, threads=threads,
        progress=lambda *at: progress(f"training {part.name}", *at),
    )  # fmt: skip
    if done.step < done.steps:
        raise Stopped(f"stopped after {done.step} of {done.steps} steps; the same command continues from there")
    return fitting.trained(run)[0]


def _settings(part: Split, epochs: int | None, seed: int, *, is_half: bool = False) -> Settings:
    """Return the settings of the shipped student, with enough epochs; halves need only half as many."""
    steps = max(1, int(np.count_nonzero(part.train)) // STUDENT.batch)
    wanted = epochs or max(STUDENT.epochs, math.ceil(LEAST_STEPS / steps))
    return replace(STUDENT, seed=seed, epochs=max(1, wanted // 2) if is_half else wanted)


def _model_name(generator: AnyGenerator, db: Path) -> str:
    shape = generator.shape
    return f"{shape.architecture} width {shape.width}, latent {shape.latent}, of {db.resolve().name}"


def _command(db: Path, split: object, annotator: str, beats: object, settings: Settings) -> str:
    """Return a command that repeats the training; arguments that are not files become FILE."""
    flags: list[Any] = ["ecgmon train own --db", db.resolve().name]
    if isinstance(split, Path | str):
        flags += ["--split", Path(split).name]
    elif isinstance(split, Drawn):
        flags += ["--test-share", split.test, "--by", split.by]
    elif split is not None:
        flags += ["--split", "FILE"]
    if beats is not None:
        flags += ["--beats", Path(beats).name if isinstance(beats, Path | str) else "FILE"]
    elif annotator != ANNOTATOR:
        flags += ["--annotator", annotator]
    return " ".join(str(flag) for flag in [*flags, "--epochs", settings.epochs, "--seed", settings.seed])
