"""Every package is installed.  Other tests run from the checkout, where a missing package has no effect."""

from __future__ import annotations

from setuptools import find_packages

from tests.conftest import CHECKOUT


def test_every_folder_of_code_is_installed_under_one_name() -> None:
    folders = {
        ".".join(("ecgmon", *file.parent.relative_to(CHECKOUT).parts)).replace("ecgmon.ecgmon", "ecgmon")
        for package in ("models", "monitor", "pipelines", "ecgmon/testing")
        for file in (CHECKOUT / package).rglob("*.py")
    }
    assert set(find_packages(str(CHECKOUT), include=["ecgmon*"])) == folders | {"ecgmon"}
