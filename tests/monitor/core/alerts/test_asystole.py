"""Asystole is raised after four seconds without a beat, and cleared by three beats."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING

import pytest

from ecgmon.monitor.core.alerts import (
    AlertKind,
    Priority,
    SecondPassed,
)
from tests.monitor.core.alerts.streams import (
    FLAT,
    MISSING,
    NOISY,
    UNUSABLE,
    USABLE,
    Stream,
    only,
)

if TYPE_CHECKING:
    from ecgmon.pipelines.items import Quality


def test_four_seconds_without_a_beat_are_asystole_and_less_are_not() -> None:
    stream = Stream()
    stream.beat(1.0)
    assert stream.seconds(1, 4) == []
    alert = only(stream.feed(SecondPassed(5.0, USABLE)))
    assert (alert.kind, alert.priority) == (AlertKind.ASYSTOLE, Priority.HIGH)
    assert (alert.start, alert.raised, alert.end) == (1.0, 5.0, None)
    assert alert.message == "no beat for 4.0 s"


def test_a_pause_between_two_whole_seconds_is_asystole_when_the_next_beat_comes() -> None:
    stream = Stream()
    stream.beat(0.5)
    stream.seconds(1, 4)
    assert stream.beat(4.49) == []
    stream.seconds(5, 8)
    alert = only(stream.beat(8.5))
    assert (alert.kind, alert.start, alert.raised) == (AlertKind.ASYSTOLE, 4.49, 8.5)


def test_a_pause_of_exactly_four_seconds_between_beats_is_asystole_and_no_part_of_a_rate() -> None:
    stream = Stream(bradycardia_beats=2)
    stream.beat(0.5)
    assert only(stream.beat(4.5)).kind == AlertKind.ASYSTOLE


def test_beat_that_ends_the_pause_counts_as_first_of_three() -> None:
    stream = Stream()
    stream.beats(2, 5.0)
    assert stream.beats(1, 1.0) == []
    assert only(stream.beats(1, 1.0)).end == 7.0


def test_a_pause_of_four_seconds_starts_the_count_of_three_again() -> None:
    stream = Stream()
    stream.beats(3, 4.0)
    assert stream.beats(1, 3.9) == []
    assert only(stream.beats(1, 3.9)).end == stream.last


def test_one_beat_does_not_clear_asystole_but_three_in_time_do() -> None:
    stream = Stream()
    stream.beat(1.0)
    stream.seconds(1, 5)
    assert stream.beat(5.5) == []
    assert stream.beat(6.5) == []
    alert = only(stream.beat(7.5))
    assert (alert.number, alert.kind, alert.start, alert.end) == (0, AlertKind.ASYSTOLE, 1.0, 7.5)


def test_beats_five_seconds_apart_are_one_asystole_that_does_not_flap() -> None:
    stream = Stream()
    for k in range(20):
        stream.beat(5.0 * k)
        stream.seconds(5 * k + 1, 5 * k + 4)
    assert only(stream.changes).end is None
    assert stream.active == [AlertKind.ASYSTOLE]


def test_a_stream_without_any_beat_is_asystole_after_the_learning_time() -> None:
    stream = Stream()
    assert stream.seconds(1, 9) == []
    alert = only(stream.feed(SecondPassed(10.0, USABLE)))
    assert (alert.kind, alert.start, alert.raised) == (AlertKind.ASYSTOLE, 0.0, 10.0)


def test_beats_reported_only_after_learning_raise_nothing() -> None:
    stream = Stream()
    stream.seconds(1, 9)
    for k in range(11):
        stream.beat(0.3 + 0.8 * k)
    stream.seconds(10, 12)
    assert stream.changes == []


@pytest.mark.parametrize("quality", UNUSABLE)
def test_unusable_signal_without_beats_is_not_asystole(quality: Quality) -> None:
    stream = Stream()
    stream.beat(1.0)
    stream.seconds(1, 60, quality)
    assert AlertKind.ASYSTOLE not in stream.active
    assert stream.seconds(61, 63) == []
    assert AlertKind.ASYSTOLE in [alert.kind for alert in stream.feed(SecondPassed(64.0, USABLE))]


def test_noise_without_beats_is_asystole_because_fibrillation_looks_like_noise() -> None:
    stream = Stream()
    stream.beat(1.0)
    assert only(stream.seconds(1, 5, NOISY)).kind == AlertKind.ASYSTOLE


def test_first_beat_after_lost_signal_raises_no_asystole_before_the_lost_second_is_reported() -> None:
    stream = Stream()
    stream.beat(1.0)
    stream.seconds(1, 3)
    # The signal is missing from 2 s on; the beat at 7.2 s is known before those seconds are
    assert stream.beat(7.2, rr=nan) == []


def test_a_beat_found_late_by_searching_back_prevents_asystole() -> None:
    stream = Stream()
    stream.beat(1.0)
    stream.seconds(1, 4)
    assert stream.beat(2.4) == []
    assert stream.seconds(5, 6) == []
    assert only(stream.feed(SecondPassed(7.0, USABLE))).start == 2.4


def test_beat_found_after_asystole_was_raised_clears_it_at_once() -> None:
    stream = Stream()
    stream.beat(1.0)
    stream.seconds(1, 5)
    alert = only(stream.beat(2.9))
    assert (alert.number, alert.end, alert.raised) == (0, 2.9, 5.0)
    assert alert.end is not None
    assert alert.end < alert.raised  # shows a reader of the store that the alert was withdrawn
    assert stream.seconds(6, 6) == []
    assert only(stream.feed(SecondPassed(7.0, USABLE))).number == 1


def test_beat_four_seconds_after_the_last_does_not_clear_asystole() -> None:
    stream = Stream()
    stream.beat(1.0)
    stream.seconds(1, 5)
    assert stream.beat(5.0) == []
    assert stream.active == [AlertKind.ASYSTOLE]


def test_a_late_beat_from_before_the_pause_does_not_end_asystole() -> None:
    stream = Stream()
    stream.beat(1.0)
    stream.seconds(1, 4, MISSING)
    stream.seconds(5, 8)
    assert AlertKind.ASYSTOLE in stream.active
    for _ in range(5):
        stream.beat(3.0, rr=0.8)
    assert AlertKind.ASYSTOLE in stream.active


def test_asystole_stays_active_while_the_lead_is_off() -> None:
    stream = Stream()
    stream.beat(1.0)
    stream.seconds(1, 5)
    stream.seconds(6, 20, FLAT)
    assert stream.active == [AlertKind.ASYSTOLE, AlertKind.LEAD_OFF]
