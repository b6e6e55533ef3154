"""``python -m tests.torture --kills 300 --seed 1 --records 100 208 --stop 600 --report FILE``."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Final

from ecgmon.monitor.config.schema import SourceSettings
from tests.torture.roles import FailedError
from tests.torture.run import Report, torture
from tests.torture.streams import TOY

_LINE_SECONDS: Final = 10.0  # between two lines of progress where they are not written over
_INTERRUPTED: Final = 130


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.torture",
        description="Kill and freeze monitor, workers and producer at random moments while records are played at "
        "full speed, and compare what is stored with an undisturbed run. Exits with 1 if anything differs.",
    )
    parser.add_argument("--kills", type=int, default=60, help="processes to kill (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="of victims, moments and durations (default: 1)")
    parser.add_argument(
        "--records", nargs="+", default=["toy"], help="WFDB records, or toy: the built-in one (default)"
    )
    parser.add_argument("--stop", type=float, default=0.0, metavar="S", help="end of the records in s (default: all)")
    parser.add_argument("--pause", type=float, default=1.0, metavar="S", help="mean time between two faults")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write a report: JSON if it ends so, else Markdown")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the folder of a round that went wrong")
    args = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell that puts us into the background has SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    if args.records == ["toy"]:
        sources = [_cut(source, args.stop) for source in TOY]
    else:
        sources = [SourceSettings(record=str(record), stop=args.stop) for record in args.records]
    progress = _Progress(args.kills)
    try:
        report = torture(
            sources, kills=args.kills, seed=args.seed, pause=args.pause, keep=args.keep, say=progress
        )  # fmt: skip
    except FailedError as error:
        print(f"torture: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        progress.end()
        print("torture: interrupted; everything that was started has ended", file=sys.stderr)
        return _INTERRUPTED
    progress.end()
    for name, value in report.rows().items():
        print(f"{name:42} {value}")
    for problem in report.problems:
        print(f"problem: {problem}", file=sys.stderr)
    if args.report is not None:
        command = shlex.join(["python", "-m", "tests.torture", *_without_report(sys.argv[1:])])
        args.report.write_text(_json(report, command) if args.report.suffix == ".json" else _markdown(report, command))
    return 0 if report.ok else 1


def _cut(source: SourceSettings, stop: float) -> SourceSettings:
    return SourceSettings(record=source.record, name=source.name, start=source.start, stop=stop)


def _without_report(arguments: list[str]) -> list[str]:
    """Leave out where the report went: it is no part of what repeats it."""
    if "--report" not in arguments:
        return arguments
    at = arguments.index("--report")
    return arguments[:at] + arguments[at + 2 :]


def _json(report: Report, command: str) -> str:
    found = {"command": command, "seed": report.seed, "ok": report.ok, **report.rows(), "problems": report.problems}
    return json.dumps(found, indent=2) + "\n"


def _markdown(report: Report, command: str) -> str:
    lines = [f"    {command}", "", "| what | measured |", "| --- | --- |"]
    lines += [f"| {name} | {value:,} |" for name, value in report.rows().items()]
    lines += [f"\nProblem: {problem}" for problem in report.problems]
    return "\n".join(lines) + "\n"


class _Progress:
    """Says on standard error how far it is: on a terminal a line that is written over, else one now and then."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._terminal = sys.stderr.isatty()
        self._said = 0.0

    def __call__(self, report: Report, what: str) -> None:
        now = time.monotonic()
        if not self._terminal and now < self._said + _LINE_SECONDS:
            return
        self._said = now
        line = (
            f"{report.seconds:4.0f} s  {report.kills.total()} of {self._wanted} kills, {report.freezes.total()} freezes,"
            f" {report.lost} lost, {report.duplicate} duplicate, {report.differing} differing; {what}"
        )
        print(f"\r\x1b[K{line}" if self._terminal else line, end="" if self._terminal else "\n", file=sys.stderr)
        sys.stderr.flush()

    def end(self) -> None:
        """Leave the last line as it is."""
        if self._terminal:
            print(file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
