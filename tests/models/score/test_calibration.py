"""The calibration: a score of 2 is one normal beat in a hundred, for any measured quantity."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgmon.models.score.calibration import CAP, CalibrationError, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray


def normal_beats(n: int, seed: int) -> NDArray[np.float64]:
    """Make skewed values of normal beats."""
    return 0.003 * np.exp(0.9 * np.random.default_rng(seed).standard_normal(n))


@pytest.fixture(scope="module")
def table() -> Table:
    return Table.measure(np.log(normal_beats(20_000, seed=1)))


@pytest.mark.parametrize("level", [0.5, 1, 1.5, 2, 2.5, 3])
def test_the_share_of_normal_beats_over_a_score_s_is_ten_to_the_minus_s(table: Table, level: float) -> None:
    score = table(np.log(normal_beats(400_000, seed=2)))
    assert np.mean(score > level) == pytest.approx(10**-level, rel=0.25)


@settings(deadline=None)
@given(one=st.floats(-20, 20), other=st.floats(-20, 20))
def test_a_higher_value_never_scores_lower(table: Table, one: float, other: float) -> None:
    usual, rare = table(np.sort([one, other]))
    assert 0 <= usual <= rare <= CAP


def test_an_unknown_value_has_no_score(table: Table) -> None:
    assert np.isnan(table(np.array([np.nan]))).all()


def test_a_stored_table_is_restored_unchanged(table: Table) -> None:
    restored = Table.from_dict(json.loads(json.dumps(table.to_dict())))
    values = np.log(normal_beats(1000, seed=5))
    assert np.array_equal(restored(values), table(values))


def test_a_table_of_too_few_beats_is_refused() -> None:
    with pytest.raises(CalibrationError, match=r"999 normal beats .* too few"):
        Table.measure(normal_beats(999, seed=6))


def test_values_that_are_all_equal_are_refused() -> None:
    with pytest.raises(CalibrationError, match="all equal"):
        Table.measure(np.full(2000, 0.1))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused(bad: float) -> None:
    values = normal_beats(2000, seed=7)
    values[3] = bad
    with pytest.raises(CalibrationError, match="not finite"):
        Table.measure(values)


@pytest.mark.parametrize(
    ("values", "score", "message"),
    [
        ([1, 2, 3], [0, 2, 1], "rises and falls"),
        ([1, 2, 3], [2, 1, 0], "wrong way"),
        ([1, 1, 3], [0, 1, 2], "do not increase"),
        ([1, 2, 3], [0, 1, 7], "expected 0 to"),
        ([1, 2, float("nan")], [0, 1, 2], "not finite"),
        ([1, 2], [0, 1, 2], "equally long"),
        ([1], [0], "equally long"),
        ("abc", [0, 1, 2], "list of numbers"),
    ],
)
def test_an_inconsistent_table_is_refused(values: list[float] | str, score: list[float], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        Table.from_dict({"values": values, "score": score})  # type: ignore[dict-item]


def test_a_missing_list_is_reported(table: Table) -> None:
    plain = table.to_dict()
    del plain["score"]
    with pytest.raises(CalibrationError, match="score"):
        Table.from_dict(plain)
