"""Stream stalled: nothing arrives from a stream that has not ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ecgmon.monitor.core.alerts.kinds import AlertKind

if TYPE_CHECKING:
    from ecgmon.monitor.core.alerts.items import Alert
    from ecgmon.monitor.core.alerts.state import StreamAlerts


_KIND: Final = AlertKind.STREAM_STALLED


def at_stall(alerts: StreamAlerts, changes: list[Alert]) -> None:
    """Raise the alert; the caller has compared the stream with the clock."""
    if _KIND not in alerts.state.active:
        alerts.begin(changes, _KIND, alerts.state.now, "nothing arrives from the stream")


def at_item(alerts: StreamAlerts, changes: list[Alert]) -> None:
    """Clear the alert at the next item of any kind."""
    alerts.end(changes, _KIND)
