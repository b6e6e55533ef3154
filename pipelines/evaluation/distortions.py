"""Known distortions, put into normal beats: they show whether the error per tick points at what is odd.

Each function takes filtered windows in mV, as :func:`ecgmon.models.windows.cut` makes them, draws sizes and
places from a random generator, and returns the distorted windows with the ticks that it changed.
What is done to the windows comes before :func:`ecgmon.models.windows.scale`: a spike shrinks the rest of the
scaled window, but the ticks that were distorted stay the same.

A shape that is added to the signal (ST shift, spike) is drawn as it would be recorded and passed
through the window filter, which is linear: the result is what the filter makes of a distorted
recording.  What is done to a wave of the beat itself (QRS, P, T) is done to the filtered wave.
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
"""The changed ticks are all from the first to the last where the change is over this share of its largest.

The filter spreads every change over its whole length; what is under a tenth can hardly be seen, and
is under a hundredth of the largest in a squared difference.  Where a change crosses zero on its way,
as at the R peak of a widened complex, one is still inside the distortion.
"""

LEAST_CHANGE: Final = 0.05
"""Change in mV under which nothing was distorted: half a small square of ECG paper.  A beat without a P
wave cannot lose it."""

QRS_SECONDS: Final = 0.1
"""Duration of a normal QRS complex: 0.06 to 0.11 s in adults (AHA/ACCF/HRS recommendations for the
standardization and interpretation of the electrocardiogram, part III, 2009)."""

WIDENING: Final = (1.5, 2.2)
"""Factor that a QRS complex is stretched by: 0.12 s and more is wide (same source); this is 0.15 to 0.22 s,
as in bundle branch block and in beats from the ventricles."""

P_SECONDS: Final = (-0.26, -0.06)
"""Where a P wave lies, from the R peak: a PR interval of 0.12 to 0.20 s, and 0.04 to 0.06 s from the
beginning of the QRS complex to its peak."""

ST_SHIFT: Final = (0.2, 0.4)
"""Size of an ST shift in mV, up or down: 0.1 mV, in V2 and V3 up to 0.25 mV, is the limit of the fourth
universal definition of myocardial infarction (Thygesen et al., 2018)."""

ST_SECONDS: Final = (0.05, 0.07, 0.16, 0.30)
"""From the R peak: the shift begins at the J point, is whole, begins to fade at the end of the ST segment,
and has faded with the T wave."""

SPIKE: Final = (0.5, 1.5)
"""Height of a spike in mV, up or down: as high as an R wave, as the movement of an electrode makes it."""

SPIKE_SECONDS: Final = (0.03, 0.08)
"""Duration of a spike, from foot to foot."""

SPIKE_WITHIN: Final = (-0.35, 0.45)
"""Where a spike may have its peak, from the R peak, in s: inside the window with room for its feet."""

COUPLING: Final = (0.40, 0.50)
"""RR interval before an early beat, in s; it follows the T wave of the beat before closely."""

_T_SECONDS: Final = (0.08, 0.11, 0.39, 0.42)  # from R: fades in after the QRS complex and out before the next beat
_FADE_SECONDS: Final = 0.03  # over which a wave is faded in and out, so that cutting it makes no edges

_SECONDS: Final = (np.arange(LENGTH) - BEFORE) / FS
_RAW_SECONDS: Final = (np.arange(RAW_LENGTH) - RAW_BEFORE) / FS


def widened_qrs(
    windows: NDArray[np.float32], random: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Stretch the QRS complex in time by a factor of :data:`WIDENING`; what lies around it stays in place.

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
    """Draw a straight line through the place of the P wave, :data:`P_SECONDS`.

    A beat that shows no P wave comes back with no tick changed.

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
    The window filter passes nothing under 3 Hz, so a lasting shift would not be seen at all, and of one
    that comes and goes within a beat the beginning and the fading are seen best.
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


def early_beat(
    windows: NDArray[np.float32], random: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Draw the T wave of a beat that came only :data:`COUPLING` before, over the P wave.

    The beat before is taken to look like the beat itself, whose own T wave is drawn a second time.

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
    t_wave = windows * np.interp(_SECONDS, _T_SECONDS, (0.0, 1.0, 1.0, 0.0))
    coupling = random.uniform(*COUPLING, len(windows))
    return _with_changed(windows, _read_at(t_wave, _SECONDS + coupling[:, None]))


DISTORTIONS: Final[dict[str, Distortion]] = {
    "widened QRS": widened_qrs,
    "missing P wave": missing_p,
    "ST shift": st_shift,
    "spike": spike,
}
"""The distortions that explanations are tested with.  :func:`early_beat` is not among them: its rhythm is
what is odd about it, and a window shows that only where the T wave before happens to fall."""


def _with_changed(
    windows: NDArray[np.float32], change: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Add a change, broadcast over the leads, and tell which ticks it spans in any of them."""
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
