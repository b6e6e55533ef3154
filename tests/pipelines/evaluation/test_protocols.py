"""The published protocols run with the shipped weights."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgmon.pipelines.evaluation import model_card, protocols
from ecgmon.pipelines.training.classes import BeatClass
from ecgmon.pipelines.training.mitdb import DS2
from ecgmon.pipelines.training.separation import separation

if TYPE_CHECKING:
    from pathlib import Path

    from ecgmon.pipelines.evaluation.protocols import Evaluated

FIGURES = {"score", "raw", "teacher_raw", "per_class", "folds", "intervals", "model", "teacher", "without"}


@pytest.fixture(scope="module")
def five_folds(mitdb: Path) -> Evaluated:
    return protocols.evaluate("beatgan", mitdb, records=["100", "208", "209"])


@pytest.fixture(scope="module")
def apart(mitdb: Path) -> Evaluated:
    return protocols.evaluate("inter-patient", mitdb, records=["100", "200", "213", "232"])


@pytest.mark.slow
def test_each_of_the_five_folds_is_scored_by_its_own_model(five_folds: Evaluated) -> None:
    figures = five_folds.figures
    assert set(figures) == FIGURES
    assert [fold["split"] for fold in figures["folds"]] == ["fold0", "fold1", "fold2", "fold3", "fold4"]
    assert len({fold["raw"]["auc"] for fold in figures["folds"]}) == 5  # five generators
    mean = np.mean([fold["score"]["auc"] for fold in figures["folds"]])
    assert figures["score"]["auc"]["mean"] == pytest.approx(mean)
    assert 0 < figures["score"]["auc"]["std"] < 0.02
    assert figures["score"]["auc"]["mean"] > 0.97  # a lower limit for three records, not a result to report
    assert figures["score"]["auc"]["mean"] > figures["raw"]["auc"]["mean"]
    assert figures["teacher"]["multiply_adds"] > 8 * figures["model"]["multiply_adds"]


@pytest.mark.slow
def test_every_tested_beat_is_stored_for_the_card(five_folds: Evaluated, tmp_path: Path) -> None:
    five_folds.store(tmp_path, "beatgan")
    curves = np.load(tmp_path / "beatgan.npz")
    for number, fold in enumerate(five_folds.figures["folds"]):
        here = curves["fold"] == number
        assert separation(curves["score"][here], curves["aami"][here]) == fold["score"]
    cases = np.load(tmp_path / "failures.npz")
    assert set(cases["aami"]) <= set(BeatClass)
    assert json.loads((tmp_path / "beatgan.json").read_text()) == five_folds.figures
    names = model_card.SECTIONS
    card = tmp_path / "card.md"
    card.write_text("\n".join(f"<!-- {name} -->\n<!-- /{name} -->" for name in names))
    left_out = model_card.write(tmp_path, card)
    assert set(left_out) == set(names) - {"beatgan", "failures"}
    assert f"{five_folds.figures['score']['auc']['mean']:.4f}"[1:] in card.read_text()


@pytest.mark.slow
def test_the_inter_patient_records_are_those_of_ds2_with_and_without_232(apart: Evaluated) -> None:
    figures = apart.figures
    assert set(figures) == FIGURES | {"without_232"}
    curves = apart.arrays["inter-patient"]
    assert set(curves["record"]) == {"100", "200", "213", "232"}
    light = curves["record"] != "232"
    assert figures["without_232"] == separation(curves["score"][light], curves["aami"][light])
    assert figures["score"]["auc"]["std"] is None
    assert figures["score"]["auc"]["mean"] > 0.9


@pytest.mark.slow
def test_the_score_of_unknown_patients_stays_above_its_floors(mitdb: Path) -> None:
    """The limits lie a little below the published figures: docs/model-card.md."""
    found = protocols.evaluate("inter-patient", mitdb, records=DS2)
    assert found.figures["score"]["auc"]["mean"] > 0.977
    assert found.figures["score"]["ap"]["mean"] > 0.88
    assert found.figures["without_232"]["auc"] > 0.972
    curves = found.arrays["inter-patient"]
    normal = curves["aami"] == BeatClass.N
    assert 0.08 < np.mean(curves["score"][normal] >= 1) < 0.13
    assert 0.005 < np.mean(curves["score"][normal] >= 2) < 0.02
    shares = [np.mean(curves["score"][normal & (curves["record"] == name)] >= 1) for name in DS2]
    assert max(shares) < 0.5
    assert sum(0.05 <= share <= 0.2 for share in shares) >= 11


def test_a_folder_without_the_records_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ecgmon", "evaluate", "beatgan", "--db", str(tmp_path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "ecgmon: " in done.stderr
    assert "100" in done.stderr
