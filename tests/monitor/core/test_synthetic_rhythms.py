"""Asystole, extreme bradycardia and tachycardia on synthetic signals with known beats, from samples to alerts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgmon.monitor.config.schema import AlertSettings
from ecgmon.monitor.core.alerts import Alert, AlertEngine, AlertKind, End, ScoredBeat, SecondPassed
from ecgmon.pipelines.items import Kind, Quality
from ecgmon.pipelines.segmentation.segmenter import Segmenter
from ecgmon.testing import synthetic_ecg

if TYPE_CHECKING:
    from numpy.typing import NDArray

RATES = (250.0, 360.0)
RHYTHM_KINDS = {AlertKind.ASYSTOLE, AlertKind.EXTREME_BRADYCARDIA, AlertKind.EXTREME_TACHYCARDIA}
AT = 0.02
"""Tolerance of an R peak in s; an alert that a beat raises or clears has the time of the R peak."""


def synthetic_samples(
    fs: float, r_peaks: NDArray[np.float64] | list[np.float64], seconds: int, *, noise: float = 0.02
) -> NDArray[np.float32]:
    """Make two leads with beats at these times, in s: samples (n, 2) in mV."""
    return synthetic_ecg(seconds, fs, r_peaks=r_peaks, noise=noise).signal


def at_rate(start: float | np.float64, until: int, per_minute: float) -> NDArray[np.float64]:
    return np.arange(start, until, 60 / per_minute)


def rhythm_alerts(samples: NDArray[np.float32], fs: float) -> list[Alert]:
    """Return the last state of each alert about the rhythm that a stream of these samples raises."""
    segmenter = Segmenter(fs, ["MLII", "V1"])
    step = round(0.7 * fs)
    tables = [segmenter.push(samples[at : at + step]).table for at in range(0, len(samples), step)]
    engine = AlertEngine(AlertSettings())
    alerts: dict[int, Alert] = {}
    for item in np.concatenate([*tables, segmenter.finish().table]):
        seconds, quality = float(item["sample"]) / fs, Quality(int(item["quality"]))
        if item["kind"] == Kind.BEAT:
            changes = engine.feed(ScoredBeat(int(item["seq"]), seconds, float(item["rr"]), 0.0, quality))
        elif item["kind"] == Kind.SECOND:
            changes = engine.feed(SecondPassed(seconds + 1, quality))
        else:
            changes = engine.feed(End(seconds))
        alerts |= {change.number: change for change in changes}
    return [alert for alert in alerts.values() if alert.kind in RHYTHM_KINDS]


@pytest.mark.parametrize("fs", RATES)
@pytest.mark.parametrize("per_minute", [44.0, 60.0, 100.0, 128.0])
def test_a_steady_rhythm_within_the_limits_raises_nothing(fs: float, per_minute: float) -> None:
    r_peaks = at_rate(0.6, 89, per_minute)
    assert rhythm_alerts(synthetic_samples(fs, r_peaks, 90), fs) == []


@pytest.mark.parametrize("fs", RATES)
def test_an_irregular_normal_rhythm_with_premature_beats_raises_nothing(fs: float) -> None:
    rng = np.random.default_rng(3)
    intervals = 0.85 + 0.12 * rng.standard_normal(130).clip(-2, 2)
    intervals[10::15] *= 0.6  # premature
    intervals[11::15] *= 1.4  # and the pause after it
    r_peaks = 0.6 + np.cumsum(intervals)
    assert rhythm_alerts(synthetic_samples(fs, r_peaks[r_peaks < 89], 90), fs) == []


@pytest.mark.parametrize("fs", RATES)
@pytest.mark.parametrize("noise", [0.005, 0.03])
def test_asystole_is_raised_four_seconds_after_the_last_beat_and_cleared_at_the_third_after_it(
    fs: float, noise: float
) -> None:
    before, after = at_rate(0.6, 30, 75), at_rate(42.0, 70, 75)
    alerts = rhythm_alerts(synthetic_samples(fs, [*before, *after], 70, noise=noise), fs)
    assert [alert.kind for alert in alerts] == [AlertKind.ASYSTOLE]
    assert alerts[0].start == pytest.approx(before[-1], abs=AT)
    assert before[-1] + 4 <= alerts[0].raised + AT <= before[-1] + 5 + AT  # seconds pass on a grid of one second
    assert alerts[0].end == pytest.approx(after[2], abs=AT)


@pytest.mark.parametrize("fs", RATES)
def test_a_pause_of_three_and_a_half_seconds_is_no_asystole(fs: float) -> None:
    before = at_rate(0.6, 30, 75)
    after = at_rate(before[-1] + 3.5, 60, 75)
    assert rhythm_alerts(synthetic_samples(fs, [*before, *after], 60), fs) == []


@pytest.mark.parametrize("fs", RATES)
def test_extreme_bradycardia_is_raised_at_its_fifth_beat_and_cleared_when_the_rate_is_normal(fs: float) -> None:
    before = at_rate(0.6, 30, 70)
    slow = before[-1] + 2.0 * np.arange(1, 11)  # 30/min
    after = at_rate(slow[-1] + 60 / 70, 75, 70)
    alerts = rhythm_alerts(synthetic_samples(fs, [*before, *slow, *after], 75), fs)
    assert [alert.kind for alert in alerts] == [AlertKind.EXTREME_BRADYCARDIA]
    # With the third interval of 2 s, the mean of four is above 1.5 s: 3 * 2 + 0.86 = 6.86 s
    assert alerts[0].raised == pytest.approx(slow[2], abs=AT)
    assert alerts[0].start == pytest.approx(before[-2], abs=AT)
    # The rate is 45/min or above if four intervals take at most 5.33 s: 2 * 2 + 2 * 0.86 s is too long, 2 + 3 * 0.86 s is not
    assert alerts[0].end == pytest.approx(after[2], abs=AT)


@pytest.mark.parametrize("fs", RATES)
@pytest.mark.parametrize("per_minute", [155.0, 200.0])
def test_extreme_tachycardia_is_raised_at_its_seventeenth_beat_and_cleared_when_the_rate_is_normal(
    fs: float, per_minute: float
) -> None:
    before = at_rate(0.6, 30, 80)
    quick = before[-1] + 60 / per_minute * np.arange(1, 61)
    after = at_rate(quick[-1] + 0.75, 80, 80)
    truth = np.array([*before, *quick, *after])
    alerts = rhythm_alerts(synthetic_samples(fs, truth, 80), fs)
    assert [alert.kind for alert in alerts] == [AlertKind.EXTREME_TACHYCARDIA]
    spans = truth[16:] - truth[:-16]  # of seventeen beats
    raised = int(np.argmax(spans < 16 * 60 / 140)) + 16
    cleared = raised + int(np.argmax(spans[raised - 16 :] >= 16 * 60 / 130))
    assert alerts[0].raised == pytest.approx(truth[raised], abs=AT)
    assert alerts[0].start == pytest.approx(truth[raised - 16], abs=AT)
    assert alerts[0].end == pytest.approx(truth[cleared], abs=AT)


@pytest.mark.parametrize("fs", RATES)
def test_a_lead_that_comes_off_is_no_asystole(fs: float) -> None:
    samples = synthetic_samples(fs, at_rate(0.6, 60, 75), 60)
    samples[round(25 * fs) : round(40 * fs)] = np.nan
    assert rhythm_alerts(samples, fs) == []
