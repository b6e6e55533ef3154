"""The GPU form gives the same results as the CPU; with a GPU, it is tested as the deployed CUDA graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from ecgmon.models.inference import gpu
from ecgmon.models.inference.gpu import TILE, DeviceNetwork
from ecgmon.models.inference.reconstruction import Reconstructor, Scorer, fused
from ecgmon.models.networks.beatgan import Generator
from ecgmon.models.networks.shape import BeatGanShape
from ecgmon.models.weights.checkpoint import load_generator, shipped
from ecgmon.models.windows import filter_raw
from tests.models.inference.test_sampled import raw_signals

if TYPE_CHECKING:
    from numpy.typing import NDArray

HAS_GPU = torch.cuda.is_available()


@pytest.fixture(scope="module", params=["cpu", *(["cuda"] if HAS_GPU else [])])
def device(request: pytest.FixtureRequest) -> str:
    """Each available device: the steps are the same, but only those of a GPU are recorded."""
    return request.param


@pytest.fixture(scope="module")
def network(device: str) -> DeviceNetwork:
    """The shipped generator on the device."""
    return DeviceNetwork(fused(load_generator(shipped("default"), device)[0]), 1, device)


@pytest.fixture(scope="module")
def beats() -> NDArray[np.float32]:
    """Windows in mV, (2 * TILE + 300, 1, 320)."""
    return np.concatenate([filter_raw(raw_signals("beats", 300))] * 8)[: 2 * TILE + 300]


def score(network: DeviceNetwork, windows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
    error, ticks = network.score(torch.from_numpy(windows))
    return error.numpy(), ticks.numpy()


def assert_close(found: NDArray[np.float16], expected: NDArray[np.float16]) -> None:
    """Compare to 1 % or 1e-6, whichever is more; pytest.approx takes half a minute for so many values."""
    one, other = found.astype(np.float32), expected.astype(np.float32)
    assert (np.abs(one - other) <= np.maximum(1e-2 * np.abs(other), 1e-6)).all()


def test_the_results_are_those_of_the_cpu(network: DeviceNetwork, beats: NDArray[np.float32]) -> None:
    error, ticks = score(network, beats)
    expected = Scorer().score(beats)
    assert error == pytest.approx(expected.ax, rel=1e-4)
    assert_close(ticks, expected.ticks)
    assert (error.dtype, ticks.dtype) == (np.dtype(np.float32), np.dtype(np.float16))


def test_the_steps_are_recorded_on_a_gpu_only(network: DeviceNetwork, device: str) -> None:
    assert network.captured == (device == "cuda")


@pytest.mark.parametrize("count", [1, 7, TILE - 1, TILE, TILE + 1, 2 * TILE + 300])
def test_the_score_of_a_beat_does_not_depend_on_the_other_beats_bit_for_bit(
    network: DeviceNetwork, beats: NDArray[np.float32], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    error, ticks = score(network, beats)
    monkeypatch.setattr(gpu, "_AT_ONCE", TILE)
    for part in (slice(count), slice(len(beats) - count, None)):
        some_error, some_ticks = score(network, beats[part].copy())
        assert np.array_equal(some_error, error[part])
        assert np.array_equal(some_ticks, ticks[part])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_a_window_that_cannot_be_scored_gets_nan_and_does_not_affect_others(
    network: DeviceNetwork, beats: NDArray[np.float32], bad: float
) -> None:
    damaged = beats[: TILE + 8].copy()
    damaged[5, 0, 100:102] = bad, -3e38
    error, ticks = score(network, damaged)
    clean_error, clean_ticks = score(network, beats[: TILE + 8])  # no values of the bad window remain
    assert np.isnan(error[5])
    assert np.isnan(ticks[5]).all()
    others = np.arange(len(damaged)) != 5
    assert np.array_equal(error[others], clean_error[others])
    assert np.array_equal(ticks[others], clean_ticks[others])
    assert np.isfinite(clean_error).all()


def test_bad_and_flat_windows_are_the_same_as_on_the_cpu(network: DeviceNetwork) -> None:
    values = np.array([0, 0.7, 1e-30, 1e-42, -3e38, 3e38, np.nan, np.inf], np.float32)
    windows = np.zeros((len(values), 1, 320), np.float32)
    windows[:, 0, 7] = values
    flat = np.broadcast_to(values[1:4, None, None], (3, 1, 320))
    windows = np.concatenate([windows, flat])
    error, _ = score(network, windows)
    expected = Scorer().score(windows).ax
    assert np.array_equal(np.isnan(error), np.isnan(expected))
    assert error == pytest.approx(expected, rel=1e-4, nan_ok=True)


def test_no_windows_give_empty_results(network: DeviceNetwork) -> None:
    error, ticks = score(network, np.empty((0, 1, 320), np.float32))
    assert error.shape == (0,)
    assert ticks.shape == (0, 320)


def test_a_convolutional_network_with_two_leads(device: str) -> None:
    torch.manual_seed(0)
    generator = Generator(BeatGanShape(leads=2, width=2, latent=4)).eval()
    windows = filter_raw(raw_signals("beats", 20, leads=2))
    expected = Reconstructor(generator).score(windows)
    network = DeviceNetwork(fused(generator.to(device)), 2, device)
    windows[3, 1, 7] = np.nan  # one lead is enough
    error, ticks = score(network, windows)
    good = np.arange(len(windows)) != 3
    assert error[good] == pytest.approx(expected.ax[good], rel=1e-3)
    assert_close(ticks[good], expected.ticks[good])
    assert np.isnan(error[3])


def test_a_scorer_on_a_gpu_gives_the_results_of_the_cpu(beats: NDArray[np.float32], device: str) -> None:
    """Without a GPU, the CPU runs the GPU's steps."""
    scorer = Scorer(device=device)
    if device == "cpu":
        scorer._on_device, scorer._sampled = DeviceNetwork(scorer._network, 1, "cpu"), None
    raw, expected = scorer.score(beats[:9]), Scorer().score(beats[:9])
    assert raw.ax == pytest.approx(expected.ax, rel=1e-4)
    scaled, made = scorer.reconstruct(beats[:9])
    assert np.square(scaled - made).mean(axis=(1, 2)) == pytest.approx(raw.ax, rel=1e-4)
