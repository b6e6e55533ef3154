"""``ecgmon replay``: records through the whole pipeline."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ecgmon.monitor.cli import arguments
from ecgmon.monitor.cli.configuration import add_config_flags, load_config
from ecgmon.monitor.cli.printing import complain

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable

    from rich.console import Console

    from ecgmon.monitor.cli.live_view import View
    from ecgmon.monitor.config.schema import Config
    from ecgmon.monitor.process.replay import Records


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Stream WFDB records through a real producer, monitor and worker, and print a summary. " + arguments.RECORD_HELP
    )
    parser.epilog = (
        "With --state, a replay continues where an earlier one ended: beats that are in the store are not stored again. "
        "Exit status: 0 all records done (or finished early after Ctrl-C), 1 a record failed, 2 wrong usage, 3 it cannot "
        "run: configuration, port or folder."
    )
    parser.add_argument("records", nargs="+", metavar="RECORD", help="path, folder or name of a record")
    add_speed(parser, "max")
    parser.add_argument(
        "--leads",
        type=arguments.leads,
        default=(),
        metavar="A,B",
        help="leads to read, by name or number (default: all)",
    )
    parser.add_argument(
        "--start", type=arguments.time, default=0.0, metavar="TIME",
        help=f"where to begin: {arguments.TIME_HELP} (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--stop", type=arguments.time, default=0.0, metavar="TIME", help="where to end (default: at the record's end)"
    )
    parser.add_argument(
        "--loop",
        type=arguments.count,
        default=1,
        metavar="N",
        help="play each record N times, as one stream (default: 1)",
    )
    add_common_flags(parser)


def add_speed(parser: ArgumentParser, default: str) -> None:
    """Add ``--speed``."""
    parser.add_argument(
        "--speed", type=arguments.speed, default=default, metavar="1|20|max",
        help="multiple of real time, or max (default: %(default)s)",
    )  # fmt: skip


def add_common_flags(parser: ArgumentParser) -> None:
    """Add the flags that ``replay`` and ``demo`` have in common."""
    parser.add_argument(
        "--state", metavar="DIR", help="keep the store in this folder (default: it is removed at the end)"
    )
    parser.add_argument("--workers", metavar="N", help="number of workers; overrides [worker] count")
    parser.add_argument("--port", metavar="N", help="port of the metrics (default: a free one)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    add_config_flags(parser)


def run(args: Namespace) -> int:
    """Replay records; return 1 if one of them failed."""
    from ecgmon.monitor.process.signals import StopRequest

    stopping = StopRequest()

    from ecgmon.monitor.process.replay import open_records

    records = open_records(
        args.records, speed=args.speed, leads=args.leads, start=args.start, stop=args.stop, loop=args.loop
    )
    return replay(args, records, stopping, view=_view)


def _view(console: Console, records: Records, config: Config) -> View:
    from ecgmon.monitor.cli.live_view import Bars, Plain

    del config
    return Bars(console, records.seconds) if console.is_terminal else Plain(console, records.seconds)


def replay(
    args: Namespace,
    records: Records,
    stopping: Callable[[], bool],
    *,
    view: Callable[[Console, Records, Config], View],
    at_end: Callable[[Config], int] = lambda _: 0,
) -> int:
    """Replay opened records, show the progress, and print a summary.

    Parameters
    ----------
    args : Namespace
        With the flags of :func:`add_common_flags`.
    records : Records
    stopping : callable
        Returns whether to finish early.
    view : callable
        Makes the view that is shown during the replay.
    at_end : callable
        Called with the configuration after the summary, while the store is still there; returns an exit status.

    Returns
    -------
    int
        Exit status.
    """
    from rich.console import Console

    from ecgmon.monitor.cli.replay_summary import print_summary
    from ecgmon.monitor.process.exit_status import FAILED, REFUSED
    from ecgmon.monitor.process.replay import configured, folders, nothing_played, summarise
    from ecgmon.monitor.process.session import play
    from ecgmon.monitor.process.supervisor import SupervisorError
    from ecgmon.monitor.store import StoreError

    for reason in records.failed.values():
        complain(reason)
    console = Console(stderr=True)
    for note in records.notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    if not records.sources:
        if args.json:
            print(json.dumps(nothing_played(records).as_json()))
        return FAILED
    keys = dict(args.set)
    port = args.port or (None if "exporter.port" in keys else "0")
    config = load_config(args, {"exporter.port": port, "worker.count": args.workers})
    with folders(args.state) as places:
        config = configured(config, records, places, quiet=not any(key.startswith("log.") for key in keys))
        try:
            with view(console, records, config) as shown:
                played = play(config, observe=shown.update, output=shown.say, stopping=stopping)
            summary = summarise(places.state, played, records)
        except (SupervisorError, StoreError) as error:
            return complain(error, REFUSED)
        if args.json:
            print(json.dumps(summary.as_json()))
        else:
            print_summary(summary)
        status = at_end(config)
    return FAILED if summary.failed else status
