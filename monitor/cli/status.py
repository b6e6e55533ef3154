"""The commands ``status`` and ``alerts``: ask a running daemon, or read a store left behind."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ecgmon.monitor.cli.alert_table import print_alerts
from ecgmon.monitor.cli.check_config import add_config_flags
from ecgmon.monitor.cli.roles import load_config

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from ecgmon.monitor.process.report import Status
    from ecgmon.monitor.store import StoredAlert, StoredStream

_FOLLOW_SECONDS: Final = 0.5  # between two looks at the store


def add_status(parser: ArgumentParser) -> None:
    """Add the arguments of ``ecgmon status``."""
    parser.description = (
        "Say how a running daemon stands; where none runs, what the store holds. "
        "Exit status: 0, or 1 where there is neither."
    )
    _add_common(parser)


def add_alerts(parser: ArgumentParser) -> None:
    """Add the arguments of ``ecgmon alerts``."""
    parser.description = (
        "List the alerts in a store, of a running daemon or left behind; times are those of the stream. "
        "With --follow go on, and print every alert that is raised or cleared, until Ctrl-C."
    )
    parser.add_argument("--follow", action="store_true", help="go on as alerts are raised and cleared")
    parser.add_argument("--active", action="store_true", help="only those that last")
    parser.add_argument("--stream", metavar="ID", help="only those of one stream")
    _add_common(parser)


def _add_common(parser: ArgumentParser) -> None:
    parser.add_argument("--state", metavar="DIR", help="state folder, as [store] path")
    parser.add_argument("--json", action="store_true", help="print JSON: one object (with --follow one a line)")
    add_config_flags(parser)


def _state(args: Namespace) -> dict[str, str]:
    return {} if args.state is None else {"store.path": args.state}


# ---- status


def add_backup(parser: ArgumentParser) -> None:
    """Add the arguments of ``ecgmon backup``."""
    parser.description = (
        "Copy the store to a new file, sound and whole, also while a daemon writes it. To restore it, stop the daemon "
        "and put the file into an empty state folder as ecgmon.sqlite."
    )
    add_config_flags(parser)
    parser.add_argument("--state", metavar="DIR", help="state folder, as [store] path")
    parser.add_argument("file", type=Path, metavar="FILE", help="file to make; it must not exist")


def run_backup(args: Namespace) -> int:
    """Run ``ecgmon backup``; 1 if there is no store or the file cannot be made."""
    from ecgmon.monitor.store import Reader, StoreError

    config = load_config(args, _state(args))

    def progress(share: float) -> None:
        if sys.stderr.isatty():
            print(f"\r{share:4.0%}", end="\n" if share >= 1 else "", file=sys.stderr)

    try:
        with Reader(Path(config.store.path)) as reader:
            beats = reader.backup(args.file, progress)
    except StoreError as error:
        print(f"ecgmon: {error}", file=sys.stderr)
        return 1
    print(f"{args.file}: {beats} beats, {args.file.stat().st_size / 1e6:.1f} MB")
    return 0


def run_status(args: Namespace) -> int:
    """Run ``ecgmon status``."""
    from ecgmon.monitor.process.report import Client, NotRunningError
    from ecgmon.monitor.store import Reader, StoreError

    config = load_config(args, _state(args))
    status: Status | None = None
    # a state folder that is named is what is asked for, whatever daemon runs
    if args.state is None:
        client = Client(Path(config.runtime.dir))
        try:
            status = client.status()
        except NotRunningError:
            pass
        finally:
            client.close()
    try:
        with Reader(Path(config.store.path)) as reader:
            streams = reader.streams()
    except StoreError as error:
        if status is None:
            print(f"ecgmon: no daemon answers in {config.runtime.dir}, and {error}", file=sys.stderr)
            return 1
        streams = []
    if args.json:
        print(json.dumps(_status_object(status, streams)))
    else:
        _print_status(status, streams, config.store.path)
    return 0


def _status_object(status: Status | None, streams: list[StoredStream]) -> dict[str, Any]:
    return {
        "running": status is not None,
        "daemon": None if status is None else _finite(msgspec.to_builtins(status)),
        "store": {stream.name: {k: v for k, v in _fields(stream).items() if k != "name"} for stream in streams},
    }


def _fields(stream: StoredStream) -> dict[str, Any]:
    return {name: getattr(stream, name) for name in stream.__slots__}


def _finite(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """JSON has no NaN; what is not known is null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print_status(status: Status | None, streams: list[StoredStream], folder: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from ecgmon.monitor.cli.live_view import clock, milliseconds

    console = Console(highlight=False, soft_wrap=True)
    if status is None:
        console.print(f"no daemon is running; the store in {folder} holds:")
    else:
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
    console.print(table)


# ---- alerts


def run_alerts(args: Namespace) -> int:
    """Run ``ecgmon alerts``."""
    from ecgmon.monitor.process.signals import StopRequest
    from ecgmon.monitor.store import Reader, StoreError

    stopping = StopRequest() if args.follow else None
    config = load_config(args, _state(args))
    folder = Path(config.store.path)
    try:
        with Reader(folder) as reader:
            found = _wanted(reader.alerts(stream=args.stream), active=args.active)
            if not args.follow and args.json:
                print(json.dumps({"alerts": [_alert_object(alert) for alert in found]}))
            elif not args.follow:
                print_alerts((alert.stream, alert.alert) for alert in found)
            else:
                for alert in found:
                    _print_change(alert, as_json=args.json)
            since = max((alert.change for alert in found), default=0)
            while stopping is not None and not stopping():
                time.sleep(_FOLLOW_SECONDS)
                for alert in reader.alerts(since=since, stream=args.stream):
                    since = alert.change
                    _print_change(alert, as_json=args.json)
    except StoreError as error:
        print(f"ecgmon: {error}", file=sys.stderr)
        return 1
    return 0


def _wanted(found: list[StoredAlert], *, active: bool) -> list[StoredAlert]:
    return [alert for alert in found if alert.alert.end is None] if active else found


def _alert_object(found: StoredAlert) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(found.alert)
    return {"stream": found.stream, **fields}


def _print_change(found: StoredAlert, *, as_json: bool) -> None:
    from ecgmon.monitor.cli.live_view import clock

    alert = found.alert
    if as_json:
        print(json.dumps(_alert_object(found)), flush=True)
        return
    what = "raised " if alert.end is None else "cleared"
    at = alert.raised if alert.end is None else alert.end
    print(
        f"{clock(at):>8}  {found.stream:12}  {what}  {alert.priority:6}  {alert.kind:20}  {alert.message}", flush=True
    )
