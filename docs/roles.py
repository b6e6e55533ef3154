"""Roles of docstrings (``:func:`ecgmon.score```) as links and code in Markdown, for mkdocstrings."""

from __future__ import annotations

import re
from typing import Any, Final

import griffe

import ecgmon
import ecgmon.errors
import ecgmon.testing

_ROLE: Final = re.compile(r":(?:attr|class|data|exc|func|meth|mod):`(?P<quiet>~?)(?P<target>[^`]+)`")
_PUBLIC: Final = frozenset(
    f"{module.__name__}.{name}" for module in (ecgmon, ecgmon.errors, ecgmon.testing) for name in module.__all__
)


def markdown(text: str) -> str:
    """Turn roles into Markdown: a link if the site documents the target, otherwise code."""

    def replaced(match: re.Match[str]) -> str:
        target = match["target"]
        return f"[`{target}`][{target}]" if target in _PUBLIC else f"`{target}`"

    return _ROLE.sub(replaced, text)


class Roles(griffe.Extension):
    """Turns the roles of every docstring into Markdown."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:  # noqa: ANN401 - other arguments of griffe
        """Convert one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)
