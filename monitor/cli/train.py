"""``ecgmon train``: from records to a checkpoint, and to the figures of the model card."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecgmon.models.training.settings import Settings
from ecgmon.monitor.cli import own_records
from ecgmon.monitor.cli.arguments import count
from ecgmon.monitor.cli.printing import complain
from ecgmon.monitor.cli.training_progress import TrainingProgress
from ecgmon.monitor.process.exit_status import DONE, FAILED, INTERRUPTED
from ecgmon.pipelines.training import own, plans, prediction, steps
from ecgmon.pipelines.training.mitdb import NAMES

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction

    from ecgmon.models.weights.checkpoint import ModelInfo

_MITDB = "folder of the records of the MIT-BIH Arrhythmia Database"
_PREPARED = "folder of the data set, made by 'prepare'"


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Make a model: prepare the beats of annotated records, train generators on the normal ones, fit the score, "
        "and write the checkpoint that [worker] weights takes."
    )
    parser.epilog = (
        "A stopped training resumes from its folder. Exit status: 0 done, 1 an input cannot be used, 2 wrong usage, "
        "130 stopped by Ctrl-C, with the state of the training stored."
    )
    what = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    _add_all(what)
    own_records.add_training(what)
    _add_prepare(what)
    _add_fit(what)
    _add_predict(what)
    _add_plan(what)
    _add_score(what)
    _add_report(what)


def _add_all(what: _SubParsersAction[ArgumentParser]) -> None:
    text = "prepare, train the student and fit the score: from records to the checkpoint that the daemon runs"
    parser = _step(what, "all", text)
    _add_path(parser, "--db", _MITDB)
    _add_path(parser, "--work", "folder for the data set and the trainings; finished steps in it are not repeated")
    _add_path(parser, "--out", "checkpoint to write")
    _add_machine(parser)


def _add_prepare(what: _SubParsersAction[ArgumentParser]) -> None:
    parser = _step(what, "prepare", "build the data set from WFDB records")
    _add_path(parser, "--db", _MITDB)
    _add_path(parser, "--data", "folder for the data set")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the folds (default: 0)")


def _add_fit(what: _SubParsersAction[ArgumentParser]) -> None:
    parser = _step(what, "fit", "train one generator on normal beats; resumes a training in --run")
    _add_path(parser, "--data", _PREPARED)
    _add_path(parser, "--run", "folder of the training: its state, log and result")
    parser.add_argument(
        "--split", choices=NAMES, default="all", help="split into training and test beats (default: all beats train)"
    )
    parser.add_argument(
        "--teacher", type=Path, metavar="DIR", help="folder of the teacher's training, for settings that distil"
    )
    parser.add_argument(
        "--only-confirmed", action="store_true",
        help="leave out normal beats that a second detector does not find, as the original experiment effectively did",
    )  # fmt: skip
    parser.add_argument(
        "--stop-after", type=int, metavar="N", help="stop after N steps, with the learning rate planned for all epochs"
    )
    _add_machine(parser)
    _add_settings(parser)


def _add_predict(what: _SubParsersAction[ArgumentParser]) -> None:
    parser = _step(what, "predict", "write a table of A(x) and the latent vectors of annotated beats")
    parser.epilog = (
        "One row for each beat, with the columns record, sample (R peak, a sample index), label (class N, S, V, F or "
        "Q), abnormal (0 or 1), ax, score (A(x) scaled to [0, 1] by the smallest and largest of the table), latent_0, "
        "latent_1 and so on."
    )
    _add_path(parser, "--data", _PREPARED)
    _add_path(parser, "--run", "folder of the training, made by 'fit' or 'plan'")
    _add_path(parser, "--out", "CSV file to write")
    parser.add_argument(
        "--split-part", choices=prediction.PARTS, default="test", help="part of the training's split (default: test)"
    )
    _add_machine(parser)


def _add_plan(what: _SubParsersAction[ArgumentParser]) -> None:
    parser = _step(what, "plan", "run all trainings for a figure; finished ones are not repeated")
    parser.add_argument("plan", choices=plans.PLANS, help="which figure; see pipelines/training/plans.py")
    _add_path(parser, "--data", _PREPARED)
    _add_path(parser, "--runs", "folder for the trainings")
    _add_path(parser, "--results", "folder for the table of results")
    parser.add_argument("--json", action="store_true", help="print a summary as one JSON object")
    _add_machine(parser)


def _add_score(what: _SubParsersAction[ArgumentParser]) -> None:
    text = "fit the score of a generator to the normal beats of its split, and write the checkpoint"
    parser = _step(what, "score", text)
    _add_path(parser, "--db", _MITDB)
    _add_path(parser, "--data", _PREPARED)
    _add_path(parser, "--run", "folder of the training, made by 'fit'")
    parser.add_argument(
        "--halves", type=Path, nargs=2, default=(), metavar="DIR",
        help="folders of the trainings on each half of the split's patients; a score for other patients needs them",
    )  # fmt: skip
    _add_path(parser, "--out", "checkpoint to write")
    _add_threads(parser)


def _add_report(what: _SubParsersAction[ArgumentParser]) -> None:
    parser = _step(what, "report", "update the tables and pictures of a model card")
    _add_path(parser, "--results", "folder of result files")
    parser.add_argument("--card", type=Path, required=True, metavar="FILE", help="the model card, a page with markers")


def _step(what: _SubParsersAction[ArgumentParser], name: str, text: str) -> ArgumentParser:
    return what.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")


def _add_path(parser: ArgumentParser, flag: str, what: str) -> None:
    parser.add_argument(flag, type=Path, required=True, metavar="FILE" if flag == "--out" else "DIR", help=what)


def _add_machine(parser: ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="where torch computes: cpu, cuda, cuda:1 (default: cpu)")
    _add_threads(parser)


def _add_threads(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--threads", type=count, default=1, metavar="N",
        help="threads on a CPU (default: 1); the weights depend on their number, because sums round differently",
    )  # fmt: skip


def _add_settings(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("settings", "Each setting replaces that of the preset.")
    group.add_argument(
        "--preset", choices=steps.PRESETS, default="student",
        help="settings to start from: BeatGAN as published (paper), a teacher that two cores can train, or the deployed student "
        "(default)",
    )  # fmt: skip
    for field in fields(Settings):
        values = ", ".join(f"{name} {getattr(preset, field.name)}" for name, preset in steps.PRESETS.items())
        kind: Any = _truth if isinstance(field.default, bool) else type(field.default)
        group.add_argument(
            f"--{field.name.replace('_', '-')}", type=kind, metavar="X", help=f"{field.metadata['help']} ({values})"
        )


def _truth(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise ValueError(text)
    return text.lower() == "true"


def run(args: Namespace) -> int:
    """Run a step; return 1 if an input cannot be used, 130 if Ctrl-C stopped a training."""
    from ecgmon.models.weights.checkpoint import CheckpointError
    from ecgmon.pipelines.sources.errors import SourceError
    from ecgmon.pipelines.training.dataset import DatasetError
    from ecgmon.pipelines.training.fitting import TrainingError

    carry_out = {
        "all": _run_all, "prepare": _run_prepare, "fit": _run_fit, "predict": _run_predict, "plan": _run_plan,
        "score": _run_score, "report": _run_report, "own": own_records.train,
    }  # fmt: skip
    try:
        return carry_out[args.step](args)
    except own.Stopped as stopped:
        return complain(stopped, INTERRUPTED)
    except (TrainingError, DatasetError, SourceError, CheckpointError) as error:
        return complain(error)


def _run_all(args: Namespace) -> int:
    with TrainingProgress() as progress:
        info = steps.make_default(
            args.db, args.work, args.out, device=args.device, threads=args.threads, progress=progress
        )
    if info is None:
        return _stopped()
    _print_checkpoint(args.out, info)
    return DONE


def _run_prepare(args: Namespace) -> int:
    with TrainingProgress() as progress:
        dataset = steps.prepare(args.db, args.data, seed=args.seed, progress=progress)
    counts = ", ".join(f"{count} {name}" for name, count in dataset.about["counts"].items())
    print(
        f"{args.data}: {counts} beats of {len(dataset.about['records'])} records; "
        f"{dataset.about['unconfirmed']} N that a second detector does not find are kept"
    )
    return DONE


def _run_fit(args: Namespace) -> int:
    settings = steps.settings_from(args.preset, {field.name: getattr(args, field.name) for field in fields(Settings)})
    with TrainingProgress() as progress:
        fitted = steps.fit(
            args.data, args.run, settings, args.split, teacher=args.teacher, only_confirmed=args.only_confirmed,
            device=args.device, threads=args.threads, stop_after=args.stop_after, progress=progress,
        )  # fmt: skip
    if progress.interrupted and not fitted.finished:
        return _stopped(f" after {fitted.training.step} of {fitted.training.steps} steps")
    if (raw := fitted.raw) is not None:
        print(
            f"{args.run}: A(x) on the test beats of {args.split}: AUC {raw['auc']:.4f}, AP {raw['ap']:.4f}, best F1 "
            f"{raw['best_f1']:.4f} at A(x) {raw['best_threshold_ax']:.4g} ({raw['best_threshold']:.4f} if scaled to "
            "[0, 1]); reported only, no choice depends on it"
        )
    return DONE


def _run_predict(args: Namespace) -> int:
    with TrainingProgress() as progress:
        columns = steps.predict(
            args.data, args.run, args.out, part=args.split_part, device=args.device, threads=args.threads,
            progress=progress,
        )  # fmt: skip
    abnormal = columns["abnormal"]
    print(f"{args.out}: {len(abnormal)} {args.split_part} beats, {abnormal.sum()} of them abnormal")
    return DONE


def _run_plan(args: Namespace) -> int:
    with TrainingProgress() as progress:
        finished = steps.carry_out(
            plans.PLANS[args.plan], args.data, args.runs, device=args.device, threads=args.threads, progress=progress
        )
    found = steps.summarise(args.plan, args.runs, args.results)
    if args.json:
        print(json.dumps(found))
    else:
        _print_summary(found)
    return DONE if finished else _stopped(as_json=args.json)


def _print_summary(found: dict[str, Any]) -> None:
    for row in found.get("runs", []):
        raw = row["raw"]
        figures = "no test beats" if raw is None else f"AUC {raw['auc']:.4f}  AP {raw['ap']:.4f}"
        print(f"{row['name']:20} {row['multiply_adds']:>10} multiply-adds  {figures}")
    for row in found.get("sizes", []):
        speed = row["beats_per_second"]
        shown = "not measured" if speed is None else f"{speed:,.0f} beats/s"
        print(f"{row['name']:12} {row['multiply_adds']:>10} multiply-adds  AUC {row['auc']:.4f}  {shown}")
    for row in found.get("variants", []):
        print(f"{row['name']:12} AUC {' '.join(f'{value:.4f}' for value in row['auc'])}  {row['what']}")


def _run_score(args: Namespace) -> int:
    with TrainingProgress() as progress:
        info = steps.fit_score(
            args.db, args.data, args.run, args.halves, args.out, threads=args.threads, progress=progress
        )
    _print_checkpoint(args.out, info)
    return DONE


def _run_report(args: Namespace) -> int:
    from ecgmon.pipelines.evaluation import model_card

    try:
        left_out = model_card.write(args.results, args.card)
    except model_card.CardError as error:
        return complain(error)
    print(f"{args.card}: written" + (f"; without results: {', '.join(left_out)}" if left_out else ""))
    return FAILED if left_out else DONE


def _print_checkpoint(out: Path, info: ModelInfo) -> None:
    print(f"{out}: {info.name}, {info.parameters} parameters, score measured on {info.score.beats} beats")


def _stopped(where: str = "", *, as_json: bool = False) -> int:
    text = f"stopped{where}; the same command continues from there"
    if as_json:
        complain(text)
    else:
        print(text)
    return INTERRUPTED
