"""The commands ``score`` and ``explain``: records scored without a daemon."""

from __future__ import annotations

import json
import math
import sys
from argparse import ArgumentTypeError
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ecgmon.monitor.cli.alert_table import print_alerts
from ecgmon.monitor.cli.arguments import above_zero
from ecgmon.monitor.config.schema import AlertSettings

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable, Iterator

    from ecgmon.models.inference.reconstruction import Scorer
    from ecgmon.monitor.core.alerts import Alert
    from ecgmon.pipelines.offline.explanation import Explanation
    from ecgmon.pipelines.sources.record import RecordSource

FORMATS: Final = ("wfdb", "csv", "parquet")
"""What ``score`` can write."""

_RECORD_HELP: Final = (
    "A RECORD is a path, a folder of records, or a name such as 208 or mitdb/208, looked for in ECGMON_MITDB, "
    "in ../shared/mitdb, then downloaded. `toy` is the built-in record."
)


def add_score(parser: ArgumentParser) -> None:
    """Add the arguments of ``ecgmon score``."""
    parser.description = (
        "Score every beat of WFDB records offline. The beats and scores are those that the daemon would store. "
        + _RECORD_HELP
    )
    parser.epilog = (
        "Files: RECORD.ecg, a WFDB annotation file (N under the threshold, Q at or over it, ? not scored; the score "
        "in the auxiliary note); RECORD.csv and RECORD.parquet with the columns seq, sample, seconds, rr, rr_ratio, "
        "rr_after, rr_after_ratio, rate (beats a minute), quality, ax (the anomaly score A(x)), score, anomalous. Exit status: 0 all records done, 1 a record failed, 2 wrong usage."
    )
    parser.add_argument("records", nargs="+", metavar="RECORD", help="path, folder or name of a record")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the files; made if need be, files in it are replaced",
    )
    parser.add_argument(
        "--format",
        type=_formats,
        default=("wfdb", "csv"),
        metavar="A,B",
        help=f"what to write, of {', '.join(FORMATS)} (default: wfdb,csv)",
    )
    parser.add_argument(
        "--start", type=_time, default=0.0, metavar="TIME", help="where to begin: seconds, MM:SS or HH:MM:SS"
    )
    parser.add_argument("--stop", type=_time, metavar="TIME", help="where to end")
    parser.add_argument(
        "--alerts",
        action="store_true",
        help="also list the alerts that the daemon would raise by its default rules (--json always has them)",
    )
    _add_common(parser)


def add_explain(parser: ArgumentParser) -> None:
    """Add the arguments of ``ecgmon explain``."""
    parser.description = (
        "Draw the beat next to a time: the strip around it, the beat enlarged, what the generator makes of it, and where "
        "in the beat the difference lies. " + _RECORD_HELP
    )
    parser.epilog = "Exit status: 0 drawn, 1 the record or the beat is not there, 2 wrong usage."
    parser.add_argument("record", metavar="RECORD", help="path or name of one record")
    parser.add_argument(
        "--at", type=_time, required=True, metavar="TIME", help="time in the record: seconds, MM:SS or HH:MM:SS"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="PNG to write (default: RECORD-beat-N.png here)")
    _add_common(parser)


def _add_common(parser: ArgumentParser) -> None:
    parser.add_argument("--leads", type=_leads, metavar="A,B", help="leads to read, by name or number (default: all)")
    parser.add_argument(
        "--threshold",
        type=_threshold,
        default=AlertSettings().score_threshold,
        metavar="SCORE",
        help="score from which a beat is anomalous (default: %(default)s, as [alerts] score_threshold)",
    )
    parser.add_argument("--weights", type=Path, metavar="FILE", help="checkpoint (default: the one that is shipped)")
    parser.add_argument("--device", default="cpu", help="where torch computes, such as cuda (default: cpu)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def run_score(args: Namespace) -> int:
    """Run ``ecgmon score``.

    Returns
    -------
    int
        Exit status: 0, or 1 where a record failed, wholly or from some sample on.
    """
    from ecgmon.pipelines.sources.finding import resolve_each

    refs, failed = resolve_each(args.records)
    errors = {name: str(error) for name, error in failed.items()}
    for text in errors.values():
        _complain(text)
    scorer = _scorer(args)
    if scorer is None:
        return 1
    from ecgmon.models.inference.reconstruction import ScoringError
    from ecgmon.pipelines.offline.files import OutputError
    from ecgmon.pipelines.segmentation.segmenter import SegmentationError
    from ecgmon.pipelines.sources.errors import SourceError
    from ecgmon.pipelines.sources.record import open_source

    records: dict[str, dict[str, Any]] = {}
    alerts: list[tuple[str, Alert]] = []
    for ref in refs:
        try:
            source = open_source(ref, leads=args.leads, start=args.start, stop=args.stop)
            records[ref.stream], raised = _score(source, scorer, args)
            alerts += [(ref.stream, alert) for alert in raised]
        except (SourceError, SegmentationError, ScoringError, OutputError) as error:
            errors[ref.stream] = str(error)
            _complain(str(error))
            continue
        if records[ref.stream]["failure"] is not None:
            errors[ref.stream] = records[ref.stream]["failure"]
            _complain(errors[ref.stream])
    answer = {"threshold": args.threshold, "model": _model(scorer), "records": records, "errors": errors}
    if args.json:
        print(json.dumps(answer))
    else:
        _show_scores(records)
        if args.alerts:
            print_alerts(alerts)
    return 1 if errors else 0


def run_explain(args: Namespace) -> int:
    """Run ``ecgmon explain``.

    Returns
    -------
    int
        Exit status: 0, or 1 where there is no such record or beat, or the picture cannot be written.
    """
    from ecgmon.pipelines.sources.errors import SourceError
    from ecgmon.pipelines.sources.finding import resolve

    try:
        refs = resolve([args.record])
    except SourceError as error:
        return _complain(str(error))
    if len(refs) != 1:
        return _complain(f"{args.record}: this folder has {len(refs)} records; name one of them")
    scorer = _scorer(args)
    if scorer is None:
        return 1
    from ecgmon.models.inference.reconstruction import ScoringError
    from ecgmon.pipelines.offline.explanation import explain_beat
    from ecgmon.pipelines.segmentation.segmenter import SegmentationError
    from ecgmon.pipelines.sources.record import open_source

    try:
        source = open_source(refs[0], leads=args.leads)
        with _progress(source) as advance:
            explanation = explain_beat(source, scorer, args.at, progress=advance)
    except (SourceError, SegmentationError, ScoringError) as error:
        return _complain(str(error))
    name = f"{explanation.stream.replace('/', '-')}-beat-{explanation.seq}.png"
    path = args.out or Path(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _draw(path, explanation, args.threshold)
    except ImportError:
        return _complain("pictures need the package matplotlib, which is missing; pip install 'ecgmon[plot]'")
    except OSError as error:
        return _complain(f"{path} cannot be written: {error.strerror or error}; choose another file with --out")
    _show_explanation(explanation, path, args, scorer)
    return 0


def _score(source: RecordSource, scorer: Scorer, args: Namespace) -> tuple[dict[str, Any], list[Alert]]:
    """Score one record, write its files, and return what ``--json`` says about it, and its alerts."""
    import numpy as np

    from ecgmon.monitor.offline.alerts import alerts_of
    from ecgmon.pipelines.offline.files import write_annotations, write_csv, write_parquet
    from ecgmon.pipelines.offline.record import score_record

    for note in source.notes:
        print(f"{source.stream}: {note}", file=sys.stderr)
    with _progress(source) as advance:
        scored = score_record(source, scorer, progress=advance)
    if scored.substituted:
        print(f"{source.stream}: no lead MLII or II, so lead {scored.lead} is scored in its place", file=sys.stderr)
    writers: dict[str, Callable[[], Path]] = {
        "wfdb": lambda: write_annotations(args.out, scored, args.threshold),
        "csv": lambda: write_csv(args.out, scored, args.threshold),
        "parquet": lambda: write_parquet(args.out, scored, args.threshold, scorer.info.fingerprint),
    }
    files = [str(writers[name]()) for name in args.format]
    alerts = alerts_of(scored, AlertSettings(score_threshold=args.threshold))
    answer = {
        "lead": scored.lead,
        "fs": scored.fs,
        "seconds": scored.samples / scored.fs,
        "beats": len(scored.beats),
        "anomalous": int(np.count_nonzero(scored.score >= args.threshold)),
        "unscored": int(np.count_nonzero(np.isnan(scored.score))),
        "quality_seconds": {quality.name.lower(): count for quality, count in scored.quality_seconds.items()},
        "alerts": [msgspec.to_builtins(alert) for alert in alerts],
        "files": files,
        "notes": list(source.notes),
        "failure": None if scored.failure is None else str(scored.failure),
    }
    return answer, alerts


def _show_scores(records: dict[str, dict[str, Any]]) -> None:
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


def _draw(path: Path, explanation: Explanation, threshold: float) -> None:
    from ecgmon.pipelines.offline.pictures import draw_strip

    draw_strip(path, *explanation.drawn, threshold=threshold)


def _show_explanation(explanation: Explanation, path: Path, args: Namespace, scorer: Scorer) -> None:
    from ecgmon.pipelines.offline.pictures import meaning
    from ecgmon.pipelines.sources.record import format_time

    if args.json:
        answer = {
            "stream": explanation.stream,
            "lead": explanation.lead,
            "seq": explanation.seq,
            "seconds": explanation.seconds,
            "score": _number(explanation.score),
            "anomalous": explanation.score >= args.threshold,
            "ax": _number(explanation.ax),
            "largest_error_seconds": explanation.largest_error_seconds,
            "rr": _number(explanation.rr),
            "rr_ratio": _number(explanation.rr_ratio),
            "quality": explanation.quality.name.lower(),
            "threshold": args.threshold,
            "model": _model(scorer),
            "picture": str(path),
        }
        print(json.dumps(answer))
        return
    where = f"{explanation.stream}, beat {explanation.seq} at {format_time(explanation.seconds)}"
    print(f"{where}: score {explanation.score:.2f}. {meaning(explanation.score)}\n{path}")


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _model(scorer: Scorer) -> dict[str, str]:
    return {"name": scorer.info.name, "fingerprint": scorer.info.fingerprint}


def _scorer(args: Namespace) -> Scorer | None:
    """Load the model; None, with a message, where it cannot be used."""
    from ecgmon.models.inference.reconstruction import Scorer
    from ecgmon.models.weights.checkpoint import CheckpointError

    try:
        return Scorer(args.weights, device=args.device)
    except CheckpointError as error:
        _complain(str(error))
    except (RuntimeError, AssertionError) as error:  # how torch says that there is no such device
        _complain(f"--device {args.device} cannot be used ({str(error).splitlines()[0]}); choose cpu")
    return None


@contextmanager
def _progress(source: RecordSource) -> Iterator[Callable[[int], None]]:
    """Show a progress bar for one record on standard error."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(source.stream, total=source.length)

        def advance(samples: int) -> None:
            bar.update(task, completed=samples)

        yield advance


def _complain(text: str) -> int:
    """Say what is wrong, in one line; return the exit status for it."""
    print(f"ecgmon: {text}", file=sys.stderr)
    return 1


def _time(text: str) -> float:
    from ecgmon.pipelines.sources.errors import RangeError
    from ecgmon.pipelines.sources.record import parse_time

    try:
        return parse_time(text)
    except RangeError as error:
        raise ArgumentTypeError(str(error)) from error


def _formats(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in FORMATS:
            raise ArgumentTypeError(f"{name!r} is not a format; expected some of {','.join(FORMATS)}")
    return names


def _leads(text: str) -> tuple[str, ...]:
    leads = tuple(lead.strip() for lead in text.split(","))
    if not all(leads):
        raise ArgumentTypeError(f"{text!r} has an empty name in it; expected names or numbers, such as MLII,V1")
    return leads


def _threshold(text: str) -> float:
    return above_zero(text, "is not a threshold; expected a score above 0, such as 3")
