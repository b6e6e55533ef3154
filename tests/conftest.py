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
    """Skip for want of something, or fail where everything is demanded (ECGMON_REQUIRE_ALL)."""
    if os.environ.get("ECGMON_REQUIRE_ALL"):
        pytest.fail(f"ECGMON_REQUIRE_ALL is set, but {what}")
    pytest.skip(what)


@pytest.fixture(scope="session")
def one_thread() -> None:
    """Networks this small take three times the processor on two threads, and tests run beside each other."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def made_up_score(one_thread: None) -> Score:  # noqa: ARG001  # for its effect
    """A score of made-up beats, for checkpoints whose scores nobody looks at."""
    return fit_score(normal_beats(1000, seed=1), normal_beats(1000, seed=2))


@pytest.fixture(scope="session")
def mitdb() -> Path:
    """The folder that holds the MIT-BIH Arrhythmia Database."""
    folder = Path(os.environ.get("ECGMON_MITDB", CHECKOUT.parent / "shared" / "mitdb"))
    if not (folder / "100.hea").exists():
        missing(f"MIT-BIH is not at {folder}; name its folder in ECGMON_MITDB")
    return folder
