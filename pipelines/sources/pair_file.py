"""Signal files of format 212: twelve bits per sample, two samples in three bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecgmon.pipelines.sources.units import compiled_loop

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class PairFile:
    """A signal file of format 212 without skewed signals.

    The lower eight bits of a pair's first sample are the first byte, its upper four are the lower half of the second
    byte.  The lower eight bits of the second sample are the third byte, its upper four are the upper half of the second
    byte.  Both are in two's complement (SIGNAL(5)).

    Attributes
    ----------
    path : Path
    offset : int
        Bytes before the first pair.
    frame : int
        Samples in a frame, over all signals of the file.
    columns : ndarray of int64, shape (n,)
        Indices of the samples to read from each frame.
    """

    path: Path
    offset: int
    frame: int
    columns: NDArray[np.int64]

    def read(self, start: int, stop: int) -> NDArray[np.int16]:
        """Read frames ``start`` to ``stop``: the same samples as wfdb, in less than half the time.

        Returns
        -------
        ndarray of int16, shape (stop - start, n)
            In ADC units.

        Raises
        ------
        EOFError
            If the file ends before ``stop``.
        OSError
            If it cannot be read.
        """
        first, end = start * self.frame // 2, stop * self.frame  # pairs, samples
        count = end // 2 * 3 + end % 2 * 2 - 3 * first
        packed = np.fromfile(self.path, np.uint8, count, offset=self.offset + 3 * first)
        if packed.size != count:
            raise EOFError(f"{self.path.name} has {packed.size} bytes where {count} were expected")
        samples = np.empty((stop - start, len(self.columns)), np.int16)
        compiled_loop(_unpack_pairs)(packed, start * self.frame % 2, self.frame, self.columns, samples)
        return samples


def _unpack_pairs(
    packed: NDArray[np.uint8],
    first: int,
    frame: int,
    columns: NDArray[np.int64],
    samples: NDArray[np.int16],
) -> None:
    """Unpack the chosen samples of each frame.

    ``first`` is 0 or 1: the position of the first frame's first sample in the first pair.
    """
    for column in range(columns.size):
        k = first + columns[column]
        for i in range(samples.shape[0]):
            pair = (k >> 1) * 3
            if k & 1:
                value = packed[pair + 2] + (packed[pair + 1] >> 4) * 256
            else:
                value = packed[pair] + (packed[pair + 1] & 15) * 256
            samples[i, column] = value if value < 2**11 else value - 2**12
            k += frame


def warm_up() -> None:
    """Compile the unpacking loop now, so that no stream in real time has to wait for the compiler."""
    compiled_loop(_unpack_pairs)(np.zeros(3, np.uint8), 0, 1, np.array([0]), np.zeros((2, 1), np.int16))
