"""Known distortions of normal beats, to test whether the error per tick is largest where the beat is distorted.

Each function takes filtered windows in mV, as :func:`ecgmon.models.windows.cut` makes them, draws sizes and
places from a random generator, and returns the distorted windows and the ticks that it changed.
The windows are distorted before :func:`ecgmon.models.windows.scale`: a spike shrinks the rest of the
scaled window, but the ticks that were distorted stay the same.

A shape that is added to the signal (ST shift, spike) is drawn as it would be recorded and passed
through the window filter.  The filter is linear, so the result equals a filtered recording with that shape.
A change of a wave of the beat itself (QRS, P, T) is applied to the filtered wave.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from ecgmon.models.windows import BEFORE, FS, LENGTH, RAW_BEFORE, RAW_LENGTH, filter_raw

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

Distortion: TypeAlias = (
    "Callable[[NDArray[np.float32], np.random.Generator], tuple[NDArray[np.float32], NDArray[np.bool_]]]"
)
"""From windows, shape (n, leads, 320), in mV, to distorted windows and changed ticks, shape (n, 320)."""

CHANGED_SHARE: Final = 0.1
"""Share of the largest change.  The changed ticks run from the first to the last tick whose change is over it.

The filter spreads every change over its whole length; a change under a tenth of the largest can hardly be
seen, and its square is under a hundredth of the largest square.  A tick between the first and the last where
the change crosses zero, as at the R peak of a widened complex, counts as changed.
"""

LEAST_CHANGE: Final = 0.05
"""Smallest change in mV that counts as a distortion: half a small square of ECG paper.  A beat without a P
wave cannot lose it."""

QRS_SECONDS: Final = 0.1
"""Duration of a normal QRS complex: 0.06 to 0.11 s in adults (AHA/ACCF/HRS recommendations for the
standardization and interpretation of the electrocardiogram, part III, 2009)."""

WIDENING: Final = (1.5, 2.2)
"""Range of the factor by which a QRS complex is stretched.  0.12 s and more is wide (same source); the factor gives
0.15 to 0.22 s, as in bundle branch block and in beats from the ventricles."""

P_SECONDS: Final = (-0.26, -0.06)
"""First and last time of a P wave, from the R peak: a PR interval of 0.12 to 0.20 s, and 0.04 to 0.06 s from the
beginning of the QRS complex to its peak."""

ST_SHIFT: Final = (0.2, 0.4)
"""Size of an ST shift in mV, up or down: 0.1 mV, in V2 and V3 up to 0.25 mV, is the limit of the fourth
universal definition of myocardial infarction (Thygesen et al., 2018)."""

ST_SECONDS: Final = (0.05, 0.07, 0.16, 0.30)
"""Times from the R peak: the shift begins (J point), is complete, begins to fade (end of the ST segment), and has
faded (end of the T wave)."""

SPIKE: Final = (0.5, 1.5)
"""Height of a spike in mV, up or down: as high as an R wave.  A moving electrode makes such spikes."""

SPIKE_SECONDS: Final = (0.03, 0.08)
"""Duration of a spike in s, from its beginning to its end."""

SPIKE_WITHIN: Final = (-0.35, 0.45)
"""First and last time of the peak of a spike, from the R peak, in s: the whole spike lies inside the window."""

_FADE_SECONDS: Final = 0.03  # a wave is faded in and out over this time, so that the cut makes no edges

_SECONDS: Final = (np.arange(LENGTH) - BEFORE) / FS
_RAW_SECONDS: Final = (np.arange(RAW_LENGTH) - RAW_BEFORE) / FS


def widened_qrs(
    windows: NDArray[np.float32], random: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Stretch the QRS complex in time by a factor of :data:`WIDENING`; the rest of the window stays in place.

    Parameters
    ----------
    windows : ndarray of float32, shape (n, leads, 320)
        Filtered windows in mV.
    random : numpy Generator

    Returns
    -------
    windows : ndarray of float32, shape (n, leads, 320)
    changed : ndarray of bool, shape (n, 320)
    """
    half = QRS_SECONDS / 2
    share = np.interp(np.abs(_SECONDS), (half, half + _FADE_SECONDS), (1.0, 0.0))
    complex_ = windows * share
    factor = random.uniform(*WIDENING, len(windows))
    stretched = _read_at(complex_, _SECONDS / factor[:, None])
    return _with_changed(windows, stretched - complex_)


def missing_p(
    windows: NDArray[np.float32], random: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Replace the P wave, :data:`P_SECONDS`, by a straight line.

    In a beat without a visible P wave no tick counts as changed.

    Parameters
    ----------
    windows : ndarray of float32, shape (n, leads, 320)
        Filtered windows in mV.
    random : numpy Generator
        Not used; every distortion takes it.

    Returns
    -------
    windows : ndarray of float32, shape (n, leads, 320)
    changed : ndarray of bool, shape (n, 320)
    """
    del random
    first, last = (round(second * FS) + BEFORE for second in P_SECONDS)
    part = np.linspace(0.0, 1.0, last - first + 1)
    change = np.zeros(windows.shape)
    line = windows[..., first, None] * (1 - part) + windows[..., last, None] * part
    change[..., first : last + 1] = line - windows[..., first : last + 1]
    return _with_changed(windows, change)


def st_shift(
    windows: NDArray[np.float32], random: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Shift the ST segment up or down by :data:`ST_SHIFT`, the same in every lead.

    Parameters
    ----------
    windows : ndarray of float32, shape (n, leads, 320)
        Filtered windows in mV.
    random : numpy Generator

    Returns
    -------
    windows : ndarray of float32, shape (n, leads, 320)
    changed : ndarray of bool, shape (n, 320)

    Notes
    -----
    The window filter passes nothing under 3 Hz.  A lasting shift would be invisible; a shift within one beat shows
    mostly at its beginning and where it fades.
    """
    size = _either_sign(random, ST_SHIFT, len(windows))
    shape = np.interp(_RAW_SECONDS, ST_SECONDS, (0.0, 1.0, 1.0, 0.0))
    return _with_changed(windows, _filtered(size[:, None] * shape)[:, None])


def spike(windows: NDArray[np.float32], random: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Add a triangular spike of :data:`SPIKE` mV at a random place, the same in every lead.

    Parameters
    ----------
    windows : ndarray of float32, shape (n, leads, 320)
        Filtered windows in mV.
    random : numpy Generator

    Returns
    -------
    windows : ndarray of float32, shape (n, leads, 320)
    changed : ndarray of bool, shape (n, 320)
    """
    n = len(windows)
    size = _either_sign(random, SPIKE, n)
    peak = random.uniform(*SPIKE_WITHIN, n)
    half = random.uniform(*SPIKE_SECONDS, n) / 2
    away = np.abs(_RAW_SECONDS - peak[:, None]) / half[:, None]
    return _with_changed(windows, _filtered(size[:, None] * np.maximum(1 - away, 0))[:, None])


DISTORTIONS: Final[dict[str, Distortion]] = {
    "widened QRS": widened_qrs,
    "missing P wave": missing_p,
    "ST shift": st_shift,
    "spike": spike,
}
"""Distortions that explanations are tested with, by name.  An early beat is not one of them: it differs in rhythm, and a
window shows that only where the T wave of the previous beat lies."""


def _with_changed(
    windows: NDArray[np.float32], change: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Add a change, broadcast over the leads; return the windows and the ticks that it spans in any lead."""
    size = np.abs(np.broadcast_to(change, windows.shape))
    largest = size.max(axis=-1, keepdims=True)
    large = ((size > CHANGED_SHARE * largest) & (largest >= LEAST_CHANGE)).any(axis=1)
    begun = np.logical_or.accumulate(large, axis=-1)
    goes_on = np.logical_or.accumulate(large[:, ::-1], axis=-1)[:, ::-1]
    return (windows + change).astype(np.float32), begun & goes_on


def _read_at(windows: NDArray[np.float64], seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Read windows at other times, shape (n, 320), interpolating linearly; zero outside them."""
    tick = seconds * FS + BEFORE
    left = np.clip(np.floor(tick).astype(np.int64), 0, LENGTH - 2)
    part = (tick - left)[:, None]
    before, after = (np.take_along_axis(windows, index[:, None], axis=-1) for index in (left, left + 1))
    inside = ((tick >= 0) & (tick <= LENGTH - 1))[:, None]
    read: NDArray[np.float64] = np.where(inside, before * (1 - part) + after * part, 0.0)
    return read


def _filtered(shapes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pass shapes in mV, shape (n, RAW_LENGTH), through the window filter; shape (n, 320)."""
    return filter_raw(shapes.astype(np.float32)).astype(np.float64)


def _either_sign(random: np.random.Generator, size: tuple[float, float], n: int) -> NDArray[np.float64]:
    """Draw sizes, half of them negative."""
    sizes: NDArray[np.float64] = random.uniform(*size, n) * random.choice([-1.0, 1.0], n)
    return sizes
