"""``ecgmon train own`` and ``ecgmon evaluate records``: a user's own annotated records."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ecgmon.monitor.cli.picture_file import write_picture
from ecgmon.monitor.cli.printing import complain, percent, span
from ecgmon.monitor.process.exit_status import DONE, INTERRUPTED

if TYPE_CHECKING:
    import argparse

    from ecgmon.pipelines.evaluation.own import Figures
    from ecgmon.pipelines.training.splits import Rule

_SHOWN_LEFT_OUT = 10  # lines


def add_training(steps: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand ``own`` to those of ``ecgmon train``; :func:`train` runs it."""
    parser = steps.add_parser(
        "own",
        help="train a model on your own annotated records; resumes a training in --work",
        description=(
            "Train a model on the normal beats of annotated WFDB records: prepare, train, fit the score, and write the checkpoint "
            "that [worker] weights takes. Records can have any name and any sampling frequency from 100 to 1000 Hz."
        ),
    )
    _add_records(parser)
    parser.add_argument(
        "--work", type=Path, required=True, metavar="DIR",
        help="folder for the data set and the trainings; existing ones are resumed",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="checkpoint to write")
    parser.add_argument(
        "--epochs",
        type=int,
        metavar="N",
        help="passes over the training beats (default: 40, more if there are few beats)",
    )
    parser.add_argument("--device", default="cpu", help="where torch computes: cpu, cuda, cuda:1 (default: cpu)")
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N",
        help="threads on a CPU (default: 1); the weights depend on their number, because sums round differently",
    )  # fmt: skip


def add_evaluation(what: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand ``records`` to those of ``ecgmon evaluate``; :func:`evaluate` runs it."""
    parser = what.add_parser(
        "records",
        help="AUC and average precision on your own annotated records; with --split or --test-share, on the test part",
        description=(
            "Stream annotated WFDB records through segmenter and scorer, and measure how well the score and A(x) separate "
            "abnormal from normal beats, and how well beats are detected. The 95 % intervals come from resampling patients."
        ),
    )
    _add_records(parser)
    parser.add_argument("--weights", type=Path, metavar="FILE", help="checkpoint (default: the shipped one)")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="PNG to write: ROC and precision-recall curves with 95 %% bands"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def _add_records(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--db", type=Path, required=True, metavar="DIR", help="folder of annotated WFDB records, also in sub-folders"
    )
    parser.add_argument(
        "--records", nargs="+", metavar="NAME", help="names of the records to use (default: all that have beats)"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--annotator", default="atr", metavar="SUFFIX", help="suffix of the annotation files (default: atr)"
    )
    source.add_argument(
        "--beats", type=Path, metavar="FILE",
        help="table of beats instead of annotation files: CSV or Parquet with record, sample or time (s), symbol or label",
    )  # fmt: skip
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument(
        "--split",
        type=Path,
        metavar="FILE",
        help="parts for training, validation and test: TOML, or CSV with the columns record or patient, and part",
    )
    parts.add_argument(
        "--test-share", type=float, metavar="X", help="draw this share at random for the test, such as 0.2"
    )
    parser.add_argument(
        "--by", choices=("patient", "record", "beat"), default="patient", help="unit that is drawn (default: patient)"
    )
    parser.add_argument(
        "--patients", type=Path, metavar="FILE", help="patient of each record: CSV with the columns record and patient"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of all random numbers (default: 0)")


def _rule(args: argparse.Namespace) -> Rule | Path | None:
    from ecgmon.pipelines.training.splits import Drawn

    if args.test_share is not None:
        return Drawn(args.test_share, args.by, args.seed)
    split: Path | None = args.split
    return split


def train(args: argparse.Namespace) -> int:
    """Run ``ecgmon train own``; the caller handles errors and Ctrl-C."""
    from ecgmon.monitor.cli.training_progress import TrainingProgress
    from ecgmon.pipelines.training import own
    from ecgmon.pipelines.training.dataset import load

    with TrainingProgress() as step:
        info = own.train(
            args.db, args.out, split=_rule(args), annotator=args.annotator, beats=args.beats, records=args.records,
            patients=args.patients, epochs=args.epochs, seed=args.seed, work=args.work, device=args.device,
            threads=args.threads, progress=step,
        )  # fmt: skip
    dataset = load(args.work / "data")
    _show_left_out(dataset.left_out)
    counts = ", ".join(f"{count} {name}" for name, count in dataset.about["counts"].items())
    print(
        f"{args.out}: {info.name}, {info.parameters} parameters, score measured on {info.score.beats} beats; "
        f"{len(dataset.records)} records with {counts} beats"
    )
    return DONE


def evaluate(args: argparse.Namespace) -> int:
    """Run ``ecgmon evaluate records``.

    Returns
    -------
    int
        Exit status: 0, 1 if an input cannot be used, 130 after Ctrl-C.
    """
    from ecgmon.models.weights.checkpoint import CheckpointError
    from ecgmon.monitor.cli.training_progress import TrainingProgress
    from ecgmon.pipelines.evaluation import own
    from ecgmon.pipelines.sources.errors import SourceError
    from ecgmon.pipelines.training.dataset import DatasetError
    from ecgmon.pipelines.training.own import Stopped

    try:
        with TrainingProgress() as step:
            found = own.evaluate(
                args.db, args.weights, split=_rule(args), annotator=args.annotator, beats=args.beats, records=args.records,
                patients=args.patients, progress=step,
            )  # fmt: skip
    except Stopped as stopped:
        return complain(stopped, INTERRUPTED)
    except (CheckpointError, DatasetError, SourceError, OSError) as error:
        return complain(error)
    if args.json:
        print(json.dumps(found.dict()))
    else:
        _show(found)
    if args.plot is None:
        return DONE
    try:
        return write_picture(args.plot, "--plot", lambda path: found.plot().savefig(path))
    except DatasetError as error:
        return complain(error)


def _show(found: Figures) -> None:
    from rich.console import Console
    from rich.table import Table

    _show_left_out(found.left_out)
    console = Console(highlight=False, soft_wrap=True)
    table = Table()
    for column in ("", "beats", "scored", "AUC of the score", "AUC of A(x)", "score at least 2, %"):
        table.add_column(column, justify="right" if column else "left")
    for name, beats in found.beats.items():
        share = found.over_threshold[name]
        if beats:
            figures = (_four(part.per_class.get(name)) for part in (found.score, found.ax))
            table.add_row(name, str(beats), str(found.scored[name]), *figures, percent(share))
    table.add_row(
        "all abnormal",
        str(sum(found.beats.values()) - found.beats["N"]),
        str(sum(found.scored.values()) - found.scored["N"]),
        _four(found.score.auc),
        _four(found.ax.auc),
        "",
    )
    console.print(table)
    console.print(f"average precision: score {_four(found.score.ap)}, A(x) {_four(found.ax.ap)}")
    if found.score.auc_interval is not None:
        console.print(
            f"95 % intervals over {found.patients} patients: score, AUC {span(found.score.auc_interval)}, "
            f"AP {span(found.score.ap_interval)}; A(x), AUC {span(found.ax.auc_interval)}, AP {span(found.ax.ap_interval)}"
        )
    if found.detection is not None:
        se, p = (found.detection[key] for key in ("sensitivity", "positive_predictivity"))
        console.print(
            f"beats found (EC57): Se {percent(se)} %, +P {percent(p)} %; {found.detection['fn']} missed, {found.detection['fp']} false"
        )
    whose = "the test part" if found.part == "test" else "all beats, including the training beats of the model"
    console.print(f"{len(found.records)} records, {whose}; model {found.model}")


def _show_left_out(left_out: dict[str, str]) -> None:
    for why in list(left_out.values())[:_SHOWN_LEFT_OUT]:
        print(f"left out: {why}", file=sys.stderr)
    if len(left_out) > _SHOWN_LEFT_OUT:
        print(f"left out: {len(left_out) - _SHOWN_LEFT_OUT} more records", file=sys.stderr)


def _four(share: float | None) -> str:
    return "-" if share is None else f"{share:.4f}"
