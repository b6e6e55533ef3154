"""The window around a beat: how it is filtered, where it is cut, how it is scaled.

Everything that trains, scores or draws a beat goes through this module, so that a model never
sees a window that was made differently from those it was trained on.

The recipe is that of BeatGAN (Zhou et al., IJCAI 2019): band-pass 3-45 Hz, 320 samples at 360 Hz,
140 before the R peak and 180 from it on.  The original filters forwards and backwards with a
108th-order FIR filter; that is the same as one pass of the filter convolved with its own mirror
image, which is symmetric and therefore needs exactly :data:`FILTER_HALF` samples of look-ahead.
A stream can compute it without approximation.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FS: Final = 360
"""Sampling frequency of every window, in Hz."""

BEFORE: Final = 140
"""Samples of a window before the R peak."""

AFTER: Final = 180
"""Samples of a window from the R peak on, the R peak included."""

LENGTH: Final = BEFORE + AFTER
"""Samples in a window."""

BAND: Final = (3.0, 45.0)
"""Pass band in Hz."""

PREFERRED_LEADS: Final = ("MLII", "II")
"""Leads that the model knows, best first; a window of another lead is scored all the same, and that is said."""

MOST_LEADS: Final = 2
"""Most leads of a stream that beats are looked for, windows cut and beats compared in."""

_ORDER: Final = 108  # 0.3 s at 360 Hz, the order that the published protocol uses

FILTER_HALF: Final = _ORDER
"""Samples on either side of an instant that its filtered value depends on."""


PHASES: Final = 8
"""The taps add up in the order 0, 8, 16, ..., 1, 9, ..., in which a processor with eight lanes takes fewest steps."""

RAW_BEFORE: Final = BEFORE + FILTER_HALF
"""Unfiltered samples before the R peak that a window is computed from."""

RAW_AFTER: Final = AFTER + FILTER_HALF
"""Unfiltered samples from the R peak on that a window is computed from (0.8 s)."""

RAW_LENGTH: Final = RAW_BEFORE + RAW_AFTER


@cache
def impulse_response() -> NDArray[np.float64]:
    """Return the impulse response of the window filter, forwards and backwards.

    It is that of ``scipy.signal.firwin`` with a Hamming window.  It is computed here because the import of
    scipy.signal takes longer than all else at the start of a producer.

    Returns
    -------
    ndarray of float64, shape (2 * FILTER_HALF + 1,)
        Symmetric.
    """
    time = np.arange(_ORDER + 1) - _ORDER / 2
    low, high = (2 * edge / FS for edge in BAND)
    forward = (high * np.sinc(high * time) - low * np.sinc(low * time)) * np.hamming(_ORDER + 1)
    # Gain 1 in the middle of the band.  Without @: the sums of a BLAS library depend on the processor and the threads.
    forward /= math.fsum(forward * np.cos(np.pi * (low + high) / 2 * time))
    return convolve(forward, forward[::-1])


@cache
def taps() -> NDArray[np.float32]:
    """Return :func:`impulse_response` in single precision: the weights of the window filter.

    Returns
    -------
    ndarray of float32, shape (2 * FILTER_HALF + 1,)
        Symmetric, not writeable.
    """
    zero_phase = impulse_response().astype(np.float32)
    zero_phase.flags.writeable = False
    return zero_phase


def convolve(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convolve two impulse responses; shape (len(a) + len(b) - 1,).

    numpy's own takes its sums from a BLAS library, in an order that depends on the processor.
    """
    out = np.zeros(len(a) + len(b) - 1)
    for k, factor in enumerate(a):
        out[k : k + len(b)] += factor * b
    return out


def filter_raw(raw: NDArray[np.float32]) -> NDArray[np.float32]:
    """Band-pass stretches of signal; only outputs with all their inputs are kept.

    Parameters
    ----------
    raw : ndarray of float32, shape (..., n)
        Signal at 360 Hz in mV, ``n >= 2 * FILTER_HALF + 1``.

    Returns
    -------
    ndarray of float32, shape (..., n - 2 * FILTER_HALF)
        The filtered signal, ``FILTER_HALF`` samples shorter at either end.

    Notes
    -----
    The sum runs over the taps in one fixed order for every output sample, so a sample's value does
    not depend, even in its last bit, on how the signal was cut into stretches.
    """
    n = raw.shape[-1] - 2 * FILTER_HALF
    if n < 1:
        raise ValueError(
            f"{raw.shape[-1]} samples are too few for the window filter; it needs at least {2 * FILTER_HALF + 1}"
        )
    out = np.zeros((*raw.shape[:-1], n), dtype=np.float32)
    term = np.empty_like(out)
    for phase in range(PHASES):
        for k in range(phase, 2 * FILTER_HALF + 1, PHASES):
            np.multiply(raw[..., k : k + n], taps()[k], out=term)
            out += term
    return out


def cut(signal: NDArray[np.float32], r_peaks: NDArray[np.int64]) -> NDArray[np.float32]:
    """Cut filtered windows around R peaks of a signal that is wholly in memory.

    Parameters
    ----------
    signal : ndarray of float32, shape (leads, n)
        Unfiltered signal at 360 Hz in mV.
    r_peaks : ndarray of int64, shape (beats,)
        R peaks as sample indices into ``signal``.

    Returns
    -------
    ndarray of float32, shape (beats, leads, LENGTH)
        Filtered windows in mV.

    Raises
    ------
    ValueError
        If a window, with the filter's margins, would reach outside the signal: see
        :func:`complete` for which R peaks are safe.
    """
    if not complete(r_peaks, signal.shape[-1]).all():
        raise ValueError("an R peak lies too near the end of the signal for a whole window; select with complete()")
    filtered = filter_raw(signal)
    first = r_peaks - RAW_BEFORE  # filtered[i] is signal time i + FILTER_HALF
    index = first[:, None] + np.arange(LENGTH)
    return np.ascontiguousarray(filtered[:, index].transpose(1, 0, 2))


def complete(r_peaks: NDArray[np.int64], n: int) -> NDArray[np.bool_]:
    """Tell which R peaks have a whole window, the filter's margins included, in ``n`` samples.

    Returns
    -------
    ndarray of bool, shape of ``r_peaks``
    """
    inside: NDArray[np.bool_] = (r_peaks >= RAW_BEFORE) & (r_peaks + RAW_AFTER <= n)
    return inside


def scale(windows: NDArray[np.float32], ticks: slice = slice(None)) -> NDArray[np.float32]:
    """Scale every lead of every window to [-1, 1] by its own minimum and maximum.

    A constant lead has no shape to show and becomes all zeros rather than a division by zero.

    Parameters
    ----------
    windows : ndarray of float32, shape (..., LENGTH)
    ticks : slice
        Those that are wanted; minimum and maximum are those of the whole window.

    Returns
    -------
    ndarray of float32, shape (..., ticks)
    """
    low = windows.min(axis=-1, keepdims=True)
    span = windows.max(axis=-1, keepdims=True) - low
    flat = span <= 0
    scaled = (windows[..., ticks] - low) * (np.float32(2) / np.where(flat, np.float32(1), span)) - np.float32(1)
    return np.where(flat, np.float32(0), scaled).astype(np.float32, copy=False)
