"""The items that a stream is cut into: beats, seconds, gaps and the end, in one order.

A segmenter turns samples into a sequence of *items*.  Delivery counts, acknowledges and deduplicates
items by their position in that sequence.  The position depends on the samples only, not on how they
were cut into chunks.  A beat has a window and is scored.  A second has the quality of one second of
signal; it advances a stream's clock when there are no beats (a pause, a lost lead).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from ecgmon.models.windows import LENGTH

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Kind(IntEnum):
    """Kind of an item."""

    BEAT = 0
    """A detected heartbeat, with a window."""
    SECOND = 1
    """One second of the stream, with its signal quality."""
    GAP = 2
    """A live source was too fast for the monitor; ``seq`` beats were dropped before this point."""
    END = 3
    """The source has ended; nothing follows."""


class Quality(IntEnum):
    """Quality of a second of signal, or of the signal under a beat.  Ordered by severity."""

    USABLE = 0
    NOISY = 1
    SATURATED = 2
    FLAT = 3
    MISSING = 4


class Flag(IntEnum):
    """Bits of an item's ``flags``."""

    SEARCHED_BACK = 1
    """The beat was found by a search back with a lower threshold."""
    LEARNING = 2
    """The detector was still adapting to the stream when it found the beat."""


ITEM: Final = np.dtype(
    [
        ("kind", "u1"),
        ("quality", "u1"),
        ("flags", "<u2"),
        ("seq", "<u4"),
        ("sample", "<i8"),
        ("ready", "<i8"),
        ("rr", "<f4"),
        ("rr_ratio", "<f4"),
    ]
)
"""One item, little-endian, 32 bytes, the same in memory, on the wire and in tests.

==========  ====================================================================================
kind        :class:`Kind`
quality     :class:`Quality` of the second, or of the signal under the beat
flags       bits of :class:`Flag`
seq         beat: its number in the stream, 0, 1, 2, ... ; second: its number from the stream's
            first sample; gap: beats dropped; end: beats in the stream
sample      sample index in the stream's own sampling rate: beat: R peak; second: first sample;
            end: number of samples
ready       index, in the stream's own rate, of the last sample that the item depends on: the
            item is known as soon as that sample is
rr          beat: RR interval to the beat before, in seconds; NaN for the first beat and after a
            stretch without signal
rr_ratio    beat: ``rr`` over the mean of the (up to) eight RR intervals before it; NaN until four
            are known
==========  ====================================================================================
"""


@dataclass(frozen=True, slots=True)
class Items:
    """Consecutive items of one stream.

    Attributes
    ----------
    table : ndarray of ITEM, shape (n,)
    windows : ndarray of float32, shape (beats, leads, LENGTH)
        Filtered windows in mV, one for every item of kind BEAT, in order.
    """

    table: NDArray[np.void]
    windows: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.table)

    @property
    def beats(self) -> NDArray[np.void]:
        """The rows of ``table`` that are beats, shape (beats,)."""
        beats: NDArray[np.void] = self.table[self.table["kind"] == Kind.BEAT]
        return beats

    def __getitem__(self, part: slice) -> Self:
        """Items of a contiguous part, with the windows that belong to it."""
        start, stop, step = part.indices(len(self.table))
        if step != 1:
            raise ValueError("items can only be cut into contiguous parts")
        is_beat = self.table["kind"] == Kind.BEAT
        first = int(np.count_nonzero(is_beat[:start]))
        count = int(np.count_nonzero(is_beat[start:stop]))
        return type(self)(self.table[start:stop], self.windows[first : first + count])

    @classmethod
    def empty(cls, leads: int) -> Self:
        """No items, with windows of ``leads`` leads."""
        return cls(np.empty(0, ITEM), np.empty((0, leads, LENGTH), np.float32))

    @classmethod
    def concatenate(cls, parts: list[Self]) -> Self:
        """Join consecutive parts of one stream; ``parts`` must not be empty."""
        if len(parts) == 1:
            return parts[0]
        return cls(np.concatenate([p.table for p in parts]), np.concatenate([p.windows for p in parts]))
