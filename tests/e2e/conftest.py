"""Fixtures of the end-to-end tests."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.processes import Daemon, Replayed, RunEcgmon, StartDaemon, result, run_ecgmon

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def ecgmon(tmp_path: Path) -> RunEcgmon:
    """Run ``ecgmon`` with some arguments to its end."""

    return partial(run_ecgmon, tmp_path)


@pytest.fixture(scope="session")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Replayed:
    """Replay the built-in record undisturbed, once for all test processes."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all processes
    summary = folder / "replayed.json"
    with (folder / "replayed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not summary.exists():
            done = result(run_ecgmon(folder, "replay", "toy", "--state", folder / "replayed", "--json"))
            summary.write_text(json.dumps(done))
    return Replayed(folder / "replayed", json.loads(summary.read_text()))


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A folder with a short name: socket paths are limited to 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="ecgmon-t-") as folder:
        yield Path(folder)


@pytest.fixture
def daemon(tmp_path: Path, runtime: Path) -> Iterator[StartDaemon]:
    started: list[Daemon] = []

    def start(sources: list[dict[str, object]], extra: str = "", exporter: str = "") -> Daemon:
        started.append(Daemon(tmp_path, runtime, sources, extra, exporter))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.stop()
