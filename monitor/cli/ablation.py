"""``ecgmon evaluate ablation``: what each group of features contributes to the score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecgmon.monitor.cli.printing import complain
from ecgmon.pipelines.training.mitdb import FOLD_NAMES

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction

_COLUMNS = {"folds": "folds", "apart": "patients apart", "streamed": "streamed"}


def add_arguments(what: _SubParsersAction[ArgumentParser]) -> None:
    """Describe the evaluation."""
    parser = what.add_parser(
        "ablation",
        help="the score without A(x), the rhythm or the stream's own beats, fitted again each time",
        description=(
            "Fit the score again without a group of features, and measure it on BeatGAN's folds, with patients apart "
            "and the same as a stream. Each fold has five fits, of a minute or two each on one core."
        ),
    )
    parser.add_argument("--db", type=Path, required=True, metavar="DIR", help="the MIT-BIH Arrhythmia Database")
    parser.add_argument(
        "--halves", type=Path, nargs=2, required=True, metavar="DIR",
        help="folders of the trainings half-ds1-a and half-ds1-b, made by 'ecgmon train plan halves'",
    )  # fmt: skip
    parser.add_argument(
        "--folds", nargs="+", choices=FOLD_NAMES, default=FOLD_NAMES, metavar="FOLD",
        help=f"some of {', '.join(FOLD_NAMES)} (default: all)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the results that 'ecgmon train report' reads"
    )


def run(args: Namespace) -> int:
    """Evaluate; return 1 if an input cannot be used."""
    from rich.console import Console
    from rich.progress import Progress

    from ecgmon.models.weights.checkpoint import CheckpointError
    from ecgmon.pipelines.evaluation import ablation
    from ecgmon.pipelines.sources.errors import SourceError
    from ecgmon.pipelines.training.dataset import DatasetError
    from ecgmon.pipelines.training.fitting import TrainingError

    try:
        with Progress(console=Console(stderr=True)) as progress:
            bar = progress.add_task("Reading records, fitting scores", total=ablation.steps_of(args.folds))
            found = ablation.evaluate(args.db, args.halves, folds=args.folds, done=lambda _: progress.advance(bar))
        if args.out is not None:
            found.store(args.out, "score-ablation")
    except (CheckpointError, DatasetError, SourceError, TrainingError, OSError) as error:
        return complain(error)
    if args.json:
        print(json.dumps(found.figures))
    else:
        _show(found.figures)
    return 0


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    table.add_column("score without", style="bold")
    for column in _COLUMNS.values():
        table.add_column(f"{column}: AUC", justify="right")
        table.add_column("AP", justify="right")
    for name in found["folds"]:
        cells = [found[way][name][key] for way in _COLUMNS for key in ("auc", "ap")]
        table.add_row(name, *(f"{cell:.4f}" for cell in cells))
    Console(highlight=False, soft_wrap=True).print(table)
