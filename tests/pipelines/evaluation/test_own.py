"""Figures of a user's own records have intervals over patients and a picture of their curves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

import ecgmon
from ecgmon.monitor.cli.main import main
from ecgmon.testing import synthetic_ecg

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three records of two patients."""
    folder = tmp_path_factory.mktemp("records")
    for number, name in enumerate(("a-1", "a-2", "b-1")):
        synthetic_ecg(60, ectopic=[30, 34 + number, 42], rate=66 + 6 * number, seed=number).write(folder, name)
    return folder


def test_figures_have_intervals_over_patients(records: Path) -> None:
    found = ecgmon.evaluate(records, patients={"a-1": "a", "a-2": "a"})
    assert found.patients == 2
    assert [len(found.curves[name]) for name in ("score", "ax", "aami", "patient")] == 4 * [sum(found.scored.values())]
    assert len(np.unique(found.curves["patient"])) == 2
    for part in (found.score, found.ax):
        for figure, interval in ((part.auc, part.auc_interval), (part.ap, part.ap_interval)):
            assert figure is not None
            assert interval is not None
            assert 0 <= interval[0] <= figure <= interval[1] <= 1
    plain = json.loads(json.dumps(found.dict()))
    assert plain["score"]["auc_interval"] == list(found.score.auc_interval or ())
    assert "curves" not in plain
    assert len(found.plot().axes) == 2


def test_one_patient_has_no_interval_and_no_abnormal_beats_no_curves(records: Path, tmp_path: Path) -> None:
    found = ecgmon.evaluate(records, records=["a-1"])
    assert found.score.auc is not None
    assert found.score.auc_interval is None
    assert len(found.plot().axes) == 2
    synthetic_ecg(60).write(tmp_path)
    with pytest.raises(ecgmon.errors.DatasetError, match="no curves to draw"):
        ecgmon.evaluate(tmp_path).plot()


def test_the_command_prints_the_intervals_and_draws_the_curves(
    records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "records", "--db", str(records), "--plot", str(tmp_path / "new" / "curves.png")]) == 0
    assert "95 % intervals over 3 patients: score, AUC " in capsys.readouterr().out
    assert (tmp_path / "new" / "curves.png").read_bytes().startswith(b"\x89PNG")
