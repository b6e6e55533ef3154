"""A filtered window is interpolated from a third of its samples; other windows run through the whole network."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from ecgmon.models.inference import passband
from ecgmon.models.inference.reconstruction import Reconstructor
from ecgmon.models.networks.beatgan import initialise
from ecgmon.models.networks.dense import DenseGenerator
from ecgmon.models.networks.shape import DenseShape
from ecgmon.models.weights.checkpoint import load_generator, shipped
from ecgmon.models.windows import FILTER_HALF, LENGTH, filter_raw, scale

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHIPPED = ("default", "ds1", "fold0", "fold1", "fold2", "fold3", "fold4")


def raw_signals(kind: str, count: int = 300, leads: int = 1) -> NDArray[np.float32]:
    """Unfiltered signals, (count, leads, 536), of every kind that the filter may get."""
    random = np.random.default_rng(0)
    shape = (count, leads, LENGTH + 2 * FILTER_HALF)
    white = random.standard_normal(shape)
    match kind:
        case "white noise":
            raw = white
        case "wander":
            raw = white.cumsum(axis=-1) / 8
        case "saturated":
            raw = np.clip(white.cumsum(axis=-1) / 8, -2, 2)
        case "lead off":
            raw = np.where(np.arange(shape[-1]) > random.integers(50, 450, (count, 1, 1)), 5, white.cumsum(axis=-1) / 8)
        case "beats":
            width = random.uniform(3, 12, (count, leads, 1))
            peak = np.exp(-(((np.arange(shape[-1]) - 140 - FILTER_HALF) / width) ** 2))
            raw = random.uniform(-1, 2, (count, leads, 1)) * peak + 0.02 * white
        case _:
            raise AssertionError(kind)
    return raw.astype(np.float32)


def ax_of_whole_network(generator: DenseGenerator, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """A(x) of the generator as it was trained."""
    with torch.inference_mode():
        x = torch.from_numpy(scale(windows))
        return (generator(x)[0] - x).square().mean(dim=(1, 2)).numpy()


@pytest.fixture(scope="module")
def generator() -> DenseGenerator:
    found, _ = load_generator(shipped("default"))
    assert isinstance(found, DenseGenerator)
    return found


@pytest.fixture(scope="module")
def scorer(generator: DenseGenerator) -> Reconstructor:
    return Reconstructor(generator)


@pytest.mark.parametrize("kind", ["white noise", "wander", "saturated", "lead off", "beats"])
def test_a_filtered_window_follows_from_its_samples(kind: str) -> None:
    windows = scale(filter_raw(raw_signals(kind)))[:, 0].astype(float)
    missed = windows - windows[:, passband.TICKS] @ passband.interpolation().T
    error = np.sqrt(np.square(missed).mean(axis=1))
    assert np.median(error) < 2e-6
    assert np.allclose(windows @ passband.probes().T, missed @ signs().T, atol=1e-5)


def signs() -> NDArray[np.float64]:
    """Signs of the sums that the probes take of the interpolation error."""
    missed = np.eye(LENGTH)
    missed[:, passband.TICKS] -= passband.interpolation()
    return passband.probes() @ np.linalg.pinv(missed)


@pytest.mark.parametrize("kind", ["white noise", "wander", "saturated", "lead off", "beats"])
@pytest.mark.parametrize("name", SHIPPED)
def test_filtered_windows_get_the_same_ax_as_from_the_whole_network(name: str, kind: str) -> None:
    generator, _ = load_generator(shipped(name))
    assert isinstance(generator, DenseGenerator)
    windows = filter_raw(raw_signals(kind))
    expected, found = ax_of_whole_network(generator, windows), Reconstructor(generator).score(windows).ax
    apart = np.abs(found - expected) / expected
    assert apart[expected > 1e-4].max() < 1e-4
    assert apart.mean() < 1e-5


@pytest.mark.parametrize("leads", [1, 2, 3])
def test_several_leads_are_sampled(leads: int) -> None:
    generator = DenseGenerator(DenseShape(leads=leads, width=2, latent=3))
    initialise(generator, torch.Generator().manual_seed(0))
    generator(torch.randn(16, leads, LENGTH))  # changes the initial batch-norm statistics
    generator.eval()
    windows = filter_raw(raw_signals("beats", leads=leads))
    reconstructor = Reconstructor(generator)
    sampled = reconstructor._sampled
    assert sampled is not None
    assert sampled(torch.from_numpy(scale(windows)))[1] is None
    assert reconstructor.score(windows).ax == pytest.approx(ax_of_whole_network(generator, windows), rel=1e-5)
    windows[7, leads - 1, 101] += 0.1
    unfiltered = sampled(torch.from_numpy(scale(windows)))[1]
    assert unfiltered is not None
    assert unfiltered.nonzero().tolist() == [[7]]


def test_an_unfiltered_window_gets_the_ax_of_the_whole_network(
    scorer: Reconstructor, generator: DenseGenerator
) -> None:
    windows = np.random.default_rng(0).standard_normal((200, 1, LENGTH)).astype(np.float32)
    assert scorer.score(windows).ax == pytest.approx(ax_of_whole_network(generator, windows), rel=1e-5)


def test_one_wrong_sample_is_detected_at_any_tick(scorer: Reconstructor, generator: DenseGenerator) -> None:
    windows = np.repeat(filter_raw(raw_signals("beats", 1)), LENGTH, axis=0)
    windows[np.arange(LENGTH), 0, np.arange(LENGTH)] += 0.01 * np.ptp(windows)
    sampled = scorer._sampled
    assert sampled is not None
    with torch.inference_mode():
        unfiltered = sampled(torch.from_numpy(scale(windows)))[1]
    assert unfiltered is not None
    assert unfiltered.all()
    assert scorer.score(windows).ax == pytest.approx(ax_of_whole_network(generator, windows), rel=1e-5)


def test_an_unfiltered_window_does_not_affect_others(scorer: Reconstructor) -> None:
    windows = filter_raw(raw_signals("beats", 100))
    alone = scorer.score(windows)
    windows[40] = np.random.default_rng(0).standard_normal((1, LENGTH))
    found = scorer.score(windows)
    others = np.arange(len(windows)) != 40
    assert np.array_equal(found.ax[others], alone.ax[others])
    assert np.array_equal(found.ticks[others], alone.ticks[others])


# two threads on one free core wait for each other and keep it busy
@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.serial)])
def test_the_score_of_a_beat_does_not_depend_on_the_batch_size_bit_for_bit(scorer: Reconstructor, threads: int) -> None:
    windows = filter_raw(raw_signals("beats", 600))
    windows[::50, 0, 100] += 0.5  # these run through the whole network
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        alone = scorer.score(windows)
        for count in [*range(1, 301), 511, 512, 513, 599]:
            part = slice(600 - count, None)
            found = scorer.score(windows[part])
            assert np.array_equal(found.ax, alone.ax[part])
            assert np.array_equal(found.ticks, alone.ticks[part])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", ["1", "2"])
def test_the_interpolation_does_not_depend_on_the_threads_of_libraries(
    threads: str,
) -> None:
    code = "from ecgmon.models.inference import passband as p; print((p.interpolation().tobytes() + p.probes(2).tobytes()).hex())"
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | limits, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == (passband.interpolation().tobytes() + passband.probes(2).tobytes()).hex()
