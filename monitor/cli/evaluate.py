"""``ecgmon evaluate``: beats, scores and alerts compared with reference annotations."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ecgmon.monitor.cli import ablation, own_records
from ecgmon.monitor.cli.configuration import add_config_flags, load_config
from ecgmon.monitor.cli.printing import complain, percent, span

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = "Compare the beats, scores and alerts of records with reference annotations."
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    stream = what.add_parser(
        "stream",
        help="detected beats (EC57), scores and alerts of every annotated record of a folder, computed as in a stream",
        description=(
            "Stream every annotated record of a folder through segmenter, scorer and alert rules, in chunks of one "
            "second, and compare the results with the annotations. Beats match within 150 ms. Ventricular flutter is "
            "left out. The figures are for whole records and without their first five minutes."
        ),
    )
    stream.add_argument("--db", type=Path, required=True, metavar="DIR", help="folder of annotated WFDB records")
    stream.add_argument(
        "--annotator", default="atr", metavar="SUFFIX", help="suffix of the annotation files (default: atr)"
    )
    stream.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    add_config_flags(stream)
    for name, text in _PROTOCOLS.items():
        protocol = what.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        protocol.add_argument("--db", type=Path, required=True, metavar="DIR", help="the MIT-BIH Arrhythmia Database")
        protocol.add_argument("--json", action="store_true", help="print one JSON object on standard output")
        protocol.add_argument(
            "--out", type=Path, metavar="DIR", help="folder for the results that 'ecgmon train report' reads"
        )
    ablation.add_arguments(what)
    own_records.add_evaluation(what)


_PROTOCOLS: Final = {
    "beatgan": "BeatGAN's protocol: five folds of the normal beats, each with its own generator and score",
    "inter-patient": "separate patients: train on the normal beats of DS1, test on all beats of DS2",
    "explanation": "whether the difference per tick shows the place of known distortions of normal beats",
}


def run(args: Namespace) -> int:
    """Evaluate; return 1 if an input cannot be used."""
    if args.what == "ablation":
        return ablation.run(args)
    if args.what == "records":
        return own_records.evaluate(args)
    return _evaluate_stream(args) if args.what == "stream" else _evaluate_protocol(args)


def _evaluate_protocol(args: Namespace) -> int:
    from rich.console import Console
    from rich.progress import Progress

    from ecgmon.models.weights.checkpoint import CheckpointError
    from ecgmon.pipelines.evaluation.protocols import STEPS, evaluate
    from ecgmon.pipelines.sources.errors import SourceError
    from ecgmon.pipelines.training.dataset import DatasetError
    from ecgmon.pipelines.training.mitdb import RECORDS

    try:
        with Progress(console=Console(stderr=True)) as progress:
            bar = progress.add_task("Reading records, running models", total=len(RECORDS) + STEPS[args.what])
            found = evaluate(args.what, args.db, done=lambda _: progress.advance(bar))
        if args.out is not None:
            found.store(args.out, args.what)
    except (CheckpointError, DatasetError, SourceError, OSError) as error:
        return complain(error)
    if args.json:
        print(json.dumps(found.figures))
    else:
        _show_protocol(args.what, found.figures)
    return 0


def _show_protocol(what: str, found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    table = Table()
    if what == "explanation":
        for column in ("distortion", "beats", "inside, plain error %", "inside, smoothed %", "inside, relative %"):
            table.add_column(column, justify="left" if column == "distortion" else "right")
        for name, row in [*found["distortions"].items(), ("mean", {"beats": "", **found["mean"]})]:
            shares = (percent(row[ranking]["inside"]) for ranking in ("error", "smoothed", "relative"))
            table.add_row(name, str(row["beats"]), *shares)
        console.print(table)
        return
    table.add_column("", style="bold")
    for column in ("AUC", "95 %", "AP", "95 %"):
        table.add_column(column, justify="right")
    rows = [("score", found["score"]), ("A(x) of the student", found["raw"])]
    rows += [("A(x) of the teacher, as recorded", found["teacher_raw"])] if found["teacher_raw"] else []
    rows += [(f"score without {what}", row) for what, row in found["without"].items()]
    intervals = {"score": found["intervals"]["score"], "A(x) of the student": found["intervals"]["raw"]}
    for name, row in rows:
        own = intervals.get(name, {})
        table.add_row(name, *(cell for key in ("auc", "ap") for cell in (_with_spread(row[key]), span(own.get(key)))))
    console.print(table)
    console.print(
        f"95 %: interval of the mean over {found['intervals']['patients']} patients, "
        f"from {found['intervals']['resamples']} resamples"
    )
    console.print("AUC of the score by class: " + ", ".join(f"{k} {v:.4f}" for k, v in found["per_class"].items()))
    if "without_232" in found:
        light = found["without_232"]
        console.print(
            f"without record 232: AUC {light['auc']:.4f}, AP {light['ap']:.4f}, S {light['per_class']['S']:.4f}"
        )
    model = found["model"]
    console.print(f"generator: {model['parameters']:,} parameters, {model['multiply_adds']:,} multiply-adds a beat")


def _with_spread(figure: dict[str, float | None]) -> str:
    spread = "" if figure["std"] is None else f" ± {figure['std']:.4f}"
    return f"{figure['mean']:.4f}{spread}"


def _evaluate_stream(args: Namespace) -> int:
    from ecgmon.models.inference.reconstruction import Scorer
    from ecgmon.models.weights.checkpoint import CheckpointError
    from ecgmon.monitor.offline.evaluation import evaluate_stream
    from ecgmon.pipelines.sources.errors import SourceError

    config = load_config(args)
    try:
        scorer = Scorer(Path(config.worker.weights) if config.worker.weights else None)
        found = evaluate_stream(args.db, scorer, config.alerts, annotator=args.annotator, progress=sys.stderr.isatty())
    except (CheckpointError, SourceError) as error:
        return complain(error)
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
            *(percent(row.get(key)) for key in ("sensitivity", "positive_predictivity", "f1")),
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
        if light := anomaly["without_q"]:
            console.print(f"without paced and unclassifiable beats (Q): AUC {light['auc']:.4f}, AP {light['ap']:.4f}")
    alerts = found["alerts"]
    kinds = ", ".join(f"{kind} {n['raised']} ({n['false']} false)" for kind, n in alerts["kinds"].items())
    console.print(
        f"alerts in {alerts['hours']:.1f} h: {kinds or 'none'}; {alerts['false_per_hour']:.2f} false per hour"
    )


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.0f}"
