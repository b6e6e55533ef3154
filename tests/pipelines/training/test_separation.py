"""AUC, average precision, best F1 and scaling are correct."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ecgmon.pipelines.training.separation import auc, average_precision, best_f1, scaled, separation


@given(
    negative=st.lists(st.integers(0, 9), min_size=1, max_size=30),
    positive=st.lists(st.integers(0, 9), min_size=1, max_size=30),
)
def test_the_auc_is_the_probability_of_the_right_order(negative: list[int], positive: list[int]) -> None:
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert auc(np.array(negative, np.float32), np.array(positive, np.float32)) == pytest.approx(np.mean(pairs))


def test_average_precision_equals_a_value_calculated_by_hand() -> None:
    # Ranked: positive, negative, positive, negative: precisions at the positives are 1 and 2/3.
    assert average_precision(np.array([2, 0], np.float32), np.array([3, 1], np.float32)) == pytest.approx(
        (1 + 2 / 3) / 2
    )


@given(
    negative=st.lists(st.integers(0, 9), max_size=30),
    positive=st.lists(st.integers(0, 9), max_size=30),
)
def test_the_best_f1_is_that_of_trying_every_threshold(negative: list[int], positive: list[int]) -> None:
    assume(negative or positive)
    found: dict[float, float] = {}
    for at in {*negative, *positive}:
        tp, fp = (sum(value >= at for value in values) for values in (positive, negative))
        fn = len(positive) - tp
        found[at] = 2 * tp / (2 * tp + fp + fn)
    threshold, f1 = best_f1(np.array(negative, np.float32), np.array(positive, np.float32))
    assert f1 == pytest.approx(max(found.values()))
    assert threshold == max(at for at, value in found.items() if value == max(found.values()))


def test_the_best_f1_equals_a_value_calculated_by_hand() -> None:
    # At 4: 2 true, 1 false, none missed: 2 * 2 / (2 * 2 + 1).  At 6: 1 true, 1 missed: 2 / 3.
    threshold, f1 = best_f1(np.array([1, 2, 5], np.float32), np.array([4, 6], np.float32))
    assert threshold == 4
    assert f1 == pytest.approx(0.8)


@given(values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30))
def test_scaled_values_keep_their_order_and_go_from_0_to_1(values: list[float]) -> None:
    least, most = min(values), max(values)
    found = scaled(np.array(values, np.float32))
    assert found.dtype == np.float32
    expected = [(value - least) / (most - least) if most > least else 0.0 for value in values]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)
    assert found.min() == 0
    assert found.max() == (1 if most > least else 0)


def test_no_values_are_scaled_to_none() -> None:
    assert scaled(np.empty(0, np.float32)).shape == (0,)


def test_each_class_is_compared_with_the_normal_beats() -> None:
    values = np.array([0, 1, 2, 3, 0.5], np.float32)
    found = separation(values, np.array([0, 0, 1, 2, 1], np.uint8))
    assert found["beats"] == {"N": 2, "S": 2, "V": 1, "F": 0, "Q": 0}
    assert found["per_class"] == {"S": 0.75, "V": 1.0}
    assert found["auc"] == pytest.approx((2 + 2 + 1) / 6)
