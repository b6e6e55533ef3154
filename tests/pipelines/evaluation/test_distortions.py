"""Each known distortion changes the ticks that it reports, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgmon.models.windows import BEFORE, FS, LENGTH
from ecgmon.pipelines.evaluation.distortions import (
    CHANGED_SHARE,
    DISTORTIONS,
    LEAST_CHANGE,
    P_SECONDS,
    SPIKE,
    ST_SHIFT,
    missing_p,
    spike,
    st_shift,
    widened_qrs,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

SECONDS = (np.arange(LENGTH) - BEFORE) / FS


def wave(peak: float, width: float, height: float) -> NDArray[np.float64]:
    """A bump in mV; its peak is in s from the R peak, its width in s."""
    return height * np.exp(-np.square((SECONDS - peak) / width))


@pytest.fixture(scope="module")
def beats() -> NDArray[np.float32]:
    """Synthetic normal beats in mV, (40, 2, 320): P at -0.16 s, QRS, T at 0.28 s; second lead -0.5 times the first."""
    random = np.random.default_rng(0)
    beat = wave(-0.16, 0.025, 0.15) + wave(0, 0.015, 1.2) + wave(0.28, 0.05, 0.3)
    noisy = beat + 0.005 * random.standard_normal((40, LENGTH))
    return np.stack([noisy, -0.5 * noisy], axis=1).astype(np.float32)


def width_at_half_height(lead: NDArray[np.float32]) -> np.float64:
    return np.count_nonzero(lead > lead[BEFORE] / 2) / FS


@pytest.mark.parametrize("name", DISTORTIONS)
def test_a_distortion_changes_the_reported_ticks_and_little_else(name: str, beats: NDArray[np.float32]) -> None:
    distorted, changed = DISTORTIONS[name](beats, np.random.default_rng(1))
    change = np.abs(distorted - beats)
    largest = change.max(axis=-1, keepdims=True)
    outside = np.where(changed[:, None], 0, change)
    assert (distorted.shape, distorted.dtype) == (beats.shape, np.dtype(np.float32))
    assert (changed.shape, changed.dtype) == ((len(beats), LENGTH), np.dtype(np.bool_))
    assert (largest >= LEAST_CHANGE).all(), "a distortion that cannot be seen tests nothing"
    assert (outside <= CHANGED_SHARE * largest + 1e-6).all()
    assert np.abs(np.diff(changed.astype(int), axis=1, prepend=0, append=0)).sum(axis=1).tolist() == [2] * len(beats), (
        "the changed ticks are not in one piece"
    )
    assert (changed.mean(axis=1) < 0.5).all(), "a distortion of half the window is no test of an explanation"


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(sorted(DISTORTIONS)))
def test_the_same_seed_gives_the_same_distortion_and_the_input_is_not_changed(
    seed: int, name: str, beats: NDArray[np.float32]
) -> None:
    before = beats.copy()
    first, second = (DISTORTIONS[name](beats, np.random.default_rng(seed)) for _ in range(2))
    assert np.array_equal(beats, before)
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])


@pytest.mark.parametrize("name", DISTORTIONS)
def test_no_beats_are_no_error(name: str) -> None:
    distorted, changed = DISTORTIONS[name](np.zeros((0, 1, LENGTH), np.float32), np.random.default_rng(0))
    assert (distorted.shape, changed.shape) == ((0, 1, LENGTH), (0, LENGTH))


def test_a_widened_complex_keeps_its_height_and_the_other_waves(beats: NDArray[np.float32]) -> None:
    distorted, _ = widened_qrs(beats, np.random.default_rng(1))
    for was, now in zip(beats[:, 0], distorted[:, 0], strict=True):
        assert 1.3 < width_at_half_height(now) / width_at_half_height(was) < 2.4
    assert distorted[..., BEFORE] == pytest.approx(beats[..., BEFORE], abs=1e-5)
    far = np.abs(SECONDS) > 0.18
    assert distorted[..., far] == pytest.approx(beats[..., far], abs=0.01)


def test_a_missing_p_wave_leaves_a_straight_line(beats: NDArray[np.float32]) -> None:
    distorted, changed = missing_p(beats, np.random.default_rng(1))
    first, last = P_SECONDS
    place = (first <= SECONDS) & (last >= SECONDS)
    assert np.abs(np.diff(distorted[..., place][..., 1:-1], n=2)).max() < 1e-5
    assert not changed[:, ~place].any()
    assert np.abs(distorted[:, 0, place]).max() < 0.05


def test_a_beat_without_a_p_wave_cannot_lose_it() -> None:
    without = np.broadcast_to((wave(0, 0.015, 1.2) + wave(0.28, 0.05, 0.3)).astype(np.float32), (3, 1, LENGTH))
    distorted, changed = missing_p(without, np.random.default_rng(1))
    assert not changed.any()
    assert distorted == pytest.approx(without, abs=1e-3)


def test_an_st_shift_goes_up_or_down_and_lies_after_the_r_peak(beats: NDArray[np.float32]) -> None:
    distorted, changed = st_shift(beats, np.random.default_rng(1))
    change = distorted - beats
    segment = change[..., (SECONDS > 0.06) & (SECONDS < 0.12)].mean(axis=-1)
    assert 0 < np.count_nonzero(segment[:, 0] > 0) < len(beats)
    assert np.abs(change).max() < ST_SHIFT[1], "the filter only reduces a shift"
    assert change[:, 0] == pytest.approx(change[:, 1], abs=1e-5)
    assert not changed[:, SECONDS < -0.02].any()


def test_a_spike_has_one_random_place_and_a_size_in_range(beats: NDArray[np.float32]) -> None:
    distorted, changed = spike(beats, np.random.default_rng(1))
    change = np.abs(distorted - beats)[:, 0]
    assert ((change.max(axis=1) > 0.3 * SPIKE[0]) & (change.max(axis=1) < SPIKE[1])).all()
    assert changed[np.arange(len(beats)), change.argmax(axis=1)].all()
    assert len(np.unique(change.argmax(axis=1))) > len(beats) / 2, "spikes must not lie all at one place"
    assert (changed.sum(axis=1) / FS < 0.2).all()
