"""What the alert rules take: the items of a stream, as they see them; and what they give: alerts."""

from __future__ import annotations

from msgspec import Struct

from ecgmon.monitor.core.alerts.kinds import AlertKind, Priority  # noqa: TC001 - msgspec reads the types of fields
from ecgmon.pipelines.items import Quality  # noqa: TC001 - likewise


class ScoredBeat(Struct, frozen=True, gc=False):
    """A beat with its score.

    Parameters
    ----------
    seq : int
        Number of the beat in its stream.
    seconds : float
        R peak in stream time, in s.
    rr : float
        RR interval to the beat before, in s; NaN where there is none.
    score : float
        -log10 of the share of normal beats that look at least this odd; NaN where the beat could not be scored.
    quality : Quality
        Quality of the signal under the beat.
    """

    seq: int
    seconds: float
    rr: float
    score: float
    quality: Quality


class SecondPassed(Struct, frozen=True, gc=False):
    """One second of the stream has passed.

    Parameters
    ----------
    seconds : float
        Its end, in stream time, in s.
    quality : Quality
        Quality of the signal in it.
    """

    seconds: float
    quality: Quality


class Gap(Struct, frozen=True, gc=False):
    """A live source could not be taken in time.

    Parameters
    ----------
    dropped : int
        Beats that were lost.
    seconds : float
        Stream time from which on there are items again, in s.
    """

    dropped: int
    seconds: float


class Stalled(Struct, frozen=True, gc=False):
    """Nothing has come from the stream for :attr:`AlertSettings.stalled_seconds`; the next item ends it.

    Parameters
    ----------
    seconds : float
        Stream time reached, in s.
    """

    seconds: float


class End(Struct, frozen=True, gc=False):
    """The stream has ended.

    Parameters
    ----------
    seconds : float
        Its length, in s.
    """

    seconds: float


Item = ScoredBeat | SecondPassed | Gap | Stalled | End


class Alert(Struct, frozen=True, kw_only=True):
    """A condition of a stream that was raised and, when ``end`` is set, cleared.

    Attributes
    ----------
    number : int
        0, 1, 2, ... in the order in which the stream's alerts were raised.
    kind : AlertKind
    priority : Priority
    start : float
        When the condition began, in s of stream time.
    raised : float
        When that was known: the stream time reached, in s.
    end : float or None
        When it was known to be over, in s; None while it lasts.  It lies before ``raised`` only where a beat found by
        searching back showed that a pause was too short for asystole after all.
    beats : tuple of int
        Numbers of the beats that raised it; empty where no beat did.
    message : str
        What was found, in one line.
    """

    number: int
    kind: AlertKind
    priority: Priority
    start: float
    raised: float
    end: float | None = None
    beats: tuple[int, ...] = ()
    message: str
