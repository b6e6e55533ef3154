"""Faults of disks, stores, clocks and workers: stored beats stay, and the others are stored after the fault."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
import zmq

from ecgmon.models.weights.checkpoint import read_info, shipped
from ecgmon.monitor.store import FILE
from ecgmon.pipelines import wire
from tests.e2e.processes import (
    Daemon,
    Replayed,
    RunEcgmon,
    StartDaemon,
    Watched,
    clean_environment,
    missing_tool,
    role,
    shared,
    stored,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ecgmon.monitor.core.status import Status

SOURCES = [{"record": "toy", "speed": 30}]


@pytest.fixture(scope="module")
def expected(replayed: Replayed) -> dict[str, Any]:
    """The store of an undisturbed run."""
    return stored(replayed.state)


def finished(running: Daemon) -> None:
    status = running.wait(lambda status: status.streams and status.streams["toy"].ended, "the end")
    assert (status.dropped, status.store_ok) == (0, True)
    assert running.stop() == 0


def test_a_store_locked_by_another_process_is_written_after_the_lock_is_released(
    daemon: StartDaemon, expected: dict[str, Any]
) -> None:
    running = daemon(SOURCES)
    running.wait(lambda status: status.stored > 50, "some beats")
    other = sqlite3.connect(running.state / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    running.wait(lambda status: not status.store_ok, "the lock to be noticed")
    before = running.now().stored
    assert running.now().stored == before  # no beat is reported as stored that is not
    other.execute("ROLLBACK")
    other.close()
    finished(running)
    assert stored(running.state) == expected
    assert "another program holds it locked" in running.log.read_text()


class Mounted:
    """``ecgmon run`` in a mount namespace of its own, with a small file system under its state folder."""

    def __init__(self, tmp_path: Path, runtime: Path, mount: str) -> None:
        self.state = tmp_path / "state"
        self.state.mkdir(mode=0o700, exist_ok=True)
        self.runtime = runtime
        config = tmp_path / "ecgmon.toml"
        config.write_text(
            f'[runtime]\ndir = "{runtime}"\n[store]\npath = "{self.state}"\n[exporter]\nport = 0\n'
            '[[source]]\nrecord = "toy"\nspeed = 30\n'
        )
        self.log = tmp_path / "log"
        script = f'{mount} && exec "$0" -m ecgmon run --config "{config}"'
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", script, sys.executable],
                stdout=log, stderr=log, env=clean_environment(tmp_path),
            )  # fmt: skip
        self.status = Watched(runtime)

    def inside(self, path: Path) -> Path:
        return Path(f"/proc/{self.process.pid}/root{path}")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


@pytest.fixture
def mounted(tmp_path: Path, runtime: Path) -> Iterator[Callable[[str], Mounted]]:
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        missing_tool("mounting a small disk needs root and mount namespaces")
    started = []

    def start(mount: str) -> Mounted:
        started.append(Mounted(tmp_path, runtime, mount.format(state=tmp_path / "state")))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.stop()


def test_a_full_disk_loses_nothing_and_storing_continues_when_there_is_space(
    mounted: Callable[[str], Mounted], expected: dict[str, Any], tmp_path: Path
) -> None:
    running = mounted(
        "mount -t tmpfs -o size=16m,mode=0700 tmpfs {state} && head -c 16400000 /dev/zero > {state}/filler"
    )
    wait_for(lambda: (s := running.status()) and not s.store_ok, "the disk to be full")
    halted = running.status.now().stored
    time.sleep(1.5)
    assert running.status.now().stored == halted
    running.inside(running.state / "filler").unlink()
    status = wait_for(lambda: (s := running.status()) and s.streams["toy"].ended and s, "the end")
    assert (status.store_ok, status.dropped) == (True, 0)
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in (FILE, f"{FILE}-wal"):  # now, while nothing is written: the file system disappears with its processes
        (copy / name).write_bytes(running.inside(running.state / name).read_bytes())
    assert running.stop() == 0
    assert stored(copy) == expected
    assert "the disk is full" in running.log.read_text()


def test_a_state_folder_that_cannot_be_written_is_refused(mounted: Callable[[str], Mounted]) -> None:
    running = mounted("mount --bind {state} {state} && mount -o remount,ro,bind {state}")
    assert running.process.wait(timeout=60) == 3
    text = running.log.read_text()
    assert "Read-only file system" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("damage", ["no database", "cut", "overwritten", "newer"])
def test_a_damaged_store_is_refused_and_not_changed(
    replayed: Replayed, ecgmon: RunEcgmon, tmp_path: Path, damage: str
) -> None:
    state = shutil.copytree(replayed.state, tmp_path / "state")
    config = tmp_path / "ecgmon.toml"
    config.write_text(f'[runtime]\ndir = "{tmp_path}/r"\n[store]\npath = "{state}"\n[exporter]\nport = 0\n')
    file = state / FILE
    whole = file.read_bytes()
    if damage == "newer":
        with sqlite3.connect(file) as db:
            db.execute("PRAGMA user_version = 999")
        db.close()
    else:
        file.write_bytes(
            {
                "no database": b"not a database " * 100,
                "cut": whole[: len(whole) // 2],
                "overwritten": b"\0" * 100 + whole[100:],
            }[damage]
        )
    before = hashlib.sha256(file.read_bytes()).digest()
    done = ecgmon("monitor", "--config", config)
    assert done.returncode == 3, done.stderr
    (line,) = done.stderr.splitlines()
    assert str(file) in line
    assert any(word in line for word in ("damaged", "not an SQLite file", "newer one")), line
    assert hashlib.sha256(file.read_bytes()).digest() == before


def test_a_second_monitor_is_refused_and_a_second_producer_of_a_stream_waits_for_the_first(
    daemon: StartDaemon, ecgmon: RunEcgmon, expected: dict[str, Any], runtime: Path
) -> None:
    running = daemon([{"record": "toy", "speed": 12}])  # long enough for the others to start
    running.wait(lambda status: status.stored > 20, "some beats")
    with ThreadPoolExecutor() as threads:
        producer = threads.submit(ecgmon, "producer", "--config", running.config)
        for elsewhere, what in (
            (running.runtime, "another monitor serves"),
            (runtime / "other", "in use by another monitor"),
        ):
            done = ecgmon("monitor", "--config", running.config, "--set", f"runtime.dir={elsewhere}")
            assert done.returncode == 3
            assert what in done.stderr
        # the producer ends when the stream is stored, no matter which producer sent it
        done = producer.result()
    assert done.returncode == 0, done.stderr
    assert "being sent by another producer" in done.stderr
    finished(running)
    assert stored(running.state) == expected


JUMPING = """
import sys, time
real, jump, reply = time.time, sys.argv.pop(1), 0.0
def jumped():
    try:
        return real() + float(open(jump).read())
    except (OSError, ValueError):
        return real()
time.time = jumped
from ecgmon.monitor.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_wall_clock_that_jumps_an_hour_each_way_changes_nothing(
    tmp_path: Path, runtime: Path, expected: dict[str, Any]
) -> None:
    jump, state = tmp_path / "jump", tmp_path / "jumping"
    text = (
        f'[runtime]\ndir = "{runtime}/j"\n[store]\npath = "{state}"\n[exporter]\nport = 0\n[delivery]\n'
        'heartbeat_seconds = 0.2\ndead_after_seconds = 1.5\nlease_seconds = 3.0\n[[source]]\nrecord = "toy"\nspeed = 30\n'
    )
    config = tmp_path / "jumping.toml"
    config.write_text(text)
    status = Watched(runtime / "j")
    with (tmp_path / "jumping.log").open("ab") as log:
        monitor = subprocess.Popen(
            [sys.executable, "-c", JUMPING, str(jump), "monitor", "--config", str(config)],
            stdout=log, stderr=log, env=clean_environment(tmp_path), cwd=Path(__file__).parents[2],
        )  # fmt: skip
    try:
        with role(tmp_path, "worker", text), role(tmp_path, "producer", text) as producer:
            for offset, beats in ((3600, 100), (-3600, 200), (0, 300)):
                wait_for(partial(has_stored, status, beats), "some beats")
                jump.write_text(str(offset))
            assert producer.wait(timeout=90) == 0
            found = wait_for(status, "the monitor")
        assert (found.redelivered, found.dropped) == (0, 0)
    finally:
        monitor.terminate()
        assert monitor.wait(timeout=30) == 0
    assert stored(state) == expected
    log_text = (tmp_path / "jumping.log").read_text()
    assert '"silent"' not in log_text
    assert "lease-expired" not in log_text


def has_stored(status: Watched, beats: int) -> bool:
    found = status()
    return found is not None and found.stored > beats


class FakeWorker:
    """A worker that joins, sends heartbeats, takes batches and never answers one."""

    def __init__(self, runtime: Path, degraded: str = "") -> None:
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(f"ipc://{runtime}/workers")
        model = read_info(shipped("default")).fingerprint
        ready = wire.Ready(
            protocol=wire.PROTOCOL, worker="fake", model=model, device="cpu", leads=1, credit=2, degraded=degraded
        )
        self._socket.send(wire.encode(ready))
        self.epoch = self.taken = 0

    def turn(self) -> None:
        while self._socket.poll(0):
            header = msgspec.msgpack.decode(self._socket.recv_multipart()[0])
            self.epoch = header.get("epoch", self.epoch)
            self.taken += header["type"] == "batch"
        if self.epoch:
            self._socket.send(wire.encode(wire.WorkerPing(self.epoch)))

    def leave(self) -> None:
        self._socket.send(wire.encode(wire.Bye(self.epoch)))

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon without a source; its batches are small, so that two workers get one each."""
    with shared(tmp_path_factory, [], "batch_beats = 4\n") as found:
        yield found


def test_a_failed_gpu_is_an_alert_until_its_worker_leaves(running: Daemon) -> None:
    running.wait(lambda status: status.workers, "a worker")
    fake = FakeWorker(running.runtime, "AcceleratorError: CUDA error: an illegal memory access was encountered")
    name = 'ecgmon_alerts_active{kind="device_failed",priority="medium"}'

    def active() -> float | None:
        fake.turn()
        found = [line for line in running.get("/metrics").splitlines() if line.startswith(name)]
        return float(found[0].split()[1]) if found else None

    wait_for(lambda: active() == 1, "the alert")
    assert "ecgmon_workers_degraded 1.0" in running.get("/metrics")
    fake.leave()
    wait_for(lambda: active() == 0, "its end")
    fake.close()
    log = running.log.read_text()
    assert log.count('"alert-raised"') == log.count('"alert-cleared"') == 1
    assert "illegal memory access" in log


def test_a_worker_that_hangs_but_answers_heartbeats_delays_beats_only_once(
    running: Daemon, expected: dict[str, Any], tmp_path: Path
) -> None:
    running.wait(lambda status: status.workers, "a worker")
    fake = FakeWorker(running.runtime)

    def turned(condition: Callable[[Status], Any]) -> bool:
        fake.turn()
        status = running.status()
        return bool(status and condition(status))

    wait_for(lambda: turned(lambda status: len(status.workers) == 2), "both workers")
    source = f'[runtime]\ndir = "{running.runtime}"\n[[source]]\nrecord = "toy"\nspeed = 0\n'
    with role(tmp_path, "producer", source) as producer:
        wait_for(lambda: turned(lambda _: producer.poll() is not None), "the end")
        assert producer.wait() == 0
    assert 1 <= fake.taken <= 2  # at most its credit
    fake.close()
    finished(running)
    assert stored(running.state) == expected


SLOW = """
import sys, time
from ecgmon.models.inference.reconstruction import Scorer
score = Scorer.score
def slowly(self, windows):
    time.sleep(0.1)
    return score(self, windows)
Scorer.score = slowly
from ecgmon.monitor.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_worker_ten_times_slower_gets_fewer_beats_and_changes_no_result(
    daemon: StartDaemon, expected: dict[str, Any], tmp_path: Path
) -> None:
    running = daemon(SOURCES)
    running.wait(lambda status: status.workers, "a worker")
    with (tmp_path / "slow.log").open("ab") as log:
        slow = subprocess.Popen(
            [sys.executable, "-c", SLOW, "worker", "--config", str(running.config)],
            stdout=log, stderr=log, env=clean_environment(tmp_path), cwd=Path(__file__).parents[2],
        )  # fmt: skip
    try:
        running.wait(lambda status: len(status.workers) == 2, "the slow worker")
        status = running.wait(lambda status: status.streams and status.streams["toy"].ended, "the end")
        scored = sorted(worker.scored for worker in status.workers)
        assert len(scored) < 2 or scored[0] < scored[1]
        assert status.redelivered == 0
    finally:
        slow.terminate()
        assert slow.wait(timeout=30) == 0
    finished(running)
    assert np.array_equal(stored(running.state)["toy"]["beats"], expected["toy"]["beats"])
    assert stored(running.state) == expected
