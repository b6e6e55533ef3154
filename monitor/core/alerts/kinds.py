"""Kinds and priorities of alerts."""

from __future__ import annotations

from enum import StrEnum


class AlertKind(StrEnum):
    """The kind of an alert."""

    ASYSTOLE = "asystole"
    EXTREME_BRADYCARDIA = "extreme_bradycardia"
    EXTREME_TACHYCARDIA = "extreme_tachycardia"
    ANOMALOUS_EPISODE = "anomalous_episode"
    LEAD_OFF = "lead_off"
    SIGNAL_MISSING = "signal_missing"
    SATURATED = "saturated"
    NOISY = "noisy"
    STREAM_STALLED = "stream_stalled"
    BEATS_DROPPED = "beats_dropped"


class Priority(StrEnum):
    """The urgency of an alert, as in IEC 60601-1-8."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
