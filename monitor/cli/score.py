"""``ecgmon score``: records scored without a daemon."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentTypeError
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ecgmon.monitor.cli import arguments
from ecgmon.monitor.cli.alert_table import print_alerts
from ecgmon.monitor.cli.offline import add_common_flags, load_scorer, model_object, progress_bar
from ecgmon.monitor.cli.printing import complain

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from ecgmon.models.inference.reconstruction import Scorer
    from ecgmon.monitor.offline.score_files import ScoreFiles
    from ecgmon.pipelines.sources.finding import RecordRef

FORMATS: Final = ("wfdb", "csv", "parquet")
"""Formats that ``score`` can write."""


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Score every beat of WFDB records offline. The beats and scores are those that the daemon would store. "
        + arguments.RECORD_HELP
    )
    parser.epilog = (
        "Files: RECORD.ecg is a WFDB annotation file with the symbol N for a beat below the threshold, Q for one at or "
        "above it, ? for one that is not scored, and the score in the auxiliary note. RECORD.csv and RECORD.parquet have "
        "the columns seq, sample, seconds, rr, rr_ratio, rr_after, rr_after_ratio, rate (beats per minute), quality, "
        "ax (the anomaly score A(x)), score, anomalous. "
        "Exit status: 0 all records done, 1 a record failed, 2 wrong usage."
    )
    parser.add_argument("records", nargs="+", metavar="RECORD", help="path, folder or name of a record")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR",
        help="folder for the files; it is created if missing, and files in it are replaced",
    )  # fmt: skip
    parser.add_argument(
        "--format", type=_formats, default=("wfdb", "csv"), metavar="A,B",
        help=f"formats to write, of {', '.join(FORMATS)} (default: wfdb,csv)",
    )  # fmt: skip
    parser.add_argument(
        "--start", type=arguments.time, default=0.0, metavar="TIME",
        help=f"where to begin: {arguments.TIME_HELP} (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--stop", type=arguments.time, metavar="TIME", help="where to end (default: at the record's end)"
    )
    parser.add_argument(
        "--alerts", action="store_true",
        help="also list the alerts that the daemon would raise by its default rules (--json always has them)",
    )  # fmt: skip
    add_common_flags(parser)


def run(args: Namespace) -> int:
    """Score records; return 1 if a record failed, completely or from some sample on."""
    from ecgmon.pipelines.sources.finding import resolve_each

    refs, failed = resolve_each(args.records)
    errors = {name: str(error) for name, error in failed.items()}
    for text in errors.values():
        complain(text)
    scorer = load_scorer(args)
    if scorer is None:
        return 1
    from ecgmon.models.inference.reconstruction import ScoringError
    from ecgmon.pipelines.offline.files import OutputError
    from ecgmon.pipelines.segmentation.segmenter import SegmentationError
    from ecgmon.pipelines.sources.errors import SourceError

    found: dict[str, ScoreFiles] = {}
    for ref in refs:
        try:
            found[ref.stream] = _score(ref, scorer, args)
        except (SourceError, SegmentationError, ScoringError, OutputError) as error:
            errors[ref.stream] = str(error)
            complain(error)
            continue
        if (failure := found[ref.stream].scored.failure) is not None:
            errors[ref.stream] = str(failure)
            complain(failure)
    records = {stream: one.as_json() for stream, one in found.items()}
    if args.json:
        answer = {"threshold": args.threshold, "model": model_object(scorer), "records": records, "errors": errors}
        print(json.dumps(answer))
    else:
        _show(records)
        if args.alerts:
            print_alerts((stream, alert) for stream, one in found.items() for alert in one.alerts)
    return 1 if errors else 0


def _score(ref: RecordRef, scorer: Scorer, args: Namespace) -> ScoreFiles:
    """Score one record and write its files."""
    from ecgmon.monitor.offline.score_files import write_scores
    from ecgmon.pipelines.sources.record import open_source

    source = open_source(ref, leads=args.leads, start=args.start, stop=args.stop)
    with progress_bar(source) as advance:
        found = write_scores(source, scorer, args.out, formats=args.format, threshold=args.threshold, progress=advance)
    for note in found.notes:
        print(f"{source.stream}: {note}", file=sys.stderr)
    return found


def _show(records: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    table.add_column("record", style="bold")
    table.add_column("lead")
    for column in ("minutes", "beats", "anomalous", "not scored", "alerts"):
        table.add_column(column, justify="right")
    for stream, record in records.items():
        table.add_row(
            stream,
            record["lead"],
            f"{record['seconds'] / 60:.1f}",
            str(record["beats"]),
            str(record["anomalous"]),
            str(record["unscored"]),
            str(len(record["alerts"])),
        )
    if records:
        Console().print(table)
    for record in records.values():
        for file in record["files"]:
            print(file)


def _formats(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in FORMATS:
            raise ArgumentTypeError(f"{name!r} is not a format; expected some of {','.join(FORMATS)}")
    return names
