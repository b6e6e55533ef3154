"""The steps from the records of MIT-BIH to a checkpoint; each resumes from the files in its folder.

``ecgmon train`` does them one by one or all at once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from ecgmon.models.training.settings import PAPER, STUDENT, TEACHER, Settings
from ecgmon.pipelines.training import dataset as datasets
from ecgmon.pipelines.training import fitting, mitdb, plans, prediction
from ecgmon.pipelines.training.fitting import TrainingError
from ecgmon.pipelines.training.mitdb import HALVES
from ecgmon.pipelines.training.mitdb import split as split_of
from ecgmon.pipelines.training.own import Stopped, record_counter, write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgmon.models.networks.generator import AnyGenerator
    from ecgmon.models.training.distillation import Training
    from ecgmon.models.weights.checkpoint import ModelInfo
    from ecgmon.pipelines.training.dataset import Dataset
    from ecgmon.pipelines.training.own import Progress

PRESETS: Final = {"paper": PAPER, "teacher": TEACHER, "student": STUDENT}
"""Settings to start from, by name."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """Result of :func:`fit`.

    Attributes
    ----------
    training : Training
        Finished or stopped.
    raw : dict or None
        How well A(x) separates the classes of the test beats: see :func:`ecgmon.pipelines.training.fitting.tested`.
        None if the training is not finished or has no test beats.
    """

    training: Training
    raw: dict[str, Any] | None

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.training.step == self.training.steps


def settings_from(preset: str, changed: Mapping[str, Any]) -> Settings:
    """Change some of the settings of a preset.

    Parameters
    ----------
    preset : str
        One of :data:`PRESETS`.
    changed : mapping
        New values by the name of the setting; None keeps the value of the preset.

    Raises
    ------
    TrainingError
        If a value cannot be used.

    Examples
    --------
    >>> settings_from("student", {"width": 4, "epochs": None}).width
    4
    """
    try:
        return replace(PRESETS[preset], **{name: value for name, value in changed.items() if value is not None})
    except ValueError as error:  # raised by Settings, which checks its values
        raise TrainingError(str(error)) from error


def prepare(db: Path, data: Path, *, seed: int, progress: Progress) -> Dataset:
    """Build the data set of MIT-BIH.

    Parameters
    ----------
    db : Path
        Folder of the records.
    data : Path
        Folder for the data set.
    seed : int
        Seed for folds and tenths.
    progress : callable

    Raises
    ------
    ecgmon.pipelines.training.own.Stopped
        If ``progress`` returns False.
    ecgmon.pipelines.training.dataset.DatasetError, ecgmon.pipelines.sources.errors.SourceError
        If the records cannot be used.
    """
    return mitdb.prepare(db, data, seed=seed, done=record_counter("reading records", len(mitdb.RECORDS), progress))


def fit(
    data: Path,
    run: Path,
    settings: Settings,
    split: str,
    *,
    teacher: Path | None = None,
    only_confirmed: bool = False,
    device: str = "cpu",
    threads: int = 1,
    stop_after: int | None = None,
    progress: Progress,
) -> Fitted:
    """Train one generator; when it is finished, write how well it separates the classes.

    Parameters
    ----------
    data : Path
        Folder that :func:`prepare` filled.
    run : Path
        Folder of the training, from which it resumes; ``result.json`` is written to it.
    settings, split, teacher, only_confirmed, device, threads, stop_after
        As in :func:`ecgmon.pipelines.training.fitting.fit`.
    progress : callable

    Raises
    ------
    TrainingError, ecgmon.pipelines.training.dataset.DatasetError
        If an argument cannot be used.
    """
    dataset = datasets.load(data)
    used = split_of(dataset, split, only_confirmed=only_confirmed)
    training = fitting.fit(
        dataset, run, settings, used, teacher=teacher, only_confirmed=only_confirmed, device=device, threads=threads,
        stop_after=stop_after, progress=lambda *at: progress(run.name, *at),
    )  # fmt: skip
    if training.step < training.steps or not used.test.any():
        return Fitted(training, None)
    raw = fitting.tested(training.generator, dataset, used)
    (run / "result.json").write_text(json.dumps(raw, indent=1) + "\n")
    return Fitted(training, raw)


def predict(
    data: Path, run: Path, out: Path, *, part: str = "test", device: str = "cpu", threads: int = 1, progress: Progress
) -> dict[str, NDArray[Any]]:
    """Write a table of the A(x) and the latent vectors of a part of the beats.

    Parameters
    ----------
    data : Path
        Folder that :func:`prepare` filled.
    run : Path
        Folder of a training on this data set, finished or stopped.
    out : Path
        CSV file to write.
    part : str
        One of :data:`ecgmon.pipelines.training.prediction.PARTS`, a part of the training's split.
    device, threads
        Torch device, and number of CPU threads.
    progress : callable

    Returns
    -------
    dict of str to ndarray, shape (n,)
        The columns: see :func:`ecgmon.pipelines.training.prediction.table`.

    Raises
    ------
    ecgmon.pipelines.training.own.Stopped
        If ``progress`` returns False.
    TrainingError, ecgmon.pipelines.training.dataset.DatasetError
        If an argument cannot be used.
    """
    fitting.use_machine(device, threads)
    dataset = datasets.load(data)
    generator, about = fitting.trained(run)
    if about["data"] != dataset.about["sha256"] or about["split"] not in mitdb.NAMES:
        raise TrainingError(
            f"{run} is not a training on the data set in {data}; name the data set that it was made with"
        )
    used = split_of(dataset, about["split"], only_confirmed=about["only_confirmed"])
    beats = dataset.beats[{"test": used.test, "held-out": used.held_out, "train": used.train}[part]]
    if not len(beats):
        raise TrainingError(f"the split {used.name} of {run} has no {part} beats; choose another part")
    if not out.parent.is_dir():
        raise TrainingError(f"{out} cannot be written, because there is no folder {out.parent}; make it first")
    what = "reconstructing beats"

    def advance(done: int) -> None:
        if not progress(what, done, len(beats), {}):
            raise Stopped(f"stopped while {what}; the same command repeats this step")

    columns = prediction.table(generator.to(device), dataset, beats, advance=advance)
    prediction.write_csv(out, columns)
    return columns


def carry_out(
    wanted: Sequence[plans.Run], data: Path, runs: Path, *, device: str, threads: int, progress: Progress
) -> bool:
    """Do the unfinished trainings of a list; return whether all are finished.

    Raises
    ------
    TrainingError, ecgmon.pipelines.training.dataset.DatasetError
        If an argument cannot be used.
    """
    return plans.carry_out(
        wanted, datasets.load(data), runs, device=device, threads=threads,
        progress=lambda run, *at: progress(run.name, *at),
    )  # fmt: skip


def summarise(plan: str, runs: Path, results: Path) -> dict[str, Any]:
    """Write the results of the runs of a plan to ``results``, and return them.

    Parameters
    ----------
    plan : str
        One of :data:`ecgmon.pipelines.training.plans.PLANS`.
    runs : Path
        Folder of the trainings.
    results : Path
        Folder for the result file; made if it is missing.
    """
    found = plans.summary(plan, runs)
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{plan}.json").write_text(json.dumps(found, indent=1) + "\n")
    return found


def fit_score(
    db: Path, data: Path, run: Path, halves: Sequence[Path], out: Path, *, threads: int, progress: Progress
) -> ModelInfo:
    """Fit the score of a generator, and write both to a checkpoint.

    Parameters
    ----------
    db : Path
        Folder of the records.
    data : Path
        Folder that :func:`prepare` filled.
    run : Path
        Folder of the generator's training.
    halves : sequence of Path
        Folders of the trainings on the two halves of the split's patients; none for a score for the same patients.
    out : Path
        Checkpoint to write.
    threads : int
        Number of CPU threads.
    progress : callable

    Raises
    ------
    ecgmon.pipelines.training.own.Stopped
        If ``progress`` returns False while beats are read.
    TrainingError, ecgmon.pipelines.training.dataset.DatasetError, ecgmon.pipelines.sources.errors.SourceError
        If an argument cannot be used.
    ecgmon.models.weights.checkpoint.CheckpointError
        If the generator cannot be used, or the checkpoint cannot be written.
    """
    import torch

    torch.set_num_threads(threads)
    dataset = datasets.load(data)
    generator, about = fitting.trained(run)
    shape, split = generator.shape, about["split"]
    return write_checkpoint(
        out,
        dataset,
        db,
        generator,
        split_of(dataset, split, only_confirmed=about["only_confirmed"]),
        [(split_of(dataset, name), half) for name, half in trained_halves(split, halves).items()],
        name=f"{shape.architecture} width {shape.width}, latent {shape.latent}, of {split}",
        command=command_line(about),
        as_stream=split == "all",  # the other splits are for protocols, which give the R peaks
        progress=progress,
    )


def make_default(db: Path, work: Path, out: Path, *, device: str, threads: int, progress: Progress) -> ModelInfo | None:
    """Do all steps from the records to the checkpoint that the daemon runs.

    Parameters
    ----------
    db : Path
        Folder of the records.
    work : Path
        Folder for the data set and the trainings, from which each of them resumes.
    out : Path
        Checkpoint to write.
    device, threads
        Torch device, and number of CPU threads.
    progress : callable

    Returns
    -------
    ModelInfo or None
        None if ``progress`` stopped a training; its state is stored.

    Raises
    ------
    TrainingError, ecgmon.pipelines.training.dataset.DatasetError, ecgmon.pipelines.sources.errors.SourceError
    ecgmon.models.weights.checkpoint.CheckpointError
        If an argument cannot be used.
    """
    data, runs = work / "data", work / "runs"
    if not (data / "dataset.json").exists():
        prepare(db, data, seed=0, progress=progress)
    halves = [run for run in plans.PLANS["halves"] if run.split in HALVES["all"]]
    wanted = [*halves, *(run for run in plans.PLANS["students"] if run.split == "all")]
    if not carry_out(wanted, data, runs, device=device, threads=threads, progress=progress):
        return None
    half_folders = [runs / half.name for half in halves]
    return fit_score(db, data, runs / wanted[-1].name, half_folders, out, threads=threads, progress=progress)


def command_line(about: Mapping[str, Any]) -> str:
    """Return the command line that repeats the training described in a run's ``about.json``.

    It names every setting, so that it stays correct when a default changes.
    """
    flags = [f"--{name.replace('_', '-')} {value}" for name, value in about["settings"].items()]
    if about["teacher"] is not None:
        flags.append(f"--teacher runs/teacher-{about['split']}")
    if about["only_confirmed"]:
        flags.append("--only-confirmed")
    if about["step"] < about["steps"]:
        flags.append(f"--stop-after {about['step']}")
    return " ".join(["ecgmon train fit --data runs/data --run runs/student", f"--split {about['split']}", *flags])


def trained_halves(split: str, folders: Sequence[Path]) -> dict[str, AnyGenerator]:
    """Load the generators of the halves of a split's patients, by the name of the half; none if it has no halves.

    Raises
    ------
    TrainingError
        If ``folders`` are not the trainings on these halves.
    """
    wanted = HALVES.get(split, ())
    trained = [fitting.trained(folder) for folder in folders]
    found = {about["split"]: generator for generator, about in trained}
    if tuple(sorted(found)) != wanted:
        raise TrainingError(
            f"--halves names trainings on {', '.join(sorted(found)) or 'nothing'}; "
            f"a score of {split} needs {' and '.join(wanted) or 'none'}"
        )
    return found
