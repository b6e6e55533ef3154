"""Resampling to the rate of the windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgmon.models.windows import FS
from ecgmon.pipelines.segmentation.resampling import Resampler

if TYPE_CHECKING:
    from numpy.typing import NDArray

RATES = [100.0, 128.0, 250.0, 257.0, 1000 / 3, 359.9, 500.0, 1000.0]


def resample(
    fs: float, signal: NDArray[np.float32], size: int | None = None
) -> tuple[Resampler, NDArray[np.float32], NDArray[np.int32]]:
    resampler = Resampler(fs, 1, 1)
    size = size or len(signal)
    marks = np.arange(len(signal), dtype=np.int32)[None, :]
    parts = [resampler.push(signal[None, k : k + size], marks[:, k : k + size]) for k in range(0, len(signal), size)]
    return resampler, np.concatenate([p[0] for p in parts], axis=1)[0], np.concatenate([p[1] for p in parts], axis=1)[0]


@pytest.mark.parametrize("fs", RATES)
def test_a_qrs_band_wave_keeps_its_shape_and_its_place_in_time(fs: float) -> None:
    time = np.arange(round(8 * fs)) / fs
    wave = np.sin(2 * np.pi * 15 * time).astype(np.float32)
    resampler, out, _ = resample(fs, wave)
    at = np.arange(len(out)) * resampler.down / resampler.up / fs
    inside = (at > 0.2) & (at < 7.7)
    assert np.abs(out - np.sin(2 * np.pi * 15 * at))[inside].max() < 0.005


@pytest.mark.parametrize("fs", RATES)
def test_a_baseline_offset_passes_unchanged_from_the_first_sample_on(fs: float) -> None:
    assert np.abs(resample(fs, np.full(3000, 4.2, np.float32))[1] - 4.2).max() < 1e-5


@pytest.mark.parametrize("fs", [500.0, 1000.0])
def test_what_360_hz_can_not_hold_is_removed_and_not_folded_back(fs: float) -> None:
    time = np.arange(round(4 * fs)) / fs
    assert np.abs(resample(fs, np.sin(2 * np.pi * 230 * time).astype(np.float32))[1][100:-100]).max() < 0.01


@pytest.mark.parametrize("fs", RATES)
def test_outputs_do_not_depend_on_the_chunks_in_their_last_bit(fs: float) -> None:
    signal = np.random.default_rng(0).standard_normal(2000).astype(np.float32)
    _, whole, marks = resample(fs, signal)
    for size in (1, 37):
        _, parts, part_marks = resample(fs, signal, size)
        assert whole.tobytes() == parts.tobytes()
        assert np.array_equal(marks, part_marks)


@pytest.mark.parametrize("fs", RATES)
def test_marks_are_those_of_the_nearest_sample(fs: float) -> None:
    resampler, out, marks = resample(fs, np.zeros(2000, np.float32))
    exact = np.arange(len(out)) * resampler.down / resampler.up
    assert np.abs(marks - exact).max() <= 0.5


def test_a_stream_at_360_hz_is_passed_through_untouched() -> None:
    signal = np.random.default_rng(0).standard_normal(500).astype(np.float32)
    assert np.array_equal(resample(FS, signal)[1], signal)


def test_a_crooked_rate_is_off_by_no_more_than_is_said() -> None:
    for fs in (*np.random.default_rng(0).uniform(100, 1000, 50), 360.01, 359.99):
        assert Resampler(fs, 1, 1).fs == pytest.approx(fs, rel=6e-5)
