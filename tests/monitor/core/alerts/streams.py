"""A stream of items that is fed to the alert rules one by one."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, Any

import msgspec

from ecgmon.monitor.config.schema import AlertSettings, PrioritySettings
from ecgmon.monitor.core.alerts import (
    Alert,
    AlertEngine,
    AlertKind,
    ScoredBeat,
    SecondPassed,
)
from ecgmon.pipelines.items import Quality

if TYPE_CHECKING:
    from ecgmon.monitor.core.alerts.items import Item

USABLE, NOISY, SATURATED, FLAT, MISSING = Quality
UNUSABLE = [SATURATED, FLAT, MISSING]
ANOMALOUS = 2.0  # the default threshold: a beat with this score is anomalous
NORMAL = 1.999


class Stream:
    """The rules of a stream: takes items one by one and keeps every change of an alert."""

    def __init__(self, **changed: PrioritySettings | float) -> None:
        self.engine = AlertEngine(msgspec.structs.replace(AlertSettings(), **changed))
        self.changes: list[Alert] = []
        self.seq = 0
        self.last = nan

    def feed(self, item: Item) -> list[Alert]:
        changes = self.engine.feed(item)
        self.changes += changes
        return changes

    def beat(
        self, seconds: float, score: float = 1.0, quality: Quality = USABLE, rr: float | None = None
    ) -> list[Alert]:
        changes = self.feed(ScoredBeat(self.seq, seconds, seconds - self.last if rr is None else rr, score, quality))
        self.seq += 1
        self.last = seconds
        return changes

    def beats(self, count: int, interval: float, **rest: Any) -> list[Alert]:
        """Add beats at a steady rate; the first comes one interval after the last beat."""
        first = 0.0 if self.last != self.last else self.last + interval
        return [change for k in range(count) for change in self.beat(first + k * interval, **rest)]

    def scores(self, *scores: float) -> list[Alert]:
        return [change for score in scores for change in self.beats(1, 0.8, score=score)]

    def seconds(self, first_end: int, last_end: int, quality: Quality = USABLE) -> list[Alert]:
        """Add whole seconds of one quality; the numbers are the stream times at which they end."""
        return [change for k in range(first_end, last_end + 1) for change in self.feed(SecondPassed(float(k), quality))]

    @property
    def active(self) -> list[AlertKind]:
        return [alert.kind for alert in self.engine.active]


def only(alerts: list[Alert]) -> Alert:
    assert len(alerts) == 1, alerts
    return alerts[0]
