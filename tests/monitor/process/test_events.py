"""docs/events.md lists exactly the events that the code logs, with their fields."""

from __future__ import annotations

import ast
import re
from pathlib import Path

CHECKOUT = Path(__file__).parents[3]
LEVELS = {"debug", "info", "warning", "error", "exception"}


def logged() -> dict[str, set[str]]:
    """Return the events in the code, each with all fields that it is logged with."""
    found: dict[str, set[str]] = {}
    for path in sorted(p for folder in ("monitor", "pipelines", "models") for p in (CHECKOUT / folder).rglob("*.py")):
        text = path.read_text()
        if "structlog" not in text:  # log may be a logarithm
            continue
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call):
                continue
            method = node.func if isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS else None
            if method and not (isinstance(method.value, ast.Name) and method.value.id == "_log"):
                continue
            if not method and not (isinstance(node.func, ast.Name) and node.func.id == "log"):
                continue
            names = [
                part.value
                for part in ast.walk(node.args[0])
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            ]
            assert names, f"{path.name}:{node.lineno}: the name of an event is not a literal"
            fields = {keyword.arg for keyword in node.keywords if keyword.arg}
            fields |= {"exception"} if method and method.attr == "exception" else set()
            for name in names:
                found.setdefault(name, set()).update(fields)
    return found


def documented() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for line in (CHECKOUT / "docs/events.md").read_text().splitlines():
        if line.startswith("| `"):
            names, _, _, fields = line.strip("| ").split(" | ")[:4]
            for name in re.findall(r"`([a-z-]+)`", names):
                found[name] = set(re.findall(r"\w+", fields))
    return found


def test_every_event_is_documented_and_every_documented_event_exists() -> None:
    assert set(documented()) == set(logged())


def test_the_fields_of_every_event_are_documented() -> None:
    pages = documented()
    for name, fields in logged().items():
        missing = fields - pages[name]
        assert not missing, (name, missing)
