"""A stream that stalls raises an alert until its next item."""

from __future__ import annotations

from ecgmon.monitor.core.alerts import (
    AlertKind,
    Priority,
    Stalled,
)
from tests.monitor.core.alerts.streams import (
    Stream,
    only,
)


def test_a_stalled_stream_is_an_alert_until_its_next_item() -> None:
    stream = Stream()
    stream.beat(1.0)
    alert = only(stream.feed(Stalled(2.0)))
    assert (alert.kind, alert.start, alert.priority) == (AlertKind.STREAM_STALLED, 2.0, Priority.MEDIUM)
    assert stream.feed(Stalled(2.0)) == []
    assert only(stream.beat(1.8)).end == 2.0  # the item may be a beat from before the last second
    assert only(stream.feed(Stalled(2.0))).number == 1
