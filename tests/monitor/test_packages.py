"""What is installed is all that there is: a checkout that runs from its own folder would not miss a package."""

from __future__ import annotations

import tomllib

from tests.conftest import CHECKOUT


def test_every_folder_of_code_is_installed():
    setup = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {
        ".".join(file.parent.relative_to(CHECKOUT).parts)
        for package in ("models", "monitor", "pipelines")
        for file in (CHECKOUT / package).rglob("*.py")
    }
    assert sorted(setup["packages"]) == sorted(folders)
