"""What a GPU runs gives every beat the CPU's answer; on a machine with a GPU, as the CUDA graph that is deployed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from ecgmon.models.inference import gpu as resident
from ecgmon.models.inference.gpu import TILE, Resident
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
    """Every device that there is: the steps are the same, and only a GPU's are recorded."""
    return request.param


@pytest.fixture(scope="module")
def at_home(device: str) -> Resident:
    """The shipped generator, resident."""
    return Resident(fused(load_generator(shipped("default"), device)[0]), 1, device)


@pytest.fixture(scope="module")
def beats() -> NDArray[np.float32]:
    """Windows in mV, (2 * TILE + 300, 1, 320)."""
    return np.concatenate([filter_raw(raw_signals("beats", 300))] * 8)[: 2 * TILE + 300]


def score(at_home: Resident, windows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
    error, ticks = at_home.score(torch.from_numpy(windows))
    return error.numpy(), ticks.numpy()


def test_the_answer_is_that_of_the_cpu(at_home: Resident, beats: NDArray[np.float32]) -> None:
    error, ticks = score(at_home, beats)
    expected = Scorer().score(beats)
    assert error == pytest.approx(expected.ax, rel=1e-4)
    assert ticks.astype(np.float32) == pytest.approx(expected.ticks.astype(np.float32), rel=1e-2, abs=1e-6)
    assert (error.dtype, ticks.dtype) == (np.dtype(np.float32), np.dtype(np.float16))


def test_a_gpu_has_its_steps_recorded(at_home: Resident, device: str) -> None:
    assert at_home.captured == (device == "cuda")


@pytest.mark.parametrize("count", [1, 7, TILE - 1, TILE, TILE + 1, 2 * TILE + 300])
def test_a_beat_scores_the_same_bit_for_bit_whatever_it_is_scored_with(
    at_home: Resident, beats: NDArray[np.float32], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    error, ticks = score(at_home, beats)
    monkeypatch.setattr(resident, "_AT_ONCE", TILE)
    for part in (slice(count), slice(len(beats) - count, None)):
        some_error, some_ticks = score(at_home, beats[part].copy())
        assert np.array_equal(some_error, error[part])
        assert np.array_equal(some_ticks, ticks[part])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_a_window_that_can_not_be_scored_is_marked_and_leaves_the_others_alone(
    at_home: Resident, beats: NDArray[np.float32], bad: float
) -> None:
    spoilt = beats[: TILE + 8].copy()
    spoilt[5, 0, 100:102] = bad, -3e38
    error, ticks = score(at_home, spoilt)
    clean_error, clean_ticks = score(at_home, beats[: TILE + 8])  # and nothing of the bad one is left in its place
    assert np.isnan(error[5])
    assert np.isnan(ticks[5]).all()
    others = np.arange(len(spoilt)) != 5
    assert np.array_equal(error[others], clean_error[others])
    assert np.array_equal(ticks[others], clean_ticks[others])
    assert np.isfinite(clean_error).all()


def test_what_is_bad_or_flat_is_what_the_cpu_calls_so(at_home: Resident) -> None:
    values = np.array([0, 0.7, 1e-30, 1e-42, -3e38, 3e38, np.nan, np.inf], np.float32)
    windows = np.zeros((len(values), 1, 320), np.float32)
    windows[:, 0, 7] = values
    flat = np.broadcast_to(values[1:4, None, None], (3, 1, 320))
    windows = np.concatenate([windows, flat])
    error, _ = score(at_home, windows)
    expected = Scorer().score(windows).ax
    assert np.array_equal(np.isnan(error), np.isnan(expected))
    assert error == pytest.approx(expected, rel=1e-4, nan_ok=True)


def test_no_windows_give_no_answers(at_home: Resident) -> None:
    error, ticks = score(at_home, np.empty((0, 1, 320), np.float32))
    assert error.shape == (0,)
    assert ticks.shape == (0, 320)


def test_a_network_of_convolutions_and_two_leads(device: str) -> None:
    torch.manual_seed(0)
    generator = Generator(BeatGanShape(leads=2, width=2, latent=4)).eval()
    windows = filter_raw(raw_signals("beats", 20, leads=2))
    expected = Reconstructor(generator).score(windows)
    at_home = Resident(fused(generator.to(device)), 2, device)
    windows[3, 1, 7] = np.nan  # one lead is enough
    error, ticks = score(at_home, windows)
    good = np.arange(len(windows)) != 3
    assert error[good] == pytest.approx(expected.ax[good], rel=1e-3)
    assert ticks[good].astype(np.float32) == pytest.approx(expected.ticks[good].astype(np.float32), rel=1e-2, abs=1e-6)
    assert np.isnan(error[3])


def test_a_scorer_on_a_gpu_answers_through_it(beats: NDArray[np.float32], device: str) -> None:
    """Without a GPU its part is played by the CPU, which tells no other difference."""
    scorer = Scorer(device=device)
    if device == "cpu":
        scorer._resident, scorer._sampled = Resident(scorer._network, 1, "cpu"), None
    raw, expected = scorer.score(beats[:9]), Scorer().score(beats[:9])
    assert raw.ax == pytest.approx(expected.ax, rel=1e-4)
    scaled, made = scorer.reconstruct(beats[:9])
    assert np.square(scaled - made).mean(axis=(1, 2)) == pytest.approx(raw.ax, rel=1e-4)
