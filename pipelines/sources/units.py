"""Physical units of signals, and blocks of samples in the units of their converter."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

MILLIVOLTS: Final = {"v": 1e3, "mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "nv": 1e-6}
"""Millivolts in one of a unit; the unit in lower case (both signs that pass for micro)."""


def millivolts(unit: str | None) -> float | None:
    """Millivolts in one of a unit; None where it is not a voltage.  No unit means mV, says HEADER(5).

    Examples
    --------
    >>> millivolts("uV"), millivolts("mmHg")
    (0.001, None)
    """
    return MILLIVOLTS.get((unit or "mV").lower())


@dataclass(frozen=True, slots=True)
class AdcUnits:
    """A stretch of a record as its converter gave it: a :class:`Block` of a quarter of the size of wfdb's millivolts.

    Attributes
    ----------
    samples : ndarray of int16, shape (n, leads)
    missing : ndarray of int16, shape (leads,)
        The value that stands for a missing sample.
    baseline, gain : ndarray of float64, shape (leads,)
        ADC units at 0 V, and ADC units in one of the physical unit.
    millivolts : ndarray of float64, shape (leads,)
        Millivolts in one of the physical unit.
    """

    samples: NDArray[np.int16]
    missing: NDArray[np.int16]
    baseline: NDArray[np.float64]
    gain: NDArray[np.float64]
    millivolts: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, part: slice) -> NDArray[np.float32]:
        samples = self.samples[part]
        signal = np.empty(samples.shape, np.float32)
        compiled_loop(_to_millivolts)(samples, self.missing, self.baseline, self.gain, self.millivolts, signal)
        return signal


@cache
def compiled_loop(function: Callable[..., None]) -> Callable[..., None]:
    """Compile a loop when first samples are read: those who only look at headers need not wait for the compiler."""
    from ecgmon.models.kernels.compiled import compiled

    return compiled(function)


def _to_millivolts(
    adc_units: NDArray[np.int16],
    missing: NDArray[np.int16],
    baseline: NDArray[np.float64],
    gain: NDArray[np.float64],
    millivolts: NDArray[np.float64],
    signal: NDArray[np.float32],
) -> None:
    """Make millivolts of a converter's units as wfdb does, step by step: the same to the last bit."""
    for i in range(adc_units.shape[0]):
        for lead in range(adc_units.shape[1]):
            value = (adc_units[i, lead] - baseline[lead]) / gain[lead] * millivolts[lead]
            signal[i, lead] = np.nan if adc_units[i, lead] == missing[lead] else value


def warm_up() -> None:
    """Compile what makes millivolts, before a stream that is read in real time has to wait for it."""
    one = np.ones(1)
    AdcUnits(np.zeros((2, 1), np.int16), np.zeros(1, np.int16), one, one, one)[:]
