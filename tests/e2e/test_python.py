"""What Python's functions find is what a daemon stores, and a program can follow a daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import wfdb

import ecgmon as api
from ecgmon.monitor.store import Reader
from ecgmon.testing import synthetic_ecg
from tests.e2e.processes import result

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess


def test_scoring_an_array_gives_what_a_daemon_stores_to_the_last_bit(
    ecgmon: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
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
