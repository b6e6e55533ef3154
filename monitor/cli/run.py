"""``ecgmon run``: the daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecgmon.monitor.cli.configuration import add_config_flags, add_state_flag, load_config
from ecgmon.monitor.cli.printing import complain

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from ecgmon.monitor.config.schema import Config


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Run the daemon: a monitor, its workers, and a producer for the [[source]] records, under one supervisor that "
        "restarts a process that fails. SIGTERM and Ctrl-C finish what is in progress, within [runtime] drain_seconds for each "
        "role, and exit with status 0. SIGHUP reloads the configuration."
    )
    add_config_flags(parser)
    add_state_flag(parser)
    parser.add_argument(
        "--port", metavar="N", help="port of the metrics; overrides [exporter] port; 0 takes a free one"
    )
    parser.add_argument("--workers", metavar="N", help="number of workers; overrides [worker] count")


def run(args: Namespace) -> int:
    """Run the daemon until it is asked to stop."""
    from ecgmon.monitor.process.roles.setup import Signals, begin

    signals = Signals()  # first, because the imports below take seconds

    from ecgmon.monitor.process import daemon
    from ecgmon.monitor.process.exit_status import DONE
    from ecgmon.monitor.process.supervisor import SupervisorError

    def load() -> Config:
        flags = {"store.path": args.state, "exporter.port": args.port, "worker.count": args.workers}
        return load_config(args, flags)

    config = load()
    begin(config, "supervisor")
    try:
        daemon.run(config, load, signals)
    except SupervisorError as error:
        return complain(error, error.status)
    return DONE
