"""Synthetic ECGs whose beats are known: Gaussian P, QRS and T waves on a wandering baseline, with noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

LEADS: Final = ("MLII", "V1", "V2", "V3", "V4", "V5", "V6", "I", "III", "aVR", "aVL", "aVF")
"""Names of the leads that can be made."""

_MIN_FS: Final = 50.0  # the R wave is about 30 ms wide

# (offset from the R peak in s, height in mV, standard deviation in s); P and T move with the RR interval
_P: Final = (-0.17, 0.12, 0.02)
_QRS: Final = ((-0.025, -0.1, 0.009), (0.0, 1.1, 0.011), (0.03, -0.2, 0.01))
_T: Final = (0.26, 0.25, 0.045)
_VENTRICULAR: Final = ((0.0, 1.5, 0.035), (0.09, -0.5, 0.04), (0.3, -0.35, 0.06))

_LAST_LEAD: Final = 0.6  # height of the waves in it, as a share of those in the first
_EARLY: Final = 0.6  # RR interval of a ventricular beat, as a share of the usual one; the next is longer by the rest
_FIRST: Final = 0.6  # s to the first R peak
_WANDER_HZ: Final = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticECG:
    """A synthetic ECG with its true beats.

    Attributes
    ----------
    signal : ndarray of float32, shape (samples, leads)
        In mV, NaN in gaps.
    fs : float
        Sampling frequency in Hz.
    leads : tuple of str
        Names of the columns of ``signal``.
    r_peaks : ndarray of float64, shape (beats,)
        In s from the first sample.
    symbols : ndarray of str, shape (beats,)
        ``N`` for a normal beat, ``V`` for a premature ventricular one: the symbols of WFDB.
    """

    signal: NDArray[np.float32]
    fs: float
    leads: tuple[str, ...]
    r_peaks: NDArray[np.float64]
    symbols: NDArray[np.str_]

    def __repr__(self) -> str:
        return (
            f"<ecgmon.testing.SyntheticECG: {len(self.signal) / self.fs:g} s of {', '.join(self.leads)} "
            f"at {self.fs:g} Hz, {len(self.r_peaks)} beats>"
        )

    def write(self, folder: Path | str, name: str = "synthetic") -> Path:
        """Write it as a WFDB record of 16 bits with its annotations (``.atr``).

        Parameters
        ----------
        folder : Path or str
            An existing folder.
        name : str
            Name of the record: letters, digits, ``_`` and ``-``.

        Returns
        -------
        Path
            The record without suffix, as every function of ecgmon accepts it.
        """
        from pathlib import Path

        import wfdb

        folder = Path(folder)
        count = len(self.leads)
        wfdb.wrsamp(
            name, self.fs, ["mV"] * count, list(self.leads), p_signal=self.signal.astype(np.float64),
            fmt=["16"] * count, adc_gain=[1000.0] * count, baseline=[0] * count, write_dir=str(folder),
        )  # fmt: skip
        samples = np.round(self.r_peaks * self.fs).astype(np.int64)
        inside = samples < len(self.signal)
        wfdb.wrann(name, "atr", samples[inside], self.symbols[inside].tolist(), fs=self.fs, write_dir=str(folder))
        return folder / name

    def without(self, *gaps: tuple[float, float], lead: int | None = None) -> SyntheticECG:
        """Return the same ECG with NaN from ``start`` to ``stop`` (in s) of each gap, in one lead or in all."""
        signal = self.signal.copy()
        for start, stop in gaps:
            signal[round(start * self.fs) : round(stop * self.fs), slice(None) if lead is None else lead] = np.nan
        return replace(self, signal=signal)


def synthetic_ecg(
    seconds: float = 30.0,
    fs: float = 360.0,
    *,
    rate: float = 72.0,
    leads: int = 2,
    variability: float = 0.03,
    noise: float = 0.02,
    wander: float = 0.15,
    ectopic: Sequence[int] = (),
    gaps: Sequence[tuple[float, float]] = (),
    r_peaks: ArrayLike | None = None,
    seed: int = 0,
) -> SyntheticECG:
    """Make a synthetic ECG whose beats are known.

    Parameters
    ----------
    seconds : float
        Length in s.
    fs : float
        Sampling frequency in Hz, 50 or more; ecgmon takes 100 to 1000 Hz.
    rate : float
        Heart rate in beats per minute.
    leads : int
        1 to 12, named as in :data:`LEADS`; ecgmon uses two.
    variability : float
        Standard deviation of the RR intervals, as a share of their mean.
    noise : float
        Standard deviation of white noise in mV.
    wander : float
        Amplitude of the baseline wander in mV.
    ectopic : sequence of int
        Numbers of the beats (counted from 0; use 1 or higher) that are premature and ventricular: wide and tall,
        without a P wave, with a pause after them.
    gaps : sequence of (float, float)
        Beginning and end of each range without signal (NaN), in s.
    r_peaks : array_like of float, shape (beats,), optional
        R peaks in s, instead of those from ``rate`` and ``variability``.
    seed : int
        Seed of the intervals and the noise.

    Returns
    -------
    SyntheticECG

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> from ecgmon.testing import synthetic_ecg
    >>> ecg = synthetic_ecg(10, fs=250, ectopic=[5])
    >>> ecg
    <ecgmon.testing.SyntheticECG: 10 s of MLII, V1 at 250 Hz, 12 beats>
    >>> ecg.signal.shape, ecg.signal.dtype
    ((2500, 2), dtype('float32'))
    >>> "".join(ecg.symbols)
    'NNNNNVNNNNNN'
    """
    if not (
        seconds > 0 and rate > 0 and fs >= _MIN_FS and 1 <= leads <= len(LEADS) and noise >= 0 and variability >= 0
    ):
        raise ValueError(
            f"cannot make {seconds} s at {fs} Hz, {rate} beats/min, {leads} leads, noise {noise} and variability {variability}: "
            f"expected seconds, rate > 0, fs >= {_MIN_FS:g}, 1 to {len(LEADS)} leads, noise and variability >= 0"
        )
    random = np.random.default_rng(seed)
    ventricular = set(ectopic)
    peaks = _peaks(seconds, rate, variability, ventricular, random) if r_peaks is None else np.asarray(r_peaks, float)
    time = np.arange(round(seconds * fs)) / fs
    waves = np.zeros(len(time))
    intervals = np.diff(peaks, prepend=peaks[:1] - 60 / rate)
    for number, (peak, interval) in enumerate(zip(peaks.tolist(), intervals.tolist(), strict=True)):
        near = slice(max(0, int((peak - 0.5) * fs)), max(0, int((peak + 0.6) * fs)))
        for offset, height, width in _VENTRICULAR if number in ventricular else _normal(interval):
            waves[near] += height * np.exp(-0.5 * ((time[near] - peak - offset) / width) ** 2)
    baseline = wander * np.sin(2 * np.pi * _WANDER_HZ * time)
    heights = np.linspace(1, _LAST_LEAD, leads)
    signal = np.stack([h * waves + (-1) ** number * baseline for number, h in enumerate(heights)], axis=1)
    made = SyntheticECG(
        (signal + noise * random.standard_normal(signal.shape)).astype(np.float32),
        float(fs),
        LEADS[:leads],
        peaks,
        np.array(["V" if number in ventricular else "N" for number in range(len(peaks))], np.str_),
    )
    return made.without(*gaps) if gaps else made


def _normal(interval: float) -> tuple[tuple[float, float, float], ...]:
    """Waves of a normal beat; the time from the QRS complex to the T wave scales with the root of RR (Bazett)."""
    root = float(np.sqrt(np.clip(interval, 0.25, 1.5)))
    return ((_P[0] * root, *_P[1:]), *_QRS, (_T[0] * root, *_T[1:]))


def _peaks(
    seconds: float, rate: float, variability: float, ventricular: set[int], random: np.random.Generator
) -> NDArray[np.float64]:
    usual = 60 / rate
    count = int(seconds / usual * (1 + 3 * variability)) + 2
    intervals = usual * (1 + variability * random.standard_normal(count).clip(-3, 3))
    for number in ventricular:
        if 0 < number < count:
            early = (1 - _EARLY) * intervals[number]
            intervals[number] -= early
            intervals[number + 1 : number + 2] += early
    intervals[0] = _FIRST
    peaks = np.cumsum(intervals)
    return peaks[peaks < seconds]
