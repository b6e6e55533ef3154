"""The compiled loops over a stream's beats must give what plain numpy gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgmon.models.features import (
    BEATS,
    INTERVALS,
    JUMP_INTERVALS,
    LEAST_INTERVALS,
    OUTLINE,
    P_TICKS,
    SPREAD_INTERVALS,
)
from ecgmon.models.kernels.history import TICKS, Compared, Kept, Memory, compare, look, put_back

if TYPE_CHECKING:
    from numpy.typing import NDArray

P = len(P_TICKS)


def some_beats(n: int, leads: int, seed: int) -> Kept:
    random = np.random.default_rng(seed)
    rr = random.uniform(0.4, 1.2, n).astype(np.float32)
    rr[random.random(n) < 0.1] = np.nan
    shapes = random.standard_normal((n, leads, len(TICKS))).astype(np.float16)
    shapes[random.random(shapes.shape) < 0.001] = np.nan
    return Kept(rr, random.uniform(0.5, 2, (n, leads)).astype(np.float32), shapes.view(np.uint16))


def rhythm_of(before: NDArray[np.float32], own: np.float32) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Twin of ``_rhythm``: the known log intervals of the last INTERVALS, and own log RR, ``spread``, ``jump``."""
    recent = np.log(before[-INTERVALS:].astype(np.float64))
    recent = recent[~np.isnan(recent)]
    if np.isnan(own) or len(recent) < LEAST_INTERVALS:
        return recent, np.full(3, np.nan)
    recent_and_own = np.append(recent, np.log(np.float64(own)))[-SPREAD_INTERVALS:]
    steps = np.abs(np.diff(recent_and_own[-JUMP_INTERVALS:]))
    return recent, np.array([recent_and_own[-1], np.log(recent_and_own.std() + 5e-3), steps.mean()])


@pytest.mark.parametrize("leads", [1, 2])
def test_distances_and_rhythm_are_those_of_numpy(leads: int) -> None:
    n = 2 * BEATS + 9
    kept, compared = some_beats(n, leads, seed=leads), Compared.empty(n, leads)
    compare(Memory.empty(leads), kept, Kept.empty(n, leads), compared)
    shapes = kept.shapes.view(np.float16).astype(np.float64)
    for k in range(n):
        places = np.arange(max(0, k - BEATS), k) % BEATS  # of the ring
        before = slice(max(0, k - BEATS), k)
        known = len(places)
        assert compared.known[k] == known
        squares = np.square(shapes[before] - shapes[k])  # beats, leads, ticks
        apart = np.full((leads, 2, BEATS), np.nan)
        apart[:, 0, places] = squares[..., P:].sum(axis=-1).T
        apart[:, 1, places] = squares[..., :P].sum(axis=-1).T
        spans = np.full((leads, BEATS), np.nan)
        spans[:, places] = kept.span[before].T
        intervals, rhythm = rhythm_of(kept.rr[before], kept.rr[k])
        assert compared.apart[k] == pytest.approx(apart, rel=1e-5, nan_ok=True)
        assert compared.spans[k] == pytest.approx(spans, nan_ok=True)
        assert compared.intervals[k, : len(intervals)] == pytest.approx(intervals, abs=1e-6)
        assert np.isnan(compared.intervals[k, len(intervals) :]).all()
        assert compared.rhythm[k] == pytest.approx(rhythm, rel=1e-5, abs=1e-6, nan_ok=True)


def test_put_back_restores_the_memory_to_the_last_byte() -> None:
    memory = Memory.empty(2)
    first, second = some_beats(BEATS + 5, 2, seed=5), some_beats(BEATS + 20, 2, seed=6)
    compare(memory, first, Kept.empty(BEATS + 5, 2), Compared.empty(BEATS + 5, 2))
    before = [array.tobytes() for array in memory]
    written_over = Kept.empty(BEATS + 20, 2)
    compare(memory, second, written_over, Compared.empty(BEATS + 20, 2))
    assert [array.tobytes() for array in memory] != before
    put_back(memory, written_over)
    assert [array.tobytes() for array in memory] == before


def test_what_is_kept_of_windows_is_that_of_numpy() -> None:
    random = np.random.default_rng(3)
    windows = random.standard_normal((30, 2, 320)).astype(np.float32)
    windows.flags.writeable = False  # as in a message; numba compiles a loop for every kind of array
    span, shapes = np.empty((32, 2), np.float32), np.empty((32, 2, len(TICKS)), np.float32)
    outline = np.empty((32, OUTLINE), np.float32)
    look(windows, 2, span, shapes, outline)
    low, high = windows.min(axis=-1), windows.max(axis=-1)
    picked = windows[..., TICKS]
    centred = np.concatenate([part - part.mean(axis=-1, keepdims=True) for part in np.split(picked, [P], axis=-1)], -1)
    scaled = (windows[:, 0] - low[:, :1]) * 2 / (high - low)[:, :1] - 1
    assert np.array_equal(span[2:], high - low)
    assert shapes[2:] == pytest.approx(centred, abs=1e-6)
    assert outline[2:] == pytest.approx(scaled[:, :: 320 // OUTLINE], abs=1e-5)
