"""Resample a stream to 360 Hz, the rate of the windows and of the detector, as its samples arrive."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ecgmon.models.kernels.compiled import compiled
from ecgmon.models.windows import FS

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST_PHASES: Final = 10_000
"""Maximum number of phases of the polyphase filter.

A rate whose exact ratio to 360 Hz needs more is approximated, at worst (within 0.02 Hz of 360) by 6e-5.  Sample
indices use the same ratio, so they stay exact however long the stream runs.
"""

ZERO_CROSSINGS: Final = 10
"""Half the length of the low-pass filter, in samples of the slower of the two rates."""

KAISER_BETA: Final = 7.0
"""Shape of the Kaiser window over the ideal low-pass: about 70 dB of stop band (Kaiser 1974)."""

ROLL_OFF: Final = 0.92
"""Cut-off as a share of the slower rate's Nyquist frequency; leaves room for the transition band."""


@cache  # streams of one rate share it
def _design(up: int, down: int, half: int) -> NDArray[np.float32]:
    """Design the low-pass: one row of ``2 * half`` taps for each of the ``up`` phases; not writeable."""
    cutoff = ROLL_OFF * min(1.0, up / down)  # relative to the input's Nyquist frequency
    # Tap k of phase p weighs input sample floor(time) - half + 1 + k; the instant is p / up after floor(time).
    offset = np.arange(1 - half, half + 1)[None, :] - np.arange(up)[:, None] / up
    inside = np.clip(1 - (offset / half) ** 2, 0, None)
    taps = np.sinc(cutoff * offset) * np.i0(KAISER_BETA * np.sqrt(inside))
    phases: NDArray[np.float32] = (taps / taps.sum(axis=1, keepdims=True)).astype(
        np.float32
    )  # each phase leaves a constant unchanged
    phases.flags.writeable = False
    return phases


@compiled
def _filter_phases(
    signal: NDArray[np.float32],
    phases: NDArray[np.float32],
    down: int,
    first_phase: int,
    out: NDArray[np.float32],
) -> None:
    """Compute outputs one by one; ``signal[lead, 0]`` is the first sample under the first output's filter."""
    up, length = phases.shape
    for lead in range(signal.shape[0]):
        phase = first_phase
        start = 0
        for j in range(out.shape[1]):
            total = np.float32(0)
            for k in range(length):  # always in this order: the last bit must not depend on chunks
                total += phases[phase, k] * signal[lead, start + k]
            out[lead, j] = total
            phase += down
            start += phase // up
            phase %= up


class Resampler:
    """Rational resampling to 360 Hz with a symmetric low-pass filter, in chunks of any size.

    Parameters
    ----------
    fs : float
        Sampling frequency of the stream in Hz.
    leads : int
        Signals that are resampled side by side.
    marks : int
        Rows of whole numbers that go with the samples; an output gets those of the nearest sample.

    Attributes
    ----------
    up, down : int
        Output sample ``j`` lies at input time ``j * down / up``.
    half : int
        Input samples after the time of an output that it depends on; 0 if the stream already has 360 Hz
        and is passed through unchanged.
    fs : float
        The sampling frequency given by ``up / down``, in Hz.
    arrays : dict of str to ndarray
        The state of the resampler, in arrays of fixed sizes; copying saved values into them restores it.

    Notes
    -----
    Every output is one dot product with the filter of its phase, summed in a fixed order, so it is the same,
    bit for bit, for chunks of any size.  The stream is treated as if it had its first value before its first
    sample, so that a baseline offset does not look like a heartbeat.
    """

    def __init__(self, fs: float, leads: int, marks: int) -> None:
        ratio = Fraction(fs / FS).limit_denominator(LARGEST_PHASES)
        self.up, self.down = ratio.denominator, ratio.numerator
        self.fs = FS * self.down / self.up
        if self.up == self.down:
            self.half = 0
            self._phases = np.ones((1, 1), np.float32)
        else:
            self.half = math.ceil(ZERO_CROSSINGS * max(1.0, self.down / self.up))
            self._phases = _design(self.up, self.down, self.half)
        # The input that the next outputs need; the numbers of input and output samples.
        self.arrays: dict[str, NDArray[Any]] = {
            "history": np.zeros((leads, 2 * self.half), np.float32),
            "marks": np.zeros((marks, 2 * self.half), np.int32),
            "counts": np.zeros(2, np.int64),
        }

    def push(
        self, samples: NDArray[np.float32], marks: NDArray[np.int32]
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Take the next input samples and return the outputs that they complete.

        Parameters
        ----------
        samples : ndarray of float32, shape (leads, n)
            Without NaN.
        marks : ndarray of int32, shape (marks, n)

        Returns
        -------
        outputs : ndarray of float32, shape (leads, m)
        marks : ndarray of int32, shape (marks, m)
        """
        counts, history = self.arrays["counts"], self.arrays["history"]
        taken, made = int(counts[0]), int(counts[1])
        n = samples.shape[1]
        count = self.outputs_after(taken + n) - made
        counts[:] = taken + n, made + count
        if self.half == 0:
            return samples, marks
        if taken == 0 and n:
            history[:] = samples[:, :1]
        signal = np.concatenate((history, samples), axis=1)
        marked = np.concatenate((self.arrays["marks"], marks), axis=1)
        history[:] = signal[:, n:]
        self.arrays["marks"][:] = marked[:, n:]
        before = taken - 2 * self.half  # input sample at the beginning of signal
        out = np.empty((len(samples), count), np.float32)
        if count:
            start, phase = divmod(made * self.down, self.up)
            _filter_phases(signal[:, start - self.half + 1 - before :], self._phases, self.down, phase, out)
        # marked[:, nearest] would have its columns side by side, for which the stages would be compiled a second time
        return out, np.take(marked, self.nearest_input(np.arange(made, made + count)) - before, axis=1)

    def outputs_after(self, n: int) -> int:
        """Count the outputs that the first ``n`` input samples determine."""
        # Output j needs input floor(j * down / up) + half, so that must be at most n - 1.
        last = n - 1 - self.half
        return 0 if last < 0 else ((last + 1) * self.up - 1) // self.down + 1

    def nearest_input(self, j: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the indices of the input samples nearest to outputs ``j``."""
        return (2 * j * self.down + self.up) // (2 * self.up)
