"""Fixtures of the end-to-end tests."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.processes import Daemon, RunEcgmon, StartDaemon, run_ecgmon

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def ecgmon(tmp_path: Path) -> RunEcgmon:
    """Run ``ecgmon`` with some arguments to its end."""

    return partial(run_ecgmon, tmp_path)


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
