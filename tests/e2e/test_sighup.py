"""SIGHUP applies thresholds, a model, workers and sources while beats flow, and refuses errors."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgmon.models.weights.checkpoint import default_weights, read_info, shipped
from ecgmon.monitor.store import Reader
from tests.e2e.processes import StartDaemon, Watched, clean_environment, role, sequence, wait_for

if TYPE_CHECKING:
    from pathlib import Path

OTHER = shipped("ds1")
PACED = {"record": "toy", "speed": 20}


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def events(log: Path, name: str) -> list[dict[str, Any]]:
    lines = [
        json.loads(line)
        for line in log.read_text().splitlines(keepends=True)
        if line.startswith("{") and line.endswith("\n")
    ]
    return [line for line in lines if line["event"] == name]


def models(state: Path, stream: str) -> list[str]:
    """Return the fingerprint of the model of every beat, in order."""
    with sqlite3.connect(f"file:{state}/ecgmon.sqlite?mode=ro", uri=True) as db:
        rows = db.execute(
            "SELECT fingerprint FROM beats JOIN streams ON streams.id = beats.stream JOIN models ON models.id = beats.model"
            " WHERE streams.name = ? ORDER BY seq", (stream,),
        ).fetchall()  # fmt: skip
    db.close()
    return [row[0] for row in rows]


def test_a_daemon_reloads_thresholds_weights_workers_and_sources_and_refuses_errors(daemon: StartDaemon) -> None:
    one = daemon([PACED], extra="[worker]\ncount = 1\n[alerts]\nscore_threshold = 2.0\n")
    one.wait(lambda status: status.streams and status.streams["toy"].beats > 40, "some beats")
    pids = {name: one.pids(name) for name in ("monitor", "worker", "producer")}

    # another threshold and one more worker
    change(one.config, "score_threshold = 2.0", "score_threshold = 90.0")
    change(one.config, "count = 1", "count = 2")
    one.process.send_signal(signal.SIGHUP)
    wait_for(lambda: any("alerts" in e["changed"] for e in events(one.log, "reloaded") if e["role"] == "monitor"), "it")
    one.wait(lambda status: len(status.workers) == 2, "the second worker")

    # other weights: monitor and workers change, in any order
    change(one.config, "[worker]\n", f'[worker]\nweights = "{OTHER}"\n')
    one.process.send_signal(signal.SIGHUP)
    one.wait(lambda status: status.model == read_info(OTHER).name and len(status.workers) == 2, "the other model")

    # an error changes nothing, whichever process finds it
    change(one.config, "score_threshold = 90.0", "score_threshold = -1.0")
    one.process.send_signal(signal.SIGHUP)
    refused = wait_for(lambda: events(one.log, "reload-refused"), "the refusal")
    assert [(event["role"], "score_threshold" in str(event["reason"])) for event in refused] == [("supervisor", True)]
    change(one.config, "score_threshold = -1.0", "score_threshold = 90.0")
    change(one.config, str(OTHER), str(one.config))
    one.process.send_signal(signal.SIGHUP)
    wait_for(lambda: len(events(one.log, "reload-refused")) == 2, "the second refusal")
    change(one.config, str(one.config), str(OTHER))
    one.wait(lambda status: status.streams["toy"].ended, "the end")
    assert one.pids("monitor") == pids["monitor"]
    assert set(pids["worker"]) < set(one.pids("worker"))

    # another source
    with one.config.open("a") as file:
        file.write('[[source]]\nrecord = "toy"\nname = "late"\nspeed = 0\n')
    one.process.send_signal(signal.SIGHUP)
    end = one.wait(lambda status: "late" in status.streams and status.streams["late"].ended, "the other stream")
    assert end.redelivered < end.stored
    assert one.stop() == 0
    assert "Traceback" not in one.log.read_text()
    assert not events(one.log, "role-ended")

    # each beat once, the earlier ones by the old model and the later by the new
    for stream in ("toy", "late"):
        seq = sequence(one.state, stream)
        assert np.array_equal(seq, np.arange(len(seq)))
    by = models(one.state, "toy")
    first, second = read_info(default_weights()).fingerprint, read_info(OTHER).fingerprint
    assert {first, second} == set(by)
    assert sum(a != b for a, b in pairwise(by)) == 1
    assert by[0] == first
    with Reader(one.state) as reader:
        assert len(reader.beats("toy")) == len(reader.beats("late"))
        assert np.isfinite(reader.beats("toy")["score"]).all()
        late = [found.alert.kind for found in reader.alerts(stream="late")]
    assert "anomalous_episode" not in late  # the threshold of 90 is in force


def test_separate_roles_reload_in_any_order_and_name_keys_that_need_a_restart(tmp_path: Path, runtime: Path) -> None:
    common = (
        f'[runtime]\ndir = "{runtime}"\n[delivery]\nheartbeat_seconds = 0.2\ndead_after_seconds = 2.0\n'
        f'[store]\npath = "{tmp_path}/state"\n[exporter]\nport = 0\n'
    )
    watched = Watched(runtime)
    with role(tmp_path, "monitor", common) as monitor, role(tmp_path, "worker", common) as worker:
        wait_for(lambda: (found := watched()) and found.workers, "the worker")
        with role(tmp_path, "producer", f'{common}[[source]]\nrecord = "toy"\nspeed = 20\n') as producer:
            wait_for(lambda: (found := watched()) and found.stored > 20, "beats")
            weights = f'[worker]\nweights = "{OTHER}"\n'
            (tmp_path / "worker.toml").write_text(common + weights)
            worker.send_signal(signal.SIGHUP)
            log = tmp_path / "monitor.log"
            wait_for(lambda: events(log, "worker-refused"), "a worker with a model that the monitor does not have")
            stood = watched.now().stored
            (tmp_path / "monitor.toml").write_text(common.replace("port = 0", "port = 1") + weights)
            monitor.send_signal(signal.SIGHUP)
            wait_for(lambda: watched.now().stored > stood + 20, "beats by the other model")
            assert watched.now().model == read_info(OTHER).name
            assert [event["keys"] for event in events(log, "restart-needed")] == [["exporter.port"]]
            (tmp_path / "producer.toml").write_text(f'{common}[[source]]\nrecord = "toy"\nspeed = 3\n')
            producer.send_signal(signal.SIGHUP)
            told = wait_for(lambda: events(tmp_path / "producer.log", "restart-needed"), "the producer's word")
            assert told[0]["keys"] == ["source"]
            wait_for(lambda: watched.now().streams["toy"].ended, "the end")
            producer.wait(timeout=30)
            assert producer.returncode == 0
        assert (monitor.poll(), worker.poll()) == (None, None)
    seq = sequence(tmp_path / "state", "toy")
    assert np.array_equal(seq, np.arange(len(seq)))


def test_systemd_is_notified_of_a_reload(tmp_path: Path, runtime: Path) -> None:
    import socket

    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.bind(str(runtime / "notify"))
    told.settimeout(60)
    config = tmp_path / "c.toml"
    config.write_text(f'[runtime]\ndir = "{runtime}/r"\n[store]\npath = "{tmp_path}/s"\n[exporter]\nport = 0\n')
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ecgmon", "monitor", "--config", str(config)], stderr=log,
            env={**clean_environment(tmp_path), "NOTIFY_SOCKET": str(runtime / "notify")},
        )  # fmt: skip
    try:
        while "READY=1" not in told.recv(4096).decode().splitlines():
            pass
        os.kill(process.pid, signal.SIGHUP)
        while "RELOADING=1" not in (lines := told.recv(4096).decode().splitlines()):
            pass
        assert lines[1].startswith("MONOTONIC_USEC=")
        assert told.recv(4096) == b"READY=1"
    finally:
        process.terminate()
        process.wait(timeout=30)
        told.close()
    assert process.returncode == 0
