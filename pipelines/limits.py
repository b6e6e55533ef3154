"""Limits that several modules hold to: each stands here, once.

What a window is made of (its length, its sampling frequency, its leads) is said in :mod:`ecgmon.models.windows`.
"""

from __future__ import annotations

from typing import Final

FS_RANGE: Final = (100.0, 1000.0)
"""Least and highest sampling frequency of a stream, in Hz; below the least, the windows' 45 Hz would be lost."""

RR_REMEMBERED: Final = 8
RR_NEEDED: Final = 4
"""RR intervals that the recent rhythm is the mean of, and how many of them have to be known."""

MATCH_SECONDS: Final = 0.15
"""Farthest that a detected beat may be from an annotated one to be the same (ANSI/AAMI EC57), in seconds."""

MAX_ITEMS: Final = 65_536
"""Most items in one message, and so beats in one batch."""

MAX_STREAM_ID: Final = 64
"""Longest stream id, in characters: ids become labels of metrics, file names and columns."""

STREAM_ID: Final = r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?"
"""Pattern of a whole stream id, which is to be anchored where it is used."""
