"""What the alert rules remember of a stream, and what follows from their settings."""

from __future__ import annotations

from functools import lru_cache
from math import inf
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from ecgmon.monitor.core.alerts.items import Alert
from ecgmon.monitor.core.alerts.kinds import AlertKind, Priority
from ecgmon.pipelines.items import Quality

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ecgmon.monitor.config.schema import AlertSettings

SNAPSHOT_VERSION: Final = 1
"""Raised when the meaning of a snapshot's fields changes."""

UNUSABLE: Final = int(Quality.SATURATED)
"""From this quality on the signal says nothing about the heart.

Noise is below it: ventricular fibrillation looks like noise, and to keep silent about it would be
the worse error.
"""

NOISY: Final = int(Quality.NOISY)
"""A seconds or beats of this quality lie in noise."""

TECHNICAL: Final = (
    (AlertKind.NOISY, NOISY, "noise hides the shape of the beats"),
    (AlertKind.SATURATED, int(Quality.SATURATED), "the signal is at the limit of the converter"),
    (AlertKind.LEAD_OFF, int(Quality.FLAT), "the signal is flat: a lead is off, or there is nothing to see"),
    (AlertKind.SIGNAL_MISSING, int(Quality.MISSING), "the source delivers no values"),
)
"""Alerts on the quality of the signal: kind, quality of the seconds it counts, what it says."""


class State(Struct, kw_only=True):
    """All that the rules remember of a stream; bounded by the settings."""

    version: int = SNAPSHOT_VERSION
    now: float = 0.0
    """Stream time reached: the latest time of any item."""
    raised: int = 0
    """Alerts raised so far; the next one's number."""
    active: dict[AlertKind, Alert] = {}  # msgspec makes a new one for every state
    ended: bool = False

    quiet_since: float | None = None
    """Since when the signal could be used and no beat was seen; None before the first item."""
    beaten: bool = False
    """Whether the stream has had a beat."""
    recovered: int = 0
    """Beats since asystole, each soon enough after the one before."""

    chain: list[tuple[float, bool]] = []
    """R peaks of consecutive beats without a break, newest last, and whether they lie in noise."""

    scored: int = 0
    """Beats scored since the episode's window was last emptied."""
    last_scored: float = -inf
    """R peak of the newest of them."""
    anomalous: list[tuple[int, float, int]] = []
    """Those of the last M that were anomalous: ``scored`` at that beat, R peak, seq."""

    qualities: list[int] = []
    """Quality of the last seconds, newest last."""
    last_gap: float = 0.0
    """Stream time of the newest gap."""


class Limits(Struct, frozen=True):
    """What follows from the settings; all streams share it."""

    priority: dict[AlertKind, Priority]
    pause: float
    """A pause of so many seconds is an asystole alert of its own, and says nothing about the rate of the rhythm around it."""
    chain_length: int
    slow: float
    slow_over: float
    fast: float
    fast_over: float
    slow_from: int
    fast_from: int
    """Which beat of a whole chain the next beat's rates begin with."""
    quality_seconds: int
    technical: tuple[tuple[AlertKind, int, str, int, int], ...]
    """Of each technical alert: kind, quality, message, seconds of that quality that raise it, of how many."""


@lru_cache(maxsize=8)  # settings change where a configuration is read again
def limits(settings: AlertSettings) -> Limits:
    """Work out what follows from the settings."""
    names = msgspec.structs.asdict(settings.priorities)
    priority = {AlertKind(kind): Priority(name) for kind, name in names.items() if name != "off"}
    unusable = (settings.technical_seconds, settings.technical_window_seconds)
    noisy = (settings.noisy_seconds, settings.noisy_window_seconds)
    chain_length = max(settings.bradycardia_beats, settings.tachycardia_beats)
    return Limits(
        priority=priority,
        pause=settings.asystole_seconds if AlertKind.ASYSTOLE in priority else inf,
        chain_length=chain_length,
        slow=_span(settings.bradycardia_beats, settings.bradycardia_per_minute),
        slow_over=_span(settings.bradycardia_beats, settings.bradycardia_clear_per_minute),
        fast=_span(settings.tachycardia_beats, settings.tachycardia_per_minute),
        fast_over=_span(settings.tachycardia_beats, settings.tachycardia_clear_per_minute),
        slow_from=chain_length + 1 - settings.bradycardia_beats,
        fast_from=chain_length + 1 - settings.tachycardia_beats,
        quality_seconds=max(settings.technical_window_seconds, settings.noisy_window_seconds),
        technical=tuple(
            (kind, quality, message, *(noisy if quality == NOISY else unusable)) for kind, quality, message in TECHNICAL
        ),
    )


class StreamAlerts:
    """The alerts of one stream, as the rules see and change them.

    Parameters
    ----------
    settings : AlertSettings

    Attributes
    ----------
    limits : Limits
        What follows from the settings.
    state : State
    """

    __slots__ = ("limits", "settings", "state")

    def __init__(self, settings: AlertSettings) -> None:
        self.settings = settings
        self.limits = limits(settings)
        self.state = State()

    def begin(
        self, changes: list[Alert], kind: AlertKind, start: float, message: str, beats: Sequence[int] = ()
    ) -> None:
        """Raise an alert, unless its kind is switched off."""
        state = self.state
        priority = self.limits.priority.get(kind)
        if priority is None:
            return
        alert = Alert(
            number=state.raised,
            kind=kind,
            priority=priority,
            start=start,
            raised=state.now,
            beats=tuple(beats),
            message=message,
        )
        state.raised += 1
        state.active[kind] = alert
        changes.append(alert)

    def end(self, changes: list[Alert], kind: AlertKind, end: float | None = None) -> None:
        """Clear an alert if it is active, at ``end`` or else at the stream time reached."""
        alert = self.state.active.pop(kind, None)
        if alert is not None:
            changes.append(msgspec.structs.replace(alert, end=self.state.now if end is None else end))

    def lose_sight(self, seconds: float) -> None:
        """Forget the rhythm: there was signal up to ``seconds`` that says nothing about the heart."""
        state = self.state
        state.chain.clear()
        if state.quiet_since is None or seconds > state.quiet_since:
            state.quiet_since = seconds

    def pause_limit(self) -> float:
        """Time without a beat that is an asystole, in s."""
        settings = self.settings
        return settings.asystole_seconds if self.state.beaten else settings.asystole_first_seconds


def _span(beats: int, per_minute: float) -> float:
    """Time in s from the first to the last of some beats at a rate."""
    return (beats - 1) * 60.0 / per_minute
