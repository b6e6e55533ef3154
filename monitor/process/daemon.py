"""The daemon: all roles of a configuration under a supervisor that can reload it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from ecgmon.models.weights.checkpoint import read_info
from ecgmon.monitor.process.reload import Reloader
from ecgmon.monitor.process.roles.setup import weights_path
from ecgmon.monitor.process.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecgmon.monitor.config.schema import Config
    from ecgmon.monitor.process.roles.setup import Signals

_TICK_SECONDS: Final = 0.1


def run(config: Config, load: Callable[[], Config], signals: Signals) -> None:
    """Run the roles until the process is asked to stop.

    Parameters
    ----------
    config : Config
    load : callable
        Reads the configuration again, for a reload.
    signals : Signals

    Raises
    ------
    ecgmon.monitor.process.supervisor.SupervisorError
        If a role cannot be kept running.
    """
    supervisor = Supervisor(config)
    try:
        supervisor.start(signals.stop)
        stopping = signals.stopping(len(supervisor.roles) * config.runtime.drain_seconds)
        reloader = Reloader("supervisor", config, load, request=signals.reload, service=signals.service)

        def apply(new: Config) -> None:
            read_info(weights_path(new))  # refuse an unreadable checkpoint before any role reloads
            supervisor.reload(new)

        while not stopping():
            supervisor.watch()  # continues after the sources have ended: other producers may connect
            reloader.turned(lambda: f"{len(supervisor.roles)} roles", apply)
            time.sleep(_TICK_SECONDS)
    finally:
        supervisor.stop()
