"""``ecgmon alerts``: the alerts of a running daemon or of a store."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ecgmon.monitor.cli.alert_table import print_alerts
from ecgmon.monitor.cli.configuration import add_config_flags, add_state_flag, load_config
from ecgmon.monitor.cli.printing import clock, complain

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable

    from ecgmon.monitor.store import Reader, StoredAlert

_FOLLOW_SECONDS: Final = 0.5  # between two reads of the store


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "List the alerts of a store, also while a daemon writes to it. Times are stream times. With --follow, continue "
        "and print every alert that is raised or cleared, until Ctrl-C."
    )
    parser.epilog = "Exit status: 0, or 1 if there is no store."
    parser.add_argument(
        "--follow", action="store_true", help="continue, and print alerts as they are raised and cleared"
    )
    parser.add_argument("--active", action="store_true", help="only alerts that are not cleared yet")
    parser.add_argument("--stream", metavar="ID", help="only alerts of this stream")
    parser.add_argument("--json", action="store_true", help="print one JSON object; with --follow, one on each line")
    add_state_flag(parser)
    add_config_flags(parser)


def run(args: Namespace) -> int:
    """List alerts, and follow them with ``--follow``; return 1 if there is no store."""
    from ecgmon.monitor.process.signals import StopRequest
    from ecgmon.monitor.store import Reader, StoreError

    stopping = StopRequest() if args.follow else None
    config = load_config(args, {"store.path": args.state})
    try:
        with Reader(Path(config.store.path)) as reader:
            found = [alert for alert in reader.alerts(stream=args.stream) if not args.active or alert.alert.end is None]
            if stopping is not None:
                _follow(reader, found, args, stopping)
            elif args.json:
                print(json.dumps({"alerts": [_object(alert) for alert in found]}))
            else:
                print_alerts((alert.stream, alert.alert) for alert in found)
    except StoreError as error:
        return complain(error)
    return 0


def _follow(reader: Reader, found: list[StoredAlert], args: Namespace, stopping: Callable[[], bool]) -> None:
    """Print the found alerts, then every change, until a stop is requested."""
    for alert in found:
        _print_change(alert, as_json=args.json)
    since = max((alert.change for alert in found), default=0)
    while not stopping():
        time.sleep(_FOLLOW_SECONDS)
        for alert in reader.alerts(since=since, stream=args.stream):
            since = alert.change
            _print_change(alert, as_json=args.json)


def _object(found: StoredAlert) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(found.alert)
    return {"stream": found.stream, **fields}


def _print_change(found: StoredAlert, *, as_json: bool) -> None:
    alert = found.alert
    if as_json:
        print(json.dumps(_object(found)), flush=True)
        return
    what = "raised " if alert.end is None else "cleared"
    at = alert.raised if alert.end is None else alert.end
    print(
        f"{clock(at):>8}  {found.stream:12}  {what}  {alert.priority:6}  {alert.kind:20}  {alert.message}", flush=True
    )
