"""Beats that the source dropped raise one alert, and are no asystole."""

from __future__ import annotations

from ecgmon.monitor.core.alerts import (
    AlertKind,
    Gap,
    Priority,
)
from tests.monitor.core.alerts.streams import (
    FLAT,
    Stream,
    only,
)


def test_dropped_beats_are_one_alert_until_thirty_seconds_without_another_loss() -> None:
    stream = Stream()
    stream.beat(0.5)
    alert = only(stream.feed(Gap(120, 10.0)))
    assert (alert.kind, alert.priority, alert.start) == (AlertKind.BEATS_DROPPED, Priority.LOW, 10.0)
    assert "120" in alert.message
    assert stream.feed(Gap(5, 20.0)) == []
    for k in range(21, 50):
        stream.beat(float(k))
        assert stream.seconds(k, k) == []
    stream.beat(49.5)
    assert only(stream.seconds(50, 50)).end == 50.0


def test_bad_seconds_from_before_a_loss_do_not_count_after_it() -> None:
    stream = Stream()
    stream.seconds(1, 2, FLAT)
    stream.feed(Gap(5, 100.0))
    assert stream.seconds(101, 101, FLAT) == []
    assert only(stream.seconds(102, 103, FLAT)).start == 100.0


def test_lost_beats_are_not_asystole() -> None:
    stream = Stream()
    stream.beat(1.0)
    stream.feed(Gap(50, 60.0))
    stream.beat(60.5)
    stream.seconds(61, 63)
    assert AlertKind.ASYSTOLE not in stream.active
