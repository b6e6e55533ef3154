"""``ecgmon evaluate ablation``: what each group of features contributes to the score."""

from __future__ import annotations

import json
import tempfile
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
            "and the same as a stream. Takes half an hour on one core."
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
    from ecgmon.pipelines.training import fitting, mitdb
    from ecgmon.pipelines.training.dataset import DatasetError
    from ecgmon.pipelines.training.fitting import TrainingError

    try:
        for half in args.halves:
            fitting.trained(half)  # before the records are read, which takes longer
    except TrainingError as error:
        return complain(error)
    fits = len(ablation.LEFT_OUT) * (len(args.folds) + 2)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="ecgmon-ablation-") as folder,
            Progress(console=Console(stderr=True)) as progress,
        ):
            bar = progress.add_task("reading records", total=len(mitdb.RECORDS) + fits)
            dataset = mitdb.prepare(args.db, Path(folder), done=lambda _: progress.advance(bar))
            found = ablation.evaluate(
                dataset, args.db, args.halves, folds=args.folds,
                done=lambda what: progress.update(bar, advance=1, description=what),
            )  # fmt: skip
        if args.out is not None:
            args.out.mkdir(parents=True, exist_ok=True)
            with_splits = {"splits": list(args.folds), **found}
            (args.out / "score-ablation.json").write_text(json.dumps(with_splits, indent=1) + "\n")
    except (CheckpointError, DatasetError, SourceError, TrainingError, OSError) as error:
        return complain(error)
    if args.json:
        print(json.dumps(found))
    else:
        _show(found)
    return 0


def _show(found: dict[str, dict[str, dict[str, float]]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    table.add_column("score without", style="bold")
    for column in _COLUMNS.values():
        table.add_column(f"{column}: AUC", justify="right")
        table.add_column("AP", justify="right")
    for name in next(iter(found.values())):
        cells: list[Any] = [found[way][name][key] for way in _COLUMNS for key in ("auc", "ap")]
        table.add_row(name, *(f"{cell:.4f}" for cell in cells))
    Console(highlight=False, soft_wrap=True).print(table)
