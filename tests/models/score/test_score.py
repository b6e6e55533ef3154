"""The score has the same meaning for every set of known features, and after it was stored."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgmon.models.features import NAMES, OUTLINE, OWN
from ecgmon.models.score.calibration import CAP
from ecgmon.models.score.evidence import Evidence
from ecgmon.models.score.fitting import fit_score
from ecgmon.models.score.parts import FEATURE_SETS, ScoreError
from ecgmon.models.score.score import Score
from ecgmon.testing.evidence import normal_beats

if TYPE_CHECKING:
    from numpy.typing import NDArray

LESS = {
    "two leads": (),
    "one lead": ("own_qrs_2", "own_p_2"),
    "no rhythm": ("early", "fast", "late_run", "spread", "jump"),
    "no own beats": ("own_qrs", "own_p", "own_qrs_2", "own_p_2"),
    "reconstruction": tuple(name for name in NAMES if name != "log_ax"),
}


@pytest.fixture(scope="module")
def score() -> Score:
    return fit_score(normal_beats(2000, seed=1), normal_beats(6000, seed=2))


def fitted_to_patients(factor: float) -> Score:
    """Fit a score to ten patients; A(x) by generators that have not seen them is ``factor`` times the other."""
    beats = normal_beats(2000, seed=18)
    unseen = factor * np.exp(beats.features[:, 0])
    return fit_score(beats[:1000], beats[1000:], patients=np.arange(2000) % 10, unseen=unseen)


@pytest.fixture(scope="module")
def score_of_patients() -> Score:
    return fitted_to_patients(1)


@pytest.mark.parametrize("level", [0.5, 1, 2])
@pytest.mark.parametrize("known", LESS)
def test_the_share_of_normal_beats_over_a_score_s_is_ten_to_the_minus_s(score: Score, known: str, level: float) -> None:
    scores = score.score(normal_beats(40_000, seed=3).without(LESS[known]))
    assert np.mean(scores > level) == pytest.approx(10**-level, rel=0.25 if level == 2 else 0.1)


def test_the_test_above_covers_every_set_of_features() -> None:
    assert set(LESS) == {known.name for known in FEATURE_SETS}


def test_each_set_of_known_features_has_its_own_score(score: Score) -> None:
    beats = normal_beats(100, seed=4)
    scores = [score.score(beats.without(less)) for less in LESS.values()]
    assert all(np.isfinite(s).all() for s in scores)
    for k, one in enumerate(scores):
        assert not any(np.array_equal(one, other) for other in scores[:k])


def test_a_beat_whose_window_has_gaps_has_a_score(score: Score) -> None:
    beats = normal_beats(10, seed=5)
    beats.outline[3, 7] = np.nan
    assert np.isfinite(score.score(beats)).all()


def test_a_beat_without_a_reconstruction_has_no_score(score: Score) -> None:
    assert np.isnan(score.score(normal_beats(10, seed=6).without(("log_ax",)))).all()


@settings(deadline=None, max_examples=40)
@given(
    known=st.sampled_from(["no rhythm", "no own beats", "reconstruction"]),
    error=st.floats(-14, 2, width=32),
    more=st.floats(0, 14, width=32),
)
def test_a_worse_reconstruction_never_scores_lower_where_there_is_no_density(
    score: Score, known: str, error: float, more: float
) -> None:
    beats = normal_beats(20, seed=7).without(LESS[known])
    worse = Evidence(beats.features.copy(), beats.outline)
    beats.features[:, 0] = error
    worse.features[:, 0] = error + more
    assert (score.score(worse) >= score.score(beats)).all()


def test_a_beat_that_is_unusual_in_every_feature_scores_high(score: Score) -> None:
    abnormal = normal_beats(50, seed=8)
    abnormal.features[:] += 8
    scores = score.score(abnormal)
    assert scores.min() > 3
    assert scores.max() <= CAP


def test_an_unusual_combination_of_usual_features_scores_higher(score: Score) -> None:
    beats = normal_beats(4000, seed=9)
    shuffled = Evidence(beats.features.copy(), beats.outline)
    random = np.random.default_rng(0)
    for column in shuffled.features.T:
        random.shuffle(column)
    assert np.mean(score.score(shuffled) > 1) > 1.2 * np.mean(score.score(beats) > 1)


@settings(deadline=None, max_examples=30)
@given(start=st.integers(0, 99), count=st.integers(1, 100))
def test_a_score_does_not_depend_on_the_other_beats(score: Score, start: int, count: int) -> None:
    beats = normal_beats(200, seed=10)
    beats.features[::3, 9:] = np.nan
    beats.features[::7, 2:7] = np.nan
    part = slice(start, start + count)
    assert score.score(beats[part]).tobytes() == score.score(beats)[part].tobytes()


def test_a_stored_score_is_restored_unchanged(score: Score) -> None:
    plain = json.loads(json.dumps(score.to_dict()))
    restored = Score.restore(plain, score.to_arrays())
    beats = normal_beats(300, seed=11)
    for less in LESS.values():
        assert np.array_equal(restored.score(beats.without(less)), score.score(beats.without(less)))
    assert restored.beats == 6000


def test_a_score_fitted_to_other_features_is_refused(score: Score) -> None:
    plain = score.to_dict() | {"features": ["error", "mood"]}
    with pytest.raises(ScoreError, match="mood"):
        Score.restore(plain, score.to_arrays())


def test_a_missing_part_is_reported(score: Score) -> None:
    plain = score.to_dict()
    plain["parts"] = {name: part for name, part in plain["parts"].items() if name != "no rhythm"}
    with pytest.raises(ScoreError, match="no rhythm"):
        Score.restore(plain, score.to_arrays())


def test_leaving_patients_out_calibrates_the_score_for_new_patients() -> None:
    """Each patient has its own shape and level, so only patients left out show how new patients score."""

    def of(patients: range, beats_each: int, seed: int) -> tuple[Evidence, NDArray[np.int64]]:
        random = np.random.default_rng(seed)
        parts = []
        for patient in patients:
            beats = normal_beats(beats_each, seed=int(random.integers(1 << 30)))
            own = np.random.default_rng(1000 + patient)
            beats.features[:] = 0.3 * beats.features + own.standard_normal(len(NAMES))
            beats.outline[:] += own.standard_normal(OUTLINE)
            parts.append(beats)
        return Evidence.concatenate(parts), np.repeat(np.array(list(patients)), beats_each)

    train, whose = of(range(20), 60, seed=1)
    held_out, whose_held_out = of(range(20), 55, seed=2)
    new, _ = of(range(100, 160), 60, seed=3)
    unseen = np.exp(np.concatenate([train.features[:, 0], held_out.features[:, 0]]))  # no generator is used here
    apart = fit_score(train, held_out, patients=np.concatenate([whose, whose_held_out]), unseen=unseen)
    together = fit_score(train, held_out)
    false_alarms = [np.mean(score.score(new) > 2) for score in (apart, together)]
    assert false_alarms[0] < false_alarms[1] / 2
    assert apart.beats == len(train) + len(held_out)


@pytest.mark.parametrize("patients", [None, np.arange(2600) % 10])
def test_a_score_fitted_to_one_lead_needs_no_second_lead(patients: NDArray[np.int64] | None) -> None:
    beats = normal_beats(2600, seed=19).without(LESS["one lead"])
    unseen = None if patients is None else np.exp(beats.features[:, 0])
    fitted = fit_score(beats[:1300], beats[1300:], patients=patients, unseen=unseen)
    assert [part is None for part in fitted.parts] == [known.name == "two leads" for known in FEATURE_SETS]
    restored = Score.restore(json.loads(json.dumps(fitted.to_dict())), fitted.to_arrays())
    new = normal_beats(4000, seed=20)
    scores = restored.score(new)
    assert np.array_equal(scores, fitted.score(new.without(LESS["one lead"])))
    assert np.mean(scores > 1) == pytest.approx(0.1, rel=0.25)


def test_a_stored_score_without_its_one_lead_part_is_refused(score: Score) -> None:
    plain = score.to_dict()
    del plain["parts"]["one lead"]
    with pytest.raises(ScoreError, match="lacks something"):
        Score.restore(plain, score.to_arrays())


@pytest.mark.parametrize("known", [known.name for known in FEATURE_SETS if known.compares])
def test_a_shape_of_no_patient_scores_high_in_a_stream_full_of_it(score_of_patients: Score, known: str) -> None:
    score = score_of_patients
    paced = normal_beats(200, seed=14)
    paced.features[:, 0] = np.abs(paced.features[:, 0]) + 4
    paced.features[:, [NAMES.index(name) for name in (*OWN, "early", "spread")]] -= 2  # regular, like the beats before
    paced = paced.without(LESS[known])
    deaf = replace(score, parts=tuple(part and replace(part, alone=None) for part in score.parts))
    assert np.median(score.score(paced)) > 3
    assert np.median(deaf.score(paced)) < 2


def test_the_table_of_ax_alone_is_measured_on_unseen_patients(score_of_patients: Score) -> None:
    fitted = [score_of_patients, fitted_to_patients(100)]
    abnormal = normal_beats(50, seed=16)
    abnormal.features[:, 0] += 4
    strict, lenient = (score.score(abnormal) for score in fitted)
    assert lenient.mean() < strict.mean() - 0.3


def test_patients_without_ax_of_unseen_patients_are_refused() -> None:
    beats = normal_beats(2000, seed=17)
    with pytest.raises(ScoreError, match="expected both or neither"):
        fit_score(beats[:1000], beats[1000:], patients=np.arange(2000) % 10)
    with pytest.raises(ScoreError, match="2000 patients and 1999 values"):
        fit_score(beats[:1000], beats[1000:], patients=np.arange(2000) % 10, unseen=np.ones(1999))


def test_too_few_beats_are_refused() -> None:
    few = normal_beats(999, seed=12)
    with pytest.raises(ScoreError, match="999 held-out normal beats"):
        fit_score(normal_beats(1000, seed=13), few)


def test_a_wrong_number_of_patients_is_refused() -> None:
    beats = normal_beats(1000, seed=14)
    with pytest.raises(ScoreError, match=r"3 patients and 2000 values of A\(x\) were given for 2000 beats"):
        fit_score(beats, beats, patients=np.arange(3), unseen=np.ones(2000))
    with pytest.raises(ScoreError, match="4 patients are too few"):
        fit_score(beats, beats, patients=np.arange(2000) % 4, unseen=np.ones(2000))


def test_a_feature_that_never_varies_is_refused() -> None:
    held_out = normal_beats(1500, seed=15)
    held_out.features[:, 0] = 1
    with pytest.raises(ScoreError, match="the same for all"):
        fit_score(normal_beats(1000, seed=16), held_out)
