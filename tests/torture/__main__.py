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

_LINE_SECONDS: Final = 10.0  # between two lines of progress if standard error is not a terminal
_INTERRUPTED: Final = 130


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.torture",
        description="Kill and freeze monitor, workers and producer at random moments while records are played at "
        "full speed, and compare the store with that of an undisturbed run. Exits with 1 if anything differs.",
    )
    parser.add_argument("--kills", type=int, default=60, help="processes to kill (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="seed of victims, moments and durations (default: 1)")
    parser.add_argument(
        "--records", nargs="+", default=["toy"], help="WFDB records, or toy: the built-in record (default)"
    )
    parser.add_argument("--stop", type=float, default=0.0, metavar="S", help="end of the records in s (default: all)")
    parser.add_argument("--pause", type=float, default=1.0, metavar="S", help="mean time between two faults")
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="write a report: JSON if the name ends in .json, else Markdown"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="copy the folders of rounds with problems here")
    args = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell ignores SIGINT in background jobs
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
        print("torture: interrupted; all processes have ended", file=sys.stderr)
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
    """Leave out ``--report``: it is not needed to repeat the run."""
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
    """Writes progress to standard error: one line that is overwritten on a terminal, else a line every 10 s."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._terminal = sys.stderr.isatty()
        self._written = 0.0

    def __call__(self, report: Report, what: str) -> None:
        now = time.monotonic()
        if not self._terminal and now < self._written + _LINE_SECONDS:
            return
        self._written = now
        line = (
            f"{report.seconds:4.0f} s  {report.kills.total()} of {self._wanted} kills, {report.freezes.total()} freezes,"
            f" {report.lost} lost, {report.duplicate} duplicate, {report.differing} differing; {what}"
        )
        print(f"\r\x1b[K{line}" if self._terminal else line, end="" if self._terminal else "\n", file=sys.stderr)
        sys.stderr.flush()

    def end(self) -> None:
        """End the last line on a terminal."""
        if self._terminal:
            print(file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
