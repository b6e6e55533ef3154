"""Setup of every role before its loop: signals, logs, monitor address, model file, garbage collector."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ecgmon.monitor.process.signals import ReloadRequest, StopRequest, end_with_parent
from ecgmon.monitor.process.systemd import Service

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecgmon.models.weights.registry import Registry
    from ecgmon.monitor.config.schema import Config
    from ecgmon.pipelines.transport.keys import ConnectionKeys


class RoleError(Exception):
    """A role cannot run with its configuration, and a restart would not help; the message says why."""


class Signals:
    """Requests to stop and to reload, and notifications to systemd.

    Create it before slow imports: until then, a signal ends the process at once.

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
        """Return a function that returns whether to stop, and notifies systemd the first time that it is so.

        Parameters
        ----------
        drain_seconds : float
            Time that the role may take to finish, in s.
        """
        return self.service.watch(self.stop, drain_seconds)


def begin(config: Config, role: str, parent: int | None = None) -> None:
    """Set up the log of a process, and make the process end with its parent.

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
    """Exclude imported objects from garbage collection: they stay, and a search of them takes 70 ms."""
    gc.collect()
    gc.freeze()


def registry_of(config: Config) -> Registry:
    """Return the model registry of a configuration, which need not exist."""
    from ecgmon.models.weights.registry import Registry

    return Registry(Path(config.worker.registry) if config.worker.registry else Path(config.store.path, "models"))


def weights_path(config: Config) -> Path:
    """Return the checkpoint of a configuration: ``[worker] weights``, or the deployed model of the registry.

    Raises
    ------
    ecgmon.models.weights.registry.RegistryError
        If the registry, or the checkpoint of its deployed model, is damaged.
    """
    from ecgmon.models.weights.checkpoint import default_weights

    if config.worker.weights:
        return Path(config.worker.weights)
    if not config.worker.registry and not os.access(config.store.path, os.X_OK):
        return default_weights()  # there is none yet; or a worker's service may not enter the monitor's state folder
    registry = registry_of(config)
    return registry.path(registry.deployed())


def monitor_address(config: Config, role: str) -> tuple[str, ConnectionKeys | None]:
    """Return the address of the monitor for a producer or worker, and the keys of the connection.

    Returns
    -------
    address : str
        ZeroMQ address of the monitor's socket for that role.
    keys : ConnectionKeys or None
        None if the connection is not tcp.

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
