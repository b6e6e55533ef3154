"""The state of the alert rules of a stream, and limits derived from their settings."""

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
"""Increased when the meaning of a snapshot's fields changes."""

UNUSABLE: Final = int(Quality.SATURATED)
"""The lowest quality value at which the signal says nothing about the heart.

Noise is not included: ventricular fibrillation looks like noise, and a missed fibrillation is worse than a
false alert.
"""

NOISY: Final = int(Quality.NOISY)
"""The quality of a second or beat in noise."""

TECHNICAL: Final = (
    (AlertKind.NOISY, NOISY, "noise hides the shape of the beats"),
    (AlertKind.SATURATED, int(Quality.SATURATED), "the signal is at the limit of the converter"),
    (AlertKind.LEAD_OFF, int(Quality.FLAT), "the signal is flat: a lead is off, or there is nothing to see"),
    (AlertKind.SIGNAL_MISSING, int(Quality.MISSING), "the source delivers no values"),
)
"""Alerts on the quality of the signal: kind, quality of the seconds that it counts, message."""


class State(Struct, kw_only=True):
    """The state of the rules for a stream; its size is bounded by the settings."""

    version: int = SNAPSHOT_VERSION
    now: float = 0.0
    """Stream time reached: the latest time of any item."""
    raised: int = 0
    """Alerts raised so far; also the number of the next alert."""
    active: dict[AlertKind, Alert] = {}  # msgspec makes a new one for every state
    ended: bool = False

    quiet_since: float | None = None
    """Start of the current span of usable signal without a beat; None before the first item."""
    had_beat: bool = msgspec.field(name="beaten", default=False)  # the name in stored snapshots
    """Whether the stream has had a beat."""
    recovered: int = 0
    """Consecutive beats since asystole without a new pause."""

    chain: list[tuple[float, bool]] = []
    """R peaks of consecutive beats without a break, newest last, and whether each beat is in noise."""

    scored: int = 0
    """Beats scored since the episode's window was last emptied."""
    last_scored: float = -inf
    """R peak of the newest scored beat."""
    anomalous: list[tuple[int, float, int]] = []
    """Anomalous beats among the last M: ``scored`` at that beat, R peak, seq."""

    qualities: list[int] = []
    """Quality of the last seconds, newest last."""
    last_gap: float = 0.0
    """Stream time of the newest gap."""


class Limits(Struct, frozen=True):
    """Limits derived from the settings; all streams share them."""

    priority: dict[AlertKind, Priority]
    pause: float
    """A pause of this many seconds raises asystole, and is not counted in the heart rate."""
    chain_length: int
    slow: float
    slow_clear: float
    fast: float
    fast_clear: float
    slow_from: int
    fast_from: int
    """Index in a full chain of the first beat in the next beat's rate."""
    quality_seconds: int
    technical: tuple[tuple[AlertKind, int, str, int, int], ...]
    """For each technical alert: kind, quality, message, seconds of that quality that raise it, seconds looked at."""


@lru_cache(maxsize=8)  # a reload brings new settings
def limits(settings: AlertSettings) -> Limits:
    """Derive the limits from the settings."""
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
        slow_clear=_span(settings.bradycardia_beats, settings.bradycardia_clear_per_minute),
        fast=_span(settings.tachycardia_beats, settings.tachycardia_per_minute),
        fast_clear=_span(settings.tachycardia_beats, settings.tachycardia_clear_per_minute),
        slow_from=chain_length + 1 - settings.bradycardia_beats,
        fast_from=chain_length + 1 - settings.tachycardia_beats,
        quality_seconds=max(settings.technical_window_seconds, settings.noisy_window_seconds),
        technical=tuple(
            (kind, quality, message, *(noisy if quality == NOISY else unusable)) for kind, quality, message in TECHNICAL
        ),
    )


class StreamAlerts:
    """The alerts of one stream; the rules read and change them.

    Parameters
    ----------
    settings : AlertSettings

    Attributes
    ----------
    limits : Limits
        Derived from the settings.
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
        """Clear an alert if it is active, at ``end`` or by default at the stream time reached."""
        alert = self.state.active.pop(kind, None)
        if alert is not None:
            changes.append(msgspec.structs.replace(alert, end=self.state.now if end is None else end))

    def forget_rhythm(self, seconds: float) -> None:
        """Discard the rhythm: the signal up to ``seconds`` says nothing about the heart."""
        state = self.state
        state.chain.clear()
        if state.quiet_since is None or seconds > state.quiet_since:
            state.quiet_since = seconds

    def pause_limit(self) -> float:
        """Return the time without a beat that raises asystole, in s."""
        settings = self.settings
        return settings.asystole_seconds if self.state.had_beat else settings.asystole_first_seconds


def _span(beats: int, per_minute: float) -> float:
    """Return the time in s from the first to the last of ``beats`` beats at this rate."""
    return (beats - 1) * 60.0 / per_minute
