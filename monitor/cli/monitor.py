"""``ecgmon monitor``: one role, which stores scores and alerts and serves metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecgmon.monitor.cli.configuration import add_role_flags, load_config
from ecgmon.monitor.cli.printing import complain

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Run the monitor alone: it receives beats from producers, hands them to workers, stores scores and alerts, and "
        "serves metrics. SIGTERM and Ctrl-C finish what is in progress, within [runtime] drain_seconds."
    )
    add_role_flags(parser)


def run(args: Namespace) -> int:
    """Run the monitor until it is asked to stop."""
    from ecgmon.monitor.process.roles.setup import RoleError, Signals, begin

    signals = Signals()  # first, because the imports below take seconds

    from ecgmon.monitor.process.exit_status import DONE, REFUSED
    from ecgmon.monitor.process.roles import monitor

    config = load_config(args)
    begin(config, "monitor", args.parent)
    try:
        monitor.run(config, lambda: load_config(args), signals)
    except RoleError as error:
        return complain(error, REFUSED)
    return DONE
