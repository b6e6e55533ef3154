"""``ecgmon bench``: speed as a ratio against a reference in the same run."""

from __future__ import annotations

import json
import sys
from argparse import SUPPRESS, ArgumentParser
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ecgmon.monitor.cli.arguments import above_zero, count
from ecgmon.monitor.cli.printing import complain

if TYPE_CHECKING:
    from argparse import Namespace, _SubParsersAction
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from ecgmon.pipelines.sources.finding import RecordRef


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Measure speed. A reference runs between the repeats; compare the ratios, not the absolute times. "
        "docs/performance.md explains the figures."
    )
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="OLD.json",
        help="show what changed since an older measurement; without WHAT, repeat that measurement",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    what = parser.add_subparsers(dest="what", metavar="WHAT")
    _add_pipeline_measurements(what)
    _add_other_measurements(what)
    for one in what.choices.values():
        # No default, which would override the option given before WHAT
        one.add_argument(
            "--json", action="store_true", default=SUPPRESS, help="print one JSON object on standard output"
        )
        one.add_argument(
            "--compare",
            type=Path,
            default=SUPPRESS,
            metavar="OLD.json",
            help="show what changed since an older measurement",
        )
    report = what.add_parser("report", help="write the page and its pictures from measurements stored as JSON")
    report.description = "Write the page of measurements and its pictures."
    report.add_argument(
        "--results", type=Path, default=Path("results/bench"), metavar="DIR",
        help="folder of the measurements (default: %(default)s)",
    )  # fmt: skip
    report.add_argument(
        "--out", type=Path, default=Path("docs/performance.md"), metavar="FILE",
        help="page to write (default: %(default)s)",
    )  # fmt: skip


def _add_pipeline_measurements(what: _SubParsersAction[ArgumentParser]) -> None:
    """Add the measurements that run real processes on records."""
    pipeline = _add(what, "pipeline", "records from disk to stored scores: real processes at full speed")
    _add_records(pipeline)
    _add_repeats(pipeline)
    pipeline.add_argument(
        "--loop", type=count, metavar="N", help="times that each record is played (default: until a day is played)"
    )
    pipeline.add_argument("--workers", type=count, default=1, metavar="N", help="worker processes (default: 1)")
    pipeline.add_argument(
        "--batch", type=count, default=1024, metavar="N", help="largest number of beats in a batch (default: 1024)"
    )
    live = _add(what, "live", "streams in real time: latency, processor, memory, dropped beats")
    _add_records(live, ["toy"])
    live.add_argument("--streams", type=count, default=1000, metavar="N", help="live streams (default: 1000)")
    live.add_argument("--seconds", type=above_zero, default=60.0, metavar="S", help="time to measure (default: 60)")
    live.add_argument(
        "--curve",
        action="store_true",
        help="increase the number of streams, from ten until there are too many",
    )
    growth = _add(what, "growth", "speed against streams, workers, size of batches and length of records")
    _add_records(growth)
    soak = _add(what, "soak", "memory over a long time at full speed")
    _add_records(soak)
    soak.add_argument("--minutes", type=above_zero, default=30.0, metavar="M", help="how long (default: 30)")


def _add_other_measurements(what: _SubParsersAction[ArgumentParser]) -> None:
    """Add the measurements of a single part."""
    segment = _add(what, "segment", "detecting and cutting beats on one core, against xqrs and sleepecg")
    _add_records(segment, ["toy"])
    _add_repeats(segment)
    segment.add_argument("--streams", type=count, default=1000, metavar="N", help="live streams (default: 1000)")
    worker = _add(
        what, "worker", "scoring alone, by size of batches, in several forms; needs only torch, numpy and safetensors"
    )
    worker.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where torch computes (default: cpu)")
    _add_repeats(worker)
    store = _add(what, "store", "durable commits by size, bytes per beat, queries to a large store")
    store.add_argument(
        "--large", type=count, default=0, metavar="N", help="also query a store of N beats, about 70 bytes each"
    )
    store.add_argument(
        "--folder", type=Path, metavar="DIR", help="folder on the disk to measure (default: that of temporary files)"
    )
    start = _add(what, "start", "time from a command to its answer, and until a daemon scores")
    _add_repeats(start)


def _add(what: _SubParsersAction[ArgumentParser], name: str, text: str) -> ArgumentParser:
    return what.add_parser(name, help=text, description=f"Measure {text}.")


def _add_records(parser: ArgumentParser, default: Sequence[str] = ()) -> None:
    what = "the built-in one" if default else "eight records of half an hour, made from the built-in one"
    parser.add_argument(
        "records", nargs="*", default=list(default), metavar="RECORD", help=f"records to run on (default: {what})"
    )


def _add_repeats(parser: ArgumentParser) -> None:
    parser.add_argument("--repeats", type=count, default=5, metavar="N", help="measurements (default: 5)")


def run(args: Namespace) -> int:
    """Measure; return 1 on failure."""
    from ecgmon.monitor.bench.measurement import MeasurementError, read

    try:
        if args.what is None:
            if args.compare is None:
                return complain("name what to measure, or an older measurement: ecgmon bench --help", 2)
            args = _again(args.compare, as_json=args.json)
        if args.what == "report":
            return _report(args)
        old = None if args.compare is None else read(args.compare)  # before the measurement, which takes long
    except MeasurementError as error:
        return complain(error)
    found = _measure_worker(args) if args.what == "worker" else _measure(args)
    if found is None:
        return 1
    _print(args, found, old)
    return 0


def _report(args: Namespace) -> int:
    from ecgmon.monitor.bench.plots import PlotError
    from ecgmon.monitor.bench.report import ReportError, write

    try:
        write(args.results, args.out)
    except (OSError, PlotError, ReportError) as error:
        return complain(error)
    print(f"wrote {args.out}")
    return 0


_REPEATED: Final = (
    "repeats", "loop", "workers", "batch", "streams", "seconds", "curve", "device", "large", "minutes",
)  # fmt: skip


def _command(args: Namespace) -> list[str]:
    """Return the arguments of the measurement, which is repeated with them."""
    words = [args.what, *getattr(args, "records", [])]
    for name in _REPEATED:
        value = getattr(args, name, None)
        if value is True:
            words.append(f"--{name}")
        elif value not in (None, False):
            words += [f"--{name}", str(value)]
    return words


def _again(path: Path, *, as_json: bool) -> Namespace:
    """Read the arguments of an older measurement.

    Raises
    ------
    ecgmon.monitor.bench.measurement.MeasurementError
        If the file cannot be read or does not contain them.
    """
    from ecgmon.monitor.bench.measurement import command, read

    words = command(path, read(path))
    parser = ArgumentParser(prog="ecgmon bench")
    add_arguments(parser)
    return parser.parse_args([*words, "--compare", str(path), *(["--json"] if as_json else [])])


def _measure_worker(args: Namespace) -> dict[str, Any] | None:
    """Measure scoring alone, with imports of torch, numpy and safetensors only; None, with a message, on failure."""
    from ecgmon.models.inference.benchmark import worker
    from ecgmon.models.inference.device import DeviceError

    try:
        return worker(args.device, repeats=args.repeats)
    except DeviceError as error:
        complain(error)
        return None


def _print(args: Namespace, found: dict[str, Any], old: dict[str, Any] | None) -> None:
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
    """Return the name of the measurement in the report."""
    if args.what == "live" and args.curve:
        return "curve"
    return f"worker-{args.device}" if args.what == "worker" else str(args.what)


def _progress(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def _measure(args: Namespace) -> dict[str, Any] | None:
    """Run another measurement; None, with a message, on failure."""
    from ecgmon.monitor.bench.rig import BenchError
    from ecgmon.monitor.process.control import NotRunningError
    from ecgmon.monitor.process.supervisor import SupervisorError
    from ecgmon.monitor.store import StoreError
    from ecgmon.pipelines.sources.errors import SourceError

    try:
        if args.what == "store":
            from ecgmon.monitor.bench.stores import store

            return store(large=args.large, folder=args.folder, progress=_progress)
        if args.what == "start":
            from ecgmon.monitor.bench.starts import start

            return start(repeats=args.repeats, progress=_progress)
        with _refs(args.records) as refs:
            return _measure_on(args, refs)
    except (BenchError, NotRunningError, OSError, SourceError, StoreError, SupervisorError) as error:
        complain(error)
        return None


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
    """Find the named records, or write some to disk if there are no names."""
    from ecgmon.monitor.bench.records import written
    from ecgmon.pipelines.sources.finding import resolve

    return nullcontext(resolve(names)) if names else written()
