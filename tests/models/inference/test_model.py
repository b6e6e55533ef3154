"""``ecgmon.load_model``: from windows to reconstructions and A(x)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import ecgmon
from ecgmon.models.weights.checkpoint import default_weights
from ecgmon.models.windows import scale

if TYPE_CHECKING:
    from ecgmon.testing import SyntheticECG


@pytest.fixture(scope="module")
def beats(ecg: SyntheticECG) -> ecgmon.Beats:
    return ecgmon.segment(ecg.signal, ecg.fs)


def test_the_anomaly_scores_of_windows_are_those_of_scoring(ecg: SyntheticECG, beats: ecgmon.Beats) -> None:
    scores = ecgmon.score(ecg.signal, ecg.fs)
    assert ecgmon.load_model().anomaly_score(beats.windows).tobytes() == scores.ax.tobytes()


def test_a_reconstruction_is_in_millivolts_and_its_error_is_ax(beats: ecgmon.Beats) -> None:
    model = ecgmon.load_model()
    windows = beats.windows[:, :1]
    made = model.reconstruct(beats.windows)
    assert made.shape == windows.shape
    low, high = windows.min(axis=-1, keepdims=True), windows.max(axis=-1, keepdims=True)
    scaled = 2 * (made - low) / (high - low) - 1
    assert np.square(scaled - scale(windows)).mean(axis=(1, 2)) == pytest.approx(model.anomaly_score(windows), rel=1e-4)
    flat = model.reconstruct(beats.windows[:, 0])
    assert flat.shape == (len(beats), 320)
    assert np.array_equal(flat, made[:, 0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_window_with_a_value_that_is_not_finite_gets_nan_and_does_not_affect_others(
    beats: ecgmon.Beats, value: float
) -> None:
    model = ecgmon.load_model()
    damaged = beats.windows.copy()
    damaged[3, 0, 100] = value
    ax = model.anomaly_score(damaged)
    assert np.isnan(ax).nonzero()[0].tolist() == [3]
    assert np.array_equal(np.delete(ax, 3), np.delete(model.anomaly_score(beats.windows), 3))
    assert np.isnan(model.reconstruct(damaged)[3]).all()


@pytest.mark.parametrize("shape", [(320,), (5, 319), (5, 0, 320), (2, 1, 1, 320)])
def test_windows_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    model = ecgmon.load_model()
    for call in (model.reconstruct, model.anomaly_score):
        with pytest.raises(ecgmon.errors.ScoringError, match=r"expected \(n, 1 or more leads, 320\) or \(n, 320\)"):
            call(np.zeros(shape))


def test_the_number_of_threads_is_restored(ecg: SyntheticECG, beats: ecgmon.Beats) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        model = ecgmon.Model(default_weights())
        model.anomaly_score(beats.windows)
        ecgmon.score(ecg.signal, ecg.fs)
        assert torch.get_num_threads() == 2
        with model.running():
            assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_missing_checkpoint_or_device_is_an_error() -> None:
    with pytest.raises(ecgmon.errors.CheckpointError, match="nowhere"):
        ecgmon.load_model("nowhere")
    with pytest.raises(ValueError, match=r"device 'abacus' cannot be used .*; choose cpu"):
        ecgmon.load_model(device="abacus")


def test_the_shipped_model_is_loaded_only_once() -> None:
    assert ecgmon.load_model() is ecgmon.load_model()
    assert repr(ecgmon.load_model()).startswith("<ecgmon.Model: ")
