"""Limits that several modules share, each defined once.

The properties of a window (length, sampling frequency, leads) are in :mod:`ecgmon.models.windows`.
"""

from __future__ import annotations

from typing import Final

FS_RANGE: Final = (100.0, 1000.0)
"""Lowest and highest sampling frequency of a stream, in Hz.  A lower one could not represent the windows' 45 Hz."""

RR_REMEMBERED: Final = 8
RR_NEEDED: Final = 4
"""The recent rhythm is the mean of up to RR_REMEMBERED RR intervals; it is unknown with fewer than RR_NEEDED."""

MATCH_SECONDS: Final = 0.15
"""Largest distance in seconds at which a detected beat matches an annotated one (ANSI/AAMI EC57)."""

MAX_ITEMS: Final = 65_536
"""Most items in one message, and therefore most beats in one batch."""

MAX_STREAM_ID: Final = 64
"""Longest stream id, in characters.  Ids are used as metric labels, file names and columns."""

STREAM_ID: Final = r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?"
"""Pattern of a whole stream id; the code that uses it must anchor it."""
