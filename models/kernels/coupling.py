"""What :meth:`ecgmon.models.score.normalizing_flow.Density.surprisal` runs: the chain of couplings over a few beats at a time.

A module of its own, because it is compiled: a worker holds a density without ever asking it, and a compiler
would cost it 60 MB and half a second.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ecgmon.models.kernels.compiled import compiled, limited
from ecgmon.models.kernels.layer import BEATS, layer

if TYPE_CHECKING:
    from numpy.typing import NDArray


@compiled
def run(
    standardised: NDArray[np.float32],
    outline: NDArray[np.float32],
    basis: NDArray[np.float32],
    order: NDArray[np.int32],
    into: NDArray[np.float32],
    into_bias: NDArray[np.float32],
    within: NDArray[np.float32],
    within_bias: NDArray[np.float32],
    out: NDArray[np.float32],
    out_bias: NDArray[np.float32],
    condition_limit: np.float32,
    most: np.float32,
    slope: np.float32,
    surprisal: NDArray[np.float32],
) -> None:
    """Run beats through the chain, some at a time, each in its lane: see :meth:`Density.surprisal`."""
    n, d = standardised.shape
    half = d // 2
    components = basis.shape[1]
    x, before = np.zeros((d, BEATS), np.float32), np.empty((d, BEATS), np.float32)
    centred = np.zeros((outline.shape[1], BEATS), np.float32)
    inputs = np.empty((half + components, BEATS), np.float32)
    given = inputs[half:]
    hidden, deeper = np.empty((into.shape[2], BEATS), np.float32), np.empty((into.shape[2], BEATS), np.float32)
    moves = np.empty((out.shape[2], BEATS), np.float32)  # stretches, then shifts
    total = np.empty(BEATS, np.float32)
    nothing = np.zeros(components, np.float32)
    for first in range(0, n, BEATS):
        count = min(BEATS, n - first)  # the lanes that are left hold what they did: no other lane looks there
        for beat in range(count):
            mean = np.float32(0)
            for tick in range(outline.shape[1]):
                mean += outline[first + beat, tick]
            mean /= np.float32(outline.shape[1])
            for tick in range(outline.shape[1]):
                centred[tick, beat] = outline[first + beat, tick] - mean
            for j in range(d):
                x[j, beat] = standardised[first + beat, j]
        layer(centred, basis, nothing, given)
        for j in range(components):
            for beat in range(BEATS):
                given[j, beat] = limited(given[j, beat], condition_limit)
        total[:] = 0
        for k in range(len(order)):
            before[:] = x
            for j in range(d):
                x[j] = before[order[k, j]]
            inputs[:half] = x[:half]
            layer(inputs, into[k], into_bias[k], hidden)
            _leak(hidden, slope)
            layer(hidden, within[k], within_bias[k], deeper)
            _leak(deeper, slope)
            layer(deeper, out[k], out_bias[k], moves)
            for j in range(d - half):
                for beat in range(BEATS):
                    stretch = np.float32(math.tanh(moves[j, beat] / most)) * most
                    total[beat] -= stretch
                    x[half + j, beat] = x[half + j, beat] * np.float32(math.exp(stretch)) + moves[d - half + j, beat]
        for j in range(d):
            for beat in range(BEATS):
                total[beat] += x[j, beat] * x[j, beat] * np.float32(0.5)
        surprisal[first : first + count] = total[:count]


@compiled
def _leak(x: NDArray[np.float32], slope: np.float32) -> None:
    for unit in range(x.shape[0]):
        for beat in range(BEATS):
            value = x[unit, beat]
            x[unit, beat] = value if value > 0 else value * slope
