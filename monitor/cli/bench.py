"""The command ``bench``: speed as a ratio against a reference in the same run."""

from __future__ import annotations

import json
import sys
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ecgmon.monitor.cli.arguments import above_zero

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from ecgmon.pipelines.sources.finding import RecordRef


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = "Measure speed, against references that run between the repeats; docs/performance.md explains."
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="OLD.json",
        help="show what changed since an older one; without WHAT: measure again what that was of",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    what = parser.add_subparsers(dest="what", metavar="WHAT")

    segment = what.add_parser("segment", help="detecting and cutting beats, on one core, against xqrs and sleepecg")
    _add_records(segment, ["toy"])
    segment.add_argument("--repeats", type=_count, default=5, metavar="N", help="measurements (default: %(default)s)")
    segment.add_argument(
        "--streams", type=_count, default=1000, metavar="N", help="live streams (default: %(default)s)"
    )

    pipeline = what.add_parser("pipeline", help="records from disk to stored scores, real processes, full speed")
    _add_records(pipeline)
    pipeline.add_argument("--repeats", type=_count, default=5, metavar="N", help="measurements (default: %(default)s)")
    pipeline.add_argument(
        "--loop", type=_count, metavar="N", help="times that a record is played (default: until a day is played)"
    )
    pipeline.add_argument("--workers", type=_count, default=1, metavar="N", help="processes (default: %(default)s)")
    pipeline.add_argument(
        "--batch", type=_count, default=1024, metavar="N", help="most beats in a batch (default: %(default)s)"
    )

    live = what.add_parser("live", help="streams at the pace of real time: latency, processor, memory, what is dropped")
    _add_records(live, ["toy"])
    live.add_argument("--streams", type=_count, default=1000, metavar="N", help="live streams (default: %(default)s)")
    live.add_argument(
        "--seconds", type=above_zero, default=60.0, metavar="S", help="time measured (default: %(default)s)"
    )
    live.add_argument("--curve", action="store_true", help="from ten streams to the first number that is not held")

    worker = what.add_parser(
        "worker",
        help="scoring alone, by batch size, in every form that was tried; needs torch, numpy, safetensors only",
    )
    worker.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where (default: %(default)s)")
    worker.add_argument("--repeats", type=_count, default=5, metavar="N", help="measurements (default: %(default)s)")

    store = what.add_parser("store", help="durable commits by size, bytes of a beat, questions to a large store")
    store.add_argument(
        "--large", type=_count, default=0, metavar="N", help="ask a store of N beats, some 70 bytes each"
    )
    store.add_argument("--folder", type=Path, metavar="DIR", help="on which disk (default: that of temporary files)")

    start = what.add_parser("start", help="from the command to its answer, and to a daemon that scores")
    start.add_argument("--repeats", type=_count, default=5, metavar="N", help="measurements (default: %(default)s)")

    growth = what.add_parser("growth", help="speed against streams, workers, batch limit and length of records")
    _add_records(growth)

    soak = what.add_parser("soak", help="memory over a long time at full speed")
    _add_records(soak)
    soak.add_argument("--minutes", type=above_zero, default=30.0, metavar="M", help="how long (default: %(default)s)")

    report = what.add_parser("report", help="write the page and its pictures from measurements kept as JSON")
    report.add_argument("--results", type=Path, default=Path("results/bench"), metavar="DIR", help="where they are")
    report.add_argument("--out", type=Path, default=Path("docs/performance.md"), metavar="FILE", help="the page")

    for name, one in what.choices.items():
        if name != "report":
            one.description = f"Measure {one.description or name}."
            # No default, so that what stands before WHAT is not undone
            one.add_argument(
                "--json", action="store_true", default=SUPPRESS, help="print one JSON object on standard output"
            )
            one.add_argument(
                "--compare",
                type=Path,
                default=SUPPRESS,
                metavar="OLD.json",
                help="show what changed since an older one",
            )


def _add_records(parser: ArgumentParser, default: Sequence[str] = ()) -> None:
    what = "the built-in one" if default else "eight half hours of the built-in one, written to disk"
    parser.add_argument(
        "records", nargs="*", default=list(default), metavar="RECORD", help=f"records to run on (default: {what})"
    )


def _count(text: str) -> int:
    """Read a number of things, of which there has to be one."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ArgumentTypeError(f"{text!r} is no number from 1 on")
    return number


def run(args: Namespace) -> int:
    """Run ``ecgmon bench``; 1 if it cannot be measured."""
    if args.what is None:
        if args.compare is None:
            print("ecgmon: name what to measure, or an older measurement: ecgmon bench --help", file=sys.stderr)
            return 2
        try:
            args = _again(args.compare, as_json=args.json)
        except (OSError, ValueError) as error:
            return _complain(error)
    if args.what == "worker":  # before anything is imported that a bare GPU machine has not
        return _run_worker(args)
    from ecgmon.monitor.bench.plots import PlotError
    from ecgmon.monitor.bench.report import ReportError, write
    from ecgmon.monitor.bench.rig import BenchError
    from ecgmon.monitor.process.report import NotRunningError
    from ecgmon.monitor.process.supervisor import SupervisorError
    from ecgmon.monitor.store import StoreError
    from ecgmon.pipelines.sources.errors import SourceError

    if args.what == "report":
        try:
            write(args.results, args.out)
        except (OSError, PlotError, ReportError) as error:
            return _complain(error)
        print(f"wrote {args.out}")
        return 0
    try:
        old = _old(args.compare)
        found = _measure(args)
    except (BenchError, NotRunningError, OSError, SourceError, StoreError, SupervisorError, ValueError) as error:
        return _complain(error)
    _tell(args, found, old)
    return 0


_REPEATED: Final = (
    "repeats", "loop", "workers", "batch", "streams", "seconds", "curve", "device", "large", "minutes",
)  # fmt: skip


def _command(args: Namespace) -> list[str]:
    """Write down what was asked for, for whoever wants to measure it again."""
    words = [args.what, *getattr(args, "records", [])]
    for name in _REPEATED:
        value = getattr(args, name, None)
        if value is True:
            words.append(f"--{name}")
        elif value not in (None, False):
            words += [f"--{name}", str(value)]
    return words


def _again(path: Path, *, as_json: bool) -> Namespace:
    """Read from an older measurement what was asked for then.

    Raises
    ------
    OSError, ValueError
        If the file cannot be read, or does not say.
    """
    words = (_old(path) or {}).get("command")
    if not isinstance(words, list) or not words:
        raise ValueError(f"{path} does not say what it measured; name it: ecgmon bench pipeline --compare {path}")
    parser = ArgumentParser(prog="ecgmon bench")
    add_arguments(parser)
    return parser.parse_args([*map(str, words), "--compare", str(path), *(["--json"] if as_json else [])])


def _run_worker(args: Namespace) -> int:
    from ecgmon.models.inference.benchmark import worker

    try:
        old = _old(args.compare)
        found = worker(args.device, repeats=args.repeats)
    except (OSError, RuntimeError, ValueError) as error:
        return _complain(error)
    _tell(args, found, old)
    return 0


def _complain(error: Exception) -> int:
    print(f"ecgmon: {error}", file=sys.stderr)
    return 1


def _old(path: Path | None) -> dict[str, Any] | None:
    """Read an older measurement before the new one takes its time."""
    if path is None:
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no measurement; expected the JSON object that --json printed")  # noqa: TRY004 - of a file, not of a call
    return found


def _tell(args: Namespace, found: dict[str, Any], old: dict[str, Any] | None) -> None:
    from ecgmon.monitor.bench.compare import compare, table
    from ecgmon.monitor.bench.report import section

    found["command"] = _command(args)
    if args.json:
        print(json.dumps(found, allow_nan=False))
    else:
        print(section(_name(args), found).removeprefix("## "))
    if old is not None:
        print(table(compare(old, found)), file=sys.stderr if args.json else sys.stdout)


def _name(args: Namespace) -> str:
    """Name what was measured as the report names it."""
    if args.what == "live" and args.curve:
        return "curve"
    return f"worker-{args.device}" if args.what == "worker" else str(args.what)


def _progress(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def _measure(args: Namespace) -> dict[str, Any]:
    if args.what == "store":
        from ecgmon.monitor.bench.stores import store

        return store(large=args.large, folder=args.folder, progress=_progress)
    if args.what == "start":
        from ecgmon.monitor.bench.starts import start

        return start(repeats=args.repeats, progress=_progress)
    with _refs(args.records) as refs:
        return _measure_on(args, refs)


def _measure_on(args: Namespace, refs: list[RecordRef]) -> dict[str, Any]:
    from ecgmon.pipelines.sources.wfdb_record import open_record

    records = [open_record(ref) for ref in refs]
    if args.what == "segment":
        from ecgmon.models.inference.benchmark import machine
        from ecgmon.monitor.bench.segment import segment

        return segment(records, repeats=args.repeats, streams=args.streams) | {"machine": machine()}
    if args.what == "pipeline":
        from ecgmon.monitor.bench.pipeline import pipeline

        return pipeline(
            refs, records, repeats=args.repeats, loop=args.loop, workers=args.workers, batch=args.batch,
            progress=_progress,
        )  # fmt: skip
    if args.what == "live":
        from ecgmon.monitor.bench.live import curve, live

        if args.curve:
            return curve(refs, records, seconds=args.seconds, progress=_progress)
        return live(refs, records, streams=args.streams, seconds=args.seconds, progress=_progress)
    from ecgmon.monitor.bench.growth import growth, soak

    if args.what == "growth":
        return growth(refs, records, progress=_progress)
    return soak(refs, minutes=args.minutes, progress=_progress)


def _refs(names: list[str]) -> AbstractContextManager[list[RecordRef]]:
    """Find the records that are named, or write some."""
    from ecgmon.monitor.bench.records import written
    from ecgmon.pipelines.sources.finding import resolve

    return nullcontext(resolve(names)) if names else written()
