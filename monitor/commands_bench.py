"""The command ``bench``: speed as a ratio against a reference in the same run."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_bench(parser: ArgumentParser) -> None:
    """Add the arguments of ``ecgmon bench``."""
    parser.description = "Measure speed, against references that run between the repeats."
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    segment = what.add_parser(
        "segment",
        help="detecting and cutting beats, on one core, against wfdb's xqrs and sleepecg",
        description="Measure detecting and cutting beats on one core, in large chunks and as many live streams.",
    )
    segment.add_argument(
        "records", nargs="*", default=["toy"], metavar="RECORD", help="records to run on (default: the built-in one)"
    )
    segment.add_argument("--repeats", type=int, default=5, metavar="N", help="measurements (default: %(default)s)")
    segment.add_argument("--streams", type=int, default=1000, metavar="N", help="live streams (default: %(default)s)")
    segment.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def run_bench(args: Namespace) -> int:
    """Run ``ecgmon bench``."""
    from pipelines.benchmark import segment
    from pipelines.records import resolve
    from pipelines.source_errors import SourceError
    from pipelines.wfdb_files import open_record

    try:
        records = [open_record(ref) for ref in resolve(args.records)]
    except SourceError as error:
        print(f"ecgmon: {error}", file=sys.stderr)
        return 1
    found = segment(records, repeats=args.repeats, streams=args.streams)
    if args.json:
        print(json.dumps(found))
    else:
        _show(found)
    return 0


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
