"""Plain numpy that the tests of compiled loops share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ecgmon.models.windows import PHASES

if TYPE_CHECKING:
    from numpy.typing import NDArray


def correlate(signal: NDArray[np.float32], filters: NDArray[np.float32]) -> NDArray[np.float32]:
    """Correlate a signal, shape (n + taps - 1,), with filters, shape (m, taps), in the order of the kernel; shape (m, n)."""
    size = filters.shape[1]
    n = len(signal) - size + 1
    sums = np.zeros((len(filters), n), np.float32)
    for phase in range(PHASES):
        for k in range(phase, size, PHASES):
            sums += signal[k : k + n] * filters[:, k, None]
    return sums
