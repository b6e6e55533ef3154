"""A process that is asked to end or is killed, at any moment, ends in time, leaves no process, and can start again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ecgmon.monitor.process.control import Client, NotRunningError
from tests.e2e.processes import Replayed, clean_environment, stored, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ecgmon.monitor.core.status import Status

DRAIN_SECONDS = 2.0
MARGIN_SECONDS = 8.0  # a role that is asked to end during an import completes the import first
ENDLESS = {"record": "toy", "speed": 0, "loop": 0}
STREAMS: list[dict[str, object]] = [{"record": "toy", "speed": 0, "name": name} for name in ("a", "b")]


class Place:
    """A configuration with its folders, and the processes that were started with it."""

    def __init__(self, folder: Path, runtime: Path) -> None:
        self.folder = folder
        self.runtime = runtime
        self.state = folder / "state"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.log = folder / "log"

    def start(
        self, role: str, sources: Sequence[dict[str, object]] = (), *arguments: object
    ) -> subprocess.Popen[bytes]:
        tables = "".join(
            "[[source]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in source.items())
            for source in sources
        )
        config = self.folder / f"{role}.toml"
        config.write_text(
            f'[runtime]\ndir = "{self.runtime}"\ndrain_seconds = {DRAIN_SECONDS}\n[store]\npath = "{self.state}"\n'
            '[exporter]\nport = 0\n[worker]\ndevice = "cpu"\n'
            "[delivery]\nheartbeat_seconds = 0.2\ndead_after_seconds = 1.0\nlease_seconds = 3.0\n"
            f"window_items = 64\nbatch_beats = 8\n{tables}"
        )
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "ecgmon", role, "--config", str(config), *map(str, arguments)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment(self.folder),
            )  # fmt: skip
        self.processes.append(process)
        return process

    def status(self) -> Status | None:
        client = Client(self.runtime)
        try:
            return client.status()
        except NotRunningError:
            return None
        finally:
            client.close()

    def wait(self, condition: Callable[[Status], Any], why: str) -> Status:
        return wait_for(lambda: (status := self.status()) and condition(status) and status, f"{why}; see {self.log}")

    def logged(self, what: str) -> bool:
        return what in self.log.read_text()

    def left(self, role: str = "") -> list[int]:
        """Return the process ids of a role, or of all roles, that still run with these folders."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError, IndexError):
                command = (entry / "cmdline").read_bytes()  # empty for a zombie
                if (str(self.folder).encode() in command or str(self.runtime).encode() in command) and (
                    not role or command.split(b"\0")[3] == role.encode()
                ):
                    found.append(int(entry.name))
        return found

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
                process.wait(timeout=60)


@pytest.fixture
def place(tmp_path: Path, runtime: Path) -> Iterator[Place]:
    made = Place(tmp_path, runtime)
    yield made
    made.close()


def handles_sigterm(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process has a handler for SIGTERM."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def ends(process: subprocess.Popen[bytes], seconds: float = DRAIN_SECONDS + MARGIN_SECONDS) -> int:
    """Send SIGTERM to a process and return its exit status."""
    process.terminate()
    return process.wait(timeout=seconds)


@pytest.mark.serial
@pytest.mark.parametrize("role", ["run", "monitor", "worker", "producer"])
def test_sigterm_during_startup_ends_a_role_with_status_0(place: Place, role: str) -> None:
    process = place.start(role, [ENDLESS])
    wait_for(lambda: handles_sigterm(process), "a handler")
    assert ends(process) == 0
    assert place.left() == []


def test_sigterm_ends_an_idle_daemon(place: Place) -> None:
    process = place.start("run")
    place.wait(lambda status: status.workers, "a worker")
    assert ends(process) == 0
    assert place.left() == []


def test_sigterm_at_full_speed_loses_no_acknowledged_beat(place: Place) -> None:
    process = place.start("run", [ENDLESS])
    before = place.wait(lambda status: status.stored > 500, "some beats").streams["toy"].beats
    assert ends(process) == 0
    assert place.left() == []
    kept = stored(place.state)["toy"]
    assert not kept["ended"]
    assert kept["position"] >= before


def test_roles_without_a_monitor_end_at_once(place: Place) -> None:
    worker, producer = place.start("worker"), place.start("producer", [ENDLESS])
    wait_for(lambda: place.logged('"ready"'), "the model")
    wait_for(lambda: handles_sigterm(producer), "the producer")
    for process in (worker, producer):
        assert ends(process) == 0


def test_without_a_worker_the_producer_waits_for_drain_seconds_and_the_monitor_does_not_wait(place: Place) -> None:
    monitor, producer = place.start("monitor"), place.start("producer", [ENDLESS])
    place.wait(lambda status: status.queued > 0, "beats that nobody scores")
    began = time.monotonic()
    assert ends(producer) == 0
    assert time.monotonic() - began >= 0.9 * DRAIN_SECONDS, "it ended before drain_seconds were over"
    assert ends(monitor, DRAIN_SECONDS) == 0
    assert sorted(left.name for left in place.runtime.iterdir()) == ["lock"]


def test_repeated_signals_during_a_drain_lose_nothing_and_a_restart_ends_the_same(
    place: Place, replayed: Replayed
) -> None:
    process = place.start("run", STREAMS)
    before = place.wait(lambda status: status.stored > 50, "some beats")
    for _ in range(20):
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        for pid in place.left("monitor"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        time.sleep(0.01)  # spreads the signals over the drain
    assert process.wait(timeout=3 * DRAIN_SECONDS + MARGIN_SECONDS) == 0
    assert place.left() == []
    kept = stored(place.state)
    for name, stream in before.streams.items():
        assert len(kept[name]["beats"]) >= stream.beats
    again = place.start("run", STREAMS)
    place.wait(lambda status: len(status.streams) == 2 and all(s.ended for s in status.streams.values()), "the end")
    assert ends(again) == 0
    calm = stored(replayed.state)["toy"]
    assert stored(place.state) == {"a": calm, "b": calm}


def test_a_killed_supervisor_leaves_no_process_and_the_next_one_can_start(place: Place) -> None:
    process = place.start("run", [ENDLESS])
    before = place.wait(lambda status: status.stored > 100, "some beats").stored
    process.kill()
    process.wait()
    wait_for(lambda: place.left() == [], "the children to end", DRAIN_SECONDS + MARGIN_SECONDS)
    process = place.start("run", [ENDLESS])
    place.wait(lambda status: status.streams and status.streams["toy"].beats > before, "more beats")
    assert ends(process) == 0


def test_a_killed_monitor_leaves_no_socket_or_lock_that_blocks_the_next_one(place: Place) -> None:
    first = place.start("monitor")
    place.wait(lambda _: True, "the monitor")
    first.kill()
    first.wait()
    assert (place.runtime / "control").exists(), "a killed monitor cannot remove its socket"
    second = place.start("monitor")
    place.wait(lambda status: status.uptime >= 0, "the next monitor")
    assert ends(second) == 0


def test_a_role_killed_during_startup_is_restarted(place: Place) -> None:
    process = place.start("run")
    (victim,) = wait_for(lambda: place.left("worker"), "a worker")
    os.kill(victim, signal.SIGKILL)
    place.wait(lambda status: status.workers, "another worker")
    assert ends(process) == 0


def test_a_daemon_that_cannot_run_exits_with_status_2_or_3(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert place.start("run", [], "--port", taken.getsockname()[1]).wait(timeout=60) == 3
    (place.folder / "file").write_text("")
    assert place.start("run", [], "--state", place.folder / "file" / "state").wait(timeout=60) == 3
    assert place.start("run", [], "--no-such-flag").wait(timeout=60) == 2
    assert place.left() == []
