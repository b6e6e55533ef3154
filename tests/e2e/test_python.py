"""The Python functions return what a daemon stores, and a program can follow a daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import wfdb

import ecgmon as api
from ecgmon.monitor.store import Reader
from ecgmon.testing import synthetic_ecg
from tests.e2e.processes import RunEcgmon, StartDaemon, result, wait_for

if TYPE_CHECKING:
    from pathlib import Path


def test_scoring_an_array_gives_the_same_bits_as_a_daemon_stores(ecgmon: RunEcgmon, tmp_path: Path) -> None:
    made = synthetic_ecg(120, 250, ectopic=[30, 60, 62, 64, 65], gaps=[(90, 100)], noise=0.03)
    path = made.write(tmp_path, "made")
    result(ecgmon("replay", path, "--state", tmp_path / "s", "--speed", "max", "--json"))
    samples = wfdb.rdrecord(str(path)).p_signal
    scores = api.score(samples, 250, leads=made.leads)
    assert np.isnan(samples).any()
    with Reader(tmp_path / "s") as reader:
        beats = reader.beats("made")
        alerts = sorted((found.alert for found in reader.alerts()), key=lambda alert: alert.number)
    assert len(beats) == len(scores) > 100
    assert {alert.kind for alert in alerts} >= {"anomalous_episode", "signal_missing"}
    assert tuple(alerts) == scores.alerts
    for column, stored in {
        "sample": "sample", "time": "seconds", "rr": "rr", "rr_ratio": "rr_ratio", "ax": "error", "score": "score"
    }.items():  # fmt: skip
        found = getattr(scores, column).astype(beats[stored].dtype)
        assert found.tobytes() == np.ascontiguousarray(beats[stored]).tobytes(), column


def test_a_program_follows_a_running_daemon_until_it_stops(daemon: StartDaemon, runtime: Path) -> None:
    running = daemon([{"record": "toy", "speed": 20, "loop": 0}])
    status = running.wait(lambda status: "toy" in status.streams, "its stream")
    with (
        api.connect(runtime) as monitor,
        api.connect(running.state) as store,
        api.connect(str(status.metrics)) as metrics,
    ):
        live = monitor.scores()
        first = next(live)
        assert first.stream == "toy"
        assert next(store.scores()).stream == "toy"
        found = monitor.status()
        assert found.running
        assert found.streams["toy"].ended is False
        assert metrics.status().streams["toy"].beats > 0
        assert metrics.status().model in {found.model, api.load_model().name}
        with Reader(running.state) as reader:
            stored = reader.beats("toy")
        assert first.score in stored["score"]
        wait_for(monitor.alerts, "an active alert")
        with pytest.raises(api.errors.ConnectError, match="past scores are in its state folder"):
            monitor.scores(past=True)
        assert running.stop() == 0
        assert all(beat.stream == "toy" for beat in live), "and the iteration ends"
        with pytest.raises(api.errors.NotRunningError):
            monitor.status()
