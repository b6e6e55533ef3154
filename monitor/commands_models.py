"""The commands ``train`` and ``evaluate``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monitor.commands_config import add_config_flags
from monitor.commands_roles import load_config

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_train(parser: ArgumentParser) -> None:
    """Add the arguments of ``ecgmon train``."""
    from pipelines.train_command import add_arguments

    parser.description = (
        "Make a model: prepare the beats of annotated records, train BeatGAN on the normal ones, calibrate its score, "
        "and write the checkpoint that [worker] weights takes."
    )
    add_arguments(parser)


def run_train(args: Namespace) -> int:
    """Run ``ecgmon train``."""
    from models.checkpoint import CheckpointError
    from pipelines.dataset import DatasetError
    from pipelines.source_errors import SourceError
    from pipelines.train_command import run
    from pipelines.training import TrainingError

    try:
        return run(args)
    except (TrainingError, DatasetError, SourceError, CheckpointError) as error:
        print(f"ecgmon: {error}", file=sys.stderr)
        return 1


def add_evaluate(parser: ArgumentParser) -> None:
    """Add the arguments of ``ecgmon evaluate``."""
    parser.description = "Measure against reference annotations what the daemon does with records."
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    stream = what.add_parser(
        "stream",
        help="beats (EC57), anomaly scores and alerts of every annotated record of a folder, as a stream has them",
        description=(
            "Stream every record of a folder that has reference annotations (.atr) through segmenter, scorer and alert "
            "rules, in chunks of one second, and compare: beats within 150 ms, without ventricular flutter, over whole "
            "records and without their first five minutes."
        ),
    )
    stream.add_argument("--db", type=Path, required=True, metavar="DIR", help="folder of annotated WFDB records")
    stream.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    add_config_flags(stream)


def run_evaluate(args: Namespace) -> int:
    """Run ``ecgmon evaluate``."""
    from models.checkpoint import CheckpointError
    from models.scoring import Scorer
    from monitor.evaluation import evaluate_stream
    from pipelines.source_errors import SourceError

    config = load_config(args)
    try:
        scorer = Scorer(Path(config.worker.weights) if config.worker.weights else None)
        found = evaluate_stream(args.db, scorer, config.alerts, progress=sys.stderr.isatty())
    except (CheckpointError, SourceError) as error:
        print(f"ecgmon: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(found))
    else:
        _show(found)
    return 0


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    table = Table()
    table.add_column("record", style="bold")
    for column in ("lead", "beats", "missed", "false", "Se %", "+P %", "F1 %", "offset ms (median, 95 %)"):
        table.add_column(column, justify="right")
    whole = {**found["qrs"], "lead": ""}
    for name, row in [*found["records"].items(), ("all", whole), ("after 5 min", found["qrs_after_learning"])]:
        offset = row.get("offset_seconds")
        table.add_row(
            name,
            row.get("lead", ""),
            str(row["tp"] + row["fn"]),
            str(row["fn"]),
            str(row["fp"]),
            *(_percent(row.get(key)) for key in ("sensitivity", "positive_predictivity", "f1")),
            "" if offset is None else f"{_ms(offset['median'])}, {_ms(offset['p95'])}",
        )
    console.print(table)
    delay = found["qrs"]["delay_seconds"]
    console.print(
        f"delay of a beat after its R peak: p50 {delay['p50']:.3f} s, p99 {delay['p99']:.3f} s, max {delay['max']:.3f} s"
    )
    anomaly = found["anomaly"]
    if anomaly["auc"] is not None:
        classes = ", ".join(f"{name} {value:.4f}" for name, value in anomaly["per_class"].items())
        console.print(
            f"score, abnormal against normal beats: AUC {anomaly['auc']:.4f}, AP {anomaly['ap']:.4f}; AUC by class: {classes}"
        )
    alerts = found["alerts"]
    kinds = ", ".join(f"{kind} {n['raised']} ({n['false']} false)" for kind, n in alerts["kinds"].items())
    console.print(
        f"alerts in {alerts['hours']:.1f} h: {kinds or 'none'}; {alerts['false_per_hour']:.2f} false per hour"
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.0f}"
