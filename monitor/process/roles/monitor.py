"""The monitor as a process: store, metrics, sockets and HTTP server around its loop."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from zmq import ZMQError

from ecgmon.models.kernels.compiled import start_without_linear_algebra
from ecgmon.models.weights.checkpoint import CheckpointError, read_info
from ecgmon.monitor.metrics.counting import MetricInstruments
from ecgmon.monitor.metrics.instruments import Metrics
from ecgmon.monitor.process import connections
from ecgmon.monitor.process.authenticator import Authenticator
from ecgmon.monitor.process.monitor import Monitor
from ecgmon.monitor.process.reload import Reloader
from ecgmon.monitor.process.roles.setup import RoleError, exclude_imports_from_garbage_collection, weights_path
from ecgmon.monitor.store import Store, StoreError
from ecgmon.monitor.web.exporter import ExporterError, serve
from ecgmon.pipelines.scoring import chain
from ecgmon.pipelines.transport import keys
from ecgmon.pipelines.transport.keys import KeyFileError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecgmon.monitor.config.schema import Config
    from ecgmon.monitor.process.roles.setup import Signals


def run(config: Config, load: Callable[[], Config], signals: Signals) -> None:
    """Run the monitor until it is asked to stop.

    Parameters
    ----------
    config : Config
    load : callable
        Reads the configuration again, for a reload.
    signals : Signals

    Raises
    ------
    RoleError
        If the monitor cannot run because of its model, runtime folder, keys, store, an address or a port.
    """
    runtime = Path(config.runtime.dir)
    try:
        info = read_info(weights_path(config))
        connections.claim(runtime)
        metrics = Metrics(threshold=config.alerts.score_threshold, max_stream_labels=config.exporter.max_stream_labels)
        authenticator = _authenticator(config, metrics)
        store = Store(Path(config.store.path))
    except (CheckpointError, connections.EndpointError, KeyFileError, StoreError) as error:
        raise RoleError(str(error)) from error
    with store:
        metrics.build.info({"version": version("ecgmon")})
        start_without_linear_algebra()
        chain.warm_up()
        exclude_imports_from_garbage_collection()
        try:
            monitor = Monitor(
                config,
                info=info,
                store=store,
                instruments=MetricInstruments(metrics),
                runtime=runtime,
                authenticator=authenticator,
                reload=signals.reload.request,
            )
        except (connections.EndpointError, ZMQError) as error:
            raise RoleError(str(error)) from error
        try:
            exporter = serve(metrics, monitor.health, config.exporter)
        except ExporterError as error:
            monitor.close()
            raise RoleError(str(error)) from error
        monitor.metrics_url = exporter.url
        reloader = Reloader(
            "monitor", config, load, request=signals.reload, service=signals.service, refusals=(StoreError,),
            ended=metrics.reload_success.set,
        )  # fmt: skip

        def apply(new: Config) -> None:
            monitor.reconfigure(new, read_info(weights_path(new)))

        try:
            monitor.run(
                signals.stopping(config.runtime.drain_seconds), lambda status: reloader.turned(status, apply)
            )  # fmt: skip
        finally:
            exporter.close()
            monitor.close()


def _authenticator(config: Config, metrics: Metrics) -> Authenticator | None:
    """Make the authenticator if the monitor has tcp addresses; keys are read before any socket is bound."""
    network = config.network
    if not (network.bind_producers or network.bind_workers):
        return None
    return Authenticator(
        keys.find(network.key_file, os.environ),
        Path(network.clients),
        refused=lambda role: metrics.rejected.labels(role, "handshake").inc(),
    )
