"""Lazy imports: names of a module that are imported when they are first used (PEP 562)."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def lazily(module: str, origins: Mapping[str, tuple[str, ...]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make ``__getattr__`` and ``__dir__`` of a module.

    Parameters
    ----------
    module : str
        Its name.
    origins : mapping of str to tuple of str
        The names to import from each module.  Without names, the module itself is imported, under the last part of
        its name.
    """
    origin = {name: source for source, names in origins.items() for name in names}
    modules = {source.rpartition(".")[2]: source for source, names in origins.items() if not names}

    def find(name: str) -> Any:  # noqa: ANN401 - a function, a class or a module
        if name in modules:
            return import_module(modules[name])
        if name not in origin:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        found = getattr(import_module(origin[name]), name)
        setattr(sys.modules[module], name, found)
        return found

    return find, lambda: sorted([*origin, *modules])
