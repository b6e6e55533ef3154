"""Alerts on the quality of the signal: lead off, signal missing, saturated, noisy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ecgmon.monitor.core.alerts.items import Alert, SecondPassed
    from ecgmon.monitor.core.alerts.state import StreamAlerts


def at_second(alerts: StreamAlerts, second: SecondPassed, changes: list[Alert]) -> None:
    """Raise or clear the alerts, from the number of recent seconds of each quality."""
    state = alerts.state
    qualities = state.qualities
    qualities.append(int(second.quality))
    if len(qualities) > alerts.limits.quality_seconds:
        del qualities[0]
    if not state.active and not any(qualities):
        return
    for kind, quality, message, at_least, window in alerts.limits.technical:
        last = qualities[-window:]
        count = last.count(quality)
        if kind in state.active:
            if count == 0 and len(last) == window:
                alerts.end(changes, kind)
        elif count >= at_least:
            start = max(0.0, second.seconds - (len(last) - last.index(quality)))
            alerts.begin(changes, kind, start, f"{message} ({count} of the last {len(last)} s)")
