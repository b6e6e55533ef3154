"""Roles and daemons in real processes, started as a user starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from ecgmon.monitor.process.control import Client, NotRunningError
from ecgmon.monitor.store import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from ecgmon.monitor.core.status import Status

RunEcgmon = Callable[..., subprocess.CompletedProcess[str]]
"""The fixture ``ecgmon``: run ``ecgmon`` with some arguments to its end."""

PATIENCE = 90.0  # seconds; long, because the tests may share two busy cores


def wait_for(what: Callable[[], Any], why: str, patience: float = PATIENCE) -> Any:
    """Wait until a function returns a true value, and return it."""
    deadline = time.monotonic() + patience
    while not (value := what()):
        assert time.monotonic() < deadline, f"waited {patience:g} s without success for {why}"
        time.sleep(0.05)
    return value


def missing_tool(what: str) -> None:
    """Skip a test that lacks a program; fail instead if ECGMON_REQUIRE_ALL is set."""
    if os.environ.get("ECGMON_REQUIRE_ALL"):
        pytest.fail(f"ECGMON_REQUIRE_ALL is set, but {what}")
    pytest.skip(what)


def clean_environment(home: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ECGMON_", "XDG_"))}
    mitdb = {"ECGMON_MITDB": os.environ["ECGMON_MITDB"]} if "ECGMON_MITDB" in os.environ else {}
    return {**kept, **mitdb, "HOME": str(home), "XDG_STATE_HOME": str(home / "state"), "COLUMNS": "160"}


def run_ecgmon(home: Path, *args: object, timeout: float = 180.0, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run ``ecgmon`` with some arguments to its end."""
    return subprocess.run(
        [sys.executable, "-m", "ecgmon", *map(str, args)],
        capture_output=True, text=True, timeout=timeout, check=False, env=clean_environment(home), **more,
    )  # fmt: skip


def result(process: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return the one JSON object on standard output."""
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert len(lines) == 1, process.stdout
    return json.loads(lines[0])


class Daemon:
    """``ecgmon run`` with a configuration, in a process of its own."""

    def __init__(
        self, folder: Path, runtime: Path, sources: list[dict[str, object]], extra: str = "", exporter: str = ""
    ) -> None:
        self.state = folder / "state"
        self.runtime = runtime
        self.config = folder / "ecgmon.toml"
        tables = "".join(
            "[[source]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in source.items())
            for source in sources
        )
        self.config.write_text(
            f'[runtime]\ndir = "{runtime}"\n[store]\npath = "{self.state}"\n[exporter]\nport = 0\n{exporter}'
            f"[delivery]\nheartbeat_seconds = 0.2\ndead_after_seconds = 1.5\nlease_seconds = 3.0\n{extra}\n{tables}"
        )
        self.log = folder / "log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ecgmon", "run", "--config", str(self.config)],
                stderr=log, stdout=log, env=clean_environment(folder),
            )  # fmt: skip

    def status(self) -> Status | None:
        assert self.process.poll() is None, self.log.read_text()
        client = Client(self.runtime)
        try:
            return client.status()
        except NotRunningError:
            return None
        finally:
            client.close()

    def now(self) -> Status:
        """Return the status of a running daemon."""
        status = self.status()
        assert status is not None, self.log.read_text()
        return status

    def wait(self, condition: Callable[[Status], Any], why: str) -> Status:
        def look() -> Status | None:
            status = self.status()
            return status if status is not None and condition(status) else None

        return wait_for(look, f"{why}; its log:\n{self.log.read_text()[-3000:]}")

    def get(self, path: str, **headers: str) -> str:
        status = self.wait(lambda _: True, "the daemon")
        url = status.metrics.removesuffix("/metrics") + path
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.read().decode()

    def pids(self, role: str) -> list[int]:
        """Return the process ids of its children with a role."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
                if parent == self.process.pid and arguments[3:4] == [role.encode()]:
                    found.append(int(entry.name))
        return found

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=60)


@contextmanager
def shared(factory: pytest.TempPathFactory, sources: list[dict[str, object]], extra: str = "") -> Iterator[Daemon]:
    """Run a daemon for several tests that only look at it: starting one takes six seconds of processor time."""
    with tempfile.TemporaryDirectory(prefix="ecgmon-t-") as runtime:
        running = Daemon(factory.mktemp("shared"), Path(runtime), sources, extra)
        try:
            yield running
        finally:
            assert running.stop() == 0, running.log.read_text()


@contextmanager
def role(folder: Path, what: str, text: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a role in a process of its own, and end it with SIGTERM."""
    config = folder / f"{what}.toml"
    config.write_text(text)
    with (folder / f"{what}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ecgmon", what, "--config", str(config)],
            stdout=log, stderr=log, env=clean_environment(folder),
        )  # fmt: skip
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


StartDaemon = Callable[..., Daemon]
"""The fixture ``daemon``: start ``ecgmon run`` with some sources."""


class Replayed(NamedTuple):
    """What an undisturbed replay of the built-in record as the stream ``toy`` left."""

    state: Path
    """Its state folder, only to be read: a test that writes takes a copy."""
    summary: dict[str, Any]


class Watched:
    """Asks a monitor for its status through its socket."""

    def __init__(self, runtime: Path) -> None:
        self._runtime = runtime

    def __call__(self) -> Status | None:
        client = Client(self._runtime)
        try:
            return client.status(timeout=5.0)
        except NotRunningError:
            return None
        finally:
            client.close()

    def now(self) -> Status:
        """Return the status of a running monitor."""
        status = self()
        assert status is not None
        return status


def stored(state: Path) -> dict[str, Any]:
    """Read the part of a store that depends on the streams only: beats with scores, alerts, quality, details."""
    with Reader(state) as reader:
        return {
            stream.name: {
                "beats": reader.beats(stream.name).tobytes(),
                "alerts": [
                    found.alert for found in sorted(reader.alerts(stream=stream.name), key=lambda a: a.alert.number)
                ],
                "quality": reader.quality(stream.name),
                "details": [
                    (seq, *(array.tobytes() for array in detail))
                    for seq in range(stream.beats)
                    if (detail := reader.detail(stream.name, seq)) is not None
                ],
                "ended": stream.ended,
                "position": stream.position,
            }
            for stream in reader.streams()
        }


def sequence(state: Path, stream: str) -> np.ndarray:
    with Reader(state) as reader:
        return reader.beats(stream)["seq"]
