"""Anomalous episodes: three of the last ten beats."""

from __future__ import annotations

from math import comb, nan

from ecgmon.monitor.config.schema import AlertSettings
from ecgmon.monitor.core.alerts import (
    AlertKind,
    Priority,
)
from tests.monitor.core.alerts.streams import (
    ANOMALOUS,
    MISSING,
    NOISY,
    NORMAL,
    Stream,
    only,
)


def test_three_of_the_last_ten_beats_are_an_episode_and_two_are_not() -> None:
    stream = Stream()
    assert stream.scores(ANOMALOUS, *[NORMAL] * 3, ANOMALOUS, *[NORMAL] * 4) == []
    alert = only(stream.scores(ANOMALOUS))
    assert (alert.kind, alert.priority) == (AlertKind.ANOMALOUS_EPISODE, Priority.MEDIUM)
    assert alert.beats == (0, 4, 9)
    assert (alert.start, alert.raised) == (0.0, stream.last)
    assert alert.message == "3 of the last 10 beats scored 2 or more (the newest 2.0)"


def test_a_third_anomalous_beat_one_beat_too_late_is_no_episode() -> None:
    assert Stream().scores(ANOMALOUS, *[NORMAL] * 4, ANOMALOUS, *[NORMAL] * 4, ANOMALOUS) == []


def test_single_premature_beats_and_a_couplet_raise_nothing() -> None:
    stream = Stream()
    for _ in range(20):
        stream.scores(5.0, *[NORMAL] * 9)
        stream.scores(5.0, 5.0, *[NORMAL] * 9)
    assert stream.changes == []


def test_a_run_of_three_is_an_episode_at_its_third_beat() -> None:
    stream = Stream()
    stream.scores(*[NORMAL] * 30)
    alert = only(stream.scores(5.0, 5.0, 5.0))
    assert alert.beats == (30, 31, 32)


def test_an_hour_of_bigeminy_is_one_episode() -> None:
    stream = Stream()
    stream.scores(*[5.0, NORMAL] * 2250)
    assert only(stream.changes).end is None


def test_an_episode_is_cleared_by_ten_beats_without_an_anomalous_one_and_not_by_nine() -> None:
    stream = Stream()
    stream.scores(5.0, 5.0, 5.0)
    assert stream.scores(*[NORMAL] * 9) == []
    alert = only(stream.scores(NORMAL))
    assert (alert.kind, alert.end) == (AlertKind.ANOMALOUS_EPISODE, stream.last)


def test_unscored_and_noisy_beats_are_ignored_by_the_episode_rule() -> None:
    stream = Stream()
    stream.scores(5.0, 5.0)
    stream.scores(*[nan] * 5)
    stream.beats(5, 0.8, score=6.0, quality=NOISY)
    stream.scores(*[NORMAL] * 7)
    assert stream.active == []
    stream.scores(5.0)
    assert stream.active == [AlertKind.ANOMALOUS_EPISODE]


def test_anomalous_beats_from_before_a_long_break_do_not_make_an_episode() -> None:
    stream = Stream()
    stream.scores(5.0, 5.0)
    stream.seconds(2, 30, MISSING)
    stream.last = 30.0
    stream.scores(5.0)
    assert AlertKind.ANOMALOUS_EPISODE not in stream.active


def test_anomalous_beats_ten_seconds_apart_are_one_episode() -> None:
    stream = Stream()
    stream.beats(3, 10.0, score=5.0)
    assert AlertKind.ANOMALOUS_EPISODE in stream.active


def test_an_episode_is_not_cleared_by_a_long_break_but_by_ten_beats_after_it() -> None:
    stream = Stream()
    stream.scores(5.0, 5.0, 5.0)
    stream.last = 60.0
    kinds = [alert.kind for alert in stream.scores(*[NORMAL] * 9)]
    assert AlertKind.ANOMALOUS_EPISODE not in kinds
    assert AlertKind.ANOMALOUS_EPISODE in [alert.kind for alert in stream.scores(NORMAL)]


def test_random_anomalous_beats_raise_an_episode_less_than_once_in_six_hours() -> None:
    # docs/alerts.md: a beat completes K of M if it is anomalous and at least K - 1 of the M - 1 before it are
    rules = AlertSettings()
    k, m, p = rules.episode_beats_k, rules.episode_beats_m, 10**-rules.score_threshold
    before = sum(comb(m - 1, n) * p**n * (1 - p) ** (m - 1 - n) for n in range(k - 1, m))
    beats_per_hour = 4500
    assert 1 / (p * before * beats_per_hour) > 6
