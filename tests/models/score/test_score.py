"""The score has the same meaning for every set of known features, and after it was stored."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgmon.models.features import AX, NAMES, OUTLINE, OWN, OWN_2, RHYTHM
from ecgmon.models.score.calibration import CAP, CalibrationError
from ecgmon.models.score.evidence import Evidence
from ecgmon.models.score.fitting import fit_score
from ecgmon.models.score.parts import FEATURE_SETS, FeatureSet, Part, ScoreError, opinion, total_of
from ecgmon.models.score.score import Score
from ecgmon.testing.evidence import normal_beats

LESS = {
    "two leads": (),
    "one lead": OWN_2,
    "no rhythm": RHYTHM,
    "no own beats": OWN + OWN_2,
    "reconstruction": tuple(name for name in NAMES if name != "log_ax"),
}


def part_of(score: Score, known: FeatureSet) -> Part:
    part = score.parts[FEATURE_SETS.index(known)]
    assert part is not None
    return part


@pytest.fixture(scope="module")
def score() -> Score:
    return fit_score(normal_beats(2000, seed=1), normal_beats(12_000, seed=2))


@pytest.fixture(scope="module")
def score_for_others() -> Score:
    return fit_score(normal_beats(2000, seed=18), normal_beats(6000, seed=21), for_other_patients=True)


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


@settings(deadline=None, max_examples=40)
@given(
    known=st.sampled_from(list(LESS)),
    which=st.integers(0, 1000),
    value=st.floats(-10, 10, width=32),
    more=st.floats(0, 10, width=32),
)
def test_a_higher_feature_never_scores_lower_where_there_is_no_density(
    score_for_others: Score, known: str, which: int, value: float, more: float
) -> None:
    part = next(part for part in FEATURE_SETS if part.name == known)
    column = NAMES.index(part.added[which % len(part.added)])
    beats = normal_beats(20, seed=7).without(LESS[known])
    higher = Evidence(beats.features.copy(), beats.outline)
    beats.features[:, column] = value
    higher.features[:, column] = value + more
    assert (score_for_others.score(higher) >= score_for_others.score(beats)).all()


@pytest.mark.parametrize(
    "known", [known for known in FEATURE_SETS if len(known.added) > 1], ids=lambda known: known.name
)
def test_a_beat_unusual_in_one_feature_is_hardly_less_so_for_ordinary_values_in_the_others(
    score_for_others: Score, known: FeatureSet
) -> None:
    part = part_of(score_for_others, known)
    for unusual, table in zip(known.added, part.tables, strict=True):
        totals = []
        for quantile in (0.1, 0.7):
            score = -np.log10(1 - quantile)  # of the others
            beat = normal_beats(1, seed=22)
            for name, own in zip(known.added, part.tables, strict=True):
                beat.features[:, NAMES.index(name)] = np.interp(score, own.score, own.values)
            beat.features[:, NAMES.index(unusual)] = np.interp(3, table.score, table.values)
            totals.append(float(total_of(part.weights, part.tables, beat)[0]))
        assert totals[0] < totals[1] < totals[0] + 0.2
        assert totals[0] > 2.3 * part.weights[unusual]


def test_a_feature_counts_from_the_most_unusual_quarter_of_normal_beats_on() -> None:
    score = np.linspace(0, CAP, 601)
    counted = opinion(score)
    assert (np.diff(counted) > 0).all()
    assert counted[score <= -np.log10(0.26)].max() < 0.05
    assert np.diff(counted)[score[1:] > 0.61] / 0.01 == pytest.approx(1, abs=0.06)


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
    for every, names in ((3, OWN_2), (7, RHYTHM), (11, OWN)):
        beats.features[::every] = beats[::every].without(names).features
    part = slice(start, start + count)
    assert score.score(beats[part]).tobytes() == score.score(beats)[part].tobytes()


def test_a_stored_score_is_restored_unchanged(score: Score) -> None:
    plain = json.loads(json.dumps(score.to_dict()))
    restored = Score.restore(plain, score.to_arrays())
    beats = normal_beats(300, seed=11)
    for less in LESS.values():
        assert np.array_equal(restored.score(beats.without(less)), score.score(beats.without(less)))
    assert restored.beats == 12_000


def test_a_score_fitted_to_other_features_is_refused(score: Score) -> None:
    plain = score.to_dict() | {"features": ["error", "mood"]}
    with pytest.raises(ScoreError, match="mood"):
        Score.restore(plain, score.to_arrays())


def test_a_missing_part_is_reported(score: Score) -> None:
    plain = score.to_dict()
    plain["parts"] = {name: part for name, part in plain["parts"].items() if name != "no rhythm"}
    with pytest.raises(ScoreError, match="no rhythm"):
        Score.restore(plain, score.to_arrays())


def test_a_score_for_other_patients_has_fewer_false_alarms_on_new_patients() -> None:
    """Each patient has its own shape and level, so a density knows those that it was fitted to."""

    def of(patients: range, beats_each: int, seed: int) -> Evidence:
        random = np.random.default_rng(seed)
        parts = []
        for patient in patients:
            beats = normal_beats(beats_each, seed=int(random.integers(1 << 30)))
            own = np.random.default_rng(1000 + patient)
            beats.features[:] = 0.3 * beats.features + own.standard_normal(len(NAMES))
            beats.outline[:] += own.standard_normal(OUTLINE)
            parts.append(beats)
        return Evidence.concatenate(parts)

    train, held_out = of(range(20), 60, seed=1), of(range(20), 55, seed=2)
    new = of(range(100, 160), 60, seed=3)
    apart = fit_score(train, held_out, for_other_patients=True)
    together = fit_score(train, held_out)
    false_alarms = [np.mean(score.score(new) > 2) for score in (apart, together)]
    assert false_alarms[0] < false_alarms[1] / 2
    assert apart.beats == len(train) + len(held_out)


@pytest.mark.parametrize("for_other_patients", [False, True])
def test_a_score_for_other_patients_has_no_density_and_is_measured_on_all_of_its_beats(
    for_other_patients: bool,
) -> None:
    train, held_out = normal_beats(1200, seed=23), normal_beats(1000, seed=24)
    train.features[:] += 0.3
    fitted = fit_score(train, held_out, for_other_patients=for_other_patients, blurs=(2.0,))
    with_density = {known.name for known in FEATURE_SETS if part_of(fitted, known).joint is not None}
    assert with_density == (set() if for_other_patients else {known.name for known in FEATURE_SETS if known.joined})
    assert bool(fitted.to_arrays()) != for_other_patients
    measured = Evidence.concatenate([train, held_out]) if for_other_patients else held_out
    assert fitted.beats == len(measured)
    for less in LESS.values():
        scores = fitted.score(measured.without(less))
        for level in (0.5, 1, 2):
            assert np.mean(scores >= level - 1e-6) == pytest.approx(10**-level, rel=0.05)


def test_the_evidence_decides_how_strict_a_score_for_other_patients_is() -> None:
    """Errors of generators that have not seen the patients are larger, so that the same error is less unusual."""
    abnormal = normal_beats(50, seed=16)
    abnormal.features[:, 0] += 4
    scores = []
    for more in (0, 1):
        beats = normal_beats(2000, seed=18)
        beats.features[:, 0] += more
        scores.append(fit_score(beats[:1000], beats[1000:], for_other_patients=True).score(abnormal))
    assert scores[1].mean() < scores[0].mean() - 0.3


@pytest.mark.parametrize("for_other_patients", [False, True])
def test_a_score_fitted_to_one_lead_needs_no_second_lead(for_other_patients: bool) -> None:
    beats = normal_beats(2600, seed=19).without(LESS["one lead"])
    fitted = fit_score(beats[:1300], beats[1300:], for_other_patients=for_other_patients)
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
def test_a_shape_of_no_patient_scores_high_in_a_stream_full_of_it(score_for_others: Score, known: str) -> None:
    score = score_for_others
    paced = normal_beats(200, seed=14)
    paced.features[:, 0] = np.abs(paced.features[:, 0]) + 4
    paced.features[:, [NAMES.index(name) for name in (*OWN, *OWN_2, "early", "spread")]] -= (
        2  # regular, like the others
    )
    paced = paced.without(LESS[known])
    deaf = replace(score, parts=tuple(part and replace(part, alone=None) for part in score.parts))
    assert np.median(score.score(paced)) > 3
    assert np.median(deaf.score(paced)) < 2


def test_too_few_beats_are_refused() -> None:
    few = normal_beats(999, seed=12)
    with pytest.raises(ScoreError, match="999 held-out normal beats"):
        fit_score(normal_beats(1000, seed=13), few)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [("early", ScoreError, "the same for all"), ("log_ax", CalibrationError, "all equal")],
)
def test_a_feature_that_never_varies_is_refused(name: str, error: type[Exception], message: str) -> None:
    held_out = normal_beats(1500, seed=15)
    held_out.features[:, NAMES.index(name)] = 1
    with pytest.raises(error, match=message):
        fit_score(normal_beats(1000, seed=16), held_out)


@pytest.mark.parametrize("less", [AX, RHYTHM, (*OWN, *OWN_2), OWN_2])
def test_a_score_fitted_without_some_features_does_not_depend_on_them(less: tuple[str, ...]) -> None:
    train, held_out, new = (normal_beats(n, seed) for n, seed in ((1000, 25), (1500, 26), (100, 27)))
    fitted = fit_score(train, held_out, without=less, blurs=(2.0,))
    other = Evidence(new.features.copy(), new.outline)
    other.features[:, [NAMES.index(name) for name in less]] = 50
    assert np.isfinite(fitted.score(new)).all()
    assert np.array_equal(fitted.score(other), fitted.score(new))
    assert np.array_equal(fitted.score(new.without(less)), fitted.score(new))
