"""The input and output of the alert rules: items of a stream, and alerts."""

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
        RR interval to the previous beat, in s; NaN if there is none.
    score : float
        -log10 of the share of normal beats that are at least as anomalous; NaN if the beat could not be scored.
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
    """Beats of a live source were lost, because they could not be processed in time.

    Parameters
    ----------
    dropped : int
        Beats that were lost.
    seconds : float
        Stream time at which items continue, in s.
    """

    dropped: int
    seconds: float


class Stalled(Struct, frozen=True, gc=False):
    """Nothing has arrived from the stream for :attr:`AlertSettings.stalled_seconds`; the next item ends the condition.

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
    """A condition of a stream that was raised and, if ``end`` is set, cleared.

    Attributes
    ----------
    number : int
        0, 1, 2, ... in the order in which the stream's alerts were raised.
    kind : AlertKind
    priority : Priority
    start : float
        When the condition began, in s of stream time.
    raised : float
        When the alert was raised: the stream time reached, in s.
    end : float or None
        When it was cleared, in s; None while it is active.  It is before ``raised`` only if a beat found by
        searching back showed that a pause was too short for asystole.
    beats : tuple of int
        Numbers of the beats that raised it; empty if no beat did.
    message : str
        A description in one line.
    """

    number: int
    kind: AlertKind
    priority: Priority
    start: float
    raised: float
    end: float | None = None
    beats: tuple[int, ...] = ()
    message: str
