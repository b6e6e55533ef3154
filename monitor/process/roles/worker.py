"""The worker as a process: a model and a connection to the monitor around its loop."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from ecgmon.models.weights.checkpoint import CheckpointError, read_info
from ecgmon.monitor.process.connections import EndpointError
from ecgmon.monitor.process.reload import Reloader
from ecgmon.monitor.process.roles.setup import (
    RoleError,
    exclude_imports_from_garbage_collection,
    monitor_address,
    weights_path,
)
from ecgmon.pipelines.roles.worker import Model, Worker, WorkerError, load_model
from ecgmon.pipelines.transport.keys import KeyFileError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecgmon.monitor.config.schema import Config
    from ecgmon.monitor.process.roles.setup import Signals


def run(config: Config, load: Callable[[], Config], signals: Signals) -> None:
    """Run a worker until it is asked to stop.

    Parameters
    ----------
    config : Config
    load : callable
        Reads the configuration again, for a reload.
    signals : Signals

    Raises
    ------
    RoleError
        If the worker cannot run because of its model, device, keys or address, or a permanent refusal by the monitor.
    """
    try:
        _serve(config, load, signals)
    except (CheckpointError, EndpointError, KeyFileError, WorkerError) as error:
        raise RoleError(str(error)) from error


def _serve(config: Config, load: Callable[[], Config], signals: Signals) -> None:
    address, connection_keys = monitor_address(config, "worker")
    model = _model(config)
    exclude_imports_from_garbage_collection()
    worker = Worker(
        address, model.scorer, device=model.device, credit=config.worker.credit_batches, keys=connection_keys,
        spare=model.spare,
    )  # fmt: skip
    reloader = Reloader(
        "worker", config, load, request=signals.reload, service=signals.service, refusals=(WorkerError,)
    )  # fmt: skip

    def has_changed(current: Config) -> bool:
        # another model may be deployed, or the file of the same name have other weights
        return read_info(weights_path(current)).fingerprint != worker.fingerprint

    def apply(new: Config) -> None:
        if new.worker != reloader.config.worker or has_changed(new):
            worker.renew(_model(new), credit=new.worker.credit_batches)

    def turned(status: Callable[[], str]) -> None:
        if worker.consume_refused():  # the monitor has another model: this worker follows if its own has changed, too
            with suppress(CheckpointError):
                if has_changed(reloader.config):
                    signals.reload.request()
        reloader.turned(status, apply)

    try:
        worker.run(signals.stopping(config.runtime.drain_seconds), turned)
    finally:
        worker.close()


def _model(config: Config) -> Model:
    return load_model(weights_path(config), config.worker.device, config.worker.threads)
