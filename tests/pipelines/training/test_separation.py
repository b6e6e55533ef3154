"""AUC and average precision are correct."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgmon.pipelines.training.separation import auc, average_precision, separation


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


def test_each_class_is_compared_with_the_normal_beats() -> None:
    values = np.array([0, 1, 2, 3, 0.5], np.float32)
    found = separation(values, np.array([0, 0, 1, 2, 1], np.uint8))
    assert found["beats"] == {"N": 2, "S": 2, "V": 1, "F": 0, "Q": 0}
    assert found["per_class"] == {"S": 0.75, "V": 1.0}
    assert found["auc"] == pytest.approx((2 + 2 + 1) / 6)
