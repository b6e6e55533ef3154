"""Beats dropped: beats were lost because a live source was faster than the daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ecgmon.monitor.core.alerts.kinds import AlertKind

if TYPE_CHECKING:
    from ecgmon.monitor.core.alerts.items import Alert, Gap
    from ecgmon.monitor.core.alerts.state import StreamAlerts


_KIND: Final = AlertKind.BEATS_DROPPED


def at_gap(alerts: StreamAlerts, gap: Gap, changes: list[Alert]) -> None:
    """Raise the alert, and discard the rhythm before the gap."""
    state = alerts.state
    alerts.forget_rhythm(gap.seconds)
    state.qualities.clear()
    state.last_gap = state.now
    if _KIND not in state.active:
        alerts.begin(changes, _KIND, gap.seconds, f"{gap.dropped} beats of a live source were lost")


def at_second(alerts: StreamAlerts, seconds: float, changes: list[Alert]) -> None:
    """Clear the alert if no beat has been lost for ``dropped_clear_seconds``."""
    state = alerts.state
    if _KIND in state.active and seconds - state.last_gap >= alerts.settings.dropped_clear_seconds:
        alerts.end(changes, _KIND)
