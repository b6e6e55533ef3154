"""What a change did: every figure of a measurement beside that of an older one."""

from __future__ import annotations

from typing import Any, TypeGuard

_QUIET = ("spread", "machine", "samples", "profile", "repeats", "min", "max")  # what is not compared by itself


def compare(old: dict[str, Any], new: dict[str, Any], path: str = "") -> list[tuple[str, float, float]]:
    """Pair the figures of two measurements.

    Returns
    -------
    list of (name, old, new)
        In the order of the new one; what only one of them has is left out.
    """
    pairs: list[tuple[str, float, float]] = []
    for name, value in new.items():
        before: Any = old.get(name)
        here = f"{path}.{name}" if path else name
        if name in _QUIET:
            continue
        if isinstance(value, dict) and isinstance(before, dict):
            pairs += compare(before, value, here)
        elif _is_figure(value) and _is_figure(before):
            pairs.append((here, float(before), float(value)))
    return pairs


def _is_figure(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def table(pairs: list[tuple[str, float, float]]) -> str:
    """Write pairs as lines: name, old, new, change."""
    width = max((len(name) for name, _, _ in pairs), default=0)
    lines = [f"{'':{width}} {'old':>14} {'new':>14}   change"]
    for name, old, new in pairs:
        change = f"{100 * (new / old - 1):+8.1f} %" if old else "        -"
        lines.append(f"{name:{width}} {old:14.6g} {new:14.6g} {change}")
    return "\n".join(lines)
