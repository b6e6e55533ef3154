"""What one commit to the store holds of one stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ecgmon.monitor.core.alerts import Alert


@dataclass(slots=True)
class StreamState:
    """Where a stream stands; what a monitor needs to go on with it after a restart.

    Attributes
    ----------
    position : int
        Items stored.
    beats : int
        Beats stored; the next one's seq.
    seconds : float
        Stream time in s up to which it is known.
    rules : bytes
        Snapshot of the alert rules' state.
    run : tuple of (second, seconds, quality)
        The last stretch of seconds of one quality.
    """

    id: int
    name: str
    fs: float
    leads: tuple[str, ...]
    position: int = 0
    beats: int = 0
    seconds: float = 0.0
    ended: bool = False
    rules: bytes = b""
    run: tuple[int, int, int] | None = None

    def same(self, fs: float, leads: Sequence[str]) -> bool:
        """Whether a stream that comes with these is this one."""
        return (self.fs, self.leads) == (fs, tuple(leads))


class StoredBeat(NamedTuple):
    """A beat as the store keeps it, in the order of the columns.  NaN where a value is not known."""

    seq: int
    """Its number in the stream."""
    sample: int
    """R peak, in the stream's own sampling rate."""
    rr: float
    """RR interval to the beat before, in s."""
    rr_ratio: float
    """``rr`` over the mean of the intervals before it."""
    quality: int
    """A :class:`~ecgmon.pipelines.items.Quality`."""
    flags: int
    ax: float
    """A(x)."""
    score: float


@dataclass(frozen=True, slots=True)
class Entry:
    """What one stream adds in one commit.

    Attributes
    ----------
    state : StreamState
        The stream after this commit.
    beats : list of StoredBeat
    details : list of (seq, window, ticks)
        Float32 (leads, 320) in mV and float16 (320,).
    alerts : list of Alert
        Raised or cleared, in order.
    runs : list of (second, seconds, quality)
        Stretches of seconds, the first of which may prolong the last one stored.
    recent : list of bytes
        What to remember of the last of ``beats``, for the stream's next beats to be compared with.
    """

    state: StreamState
    beats: list[StoredBeat]
    details: list[tuple[int, NDArray[np.float32], NDArray[np.float16]]] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    runs: list[tuple[int, int, int]] = field(default_factory=list)
    recent: list[bytes] = field(default_factory=list)
