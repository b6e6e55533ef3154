"""Fixtures of the tests of pipelines."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def small_networks(one_thread: None) -> None:
    """Have torch compute on one thread."""
