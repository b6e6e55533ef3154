"""The streams that are replayed if no records are named."""

from __future__ import annotations

from typing import Final

from ecgmon.monitor.config.schema import SourceSettings

TOY: Final = tuple(
    SourceSettings(record="toy", name=f"toy/{name}", start=start)
    for name, start in (("whole", 0.0), ("late", 20.0), ("later", 45.0), ("last", 150.0))
)
"""Streams of the built-in record, each with another start in it."""
