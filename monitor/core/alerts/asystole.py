"""Asystole: no beat for some seconds of usable signal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ecgmon.monitor.core.alerts.kinds import AlertKind

if TYPE_CHECKING:
    from ecgmon.monitor.core.alerts.items import Alert, ScoredBeat
    from ecgmon.monitor.core.alerts.state import StreamAlerts


_KIND: Final = AlertKind.ASYSTOLE


def at_beat(alerts: StreamAlerts, beat: ScoredBeat, changes: list[Alert]) -> None:
    """Clear asystole, or raise it for a pause that ended before a whole second showed it."""
    state = alerts.state
    quiet_since = beat.seconds if state.quiet_since is None else state.quiet_since
    pause = beat.seconds - quiet_since
    alert = state.active.get(_KIND)
    if alert is None:
        # rr is NaN if the signal was lost before the beat, even if that second has not been reported yet
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
    """Raise asystole at the end of a second of usable signal, if the last beat is too long ago."""
    quiet_since = alerts.state.quiet_since
    if quiet_since is not None and seconds - quiet_since >= alerts.pause_limit() and _KIND not in alerts.state.active:
        _begin(alerts, changes, quiet_since, seconds)


def _begin(alerts: StreamAlerts, changes: list[Alert], start: float, until: float) -> None:
    alerts.state.recovered = 0
    alerts.begin(changes, _KIND, start, f"no beat for {until - start:.1f} s")
