"""Every example in a docstring or on a page of the documentation gives the output that it shows."""

from __future__ import annotations

import doctest
import importlib.util
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import ecgmon
from tests.conftest import CHECKOUT

if TYPE_CHECKING:
    from types import ModuleType

PUBLIC = {"ecgmon", "ecgmon.errors", "ecgmon.testing"}
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Finder(doctest.DocTestFinder):
    """Also finds the examples of classes that have a public module as ``__module__``."""

    def _from_module(self, module: ModuleType, object: object) -> bool:  # noqa: A002 - doctest's name
        own: bool = super()._from_module(module, object)  # type: ignore[misc]
        return own or getattr(object, "__module__", None) in PUBLIC


def examples() -> list[doctest.DocTest]:
    """Return a test for every docstring with examples, without duplicates."""
    found: dict[tuple[str | None, str], doctest.DocTest] = {}
    for module in pkgutil.walk_packages(ecgmon.__path__, "ecgmon."):
        spec = importlib.util.find_spec(module.name)
        if spec is None or ">>>" not in Path(str(spec.origin)).read_text(encoding="utf-8"):
            continue
        for test in Finder(exclude_empty=True).find(importlib.import_module(module.name), module.name):
            found.setdefault((test.docstring, test.name.rpartition(".")[2]), test)
    found.update({("ecgmon", test.name): test for test in Finder().find(ecgmon, "ecgmon")})
    return [test for test in found.values() if test.examples]


def pages() -> list[doctest.DocTest]:
    """Return a test for every page with examples."""
    candidates = sorted([CHECKOUT / "README.md", *(CHECKOUT / "docs").rglob("*.md")])
    files = [page for page in candidates if ">>>" in page.read_text(encoding="utf-8")]
    names = [str(page.relative_to(CHECKOUT)) for page in files]
    texts = [page.read_text(encoding="utf-8") for page in files]
    return [
        doctest.DocTestParser().get_doctest(text, {}, name, name, 0) for name, text in zip(names, texts, strict=True)
    ]


@pytest.mark.parametrize("test", [*examples(), *pages()], ids=lambda test: test.name)
def test_example(test: doctest.DocTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    output: list[str] = []
    result = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=output.append)
    assert result.failed == 0, "".join(output)
    assert result.attempted > 0
