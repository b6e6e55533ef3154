"""``ecgmon status``: the state of a running daemon, or of a store."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ecgmon.monitor.cli.configuration import add_config_flags, add_state_flag, load_config
from ecgmon.monitor.cli.printing import clock, complain, finite, milliseconds

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rich.console import Console
    from rich.table import Table

    from ecgmon.monitor.core.status import Status
    from ecgmon.monitor.store import StoredStream


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = "Show the state of a running daemon; if none runs, show the content of the store."
    parser.epilog = "Exit status: 0, or 1 if there is neither a daemon nor a store."
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_state_flag(parser)
    add_config_flags(parser)


def run(args: Namespace) -> int:
    """Show the state of a daemon and of its store; return 1 if there is neither."""
    from ecgmon.monitor.store import Reader, StoreError

    config = load_config(args, {"store.path": args.state})
    # with --state, show that store, even if a daemon with another one runs
    status = None if args.state is not None else _ask(Path(config.runtime.dir))
    try:
        with Reader(Path(config.store.path)) as reader:
            streams = reader.streams()
    except StoreError as error:
        if status is None:
            return complain(f"no daemon answers in {config.runtime.dir}, and {error}")
        streams = []
    if args.json:
        print(json.dumps(_object(status, streams)))
    else:
        _print(status, streams, config.store.path)
    return 0


def _ask(runtime: Path) -> Status | None:
    """Ask the daemon of a runtime folder; None if none answers."""
    from ecgmon.monitor.process.control import Client, NotRunningError

    client = Client(runtime)
    try:
        return client.status()
    except NotRunningError:
        return None
    finally:
        client.close()


def _object(status: Status | None, streams: list[StoredStream]) -> dict[str, Any]:
    return {
        "running": status is not None,
        "daemon": None if status is None else finite(msgspec.to_builtins(status)),
        "store": {stream.name: {k: v for k, v in _fields(stream).items() if k != "name"} for stream in streams},
    }


def _fields(stream: StoredStream) -> dict[str, Any]:
    return {name: getattr(stream, name) for name in stream.__slots__}


def _print(status: Status | None, streams: list[StoredStream], folder: str) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    if status is None:
        console.print(f"no daemon is running; the store in {folder} holds:")
    else:
        _print_daemon(console, status)
    console.print(_table(status, streams))


def _print_daemon(console: Console, status: Status) -> None:
    console.print(f"running for {clock(status.uptime)}, model {status.model}, metrics {status.metrics}")
    workers = ", ".join(f"{w.name} ({w.device}, {w.scored} beats)" for w in status.workers) or "none"
    console.print(f"producers: {status.producers}; workers: {workers}")
    console.print(
        f"beats since then: {status.segmented} segmented, {status.scored} scored, {status.stored} stored, "
        f"{status.redelivered} redelivered, {status.dropped} dropped; {status.queued} queued, {status.leased} at workers"
    )
    console.print(f"latency: p50 {milliseconds(status.latency_p50)}, p99 {milliseconds(status.latency_p99)}")
    if not status.store_ok:
        console.print("[bold red]the store cannot be written; see the log")
    for name, reason in status.troubles.items():
        console.print(f"[bold red]source {name} failed:[/] {reason}")


def _table(status: Status | None, streams: list[StoredStream]) -> Table:
    from rich.table import Table

    table = Table()
    for column in ("stream", "state", "time", "beats", "rate", "score", "alerts", "active"):
        table.add_column(column)
    for stream in streams:
        live = None if status is None else status.streams.get(stream.name)
        state = "ended" if stream.ended else "left" if live is None else "stalled" if live.stalled else "running"
        table.add_row(
            stream.name, state, clock(stream.seconds), str(stream.beats),
            "" if live is None or math.isnan(live.rate) else f"{live.rate:.0f}",
            "" if live is None or math.isnan(live.last_score) else f"{live.last_score:.2f}",
            str(stream.alerts), str(stream.active),
        )  # fmt: skip
    return table
