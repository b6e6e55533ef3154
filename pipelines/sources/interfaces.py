"""Interfaces of a record and of a block of its samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ecgmon.pipelines.sources.errors import RecordTruncatedError


class Block(Protocol):
    """A part of a record in memory, from which samples are read in smaller parts."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, part: slice, /) -> NDArray[np.float32]:
        """Return the samples of a contiguous part, shape (n, leads), in mV, NaN where missing."""


class Record(Protocol):
    """An open record, any part of which can be read."""

    @property
    def name(self) -> str:
        """Name of the record in messages."""

    @property
    def fs(self) -> float:
        """Sampling frequency in Hz."""

    @property
    def leads(self) -> tuple[str, ...]:
        """Names of the leads, in the order of the samples' columns."""

    @property
    def length(self) -> int:
        """Samples that can be read."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user: leads that are left out, samples beyond the length in the header."""

    @property
    def truncated(self) -> RecordTruncatedError | None:
        """Raised after ``length`` samples if the header promises more; else None."""

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Read samples ``start`` to ``stop``, shape (stop - start, leads), in mV, NaN where missing."""

    def block(self, start: int, stop: int) -> Block:
        """Read the same samples in the form that needs the least memory."""
