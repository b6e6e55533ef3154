"""A source faster than the daemon: a replay waits, a live source keeps its newest beats, memory does not grow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ecgmon.monitor.core.alerts import AlertKind
from ecgmon.monitor.store import Reader
from tests.e2e.processes import RunEcgmon, StartDaemon, Watched, role, stored, wait_for

if TYPE_CHECKING:
    from ecgmon.monitor.core.status import Status

WINDOW, BUFFER = 96, 128


def resident(pid: int) -> float:
    """Resident memory of a process in MiB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def configuration(tmp_path: Path, runtime: Path, sources: str) -> str:
    return (
        f'[runtime]\ndir = "{runtime}/r"\n[store]\npath = "{tmp_path}/state"\n[exporter]\nport = 0\n'
        f"[delivery]\nwindow_items = {WINDOW}\nheartbeat_seconds = 0.2\ndead_after_seconds = 2.0\n"
        f"[producer]\nbuffer_items = {BUFFER}\n[alerts]\ndropped_clear_seconds = 5.0\n{sources}"
    )


def test_a_replay_without_a_worker_waits_in_constant_memory_and_loses_nothing(
    tmp_path: Path, runtime: Path, daemon: StartDaemon
) -> None:
    source = '[[source]]\nrecord = "toy"\nspeed = 0\nloop = 40\n'
    text = configuration(tmp_path, runtime, source)
    status = Watched(runtime / "r")
    with role(tmp_path, "monitor", text) as monitor, role(tmp_path, "producer", text) as producer:
        wait_for(lambda: (s := status()) and s.queued, "beats that wait")
        sizes, queued = [], []
        for _ in range(40):
            found = wait_for(status, "the monitor")
            queued.append(found.queued + found.leased)
            sizes.append((resident(monitor.pid), resident(producer.pid)))
        assert max(queued) <= WINDOW
        assert queued[-1] == queued[len(queued) // 2]
        growth = np.array(sizes[-10:]).mean(axis=0) - np.array(sizes[10:20]).mean(axis=0)
        assert growth.max() < 2, sizes
        assert wait_for(status, "the monitor").stored == 0
        with role(tmp_path, "worker", text):
            assert producer.wait(timeout=120) == 0
        last = wait_for(status, "the monitor")
    assert last.dropped == 0
    usual = daemon([{"record": "toy", "speed": 0, "loop": 40}], "[alerts]\ndropped_clear_seconds = 5.0\n")
    usual.wait(lambda status: status.streams and status.streams["toy"].ended, "the end")
    assert usual.stop() == 0
    assert stored(tmp_path / "state") == stored(usual.state)


def metric(status: Status, name: str) -> float:
    import urllib.request

    with urllib.request.urlopen(status.metrics, timeout=10) as answer:
        return sum(
            float(line.split()[1]) for line in answer.read().decode().splitlines() if line.startswith(name + " ")
        )


def test_a_live_source_keeps_the_newest_beats_and_reports_dropped_ones(tmp_path: Path, runtime: Path) -> None:
    source = '[[source]]\nrecord = "toy"\nspeed = 60\nloop = 0\nlive = true\n'
    text = configuration(tmp_path, runtime, source)
    status = Watched(runtime / "r")
    with role(tmp_path, "monitor", text), role(tmp_path, "producer", text) as producer:
        wait_for(lambda: (s := status()) and s.queued, "beats that wait")
        dropped = "ecgmon_producer_beats_dropped_total"
        wait_for(lambda: metric(status.now(), dropped) > 200, "beats to be dropped")
        found = status.now()
        assert found.queued + found.leased <= WINDOW
        assert found.stored == 0
        with role(tmp_path, "worker", text):
            known = wait_for(lambda: (s := status()) and s.stored > 400 and s, "the rest to be stored")
            assert known.dropped >= 200
            wait_for(lambda: not status.now().streams["toy"].active or status.now().stored > 900, "time to pass")
            producer.terminate()
            assert producer.wait(timeout=30) == 0
        told = metric(status.now(), dropped)
        assert status.now().dropped == told
    with Reader(tmp_path / "state") as reader:
        beats = reader.beats("toy")
        alerts = [found.alert for found in reader.alerts(stream="toy") if found.alert.kind == AlertKind.BEATS_DROPPED]
    assert np.array_equal(beats["seq"], np.arange(len(beats)))
    assert (np.diff(beats["sample"]) > 0).all()
    # one gap; the alert marks its place and ends
    (alert,) = alerts
    assert alert.end is not None
    hole = np.diff(beats["sample"]).argmax()
    assert alert.start * 360 >= beats["sample"][hole]
    assert alert.start * 360 <= beats["sample"][hole + 1] + 360


def test_a_killed_live_source_continues_after_the_last_item_of_the_monitor(tmp_path: Path, runtime: Path) -> None:
    source = '[[source]]\nrecord = "toy"\nspeed = 30\nloop = 0\nlive = true\n'
    text = configuration(tmp_path, runtime, source)
    status = Watched(runtime / "r")
    with role(tmp_path, "monitor", text), role(tmp_path, "worker", text):
        wait_for(lambda: (s := status()) and s.workers, "a worker: beats are dropped while there is none")
        with role(tmp_path, "producer", text) as producer:
            before = wait_for(lambda: (s := status()) and s.stored > 100 and s, "some beats").streams["toy"]
            producer.kill()
            producer.wait(timeout=10)
        with role(tmp_path, "producer", text) as producer:
            after = wait_for(lambda: (s := status.now()).stored > 300 and s, "more beats").streams["toy"]
            producer.terminate()
            assert producer.wait(timeout=30) == 0
    assert after.beats > before.beats
    assert after.seconds > before.seconds
    with Reader(tmp_path / "state") as reader:
        beats = reader.beats("toy")
    assert np.array_equal(beats["seq"], np.arange(len(beats)))
    assert (np.diff(beats["sample"]) > 0).all()
    assert (
        np.diff(beats["sample"]).max() < 8 * 360
    )  # the detector learns again, and the source started again in between


def test_live_and_waiting_sources_in_one_producer_are_refused(ecgmon: RunEcgmon, tmp_path: Path, runtime: Path) -> None:
    config = tmp_path / "c.toml"
    sources = '[[source]]\nrecord = "toy"\nlive = true\n[[source]]\nrecord = "toy"\nname = "other"\n'
    config.write_text(configuration(tmp_path, runtime, sources))
    done = ecgmon("producer", "--config", config)
    assert done.returncode == 3
    assert "separate producers" in done.stderr
