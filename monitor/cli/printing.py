"""How commands print: errors on standard error, times, numbers, JSON."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def complain(error: Exception | str, status: int = 1) -> int:
    """Print an error on standard error; return ``status``."""
    print(f"ecgmon: {error}", file=sys.stderr)
    return status


def clock(seconds: float) -> str:
    """Format stream time as M:SS or H:MM:SS."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def milliseconds(seconds: float) -> str:
    """Format a duration in ms or s, with three significant digits; "-" if it is NaN."""
    if math.isnan(seconds):
        return "-"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def percent(share: float | None) -> str:
    """Format a share in percent; "-" if it is None."""
    return "-" if share is None else f"{100 * share:.2f}"


def span(interval: Sequence[float] | None) -> str:
    """Format the ends of an interval of shares; "-" if it is None."""
    return "-" if interval is None else " to ".join(f"{end:.3f}" for end in interval)


def finite(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Replace NaN and infinity by None, because JSON has neither."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
