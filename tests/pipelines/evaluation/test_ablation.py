"""A group of features that carries a class costs its AUC when the score is fitted without it."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from ecgmon.models.features import AX, NAMES
from ecgmon.pipelines.evaluation import ablation
from ecgmon.pipelines.training.classes import BeatClass
from ecgmon.pipelines.training.score_fitting import Gathered
from ecgmon.pipelines.training.splits import Split
from ecgmon.testing.evidence import normal_beats

if TYPE_CHECKING:
    from pathlib import Path

TRAIN, HELD_OUT, NORMAL, EACH = 1500, 1500, 1500, 300
N = TRAIN + HELD_OUT + NORMAL + 2 * EACH


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, float]]:
    """Ablate the score of beats of which V shows in A(x) alone and S in the rhythm alone."""
    evidence = normal_beats(N, seed=1)
    aami = np.zeros(N, "u1")
    aami[-2 * EACH : -EACH], aami[-EACH:] = BeatClass.V, BeatClass.S
    evidence.features[aami == BeatClass.V] += np.array([4.0 if name in AX else 0.0 for name in NAMES], "f4")
    evidence.features[aami == BeatClass.S, NAMES.index("early")] += 4
    number = np.arange(N)
    split = Split(
        "made up", train=number < TRAIN, held_out=(number >= TRAIN) & (number < TRAIN + HELD_OUT),
        test=number >= TRAIN + HELD_OUT,
    )  # fmt: skip
    gathered = Gathered(number, evidence, np.zeros((N, 320), np.float16), of_unseen=True)
    dataset = cast("Any", SimpleNamespace(beats={"aami": aami}))
    done: list[str] = []
    result = ablation._found("made up", dataset, gathered, gathered, split, (1.0,), done.append)
    assert len(done) == len(ablation.LEFT_OUT)
    return result


def test_every_group_is_left_out_once(found: dict[str, dict[str, float]]) -> None:
    assert list(found) == list(ablation.LEFT_OUT)


def test_a_class_is_lost_with_the_features_that_show_it(found: dict[str, dict[str, float]]) -> None:
    whole = found["nothing"]
    assert min(whole["V"], whole["S"]) > 0.85
    assert found["A(x)"]["V"] == pytest.approx(0.5, abs=0.06)
    assert found["A(x)"]["S"] > 0.85
    assert found["the rhythm"]["S"] == pytest.approx(0.5, abs=0.06)
    assert found["the rhythm"]["V"] > 0.85


def test_folders_without_trainings_are_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ecgmon", "evaluate", "ablation", "--db", str(tmp_path), "--json"]
    done = subprocess.run(
        [*command, "--halves", str(tmp_path), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "holds no training" in done.stderr
