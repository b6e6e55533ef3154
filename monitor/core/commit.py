"""The data that one commit to the store writes for one stream."""

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
    """The state of a stream: what a monitor needs to continue it after a restart.

    Attributes
    ----------
    position : int
        Items stored.
    beats : int
        Beats stored; also the seq of the next beat.
    seconds : float
        Stream time in s up to which the stream is known.
    rules : bytes
        Snapshot of the alert rules' state.
    run : tuple of (second, seconds, quality)
        The last run of consecutive seconds of the same quality.
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
        """Return whether the stream has this sampling frequency (Hz) and these leads."""
        return (self.fs, self.leads) == (fs, tuple(leads))


class StoredBeat(NamedTuple):
    """A beat as it is stored, in the order of the columns.  NaN marks an unknown value."""

    seq: int
    """Its number in the stream."""
    sample: int
    """R peak, as a sample index at the stream's own sampling frequency."""
    rr: float
    """RR interval to the previous beat, in s."""
    rr_ratio: float
    """``rr`` divided by the mean of the preceding intervals."""
    quality: int
    """A :class:`~ecgmon.pipelines.items.Quality`."""
    flags: int
    ax: float
    """A(x)."""
    score: float


@dataclass(frozen=True, slots=True)
class Entry:
    """The rows that one commit adds for one stream.

    Attributes
    ----------
    state : StreamState
        The stream after this commit.
    beats : list of StoredBeat
    details : list of (seq, window, ticks)
        Float32 (leads, 320) in mV and float16 (320,).
    alerts : list of Alert
        Alerts that were raised or cleared, in order.
    runs : list of (second, seconds, quality)
        Runs of seconds; the first may extend the last stored run.
    remembered : dict of int to bytes
        The beats that the stream remembers of ``beats``, by their places: its next beats are compared with them.
    """

    state: StreamState
    beats: list[StoredBeat]
    details: list[tuple[int, NDArray[np.float32], NDArray[np.float16]]] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    runs: list[tuple[int, int, int]] = field(default_factory=list)
    remembered: dict[int, bytes] = field(default_factory=dict)
