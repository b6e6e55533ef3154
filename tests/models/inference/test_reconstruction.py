"""The result of a beat does not depend on the other windows of its batch, valid or not."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ecgmon.models.inference.reconstruction import Scorer, ScoringError
from ecgmon.models.windows import scale

if TYPE_CHECKING:
    from numpy.typing import NDArray


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer()


def test_a_worker_needs_no_compiler() -> None:
    # a compiler takes 60 MB and half a second; the normalizing flow in a worker's model is used only by the monitor
    code = "import sys, ecgmon.pipelines.roles.worker as w; w.load_model(None, 'cpu', 1); print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"


@pytest.fixture(scope="module")
def beats() -> NDArray[np.float32]:
    """Synthetic windows in mV, (70, 1, 320): a sharp complex, a slow wave, noise."""
    random = np.random.default_rng(0)
    ticks = np.arange(320)
    width = random.uniform(3, 12, (70, 1, 1))
    height = random.uniform(-1, 2, (70, 1, 1))
    wave = height * np.exp(-(((ticks - 140) / width) ** 2)) + 0.2 * np.sin(ticks / random.uniform(20, 40, (70, 1, 1)))
    return (wave + 0.02 * random.standard_normal((70, 1, 320))).astype(np.float32)


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_the_score_of_a_beat_does_not_depend_on_the_other_beats_bit_for_bit(
    scorer: Scorer, beats: NDArray[np.float32], data: st.DataObject
) -> None:
    alone = scorer.score(beats)
    chosen = data.draw(st.lists(st.integers(0, len(beats) - 1), min_size=1, max_size=200))
    together = scorer.score(beats[chosen])
    assert np.array_equal(together.ax, alone.ax[chosen])
    assert np.array_equal(together.ticks, alone.ticks[chosen])


def test_the_error_is_the_mean_squared_difference_of_window_and_reconstruction(
    scorer: Scorer, beats: NDArray[np.float32]
) -> None:
    raw = scorer.score(beats)
    scaled, reconstruction = scorer.reconstruct(beats)
    assert np.array_equal(scaled, scale(beats))
    assert raw.ax == pytest.approx(np.square(scaled - reconstruction).mean(axis=(1, 2)), rel=1e-5)
    assert raw.ticks.astype(np.float32).mean(axis=1) == pytest.approx(raw.ax, rel=1e-2)
    assert (raw.ax.dtype, raw.ticks.dtype) == (np.dtype(np.float32), np.dtype(np.float16))


@given(
    arrays(np.float32, (3, 1, 320), elements=st.floats(width=32, allow_nan=False)),
    st.sampled_from([1, 1e-30, 1e-42, 1e30]),
)
def test_windows_are_scaled_to_the_same_bits_as_by_scale(
    scorer: Scorer, windows: NDArray[np.float32], size: float
) -> None:
    windows[1] = windows[1, 0, 0]  # one is flat
    with np.errstate(all="ignore"):
        windows *= np.float32(size)
        expected = scale(windows)
    unusable = ~(np.isfinite(windows) & np.isfinite(expected)).all(axis=(1, 2))
    expected[unusable] = 0
    assert np.array_equal(scorer.reconstruct(windows)[0], expected)
    assert np.array_equal(np.isnan(scorer.score(windows).ax), unusable)


def test_windows_may_have_any_memory_layout(scorer: Scorer, beats: NDArray[np.float32]) -> None:
    expected = scorer.score(beats)
    fixed = beats.copy()
    fixed.flags.writeable = False
    strided = np.repeat(beats, 2, axis=0)[::2]
    reversed_ = beats[::-1].copy()[::-1]
    unaligned = np.frombuffer(b"1" + beats.tobytes(), np.float32, offset=1).reshape(beats.shape)
    for given_windows in (fixed, strided, reversed_, unaligned):
        assert np.array_equal(scorer.score(given_windows).ax, expected.ax)


def test_folding_batch_norm_changes_results_only_by_rounding(scorer: Scorer, beats: NDArray[np.float32]) -> None:
    import torch

    from ecgmon.models.weights.checkpoint import default_weights, load_generator

    generator, _ = load_generator(default_weights())
    with torch.inference_mode():
        expected = generator(torch.from_numpy(scale(beats)))[0].numpy()
    assert np.abs(scorer.reconstruct(beats)[1] - expected).max() < 1e-4


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_a_window_that_cannot_be_scored_gets_nan_and_does_not_affect_others(
    scorer: Scorer, beats: NDArray[np.float32], bad: float
) -> None:
    damaged = beats.copy()
    damaged[5, 0, 100] = bad
    damaged[5, 0, 101] = -3e38
    raw, clean = scorer.score(damaged), scorer.score(beats)
    assert np.isnan(raw.ax[5])
    assert np.isnan(raw.ticks[5]).all()
    others = np.arange(len(beats)) != 5
    assert np.array_equal(raw.ax[others], clean.ax[others])
    assert np.array_equal(raw.ticks[others], clean.ticks[others])


def test_a_flat_window_has_a_finite_error(scorer: Scorer) -> None:
    assert np.isfinite(scorer.score(np.full((1, 1, 320), 0.7, np.float32)).ax).all()


def test_no_windows_give_empty_results(scorer: Scorer) -> None:
    raw = scorer.score(np.empty((0, 1, 320), np.float32))
    assert raw.ax.shape == (0,)
    assert raw.ticks.shape == (0, 320)


@pytest.mark.parametrize("shape", [(4, 2, 320), (4, 1, 319), (4, 320), (1, 4, 1, 320)])
def test_windows_of_another_shape_are_refused(scorer: Scorer, shape: tuple[int, ...]) -> None:
    with pytest.raises(ScoringError, match=r"this model takes float32 \(n, 1, 320\)"):
        scorer.score(np.zeros(shape, np.float32))


def test_windows_of_another_type_are_refused(scorer: Scorer) -> None:
    with pytest.raises(ScoringError, match="float64"):
        scorer.reconstruct(np.zeros((4, 1, 320)))  # type: ignore[arg-type]
