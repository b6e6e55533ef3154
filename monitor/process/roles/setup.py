"""What every role does before its loop: signals, logs, the address of its monitor, its model's file, the garbage collector."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ecgmon.monitor.process.signals import ReloadRequest, StopRequest, end_with_parent
from ecgmon.monitor.process.systemd import Service

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecgmon.monitor.config.schema import Config
    from ecgmon.pipelines.transport.keys import ConnectionKeys

_GARBAGE: Final = (20_000, 50, 100)
"""Objects made before the youngest are searched; searches before the next older are."""


class RoleError(Exception):
    """A role cannot run with its configuration, and would fail again the same way; the message says why."""


class Signals:
    """What reaches a role from outside while it runs: requests to stop and to reload, and systemd.

    Make it before anything is imported that takes seconds: until then, a signal ends the process at once.

    Attributes
    ----------
    stop : StopRequest
    reload : ReloadRequest
    service : Service
    """

    def __init__(self) -> None:
        self.stop = StopRequest()
        self.reload = ReloadRequest()
        self.service = Service()

    def stopping(self, drain_seconds: float) -> Callable[[], bool]:
        """Return a function that says whether to stop, and tells systemd the first time that it says so.

        Parameters
        ----------
        drain_seconds : float
            Time that the role may take to finish, in s.
        """
        return self.service.watch(self.stop, drain_seconds)


def begin(config: Config, role: str, parent: int | None = None) -> None:
    """Set up the log of a process, and have it end with its parent.

    Parameters
    ----------
    config : Config
    role : str
        Name on every line of the log.
    parent : int, optional
        Process id of the supervisor that started it.
    """
    from ecgmon.monitor.process.logs import configure

    configure(config.log, role=role)
    if parent is not None:
        end_with_parent(parent)


def exclude_imports_from_garbage_collection() -> None:
    """Never search what was imported for garbage: it stays, and a search through it takes 70 ms.

    Search seldom: nearly all that a role makes are rows and arrays, which are freed without a search.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GARBAGE)


def weights_path(config: Config) -> Path:
    """Return the checkpoint of a configuration: ``[worker] weights``, or the one that is shipped."""
    from ecgmon.models.weights.checkpoint import default_weights

    return Path(config.worker.weights) if config.worker.weights else default_weights()


def monitor_address(config: Config, role: str) -> tuple[str, ConnectionKeys | None]:
    """Find the monitor of a producer or worker.

    Returns
    -------
    address : str
        ZeroMQ address of the monitor's socket for that role.
    keys : ConnectionKeys or None
        Keys of the connection where it is tcp.

    Raises
    ------
    ecgmon.monitor.process.connections.EndpointError, ecgmon.pipelines.transport.keys.KeyFileError
        If the path of the socket is too long, or a key is missing or malformed.
    """
    from ecgmon.monitor.process import connections
    from ecgmon.pipelines.transport import keys

    network = config.network
    remote = network.connect_producers if role == "producer" else network.connect_workers
    if not remote:
        name = connections.PRODUCERS if role == "producer" else connections.WORKERS
        return connections.endpoint(Path(config.runtime.dir), name), None
    own = keys.find(network.key_file, os.environ)
    return remote, keys.ConnectionKeys(own, keys.checked(network.monitor_key.encode()))
