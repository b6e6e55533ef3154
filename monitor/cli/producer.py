"""``ecgmon producer``: one role, which reads sources and cuts beats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecgmon.monitor.cli.configuration import add_role_flags, load_config
from ecgmon.monitor.cli.printing import complain

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Run the producer alone: it reads the [[source]] records of the configuration, cuts them into beats, sends them "
        "to the monitor, and ends when all of them are stored. Exit status 1: a source failed; the others are stored."
    )
    add_role_flags(parser)


def run(args: Namespace) -> int:
    """Run a producer until its sources are stored or it is asked to stop; return 1 if a source failed."""
    from ecgmon.monitor.process.roles.setup import RoleError, Signals, begin

    signals = Signals()  # first, because the imports below take seconds

    from ecgmon.monitor.process.exit_status import REFUSED
    from ecgmon.monitor.process.roles import producer

    config = load_config(args)
    begin(config, "producer", args.parent)
    try:
        return producer.run(config, lambda: load_config(args), signals, warn=complain)
    except RoleError as error:
        return complain(error, REFUSED)
