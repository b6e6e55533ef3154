"""Fixtures of the end-to-end tests."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.processes import Daemon, RunEcgmon, StartDaemon, clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def ecgmon(tmp_path: Path) -> RunEcgmon:
    """Run ``ecgmon`` with some arguments to its end."""

    def run(*args: object, timeout: float = 180.0, **more: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ecgmon", *map(str, args)],
            capture_output=True, text=True, timeout=timeout, check=False, env=clean_environment(tmp_path), **more,
        )  # fmt: skip

    return run


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
