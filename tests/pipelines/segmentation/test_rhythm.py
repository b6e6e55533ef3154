"""The rhythm around a beat: what a reader of the store or of a CSV file sees beside each beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgmon.pipelines.limits import RR_NEEDED, RR_REMEMBERED
from ecgmon.pipelines.segmentation.rhythm import around

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAN = float("nan")


def as_segmented(seconds: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """rr and rr_ratio as the segmenter gives them, for beats without a break."""
    rr = np.concatenate(([np.nan], np.diff(seconds)))
    ratio = np.full(len(rr), np.nan)
    for k in range(1 + RR_NEEDED, len(rr)):
        ratio[k] = rr[k] / rr[max(1, k - RR_REMEMBERED) : k].mean()
    return rr, ratio


@given(st.lists(st.floats(0.3, 2.5), min_size=1, max_size=40))
def test_the_interval_after_is_set_against_the_same_recent_mean_as_the_one_before(intervals: list[float]) -> None:
    seconds = np.cumsum([0.5, *intervals])
    found = around(seconds, *as_segmented(seconds))
    for k in range(len(seconds)):
        after = seconds[k + 1] - seconds[k] if k + 1 < len(seconds) else NAN
        before = np.diff(seconds)[max(0, k - 1 - RR_REMEMBERED) : max(0, k - 1)]
        mean = before.mean() if len(before) >= RR_NEEDED else NAN
        expected = (after, after / mean, 60 / mean)
        assert found[k].tolist() == pytest.approx(expected, rel=1e-5, nan_ok=True)


def test_a_premature_beat_shows_its_pause() -> None:
    seconds = np.arange(20.0)
    seconds[12] -= 0.4
    found = around(seconds, *as_segmented(seconds))
    assert found["rr_after"][12] == pytest.approx(1.4)
    assert found["rr_after_ratio"][12] == pytest.approx(1.4)
    assert found["rate"][12] == pytest.approx(60.0)


def test_no_interval_reaches_across_lost_signal() -> None:
    seconds = np.array([0.0, 1.0, 2.0, 9.0, 10.0])
    found = around(seconds, [NAN, 1.0, 1.0, NAN, 1.0], [NAN] * 5)
    assert found["rr_after"].tolist() == pytest.approx([1.0, 1.0, NAN, 1.0, NAN], nan_ok=True)


def test_a_beat_that_a_live_source_dropped_is_not_bridged() -> None:
    seconds = np.array([0.0, 1.0, 3.0, 4.0])  # the beat at 2 s was dropped; the next one's rr still leads to it
    found = around(seconds, [NAN, 1.0, 1.0, 1.0], [NAN] * 4)
    assert found["rr_after"].tolist() == pytest.approx([1.0, NAN, 1.0, NAN], nan_ok=True)


def test_no_beats_have_no_rhythm_and_unequal_columns_are_refused() -> None:
    assert len(around([], [], [])) == 0
    with pytest.raises(ValueError, match="per beat"):
        around([1.0, 2.0], [1.0], [1.0])
