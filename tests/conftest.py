"""Fixtures that every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ecgmon.models.score.fitting import fit_score
from ecgmon.testing.evidence import normal_beats

if TYPE_CHECKING:
    from ecgmon.models.score.score import Score

pytest_plugins = ["ecgmon.testing.fixtures", "pytester"]

CHECKOUT = Path(__file__).resolve().parent.parent


def missing(what: str) -> None:
    """Skip a test that lacks something; fail instead if ECGMON_REQUIRE_ALL is set."""
    if os.environ.get("ECGMON_REQUIRE_ALL"):
        pytest.fail(f"ECGMON_REQUIRE_ALL is set, but {what}")
    pytest.skip(what)


@pytest.fixture(scope="session")
def one_thread() -> None:
    """Limit torch to one thread: two threads take three times the processor time, and tests run in parallel."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def made_up_score(one_thread: None) -> Score:  # noqa: ARG001  # for its effect
    """A score fitted to made-up beats, for checkpoints whose scores are not checked."""
    return fit_score(normal_beats(1000, seed=1), normal_beats(1000, seed=2))


@pytest.fixture(scope="session")
def mitdb() -> Path:
    """The folder that holds the MIT-BIH Arrhythmia Database."""
    folder = Path(os.environ.get("ECGMON_MITDB", CHECKOUT.parent / "shared" / "mitdb"))
    if not (folder / "100.hea").exists():
        missing(f"MIT-BIH is not at {folder}; name its folder in ECGMON_MITDB")
    return folder
