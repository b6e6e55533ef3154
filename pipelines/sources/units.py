"""Physical units of signals, and blocks of samples in ADC units."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

MILLIVOLTS: Final = {"v": 1e3, "mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "nv": 1e-6}
"""Millivolts per unit, by the unit in lower case (with both Unicode signs for micro)."""


def millivolts(unit: str | None) -> float | None:
    """Millivolts per unit; None if the unit is not a voltage.  By HEADER(5), no unit means mV.

    Examples
    --------
    >>> millivolts("uV"), millivolts("mmHg")
    (0.001, None)
    """
    return MILLIVOLTS.get((unit or "mV").lower())


@dataclass(frozen=True, slots=True)
class AdcUnits:
    """A part of a record in ADC units: a :class:`Block` with a quarter of the size of wfdb's millivolts.

    Attributes
    ----------
    samples : ndarray of int16, shape (n, leads)
    missing : ndarray of int16, shape (leads,)
        The value of a missing sample.
    baseline, gain : ndarray of float64, shape (leads,)
        ADC units at 0 V, and ADC units per physical unit.
    millivolts : ndarray of float64, shape (leads,)
        Millivolts per physical unit.
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
    """Compile a loop at its first use, so that code that only reads headers does not wait for the compiler."""
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
    """Convert ADC units to millivolts in the same steps as wfdb, so that all bits of the result agree."""
    for i in range(adc_units.shape[0]):
        for lead in range(adc_units.shape[1]):
            value = (adc_units[i, lead] - baseline[lead]) / gain[lead] * millivolts[lead]
            signal[i, lead] = np.nan if adc_units[i, lead] == missing[lead] else value


def warm_up() -> None:
    """Compile the conversion loop now, so that no stream in real time has to wait for the compiler."""
    one = np.ones(1)
    AdcUnits(np.zeros((2, 1), np.int16), np.zeros(1, np.int16), one, one, one)[:]
