"""Resampling patients with weights gives the figures of the drawn beats."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgmon.pipelines.evaluation.bootstrap import GRID, RESAMPLES, PatientBootstrap, differences, figures, weights_of
from ecgmon.pipelines.evaluation.curves import Curve, curves_figure
from ecgmon.pipelines.training.separation import auc, average_precision


def beats(
    random: np.random.Generator, n: int, patients: int, steps: int = 20
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make values with ties, classes and patients of beats."""
    aami = (random.random(n) < 0.3).astype(np.uint8) * random.choice([1, 2], n).astype(np.uint8)
    values = (np.round((random.normal(size=n) + (aami > 0)) * steps) / steps).astype(np.float32)
    return values, aami, random.choice([f"patient {k}" for k in range(patients)], n)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), patients=st.integers(1, 6), steps=st.sampled_from([1, 3, 100]))
def test_weights_give_the_figures_of_the_repeated_beats(seed: int, patients: int, steps: int) -> None:
    random = np.random.default_rng(seed)
    values, aami, patient = beats(random, 60, patients, steps)
    fold = random.integers(0, 2, 60)
    names = np.unique(patient)
    weights = weights_of(len(names), 5, seed)
    assert (weights.sum(axis=1) == len(names)).all()
    found = PatientBootstrap.of(values, aami, patient, fold).resampled(weights)
    for row, drawn in enumerate(weights.astype(int)):
        expected = []
        for number in np.unique(fold):
            again = np.concatenate(
                [np.flatnonzero((patient == name) & (fold == number)) for name, k in zip(names, drawn, strict=True) for _ in range(k)]
            )  # fmt: skip
            normal, abnormal = values[again][aami[again] == 0], values[again][aami[again] != 0]
            both = len(normal) and len(abnormal)
            expected.append((auc(normal, abnormal), average_precision(normal, abnormal)) if both else (np.nan, np.nan))
        assert [figure[row] for figure in found] == pytest.approx(np.mean(expected, axis=0), nan_ok=True)


def test_an_interval_holds_95_of_100_resamples_and_is_the_same_every_time() -> None:
    values, aami, patient = beats(np.random.default_rng(1), 3000, 20)
    bootstrap = PatientBootstrap.of(values, aami, patient)
    found = bootstrap.intervals()
    assert found == bootstrap.intervals()
    assert found != bootstrap.intervals(seed=1)
    for name, resampled in zip(("auc", "ap"), bootstrap.resampled(weights_of(20)), strict=True):
        interval = found[name]
        assert interval is not None
        assert np.mean((resampled >= interval[0]) & (resampled <= interval[1])) == pytest.approx(0.95, abs=0.002)
        assert interval[0] < resampled.mean() < interval[1]


def test_the_interval_of_a_difference_is_narrow_if_two_values_are_alike() -> None:
    values, aami, patient = beats(np.random.default_rng(4), 2000, 15)
    first = PatientBootstrap.of(values, aami, patient)
    assert differences(first, first) == {"auc": (0, 0), "ap": (0, 0)}
    better = PatientBootstrap.of(values + np.float32(0.3) * (aami > 0), aami, patient)
    low, high = differences(first, better)["auc"] or (0, 0)
    own = first.intervals()["auc"] or (0, 0)
    assert 0 < low < high
    assert high - low < own[1] - own[0]
    some = patient != patient[0]
    fewer = PatientBootstrap.of(values[some], aami[some], patient[some])
    with pytest.raises(ValueError, match="15 and 14 patients"):
        differences(first, fewer)


def test_patients_that_differ_make_wide_intervals() -> None:
    values, aami, patient = beats(np.random.default_rng(1), 3000, 10)
    shifted = values - np.where((patient == "patient 3") & (aami > 0), 4, 0).astype(np.float32)
    alike, differing = (PatientBootstrap.of(given, aami, patient).intervals()["auc"] for given in (values, shifted))
    assert alike is not None
    assert differing is not None
    assert differing[1] - differing[0] > 2 * (alike[1] - alike[0])


def test_without_two_patients_or_without_abnormal_beats_there_is_no_interval() -> None:
    values, aami, patient = beats(np.random.default_rng(1), 100, 3)
    for classes, who in ((aami, np.zeros(100)), (np.zeros_like(aami), patient)):
        bootstrap = PatientBootstrap.of(values, classes, who)
        assert bootstrap.intervals() == {"auc": None, "ap": None}
        assert bootstrap.bands() is None
        assert figures({"score": bootstrap})["score"] == {"auc": None, "ap": None}


def test_a_band_contains_the_curve_of_the_same_resamples() -> None:
    values, aami, patient = beats(np.random.default_rng(2), 4000, 12, steps=1000)
    bands = PatientBootstrap.of(values, aami, patient).bands()
    assert bands is not None
    curve = Curve.of(values, aami)
    true = np.interp(GRID, np.append(0, curve.false), np.append(0, curve.true))
    precision = np.interp(GRID, curve.true, curve.precision)
    inside = slice(10, -10)  # at the ends a curve jumps
    for band, line in zip(bands, (true, precision), strict=True):
        assert (band.low <= band.high).all()
        assert (band.low[inside] <= line[inside]).all()
        assert (line[inside] <= band.high[inside]).all()


@pytest.mark.timeout(60)  # it takes seconds; a sort for each resample takes minutes
def test_a_hundred_thousand_beats_of_forty_patients_take_seconds() -> None:
    values, aami, patient = beats(np.random.default_rng(3), 100_000, 44, steps=10_000)
    found = figures({"score": PatientBootstrap.of(values, aami, patient)})
    assert (found["patients"], found["resamples"], found["level"]) == (44, RESAMPLES, 0.95)


def test_curves_are_drawn_with_their_bands() -> None:
    values, aami, patient = beats(np.random.default_rng(2), 400, 5)
    figure = curves_figure([Curve.of(values, aami, patient, name="score"), Curve.of(-values, aami, name="other")])
    roc, recall = figure.axes
    assert [len(axes.collections) for axes in (roc, recall)] == [1, 1]
    assert roc.get_legend_handles_labels()[1] == ["score", "other"]
