"""What a record and a block of its samples offer to those who read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ecgmon.pipelines.sources.errors import RecordTruncatedError


class Block(Protocol):
    """A stretch of a record in memory, from which samples are taken in parts."""

    def __len__(self) -> int:
        """Count the samples in it."""

    def __getitem__(self, part: slice, /) -> NDArray[np.float32]:
        """Take the samples of a contiguous part, shape (n, leads), in mV, NaN where missing."""


class Record(Protocol):
    """A record opened for reading in any part, which a source streams from."""

    @property
    def name(self) -> str:
        """What messages call it."""

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
        """What a user should know: leads left out, samples beyond the length that the header gives."""

    @property
    def truncated(self) -> RecordTruncatedError | None:
        """To raise once ``length`` samples have been read; None where they are all that was promised."""

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Read samples ``start`` to ``stop``, shape (stop - start, leads), in mV, NaN where missing."""

    def block(self, start: int, stop: int) -> Block:
        """Read the same, in the form in which it takes the least memory."""
