"""A role notifies systemd: ready when it serves, watchdog while its loop turns, status, and stopping."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from ecgmon.monitor.process.systemd import Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Manager:
    """The socket of a service manager."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self.address = str(path)

    def received(self, seconds: float = 0.0) -> list[str]:
        """Return the lines that arrived; wait at most ``seconds`` for the first."""
        lines: list[str] = []
        self._socket.settimeout(seconds or 0.001)
        try:
            while True:
                lines += self._socket.recv(65536).decode().splitlines()
                self._socket.settimeout(0.001)
        except TimeoutError:
            return lines

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    found = Manager(tmp_path / "notify")
    yield found
    found.close()


def environment(manager: Manager, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid()), **more}


def test_ready_is_sent_once_with_the_first_turn(manager: Manager) -> None:
    service = Service(environment(manager), clock=lambda: 0.0)
    assert manager.received() == []
    for _ in range(3):
        service.turned(lambda: "3 streams,\n 12 beats/s")
    assert manager.received() == ["READY=1", "WATCHDOG=1", "STATUS=3 streams, 12 beats/s"]


def test_only_turns_feed_the_watchdog(manager: Manager) -> None:
    now = 0.0
    service = Service(environment(manager), clock=lambda: now)
    fed = 0
    for turn in range(100):
        now = turn / 10
        service.turned(lambda: "well")
        fed += manager.received().count("WATCHDOG=1")
    assert fed == 5  # every 2 s of 10 s
    now += 100.0  # the loop is blocked
    assert manager.received() == []


def test_a_status_is_computed_at_most_once_a_second(manager: Manager) -> None:
    now, made = 0.0, []

    def state() -> str:
        made.append(now)
        return "well"

    service = Service(environment(manager), clock=lambda: now)
    for turn in range(1000):
        now = turn / 100
        service.turned(state)
    assert len(made) == 10


def test_stopping_is_sent_once_with_its_time_limit(manager: Manager) -> None:
    service = Service(environment(manager))
    asked = service.watch(lambda: True, 10.0)
    assert asked()
    assert asked()
    assert manager.received() == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=15000000", "STATUS=draining"]


def test_children_do_not_inherit_the_variables_of_sd_notify(manager: Manager) -> None:
    environ = environment(manager, PATH="/bin")
    Service(environ)
    assert environ == {"PATH": "/bin"}


def test_the_watchdog_of_another_process_is_not_fed(manager: Manager) -> None:
    service = Service(environment(manager, WATCHDOG_PID="1"))
    assert service.watchdog_seconds is None


def test_without_a_manager_nothing_is_sent_and_nothing_fails(tmp_path: Path) -> None:
    for environ in ({}, {"NOTIFY_SOCKET": str(tmp_path / "nobody")}):
        service = Service(environ)
        service.turned(lambda: "well")
        service.ending(1.0)


@pytest.mark.parametrize("role", ["monitor", "worker", "producer", "run"])
def test_a_role_sends_ready_watchdog_status_and_stopping(manager: Manager, tmp_path: Path, role: str) -> None:
    config = tmp_path / "c.toml"
    config.write_text(
        f'[runtime]\ndir = "{tmp_path}/r"\ndrain_seconds = 1.0\n[store]\npath = "{tmp_path}/s"\n[exporter]\nport = 0\n'
        '[[source]]\nrecord = "toy"\nspeed = 1\n'
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "ecgmon", role, "--config", str(config)],
        env={**os.environ, "NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "400000", "HOME": str(tmp_path)},
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        lines = manager.received(60.0)
        assert lines[0] == "READY=1"
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and lines.count("WATCHDOG=1") < 5:
            lines += manager.received(1.0)
        assert lines.count("WATCHDOG=1") >= 5
        assert any(line.startswith("STATUS=") and len(line) > 12 for line in lines)
        assert lines.count("READY=1") == 1
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
    assert process.returncode == 0
    assert "STOPPING=1" in manager.received()
