"""Extreme bradycardia and tachycardia: exact limits, hysteresis, and no rate across lost signal."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, Any

import pytest

from ecgmon.monitor.config.schema import PrioritySettings
from ecgmon.monitor.core.alerts import (
    AlertKind,
    Gap,
    Priority,
    SecondPassed,
)
from tests.monitor.core.alerts.streams import (
    FLAT,
    NOISY,
    SATURATED,
    Stream,
    only,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def test_five_beats_below_forty_a_minute_are_extreme_bradycardia_and_four_are_not() -> None:
    stream = Stream()
    assert stream.beats(4, 1.51) == []
    alert = only(stream.beats(1, 1.51))
    assert (alert.kind, alert.priority) == (AlertKind.EXTREME_BRADYCARDIA, Priority.HIGH)
    assert (alert.start, alert.raised) == (0.0, stream.last)
    assert alert.beats == (0, 1, 2, 3, 4)


def test_exactly_forty_a_minute_is_not_extreme_bradycardia() -> None:
    assert Stream().beats(50, 1.5) == []


def test_bradycardia_is_cleared_at_forty_five_a_minute_and_not_before() -> None:
    stream = Stream()
    stream.beats(5, 1.6)
    assert stream.beats(20, 60 / 44) == []
    alert = only(stream.beats(4, 60 / 46))
    assert alert.kind == AlertKind.EXTREME_BRADYCARDIA
    assert alert.end is not None


def test_bradycardia_is_cleared_at_exactly_its_clearing_rate() -> None:
    stream = Stream(bradycardia_clear_per_minute=48.0)  # 1.25 s is exact in binary
    stream.beats(5, 1.75)
    assert stream.beats(3, 1.25) == []
    assert only(stream.beats(1, 1.25)).kind == AlertKind.EXTREME_BRADYCARDIA


def test_bradycardia_over_two_beats_is_that_of_their_one_interval() -> None:
    stream = Stream(bradycardia_beats=2)
    assert stream.beats(3, 1.5) == []
    assert only(stream.beats(1, 1.6)).message == "heart rate 37.5/min over 2 beats, below 40/min"


def test_rate_that_varies_around_the_limit_is_one_alert() -> None:
    stream = Stream()
    for _ in range(20):
        stream.beats(5, 60 / 39)
        stream.beats(5, 60 / 41)
    assert only(stream.changes).end is None


def test_one_pause_among_fast_beats_is_not_bradycardia() -> None:
    stream = Stream()
    stream.beats(10, 0.8)
    stream.beats(1, 3.9)  # the mean over five beats is now 38 a minute
    assert stream.beats(10, 0.8) == []
    assert stream.changes == []


def test_a_slow_irregular_rhythm_is_bradycardia() -> None:
    stream = Stream()
    stream.beat(0.0)
    for _ in range(4):
        stream.beats(1, 2.0)
        stream.beats(1, 1.4)
    assert stream.active == [AlertKind.EXTREME_BRADYCARDIA]


def test_seventeen_beats_above_a_hundred_and_forty_are_extreme_tachycardia_and_sixteen_are_not() -> None:
    stream = Stream()
    assert stream.beats(16, 60 / 141) == []
    alert = only(stream.beats(1, 60 / 141))
    assert (alert.kind, alert.priority) == (AlertKind.EXTREME_TACHYCARDIA, Priority.HIGH)
    assert (alert.start, alert.raised, len(alert.beats)) == (0.0, stream.last, 17)


def test_fast_rate_in_noise_is_raised_and_its_message_mentions_noise() -> None:
    stream = Stream()
    stream.beats(10, 60 / 150)
    alert = only(stream.beats(7, 60 / 150, quality=NOISY))
    assert alert.message == "heart rate 150.0/min over 17 beats, above 140/min; 7 of them in noise"


def test_exactly_a_hundred_and_forty_is_not_extreme_tachycardia() -> None:
    stream = Stream(tachycardia_per_minute=120.0, tachycardia_clear_per_minute=110.0)  # 0.5 s is exact in binary
    assert stream.beats(100, 0.5) == []


def test_tachycardia_is_cleared_at_a_hundred_and_thirty_and_not_before() -> None:
    stream = Stream()
    stream.beats(17, 60 / 150)
    assert stream.beats(50, 60 / 131) == []
    alert = only(stream.beats(17, 60 / 129))
    assert alert.kind == AlertKind.EXTREME_TACHYCARDIA
    assert alert.end is not None


def test_tachycardia_is_cleared_at_exactly_its_clearing_rate() -> None:
    stream = Stream(tachycardia_clear_per_minute=120.0)  # 0.5 s is exact in binary
    stream.beats(17, 0.375)
    assert stream.beats(15, 0.5) == []
    assert only(stream.beats(1, 0.5)).kind == AlertKind.EXTREME_TACHYCARDIA


@pytest.mark.parametrize(
    "break_by",
    [
        lambda stream: stream.feed(SecondPassed(stream.last, FLAT)),
        lambda stream: stream.feed(Gap(3, stream.last + 0.1)),
        lambda stream: stream.beats(1, 0.4, rr=nan),
        lambda stream: stream.beats(1, 0.4, quality=SATURATED),
    ],
)
def test_a_rate_is_never_taken_across_lost_signal(break_by: Callable[..., Any]) -> None:
    stream = Stream()
    stream.beats(16, 60 / 150)
    break_by(stream)
    assert [alert.kind for alert in stream.beats(15, 60 / 150)] == []
    assert AlertKind.EXTREME_TACHYCARDIA in [alert.kind for alert in stream.beats(2, 60 / 150)]


def test_a_pause_that_is_asystole_is_not_bradycardia_as_well() -> None:
    stream = Stream()
    stream.beats(5, 1.45)
    stream.beats(1, 6.0)
    stream.beats(5, 1.45)
    assert {alert.kind for alert in stream.changes} == {AlertKind.ASYSTOLE}


def test_with_asystole_off_the_slowest_rhythm_is_still_bradycardia() -> None:
    stream = Stream(priorities=PrioritySettings(asystole="off"))
    stream.beats(5, 6.0)
    assert stream.active == [AlertKind.EXTREME_BRADYCARDIA]
