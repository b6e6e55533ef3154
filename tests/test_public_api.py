"""The public names of ``import ecgmon``, the cost of the import, and how the names are shown to users."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from msgspec import Struct

import ecgmon
import ecgmon.errors
import ecgmon.testing

PUBLIC = [
    "Alert",
    "AlertSettings",
    "Beats",
    "Drawn",
    "Figures",
    "LiveScore",
    "Model",
    "MonitorClient",
    "MonitorStatus",
    "Scores",
    "Separation",
    "StreamAlert",
    "StreamStatus",
    "connect",
    "errors",
    "evaluate",
    "explain",
    "load_model",
    "score",
    "segment",
    "testing",
    "train",
]
IMPORT_SECONDS = 0.15
MODULES = [ecgmon, ecgmon.errors, ecgmon.testing]


def test_these_names_are_public() -> None:
    assert ecgmon.__all__ == PUBLIC
    assert dir(ecgmon) == PUBLIC


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_public_name_exists_and_is_documented_and_names_its_public_module(module: ModuleType) -> None:
    assert module.__all__ == sorted(module.__all__)
    for name in module.__all__:
        found = getattr(module, name)
        if isinstance(found, ModuleType):
            assert found.__name__ == f"{module.__name__}.{name}"
        elif isinstance(found, type) and issubclass(found, Struct):
            assert found.__name__ == name, "msgspec looks up annotations in the module that it names"
        elif callable(found):
            assert f"{found.__module__}.{found.__qualname__}" == f"{module.__name__}.{name}"
        else:
            continue
        assert inspect.getdoc(found)


@pytest.mark.parametrize("module", [ecgmon, ecgmon.errors], ids=lambda module: module.__name__)
def test_type_checkers_see_the_names_in_the_modules_that_are_imported(module: ModuleType) -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text())
    (guarded,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in guarded.body if isinstance(node, ast.ImportFrom)]
    typed = {(str(node.module), alias.name) for node in imports for alias in node.names}
    assert sorted(name for _, name in typed) == module.__all__
    for origin, name in typed:
        assert getattr(__import__(origin, fromlist=[name]), name) is getattr(module, name)


def test_an_unknown_name_raises_the_usual_error() -> None:
    with pytest.raises(AttributeError, match="module 'ecgmon' has no attribute 'scores'"):
        ecgmon.scores  # noqa: B018


def test_importing_is_fast_and_loads_no_large_package() -> None:
    code = (
        "import time; began = time.perf_counter(); import ecgmon; took = time.perf_counter() - began\n"
        "import sys; print(took, *{'torch', 'numba', 'scipy', 'pandas', 'matplotlib'} & set(sys.modules))"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(5)]
    took, *loaded = min((run.stdout.split() for run in runs), key=lambda words: float(words[0]))
    assert not loaded
    assert float(took) < IMPORT_SECONDS


def test_a_traceback_shows_the_public_name_of_an_error() -> None:
    code = "import ecgmon; ecgmon.score('./nowhere/record')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith("ecgmon.errors.RecordNotFoundError: './nowhere/record'")
