"""``ecgmon export`` writes an ONNX model, or says in one line why not."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import ecgmon
from ecgmon.models.weights.checkpoint import default_weights
from ecgmon.monitor.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_command_writes_the_shipped_model_or_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = shutil.copy(default_weights(), tmp_path / "given.safetensors")
    assert main(["export", "--onnx", str(tmp_path / "new" / "default.onnx")]) == 0
    assert main(["export", str(given), "--onnx", str(tmp_path / "given.onnx")]) == 0
    assert ecgmon.load_model().fingerprint[:12] in capsys.readouterr().out
    assert (tmp_path / "given.onnx").read_bytes() == (tmp_path / "new" / "default.onnx").read_bytes()


def test_a_model_that_is_missing_and_a_file_that_cannot_be_written_are_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = ["--state", str(tmp_path)]
    assert main(["export", str(tmp_path / "nowhere"), "--onnx", str(tmp_path / "x.onnx"), *state]) == 1
    assert "there is no model" in capsys.readouterr().err
    assert main(["export", "--onnx", str(tmp_path)]) == 1
    assert "cannot be written" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
