"""``ecgmon worker``: one role, which scores beats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecgmon.monitor.cli.configuration import add_role_flags, load_config
from ecgmon.monitor.cli.printing import complain

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Run one worker: it scores the beats that the monitor hands out, on a GPU or on the CPU. Any number can run."
    )
    add_role_flags(parser)


def run(args: Namespace) -> int:
    """Run a worker until it is asked to stop."""
    from ecgmon.monitor.process.roles.setup import RoleError, Signals, begin

    signals = Signals()  # first, because the imports below take seconds

    from ecgmon.monitor.process.exit_status import DONE, REFUSED
    from ecgmon.monitor.process.roles import worker

    config = load_config(args)
    begin(config, "worker", args.parent)
    try:
        worker.run(config, lambda: load_config(args), signals)
    except RoleError as error:
        return complain(error, REFUSED)
    return DONE
