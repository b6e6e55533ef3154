"""The state of a monitor for a program: status, streams, alerts, scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """Status of a stream; unknown values are None or NaN.

    Attributes
    ----------
    beats : int
        Beats stored.
    seconds : float
        Stream time in s up to which data are stored.
    rate : float
        Heart rate in beats/min.
    last_score : float
        Score of the newest beat.
    ended, stalled : bool or None
        Whether the stream has ended; whether it has stopped coming.
    alerts : tuple of str or None
        Kinds of the active alerts.
    """

    beats: int
    seconds: float = math.nan
    rate: float = math.nan
    last_score: float = math.nan
    ended: bool | None = None
    stalled: bool | None = None
    alerts: tuple[str, ...] | None = None

    __module__ = "ecgmon"


@dataclass(frozen=True, slots=True)
class MonitorStatus:
    """Status of a monitor or of a store.

    Attributes
    ----------
    running : bool or None
        Whether a monitor runs and, at a URL, is ready; None for a store.
    model : str
        Name or fingerprint of the model that scores; empty if unknown.
    streams : dict of str to StreamStatus
    active_alerts : dict of str to int
        Number of active alerts, by kind.
    """

    running: bool | None
    model: str
    streams: Mapping[str, StreamStatus]
    active_alerts: Mapping[str, int]

    __module__ = "ecgmon"

    def __repr__(self) -> str:
        state = {True: "running", False: "not ready", None: "stored"}[self.running]
        return (
            f"<ecgmon.MonitorStatus: {state}, {len(self.streams)} streams, "
            f"{sum(stream.beats for stream in self.streams.values())} beats, {sum(self.active_alerts.values())} active alerts>"
        )

    def to_dataframe(self) -> pd.DataFrame:
        """Return a table with one row per stream, and the attributes of :class:`StreamStatus` as columns."""
        import pandas as pd

        names = list(StreamStatus.__slots__)
        rows = [[getattr(stream, name) for name in names] for stream in self.streams.values()]
        return pd.DataFrame(rows, index=pd.Index(list(self.streams), name="stream"), columns=names)


@dataclass(frozen=True, slots=True)
class StreamAlert:
    """An alert of a stream; times in s of stream time.

    Attributes
    ----------
    stream : str
    number : int
        0, 1, 2, ... in the order in which the stream's alerts were raised.
    kind, priority : str
    start : float
        When the condition began.
    end : float or None
        When it was known to be over; None while the alert is active.
    message : str
    """

    stream: str
    number: int
    kind: str
    priority: str
    start: float
    end: float | None
    message: str

    __module__ = "ecgmon"


@dataclass(frozen=True, slots=True)
class LiveScore:
    """The score of a beat.

    Attributes
    ----------
    stream : str
    time : float
        Time of the R peak in s of stream time.
    score : float
        NaN if the beat could not be scored.
    """

    stream: str
    time: float
    score: float

    __module__ = "ecgmon"
