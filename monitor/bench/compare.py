"""Comparison of a measurement with an older one, figure by figure."""

from __future__ import annotations

from typing import Any, TypeGuard

_SKIPPED = ("spread", "machine", "samples", "profile", "repeats", "min", "max")  # not compared


def compare(old: dict[str, Any], new: dict[str, Any], path: str = "") -> list[tuple[str, float, float]]:
    """Pair the figures of two measurements.

    Returns
    -------
    list of (name, old, new)
        In the order of the new measurement; figures that only one of them has are left out.
    """
    pairs: list[tuple[str, float, float]] = []
    for name, value in new.items():
        before: Any = old.get(name)
        here = f"{path}.{name}" if path else name
        if name in _SKIPPED:
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
