"""A score means what it says: 2 is one normal beat in a hundred, whatever the model."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.calibration import CAP, Calibration, CalibrationError, Table


def normal_beats(n, seed):
    """A(x) and rr_ratio of made-up normal beats: both skewed, and the early ones a bit odd in shape too."""
    random = np.random.default_rng(seed)
    rr_ratio = np.exp(0.08 * random.standard_normal(n))
    error = 0.003 * np.exp(0.9 * random.standard_normal(n) - 0.5 * np.log(rr_ratio))
    return error.astype(np.float32), rr_ratio.astype(np.float32)


@pytest.fixture(scope="module")
def calibration():
    return Calibration.measure(*normal_beats(20_000, seed=1))


@pytest.mark.parametrize("level", [0.5, 1, 1.5, 2, 2.5, 3])
def test_the_share_of_normal_beats_over_a_score_is_what_the_score_says(calibration, level):
    score = calibration.score(*normal_beats(400_000, seed=2))
    assert np.mean(score > level) == pytest.approx(10**-level, rel=0.35 if level > 2 else 0.1)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_score_means_the_same_before_the_rhythm_is_known(calibration, level):
    error, rr_ratio = normal_beats(400_000, seed=3)
    score = calibration.score(error, np.full_like(rr_ratio, np.nan))
    assert np.mean(score > level) == pytest.approx(10**-level, rel=0.35 if level > 2 else 0.1)


@settings(deadline=None)
@given(
    error=st.floats(0, 4, width=32),
    more=st.floats(0, 4, width=32),
    rr_ratio=st.floats(0.125, 4, width=32),
    earlier=st.floats(0.125, 1, width=32),
)
def test_an_odder_beat_never_scores_lower(calibration, error, more, rr_ratio, earlier):
    errors = np.array([error, max(error, more), error], np.float32)
    ratios = np.array([rr_ratio, rr_ratio, rr_ratio * np.float32(earlier)], np.float32)
    plain, worse_shape, earlier_beat = calibration.score(errors, ratios)
    assert 0 <= plain <= CAP
    assert plain <= worse_shape <= CAP
    assert plain <= earlier_beat <= CAP


def test_a_late_beat_is_not_odd(calibration):
    error = np.full(2, 0.003, np.float32)
    late, usual = calibration.score(error, np.array([1.8, 1.0], np.float32))
    assert late <= usual


def test_a_beat_that_could_not_be_scored_has_no_score(calibration):
    nan = np.array([np.nan], np.float32)
    assert np.isnan(calibration.score(nan, np.ones(1, np.float32))).all()
    assert np.isnan(calibration.score(nan, nan)).all()


@settings(deadline=None)
@given(start=st.integers(0, 99), count=st.integers(1, 100))
def test_a_score_does_not_depend_on_the_beats_beside_it(calibration, start, count):
    error, rr_ratio = normal_beats(200, seed=4)
    part = slice(start, start + count)
    assert np.array_equal(calibration.score(error[part], rr_ratio[part]), calibration.score(error, rr_ratio)[part])


def test_a_calibration_survives_being_stored(calibration):
    restored = Calibration.from_dict(json.loads(json.dumps(calibration.to_dict())))
    beats = normal_beats(1000, seed=5)
    assert np.array_equal(restored.score(*beats), calibration.score(*beats))
    assert restored.beats == 20_000


def test_too_few_beats_are_not_taken_for_a_calibration():
    with pytest.raises(CalibrationError, match=r"999 normal beats .* too few"):
        Calibration.measure(*normal_beats(999, seed=6))


def test_beats_that_are_all_alike_are_not_taken_for_a_calibration():
    with pytest.raises(CalibrationError, match="all alike"):
        Calibration.measure(np.full(2000, 0.1, np.float32), np.ones(2000, np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, -1.0])
def test_an_impossible_error_is_not_taken_for_a_calibration(bad):
    error, rr_ratio = normal_beats(2000, seed=7)
    error[3] = bad
    with pytest.raises(CalibrationError, match="not a positive number"):
        Calibration.measure(error, rr_ratio)


@pytest.mark.parametrize(
    ("values", "surprise", "message"),
    [
        ([1, 2, 3], [0, 2, 1], "rises and falls"),
        ([1, 1, 3], [0, 1, 2], "do not increase"),
        ([1, 2, 3], [0, 1, 7], "expected 0 to"),
        ([1, 2, float("nan")], [0, 1, 2], "not finite"),
        ([1, 2], [0, 1, 2], "equally long"),
        ([1], [0], "equally long"),
        ("abc", [0, 1, 2], "list of numbers"),
    ],
)
def test_a_table_that_has_no_meaning_is_refused(values, surprise, message):
    with pytest.raises(CalibrationError, match=message):
        Table.from_dict({"values": values, "surprise": surprise})


def test_tables_put_in_each_others_place_are_refused(calibration):
    plain = calibration.to_dict()
    plain["error"], plain["rhythm"] = plain["rhythm"], plain["error"]
    with pytest.raises(CalibrationError, match="wrong way"):
        Calibration.from_dict(plain)


def test_a_missing_table_is_said(calibration):
    plain = calibration.to_dict()
    del plain["rhythm"]
    with pytest.raises(CalibrationError, match="rhythm"):
        Calibration.from_dict(plain)
