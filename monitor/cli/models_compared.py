"""``ecgmon models compare``: two models beside each other, also on annotated records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecgmon.monitor.cli.model_card import card_table, described
from ecgmon.monitor.cli.printing import complain, span
from ecgmon.monitor.process.exit_status import DONE, INTERRUPTED

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from ecgmon.models.weights.registry import Registry
    from ecgmon.pipelines.evaluation.own import Figures


def add_arguments(parser: ArgumentParser, model_help: str) -> None:
    """Describe the command, except for the flags that all of ``ecgmon models`` has."""
    for name in ("first", "second"):
        parser.add_argument(name, metavar="MODEL", help=f"{model_help}; or a checkpoint file")
    parser.add_argument(
        "--db", type=Path, metavar="DIR", help="annotated WFDB record, or folder of such records, to measure both on"
    )
    parser.add_argument("--records", nargs="+", metavar="NAME", help="names of the records to use (default: all)")
    parser.add_argument(
        "--annotator", default="atr", metavar="SUFFIX", help="suffix of the annotation files (default: atr)"
    )
    parser.add_argument(
        "--patients", type=Path, metavar="FILE", help="patient of each record: CSV with the columns record and patient"
    )


def run(args: Namespace, registry: Registry) -> int:
    """Compare two models; errors of checkpoints are the caller's."""
    from ecgmon.models.weights.checkpoint import read_info
    from ecgmon.pipelines.sources.errors import SourceError
    from ecgmon.pipelines.training.dataset import DatasetError
    from ecgmon.pipelines.training.own import Stopped

    paths = [registry.checkpoint(text) for text in (args.first, args.second)]
    cards = [described(read_info(path)) for path in paths]
    try:
        figures = [] if args.db is None else [_figures(args, path) for path in paths]
    except Stopped as stopped:
        return complain(stopped, INTERRUPTED)
    except (DatasetError, SourceError, OSError) as error:
        return complain(error)
    differences = _differences(figures)
    if args.json:
        answer: dict[str, Any] = {"models": cards}
        if figures:
            answer |= {"figures": [found.dict() for found in figures], "differences": differences}
        print(json.dumps(answer))
        return DONE
    names = [args.first, args.second if args.second != args.first else f"{args.second} again"]
    card_table(dict(zip(names, cards, strict=True)))
    if figures:
        _show(names, figures, differences)
    return DONE


def _figures(args: Namespace, checkpoint: Path) -> Figures:
    from ecgmon.monitor.cli.training_progress import TrainingProgress
    from ecgmon.pipelines.evaluation import own

    db, records = args.db, args.records
    if not db.is_dir() and records is None:
        db, records = db.parent, [db.name]
    with TrainingProgress() as step:
        return own.evaluate(
            db, checkpoint, records=records, annotator=args.annotator, patients=args.patients, progress=step
        )


def _differences(figures: list[Figures]) -> dict[str, Any]:
    """Return the intervals of the second model's figures less the first's, over the same resamples of patients."""
    from ecgmon.pipelines.evaluation.bootstrap import PatientBootstrap, differences

    if not figures:
        return {}
    found = {}
    for name in ("score", "ax"):
        first, second = (
            PatientBootstrap.of(each.curves[name], each.curves["aami"], each.curves["patient"]) for each in figures
        )
        found[name] = differences(first, second)
    return found


def _show(names: list[str], figures: list[Figures], differences: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("")
    for column in (*names, "difference, 95 %"):
        table.add_column(column, overflow="fold")
    for name, text in (("score", "score"), ("ax", "A(x)")):
        for key in ("auc", "ap"):
            values = [_with_interval(getattr(found, name), key) for found in figures]
            table.add_row(f"{key.upper()} of the {text}" if name == "score" else f"{key.upper()} of {text}", *values,
                          span(differences[name][key]))  # fmt: skip
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    beats = sum(figures[0].scored.values())
    console.print(
        f"{beats} beats of {len(figures[0].records)} records and {figures[0].patients} patients, as streamed; intervals over "
        "patients. A model may have been trained on these beats"
    )


def _with_interval(separation: Any, key: str) -> str:  # noqa: ANN401 - Separation, without importing it
    value, interval = getattr(separation, key), getattr(separation, f"{key}_interval")
    return "-" if value is None else f"{value:.4f} ({span(interval)})" if interval else f"{value:.4f}"
