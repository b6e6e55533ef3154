"""From a user's own annotated records to a checkpoint, in one call that can be stopped and goes on where it was.

The steps: make the data set, split it, train the student on the normal beats that train, fit the score to what a
stream knows of them, write the checkpoint.  Where the beats that train are of several patients, two more generators
learn half of them each and say how large the errors of a patient are that was never seen: the score is then for other
patients.  With fewer, or where the split mixes beats of the same patients, it is for these.
"""

from __future__ import annotations

import math
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from ecgmon.models.inference.threads import threads_as_before
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
"""Steps of a training at least, where the number of epochs is not given: few beats are gone through more often."""

NAME: Final = "own"
"""Name of the split, and of the training on it."""


class Stopped(TrainingError):  # noqa: N818 - nothing went wrong
    """A training that was ended on request, with its state stored where a folder for it was named."""

    __module__ = "ecgmon.errors"


class Progress(Protocol):
    """What is told how a training or an evaluation goes."""

    def __call__(self, what: str, done: int, total: int, terms: Mapping[str, float], /) -> bool:
        """Take what is being done, how far it is, and the terms of the loss; answer False to stop there."""


def unwatched(_what: str, _done: int, _total: int, _terms: Mapping[str, float], /) -> bool:
    """Let everything go on: the progress that nobody follows."""
    return True


def counted(what: str, total: int, progress: Progress) -> Callable[[str], None]:
    """Return what counts records as they are done, and raises :class:`Stopped` where ``progress`` says so."""
    done = 0

    def advance(_: str) -> None:
        nonlocal done
        done += 1
        if not progress(what, done, total, {}):
            raise Stopped(f"stopped while {what}; the same command starts that again")

    return advance


def rule_of(split: Rule | Mapping[str, str] | Path | str | None) -> Rule | None:
    """Read a split in whatever form it was given.

    Parameters
    ----------
    split : Drawn, Named, mapping, Path or str, optional
        A rule; the part of each record by its name; or a file, see :func:`ecgmon.pipelines.training.splits.read`.

    Raises
    ------
    ecgmon.errors.SplitError
        If it is none.
    """
    if split is None or isinstance(split, Drawn | Named):
        return split
    return splits.read(Path(split)) if isinstance(split, Path | str) else Named(dict(split))


def table_of(beats: BeatTable | Mapping[str, ArrayLike] | Path | str | None) -> BeatTable | None:
    """Read a table of beats in whatever form it was given: a table, its columns, or a file.

    Raises
    ------
    ecgmon.errors.BeatTableError
        If it is none.
    """
    if beats is None or isinstance(beats, BeatTable):
        return beats
    return BeatTable.read(Path(beats)) if isinstance(beats, Path | str) else BeatTable.of(beats)


def patients_of(patients: Mapping[str, str] | Path | str | None, rule: Rule | None) -> dict[str, str]:
    """Gather whose each record is: as a split says, and as a list or a file says, which counts more.

    Raises
    ------
    ecgmon.errors.SplitError
        If the file is no such list.
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
    """Make the data set of a folder of records, or open the one that was made of the same before.

    Parameters
    ----------
    db, records, annotator, seed
        See :func:`ecgmon.pipelines.training.dataset.prepare`.
    data : Path
        Folder for the data set.
    rule : Drawn, Named or None
        The split, which may say whose a record is.
    beats, patients
        See :func:`table_of` and :func:`patients_of`.
    progress : Progress

    Raises
    ------
    ecgmon.errors.Stopped
        If ``progress`` says so.
    ecgmon.errors.SourceError, ecgmon.errors.DatasetError
        As :func:`ecgmon.pipelines.training.dataset.prepare`; or if ``data`` holds a data set of something else.
    """
    progress = progress or unwatched
    table, whose = table_of(beats), patients_of(patients, rule)
    names = None if records is None else list(records)
    if (data / "dataset.json").exists():
        dataset = datasets.load(data)
        if dataset.about["asked"] != datasets.asked(
            records=names, annotator=annotator, beats=table, patients=whose, seed=seed
        ):
            raise DatasetError(
                f"{data} holds a data set of other records, annotations or patients; give another folder to start afresh"
            )
        return dataset
    advance = counted("reading records", len(names or find(db)), progress)
    return datasets.prepare(
        db, data, records=names, annotator=annotator, beats=table, patients=whose, seed=seed, done=advance
    )


@threads_as_before()
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

    With few records the score is for their patients; where there are enough patients, it is for others, too.  At least some
    2,000 normal beats are needed.

    Parameters
    ----------
    db : Path or str
        Folder of WFDB records, in sub-folders, too; sampled at 100 to 1000 Hz.
    out : Path or str
        Checkpoint to write, which ``[worker] weights`` takes.
    split : Drawn, Named, mapping, Path or str, optional
        Who trains and who tests: see :func:`rule_of`.  By default all train.
    annotator : str
        Suffix of the annotation files.
    beats : BeatTable, mapping, Path or str, optional
        A table of beats in place of annotation files: see :func:`table_of`.
    records : iterable of str, optional
        Paths of records inside the folder; by default all with beats.
    patients : mapping, Path or str, optional
        Whose each record is: by name, or in a CSV file with the columns record and patient.
    epochs : int, optional
        Passes over the normal beats that train; by default as many as the shipped model had, more of few beats.
    seed : int
        Decides all that is random.
    work : Path or str, optional
        Folder for the data set and the trainings: a training that was stopped goes on from what is there.  By default
        one that is gone afterwards.
    device, threads
        Where torch computes, and with how many threads of a CPU; weights depend on both.
    progress : callable, optional
        See :class:`Progress`.

    Returns
    -------
    ModelInfo
        What the checkpoint says.

    Raises
    ------
    ecgmon.errors.Stopped
        If ``progress`` says so.
    ecgmon.errors.TrainingError
        If the normal beats do not suffice, or torch cannot compute as asked.
    ecgmon.errors.DatasetError
        If records, beats, patients or the split do not fit each other.
    ecgmon.errors.SourceError
        If a record that was named cannot be read.
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
    watch = progress or unwatched
    rule = rule_of(split)
    if epochs is not None and epochs < 1:
        raise TrainingError(f"{epochs} epochs train nothing; give at least 1")
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
    progress: Progress = unwatched,
) -> ModelInfo:
    """Fit the score that goes with a generator, and write both.

    Parameters
    ----------
    out : Path
    dataset : Dataset
    db : Path
        Folder of the records that it was made from.
    generator : Generator or DenseGenerator
        Trained; its matrices are rounded to half precision here.
    used : Split
        That it was trained on.
    halves : iterable of (Split, Generator)
        Two halves of it and what was trained on each: the score is then for other patients.  None: for the same.
    name, command : str
        See :class:`ecgmon.models.weights.checkpoint.ModelInfo`.
    as_stream : bool
        Whether beats are found and cut by the detector, as the daemon does, or at their annotations, as protocols do.
    progress : Progress

    Raises
    ------
    ecgmon.errors.Stopped
        If ``progress`` says so while beats are read.
    ecgmon.errors.TrainingError
        If the normal beats do not suffice, or the halves are none.
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
    advance = counted("reading beats", len(dataset.records), progress)
    if as_stream:
        found = score_fitting.streamed(dataset, db, runnable, halves=other, done=advance)
    else:
        raw = score_fitting.reconstructed(dataset, runnable)
        found = score_fitting.annotated(dataset, raw, halves=other, done=advance)
    progress("fitting the score", 0, 1, {})
    score = score_fitting.fitted(dataset, found, used)
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
    """Give the halves of the patients that train, if there are enough of them and none of them is among those tested."""
    from ecgmon.models.score.fitting import ROUNDS

    own = np.isin(dataset.whose(), dataset.whose()[used.train | used.held_out]) & ~used.test
    if len(np.unique(dataset.whose()[own])) < ROUNDS or (isinstance(rule, Drawn) and rule.by == "beat"):
        return []
    return [splits.half(dataset, f"{NAME}-{'ab'[which]}", own, which) for which in (0, 1)]


def _trained(
    dataset: Dataset, run: Path, part: Split, settings: Settings, device: str, threads: int, progress: Progress
) -> AnyGenerator:
    """Train a generator on a part, or go on with that; :class:`Stopped` where ``progress`` says so."""
    done = fitting.fit(
        dataset, run, settings, part, device=device, threads=threads,
        progress=lambda *at: progress(f"training {part.name}", *at),
    )  # fmt: skip
    if done.step < done.steps:
        raise Stopped(f"stopped after {done.step} of {done.steps} steps; the same command goes on from there")
    return fitting.trained(run)[0]


def _settings(part: Split, epochs: int | None, seed: int, *, is_half: bool = False) -> Settings:
    """Choose the settings of the shipped student, and epochs that suffice; halves are only measured, and need half."""
    steps = max(1, int(np.count_nonzero(part.train)) // STUDENT.batch)
    wanted = epochs or max(STUDENT.epochs, math.ceil(LEAST_STEPS / steps))
    return replace(STUDENT, seed=seed, epochs=max(1, wanted // 2) if is_half else wanted)


def _model_name(generator: AnyGenerator, db: Path) -> str:
    shape = generator.shape
    return f"{shape.architecture} width {shape.width}, latent {shape.latent}, of {db.resolve().name}"


def _command(db: Path, split: object, annotator: str, beats: object, settings: Settings) -> str:
    """Spell out the command that trains the same, as far as files tell."""
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
