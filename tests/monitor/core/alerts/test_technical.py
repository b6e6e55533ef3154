"""Seconds of bad signal raise technical alerts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ecgmon.monitor.core.alerts import (
    AlertKind,
    Priority,
)
from tests.monitor.core.alerts.streams import (
    FLAT,
    MISSING,
    NOISY,
    SATURATED,
    USABLE,
    Stream,
    only,
)

if TYPE_CHECKING:
    from ecgmon.pipelines.items import Quality


@pytest.mark.parametrize(
    ("quality", "kind"),
    [(SATURATED, AlertKind.SATURATED), (FLAT, AlertKind.LEAD_OFF), (MISSING, AlertKind.SIGNAL_MISSING)],
)
def test_three_bad_seconds_of_five_are_a_technical_alert_that_five_others_clear(
    quality: Quality, kind: AlertKind
) -> None:
    stream = Stream()
    stream.seconds(1, 20)
    stream.beat(20.0)
    assert stream.seconds(21, 22, quality) == []
    assert stream.seconds(23, 24) == []
    alert = only(stream.seconds(25, 25, quality))
    assert (alert.kind, alert.priority, alert.beats) == (kind, Priority.MEDIUM, ())
    assert (alert.start, alert.raised) == (20.0, 25.0)
    stream.beat(25.5)
    stream.beat(28.0)
    assert stream.seconds(26, 29) == []
    assert only(stream.seconds(30, 30)).end == 30.0


def test_noise_is_a_low_alert_after_ten_of_fifteen_seconds_and_over_after_fifteen_others() -> None:
    stream = Stream()
    for k in range(1, 60):
        stream.beat(float(k))
        quality = NOISY if 21 <= k <= 30 else USABLE
        stream.seconds(k, k, quality)
    raised, cleared = stream.changes
    assert (raised.kind, raised.priority, raised.start, raised.raised) == (AlertKind.NOISY, Priority.LOW, 20.0, 30.0)
    assert cleared.end == 45.0


def test_intermittently_bad_signal_is_still_an_alert() -> None:
    stream = Stream()
    for k in range(1, 20, 2):
        stream.seconds(k, k, FLAT)
        stream.seconds(k + 1, k + 1, MISSING)
    assert set(stream.active) == {AlertKind.LEAD_OFF, AlertKind.SIGNAL_MISSING}


def test_occasional_bad_seconds_raise_nothing() -> None:
    stream = Stream()
    for k in range(1, 100):
        stream.beat(float(k))
        stream.seconds(k, k, SATURATED if k % 4 == 0 else USABLE)
    assert stream.changes == []
