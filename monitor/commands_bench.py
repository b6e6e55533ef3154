"""The command ``bench``: speed as a ratio against a reference in the same run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from pipelines.records import RecordRef
    from pipelines.wfdb_files import Record


def add_bench(parser: ArgumentParser) -> None:
    """Add the arguments of ``ecgmon bench``."""
    parser.description = "Measure speed, against references that run between the repeats; docs/performance.md explains."
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")

    segment = what.add_parser("segment", help="detecting and cutting beats, on one core, against xqrs and sleepecg")
    _add_records(segment)
    segment.add_argument("--repeats", type=int, default=5, metavar="N", help="measurements (default: %(default)s)")
    segment.add_argument("--streams", type=int, default=1000, metavar="N", help="live streams (default: %(default)s)")

    pipeline = what.add_parser("pipeline", help="records from disk to stored scores, real processes, full speed")
    _add_records(pipeline)
    pipeline.add_argument("--repeats", type=int, default=3, metavar="N", help="measurements (default: %(default)s)")
    pipeline.add_argument("--loop", type=int, default=1, metavar="N", help="times that a record is played")
    pipeline.add_argument("--workers", type=int, default=1, metavar="N", help="worker processes")
    pipeline.add_argument("--batch", type=int, default=1024, metavar="N", help="most beats in a batch")

    live = what.add_parser("live", help="streams at the pace of real time: latency, processor, memory, what is dropped")
    _add_records(live)
    live.add_argument("--streams", type=int, default=1000, metavar="N", help="live streams (default: %(default)s)")
    live.add_argument("--seconds", type=float, default=60.0, metavar="S", help="time measured (default: %(default)s)")
    live.add_argument("--curve", action="store_true", help="from ten streams to the first number that is not held")

    worker = what.add_parser(
        "worker",
        help="scoring alone, by batch size, in every form that was tried; needs torch, numpy, safetensors only",
    )
    worker.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where (default: %(default)s)")
    worker.add_argument("--repeats", type=int, default=5, metavar="N", help="measurements (default: %(default)s)")

    store = what.add_parser("store", help="durable commits by size, bytes of a beat, questions to a large store")
    store.add_argument("--large", type=int, default=0, metavar="N", help="ask a store of N beats, 100 bytes each")
    store.add_argument("--folder", type=Path, metavar="DIR", help="on which disk (default: that of temporary files)")

    start = what.add_parser("start", help="from the command to its answer, and to a daemon that scores")
    start.add_argument("--repeats", type=int, default=5, metavar="N", help="measurements (default: %(default)s)")

    growth = what.add_parser("growth", help="speed against streams, workers, batch limit and length of records")
    _add_records(growth)

    soak = what.add_parser("soak", help="memory over a long time at full speed")
    _add_records(soak)
    soak.add_argument("--minutes", type=float, default=30.0, metavar="M", help="how long (default: %(default)s)")

    report = what.add_parser("report", help="write the page and its pictures from measurements kept as JSON")
    report.add_argument("--results", type=Path, default=Path("results/bench"), metavar="DIR", help="where they are")
    report.add_argument("--out", type=Path, default=Path("docs/performance.md"), metavar="FILE", help="the page")

    for name, one in what.choices.items():
        if name != "report":
            one.description = f"Measure {one.description or name}."
            one.add_argument("--json", action="store_true", help="print one JSON object on standard output")
            one.add_argument("--compare", type=Path, metavar="OLD.json", help="show what changed since an older one")


def _add_records(parser: ArgumentParser) -> None:
    parser.add_argument(
        "records", nargs="*", default=["toy"], metavar="RECORD", help="records to run on (default: the built-in one)"
    )


def run_bench(args: Namespace) -> int:
    """Run ``ecgmon bench``; 1 if it can not be measured."""
    if args.what == "worker":  # before anything is imported that a bare GPU machine has not
        return _run_worker(args)
    from monitor.bench.report import ReportError, write
    from monitor.bench.rig import BenchError
    from monitor.report import NotRunningError
    from monitor.store import StoreError
    from monitor.supervisor import SupervisorError
    from pipelines.source_errors import SourceError

    if args.what == "report":
        try:
            write(args.results, args.out)
        except ReportError as error:
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


def _run_worker(args: Namespace) -> int:
    from models.benchmark import worker

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
    from monitor.bench.compare import compare, table

    if args.json:
        print(json.dumps(found))
    elif args.what == "segment":
        _show(found)
    else:
        print(json.dumps({name: value for name, value in found.items() if name != "samples"}, indent=2))
    if old is not None:
        print(table(compare(old, found)), file=sys.stderr if args.json else sys.stdout)


def _progress(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def _measure(args: Namespace) -> dict[str, Any]:
    if args.what == "store":
        from monitor.bench.stores import store

        return store(large=args.large, folder=args.folder, progress=_progress)
    if args.what == "start":
        from monitor.bench.starts import start

        return start(repeats=args.repeats, progress=_progress)
    refs, records = _records(args.records)
    if args.what == "segment":
        from pipelines.benchmark import segment

        return segment(records, repeats=args.repeats, streams=args.streams)
    if args.what == "pipeline":
        from monitor.bench.pipeline import pipeline

        return pipeline(
            refs, records, repeats=args.repeats, loop=args.loop, workers=args.workers, batch=args.batch,
            progress=_progress,
        )  # fmt: skip
    if args.what == "live":
        from monitor.bench.live import curve, live

        if args.curve:
            return curve(refs, records, seconds=args.seconds, progress=_progress)
        return live(refs, records, streams=args.streams, seconds=args.seconds, progress=_progress)
    from monitor.bench.growth import growth, soak

    if args.what == "growth":
        return growth(refs, progress=_progress)
    return soak(refs, minutes=args.minutes, progress=_progress)


def _records(names: list[str]) -> tuple[list[RecordRef], list[Record]]:
    from pipelines.records import resolve
    from pipelines.wfdb_files import open_record

    refs = resolve(names)
    return refs, [open_record(ref) for ref in refs]


def _show(found: dict[str, Any]) -> None:
    times, reference, live = found["times_real_time"], found["reference"], found["live"]
    print(
        f"{found['signal_seconds']:.0f} s of signal, {found['leads']} leads at {found['fs']:g} Hz, one core, median of {found['repeats']}"
    )
    print(f"ecgmon    {times:>9,.0f} times real time, all leads, with windows")
    for name, value in reference.items():
        print(f"{name:9} {value:>9,.0f} times real time, one lead: ecgmon is {times / value:.2f} times as fast")
    for name, value in found["per_chunk_microseconds"].items():
        print(f"a chunk of {name:6} {value['median']:>8.0f} us, p99 {value['p99']:.0f} us")
    print(f"{live['streams']} live streams, fed every {live['chunk_seconds']:g} s: {live['cores']:.2f} cores")
