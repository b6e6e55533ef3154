"""Asystole: no beat for some seconds of signal that can be used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ecgmon.monitor.core.alerts.kinds import AlertKind

if TYPE_CHECKING:
    from ecgmon.monitor.core.alerts.items import Alert, ScoredBeat
    from ecgmon.monitor.core.alerts.state import StreamAlerts


_KIND: Final = AlertKind.ASYSTOLE


def at_beat(alerts: StreamAlerts, beat: ScoredBeat, changes: list[Alert]) -> None:
    """Clear asystole, or find that the pause before this beat was one between two whole seconds."""
    state = alerts.state
    quiet_since = beat.seconds if state.quiet_since is None else state.quiet_since
    pause = beat.seconds - quiet_since
    alert = state.active.get(_KIND)
    if alert is None:
        # rr is NaN where the signal was lost before the beat, though the second that says so may still be to come
        if pause >= alerts.limits.pause and beat.rr >= alerts.limits.pause:
            _begin(alerts, changes, quiet_since, beat.seconds)
            state.recovered = 1
    elif alert.start < beat.seconds < alert.start + alerts.pause_limit():
        alerts.end(changes, _KIND, end=beat.seconds)
    elif beat.seconds > alert.start:
        state.recovered = state.recovered + 1 if pause < alerts.settings.asystole_seconds else 1
        if state.recovered >= alerts.settings.asystole_clear_beats:
            alerts.end(changes, _KIND)


def at_second(alerts: StreamAlerts, seconds: float, changes: list[Alert]) -> None:
    """Raise asystole if no beat has come for too long, at the end of a second of usable signal."""
    quiet_since = alerts.state.quiet_since
    if quiet_since is not None and seconds - quiet_since >= alerts.pause_limit() and _KIND not in alerts.state.active:
        _begin(alerts, changes, quiet_since, seconds)


def _begin(alerts: StreamAlerts, changes: list[Alert], start: float, until: float) -> None:
    alerts.state.recovered = 0
    alerts.begin(changes, _KIND, start, f"no beat for {until - start:.1f} s")
