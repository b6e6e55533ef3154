"""``ecgmon train``: from records to a checkpoint, and to every figure behind it."""

from __future__ import annotations

import json
import signal
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from ecgmon.models.training.settings import STUDENT, TEACHER, Settings
from ecgmon.monitor.cli.printing import complain
from ecgmon.pipelines.training import dataset as datasets
from ecgmon.pipelines.training import fitting as training
from ecgmon.pipelines.training import plans, score_fitting
from ecgmon.pipelines.training.splits import HALVES, NAMES
from ecgmon.pipelines.training.splits import split as split_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from ecgmon.models.weights.checkpoint import ModelInfo
    from ecgmon.pipelines.training.dataset import Dataset

PRESETS: Final = {"paper": Settings(), "teacher": TEACHER, "student": STUDENT}
"""Settings to start from, by name."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Make a model: prepare the beats of annotated records, train generators on the normal ones, fit the score, "
        "and write the checkpoint that [worker] weights takes."
    )
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")

    prepare = steps.add_parser("prepare", help="build the data set from WFDB records")
    _add_path(prepare, "--db", "folder with the records of the MIT-BIH Arrhythmia Database")
    _add_path(prepare, "--data", "folder to store the data set in")
    prepare.add_argument("--seed", type=int, default=0, metavar="N", help="deals folds and tenths (default: 0)")

    fitting = steps.add_parser("fit", help="train one generator on normal beats; resumes what it finds in --run")
    _add_path(fitting, "--data", "folder that 'prepare' filled")
    _add_path(fitting, "--run", "folder of the training: its state, log and result")
    fitting.add_argument("--split", choices=NAMES, default="all", help="which beats train and test (default: all)")
    fitting.add_argument("--teacher", type=Path, metavar="DIR", help="folder of the teacher's training")
    fitting.add_argument(
        "--only-confirmed", action="store_true",
        help="leave out normal beats that a second detector does not find, about as the original experiment did",
    )  # fmt: skip
    _add_settings(fitting)

    planned = steps.add_parser("plan", help="do all trainings behind a figure; passes over what is finished")
    planned.add_argument("plan", choices=plans.PLANS, help="which: see pipelines/training/plans.py")
    _add_path(planned, "--data", "folder that 'prepare' filled")
    _add_path(planned, "--runs", "folder for the trainings")
    _add_path(planned, "--results", "folder for the table of what they came to")
    planned.add_argument("--json", action="store_true", help="print a summary as one JSON object")
    _add_machine(planned)

    scoring = steps.add_parser(
        "score", help="fit the score of a generator to the normal beats of its split, and write the checkpoint"
    )
    _add_path(scoring, "--db", "folder with the records of the MIT-BIH Arrhythmia Database")
    _add_path(scoring, "--data", "folder that 'prepare' filled")
    _add_path(scoring, "--run", "folder that 'fit' filled")
    scoring.add_argument(
        "--halves", type=Path, nargs=2, metavar="DIR",
        help="folders of the trainings on either half of the split's patients: a score for other patients needs them",
    )  # fmt: skip
    _add_path(scoring, "--out", "checkpoint to write")
    _add_threads(scoring)

    report = steps.add_parser("report", help="bring the tables and pictures of a model card up to date")
    _add_path(report, "--results", "folder of result files")
    report.add_argument("--card", type=Path, required=True, metavar="FILE", help="the card, a page with markers")

    everything = steps.add_parser(
        "all",
        help="prepare, train the student and fit the score: from records to the checkpoint that the daemon runs",
    )
    _add_path(everything, "--db", "folder with the records of the MIT-BIH Arrhythmia Database")
    _add_path(everything, "--work", "folder for the data set and the trainings, resumed where they exist")
    _add_path(everything, "--out", "checkpoint to write")
    _add_machine(everything)


def run(args: argparse.Namespace) -> int:
    """Carry out a step; 1 where something given cannot be used, 130 where Ctrl-C stopped a training."""
    from ecgmon.models.weights.checkpoint import CheckpointError
    from ecgmon.pipelines.sources.errors import SourceError

    try:
        return _run_step(args)
    except (training.TrainingError, datasets.DatasetError, SourceError, CheckpointError) as error:
        return complain(error)


def _run_step(args: argparse.Namespace) -> int:
    """Carry out a subcommand that :func:`add_arguments` described.

    Returns
    -------
    int
        Exit status: 0, or 130 where Ctrl-C stopped a training, whose state is then stored.

    Raises
    ------
    ecgmon.pipelines.training.fitting.TrainingError, ecgmon.pipelines.training.dataset.DatasetError
    ecgmon.pipelines.sources.errors.SourceError, ecgmon.models.weights.checkpoint.CheckpointError
        If something given cannot be used.
    """
    if args.step == "prepare":
        _prepare(args.db, args.data, args.seed)
        return 0
    if args.step == "fit":
        return _fit(args)
    if args.step == "plan":
        return _plan(args.plan, args.data, args.runs, args.results, args, as_json=args.json)
    if args.step == "score":
        _score(args.db, args.data, args.run, args.halves, args.out, args.threads)
        return 0
    if args.step == "report":
        return _report(args.results, args.card)
    data, runs = args.work / "data", args.work / "runs"
    if not (data / "dataset.json").exists():
        _prepare(args.db, data, 0)
    halves = [run for run in plans.PLANS["halves"] if run.split in HALVES["all"]]
    wanted = [*halves, *(run for run in plans.PLANS["students"] if run.split == "all")]
    if not _carried_out(wanted, data, runs, args):
        return 128 + signal.SIGINT
    _score(args.db, data, runs / wanted[-1].name, [runs / half.name for half in halves], args.out, args.threads)
    return 0


def _add_path(parser: argparse.ArgumentParser, flag: str, what: str) -> None:
    parser.add_argument(flag, type=Path, required=True, metavar="FILE" if flag == "--out" else "DIR", help=what)


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="where torch computes: cpu, cuda, cuda:1 (default: cpu)")
    _add_threads(parser)


def _add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="threads on a CPU (default: 1); sums, and so weights, depend on it",
    )


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--preset", choices=PRESETS, default="student",
        help="settings to start from: BeatGAN's own, a teacher that two cores can train, or the deployed student (default)",
    )  # fmt: skip
    for field in fields(Settings):
        values = ", ".join(f"{name} {getattr(preset, field.name)}" for name, preset in PRESETS.items())
        kind: Any = _truth if isinstance(field.default, bool) else type(field.default)
        parser.add_argument(
            f"--{field.name.replace('_', '-')}", type=kind, metavar="X", help=f"{field.metadata['help']} ({values})"
        )
    parser.add_argument(
        "--stop-after", type=int, metavar="N", help="stop after N steps, with the learning rate planned for all epochs"
    )
    _add_machine(parser)


def _truth(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise ValueError(text)
    return text.lower() == "true"


def _prepare(db: Path, data: Path, seed: int) -> None:
    from rich.progress import Progress

    with Progress(console=_console()) as progress:
        bar = progress.add_task("Reading records", total=len(datasets.RECORDS))
        dataset = datasets.prepare(db, data, seed=seed, done=lambda _: progress.advance(bar))
    counts = ", ".join(f"{count} {name}" for name, count in dataset.about["counts"].items())
    print(
        f"{data}: {counts} beats of {len(dataset.about['records'])} records; "
        f"{dataset.about['unconfirmed']} N that a second detector does not find are kept"
    )


def _fit(args: argparse.Namespace) -> int:
    given = {field.name: getattr(args, field.name) for field in fields(Settings)}
    try:
        settings = replace(PRESETS[args.preset], **{name: value for name, value in given.items() if value is not None})
    except ValueError as error:
        raise training.TrainingError(str(error)) from error
    dataset = datasets.load(args.data)
    with _Shown() as step:
        done = training.fit(
            dataset,
            args.run,
            settings,
            args.split,
            teacher=args.teacher,
            only_confirmed=args.only_confirmed,
            device=args.device,
            threads=args.threads,
            stop_after=args.stop_after,
            progress=lambda *at: step(args.run.name, *at),
        )
    if step.interrupted and done.step < done.steps:
        print(f"stopped after {done.step} of {done.steps} steps; the same command goes on from there")
        return 128 + signal.SIGINT
    used = split_of(dataset, args.split)
    if done.step == done.steps and used.test.any():
        raw = training.tested(done.generator, dataset, used)
        (args.run / "result.json").write_text(json.dumps(raw, indent=1) + "\n")
        print(f"{args.run}: raw A(x) on the test beats of {args.split}: AUC {raw['auc']:.4f}, AP {raw['ap']:.4f}")
    return 0


def _plan(plan: str, data: Path, runs: Path, results: Path, args: argparse.Namespace, *, as_json: bool) -> int:
    finished = _carried_out(plans.PLANS[plan], data, runs, args)
    found = plans.summary(plan, runs)
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{plan}.json").write_text(json.dumps(found, indent=1) + "\n")
    if as_json:
        print(json.dumps(found))
    else:
        for row in found.get("runs", []):
            raw = row["raw"]
            figures = "nothing to test on" if raw is None else f"AUC {raw['auc']:.4f}  AP {raw['ap']:.4f}"
            print(f"{row['name']:20} {row['multiply_adds']:>10} multiply-adds  {figures}")
        for row in found.get("sizes", []):
            speed = row["beats_per_second"]
            shown = "not measured" if speed is None else f"{speed:,.0f} beats/s"
            print(f"{row['name']:12} {row['multiply_adds']:>10} multiply-adds  AUC {row['auc']:.4f}  {shown}")
        for row in found.get("variants", []):
            print(f"{row['name']:12} AUC {' '.join(f'{value:.4f}' for value in row['auc'])}  {row['what']}")
    return 0 if finished else 128 + signal.SIGINT


def _carried_out(wanted: Sequence[plans.Run], data: Path, runs: Path, args: argparse.Namespace) -> bool:
    dataset = datasets.load(data)
    with _Shown() as step:
        finished = plans.carry_out(
            wanted, dataset, runs, device=args.device, threads=args.threads,
            progress=lambda run, *at: step(run.name, *at),
        )  # fmt: skip
    if not finished:
        print("stopped; the same command goes on from there")
    return finished


def _score(
    db: Path, data: Path, run_folder: Path, half_folders: list[Path] | None, out: Path, threads: int
) -> ModelInfo:
    """Fit the score that goes with a generator, and write both."""
    import torch
    from rich.progress import Progress

    from ecgmon.models.inference.reconstruction import Reconstructor
    from ecgmon.models.weights import checkpoint

    torch.set_num_threads(threads)
    dataset = datasets.load(data)
    generator, about = training.trained(run_folder)
    checkpoint.round_weights(generator)
    split = about["split"]
    used = split_of(dataset, split, only_confirmed=about["only_confirmed"])
    runnable = Reconstructor(generator)
    halves = _halves(dataset, split, half_folders or [])
    with Progress(console=_console()) as progress:
        bar = progress.add_task("Reading beats", total=len(dataset.about["records"]))
        if split == "all":  # for streams
            found = score_fitting.streamed(dataset, db, runnable, halves=halves, done=lambda _: progress.advance(bar))
        else:  # for a protocol, which names the R peaks
            found = score_fitting.annotated(
                dataset,
                score_fitting.reconstructed(dataset, runnable),
                halves=halves,
                done=lambda _: progress.advance(bar),
            )
        progress.add_task("Fitting the score (minutes)", total=None)
        score = score_fitting.fitted(dataset, found, used)
    shape = generator.shape
    info = checkpoint.save(
        out,
        generator,
        name=f"{shape.architecture} width {shape.width}, latent {shape.latent}, of {split}",
        score=score,
        usual=score_fitting.usual_errors(found, used),
        command=command_line(about),
        data=dataset.about["sha256"],
    )
    print(f"{out}: {info.name}, {info.parameters} parameters, score measured on {info.score.beats} beats")
    return info


def _halves(dataset: Dataset, split: str, folders: list[Path]) -> score_fitting.Halves | None:
    """Open the generators that have seen half of a split's patients each, if it is for other patients."""
    from ecgmon.models.inference.reconstruction import Reconstructor

    wanted = HALVES.get(split, ())
    trained = [training.trained(folder) for folder in folders]
    found = {about["split"]: Reconstructor(generator) for generator, about in trained}
    if tuple(sorted(found)) != wanted:
        raise training.TrainingError(
            f"--halves names trainings on {', '.join(sorted(found)) or 'nothing'}; "
            f"a score of {split} needs {' and '.join(wanted) or 'none'}"
        )
    return score_fitting.Halves(dataset, found) if found else None


def _report(results: Path, card: Path) -> int:
    """Write the model card's tables; a status of 1 says that something in it is missing."""
    from ecgmon.pipelines.evaluation import model_card

    try:
        left_out = model_card.write(results, card)
    except model_card.CardError as error:
        raise training.TrainingError(str(error)) from error
    print(f"{card}: written" + (f"; without results: {', '.join(left_out)}" if left_out else ""))
    return 1 if left_out else 0


def command_line(about: dict[str, Any]) -> str:
    """Spell out the command line that trains what a run's ``about.json`` describes.

    Every setting is named, so that it stays true when a default changes.
    """
    flags = [f"--{name.replace('_', '-')} {value}" for name, value in about["settings"].items()]
    if about["teacher"] is not None:
        flags.append(f"--teacher runs/teacher-{about['split']}")
    if about["only_confirmed"]:
        flags.append("--only-confirmed")
    if about["step"] < about["steps"]:
        flags.append(f"--stop-after {about['step']}")
    return " ".join(["ecgmon train fit --data runs/data --run runs/student", f"--split {about['split']}", *flags])


class _Shown:
    """Shows how a training goes, and ends it at a Ctrl-C between two steps."""

    def __init__(self) -> None:
        from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.interrupted = False
        self._progress = Progress(
            *Progress.get_default_columns()[:2],
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[terms]}"),
            console=_console(),
        )
        self._bars: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._interrupt)
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        signal.signal(signal.SIGINT, self._before)

    def __call__(self, name: str, done: int, steps: int, terms: dict[str, float]) -> bool:
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(name, total=steps, terms="")
        shown = " ".join(f"{term} {value:.4g}" for term, value in terms.items())
        self._progress.update(self._bars[name], completed=done, terms=shown)
        return not self.interrupted

    def _interrupt(self, *_: object) -> None:
        self.interrupted = True
        signal.signal(signal.SIGINT, self._before)  # a second Ctrl-C does not wait for the step


def _console() -> Any:  # noqa: ANN401 - rich is imported where it is used
    from rich.console import Console

    return Console(stderr=True)  # standard output is for results
