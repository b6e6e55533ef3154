"""Fixtures for pytest: ``pytest_plugins = ["ecgmon.testing.fixtures"]`` in a ``conftest.py`` loads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ecgmon.testing.stores import store_of
from ecgmon.testing.synthetic import SyntheticECG, synthetic_ecg

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def ecg() -> SyntheticECG:
    """One minute of two leads at 360 Hz with a run of three ventricular beats: numbers 40, 42 and 44."""
    return synthetic_ecg(60, ectopic=[40, 42, 44])


@pytest.fixture(scope="session")
def ecg_record(ecg: SyntheticECG, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the ECG of :func:`ecg` as a WFDB record with annotations; return its path without suffix."""
    return ecg.write(tmp_path_factory.mktemp("records"))


@pytest.fixture(scope="session")
def ecg_state(ecg: SyntheticECG, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store the ECG of :func:`ecg` as the stream ``synthetic``; return the state folder."""
    return store_of(ecg, tmp_path_factory.mktemp("ecgmon") / "state")
