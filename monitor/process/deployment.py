"""Tells a running daemon that another model is deployed, and waits until it scores with it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from ecgmon.monitor.process.control import Client, NotRunningError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ecgmon.monitor.core.status import Status

PATIENCE: Final = 60.0
"""Seconds until a daemon counts as one that does not change its model."""

_ASK_SECONDS: Final = 0.1  # between two looks at the daemon


class DeploymentError(Exception):
    """A running daemon does not score with the deployed model; the message says what it does."""


def deploy(
    runtime: Path,
    fingerprint: str,
    *,
    patience: float = PATIENCE,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Status | None:
    """Have a daemon reload, and wait until monitor and workers have a model.

    Parameters
    ----------
    runtime : Path
        The monitor's runtime folder.
    fingerprint : str
        Of the model, which is deployed in the registry already.
    patience : float
        Longest time to wait, in s.
    clock, sleep : callable
        Monotonic time in s, and a wait for some seconds.

    Returns
    -------
    Status or None
        Status of the daemon, with as many workers as before, all with this model; None if no daemon runs.

    Raises
    ------
    DeploymentError
        If the daemon has not changed in time.
    """
    client = Client(runtime)
    try:
        try:
            status = client.status()
        except NotRunningError:
            return None
        workers = len(status.workers)
        deadline = clock() + patience
        asked = False
        while True:
            try:
                if not asked:
                    client.reload()
                    asked = True
                status = client.status()
            except NotRunningError:
                pass  # it may be busy for seconds, with a large commit
            if status.fingerprint == fingerprint and len(status.workers) >= workers:
                return status
            if clock() > deadline:
                raise DeploymentError(shortfall(status, fingerprint, workers, patience))
            sleep(_ASK_SECONDS)
    finally:
        client.close()


def shortfall(status: Status, fingerprint: str, workers: int, patience: float) -> str:
    """Say in one line what a daemon lacks that has not changed its model in time."""
    if status.fingerprint != fingerprint:
        return (
            f"the daemon still scores with {status.model} ({status.fingerprint[:12]}) after {patience:g} s; read its log, and "
            "check that its configuration has the same registry and no [worker] weights"
        )
    return (
        f"the monitor has the new model, but only {len(status.workers)} of {workers} workers have joined it after "
        f"{patience:g} s; read their logs, and check that they read the same registry"
    )
