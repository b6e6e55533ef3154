"""Every call of an instrument changes the right metrics."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from ecgmon.monitor.core.alerts import Alert, AlertKind, Priority
from ecgmon.monitor.core.commit import Entry, StoredBeat, StreamState
from ecgmon.monitor.core.instruments import Gauges, Instruments
from ecgmon.monitor.core.outcomes import Outcome
from ecgmon.monitor.metrics.counting import MetricInstruments
from ecgmon.monitor.metrics.instruments import OTHER, Metrics
from ecgmon.pipelines.items import Quality

NAN = math.nan
ALERT = Alert(number=0, kind=AlertKind.ASYSTOLE, priority=Priority.HIGH, start=0.0, raised=4.0, message="m")
GAUGES = Gauges(
    queued=5,
    leased=6,
    redelivered=10,
    producers=1,
    devices={"cpu": 2, "cuda": 0},
    workers_last_seen={"w1": 100.0, "w2": 101.0},
    degraded=1,
    lags={"a": 1.0, "b": 2.0, "c": 4.0, "d": 3.0},
    states={"running": 4, "stalled": 0, "ended": 0},
    ready=True,
)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(threshold=2.0, max_stream_labels=2)


@pytest.fixture
def instruments(metrics: Metrics) -> Instruments:
    return MetricInstruments(metrics)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"ecgmon_{name}", labels)


def outcome(*scores: float, stream: str = "a", seconds: tuple[Quality, ...] = (), dropped: int = 0) -> Outcome:
    beats = [StoredBeat(seq, 300 * seq, 0.8, 1.0, 0, 0, 0.01, score) for seq, score in enumerate(scores)]
    state = replace(StreamState(1, stream, 360.0, ("MLII",)), beats=len(scores))
    return Outcome(Entry(state, beats), list(scores), list(seconds), dropped)


def test_labels_are_assigned_in_order_of_announcement(metrics: Metrics, instruments: Instruments) -> None:
    for stream in ("a", "b", "c"):
        instruments.opened(stream, [])
    for stream in ("c", "b", "a"):  # their first beats come in another order
        instruments.segmented(stream, 1)
    assert {label: value(metrics, "beats_segmented_total", stream=label) for label in ("a", "b", "c", OTHER)} == {
        "a": 1.0, "b": 1.0, "c": None, OTHER: 1.0,
    }  # fmt: skip


def test_stored_items_are_counted_by_stream_and_unscored_beats_separately(
    metrics: Metrics, instruments: Instruments
) -> None:
    usable, flat = Quality.USABLE, Quality.FLAT
    instruments.stored(outcome(1.0, NAN, 3.0, seconds=(usable, flat, usable), dropped=4), 75.0, 1000.0)
    assert value(metrics, "beats_stored_total", stream="a") == 3
    assert value(metrics, "beats_scored_total", stream="a") == 2
    assert value(metrics, "beats_unscored_total") == 1
    assert value(metrics, "beats_dropped_total", stream="a") == 4
    assert value(metrics, "score_count", stream="a") == 2
    assert value(metrics, "score_sum", stream="a") == 4.0
    assert value(metrics, "heart_rate_beats_per_minute", stream="a") == 75.0
    assert value(metrics, "stream_last_item_timestamp_seconds", stream="a") == 1000.0
    assert value(metrics, "signal_quality_seconds_total", stream="a", quality="usable") == 2
    assert value(metrics, "signal_quality_seconds_total", stream="a", quality="flat") == 1


def test_an_unknown_heart_rate_is_not_shown(metrics: Metrics, instruments: Instruments) -> None:
    instruments.stored(outcome(1.0), NAN, 1000.0)
    assert value(metrics, "heart_rate_beats_per_minute", stream="a") is None


def test_alerts_are_active_from_raising_or_announcement_to_clearing(metrics: Metrics, instruments: Instruments) -> None:
    labels = {"kind": "asystole", "priority": "high"}
    instruments.opened("a", [ALERT])
    instruments.alert("asystole", "high", raised=True)
    assert value(metrics, "alerts_active", **labels) == 2
    assert value(metrics, "alerts_raised_total", **labels) == 1
    instruments.alert("asystole", "high", raised=False)
    assert value(metrics, "alerts_active", **labels) == 1
    assert value(metrics, "alerts_raised_total", **labels) == 1


def test_redelivered_beats_are_counted_once(metrics: Metrics, instruments: Instruments) -> None:
    instruments.refresh(GAUGES)
    instruments.refresh(replace(GAUGES, redelivered=12))
    assert value(metrics, "beats_redelivered_total", hop="worker") == 12


def test_streams_that_share_a_label_show_the_longest_lag(metrics: Metrics, instruments: Instruments) -> None:
    for stream in ("a", "b", "c", "d"):
        instruments.opened(stream, [])
    instruments.refresh(GAUGES)
    lags = {label: value(metrics, "stream_lag_seconds", stream=label) for label in ("a", "b", OTHER)}
    assert lags == {"a": 1.0, "b": 2.0, OTHER: 4.0}


def test_a_disconnected_worker_is_no_longer_shown(metrics: Metrics, instruments: Instruments) -> None:
    instruments.refresh(GAUGES)
    instruments.refresh(replace(GAUGES, workers_last_seen={"w2": 105.0}, ready=False))
    assert value(metrics, "worker_last_seen_timestamp_seconds", worker="w1") is None
    assert value(metrics, "worker_last_seen_timestamp_seconds", worker="w2") == 105.0
    assert value(metrics, "ready") == 0.0


def test_a_commit_is_observed_with_all_its_beats(metrics: Metrics, instruments: Instruments) -> None:
    instruments.committed(0.5, np.array([1.0, 2.0, 3.0]), np.array([0.25]))
    for stage, count, total in (("commit", 1, 0.5), ("total", 3, 6.0), ("order", 1, 0.25)):
        assert value(metrics, "stage_duration_seconds_count", stage=stage) == count
        assert value(metrics, "stage_duration_seconds_sum", stage=stage) == total
