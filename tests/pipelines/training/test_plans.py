"""A plan does each of its runs once, and an interrupted plan keeps complete results."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ecgmon.models.training.settings import PAPER, Settings
from ecgmon.pipelines.training import plans, steps
from ecgmon.pipelines.training.classes import BeatClass
from ecgmon.pipelines.training.dataset import Dataset
from ecgmon.pipelines.training.fitting import TrainingError
from ecgmon.pipelines.training.plans import PLANS, Run
from ecgmon.pipelines.training.records import BEAT, STEP

if TYPE_CHECKING:
    from pathlib import Path

TEACHER = Settings(width=2, latent=3, discriminator_width=2, epochs=1, batch=16, rate=1e-2)
STUDENT = replace(TEACHER, architecture="dense", w_adv=0.0, alpha=1.0, beta=1.5)


@pytest.fixture(scope="module")
def beats() -> Dataset:
    random = np.random.default_rng(0)
    wave = 0.02 * random.standard_normal((2, 200 * 360))
    wave[:, 180::360] = 1
    table = np.zeros(198, BEAT)
    table["sample"] = table["column"] = 540 + 360 * np.arange(198)
    table["fold"], table["tenth"] = np.divmod(np.arange(198) % 50, 10)
    table["aami"][5::20] = BeatClass.V
    about = {"records": ["100"], "sha256": {"beats": "1"}}
    return Dataset(table, (wave / STEP).astype(np.int16), ((0, 72_000),), about)


@pytest.fixture
def runs() -> tuple[Run, Run]:
    return (Run("teacher", "fold0", TEACHER), Run("student", "fold0", STUDENT, "teacher", "taught"))


def test_an_interrupted_plan_is_resumed(beats: Dataset, runs: tuple[Run, Run], tmp_path: Path) -> None:
    completed = plans.carry_out(runs, beats, tmp_path, progress=lambda run, done, *_: run.name == "teacher" or done < 2)
    assert not completed
    assert [path.parent.name for path in tmp_path.glob("*/finished.json")] == ["teacher"]
    trained: list[tuple[str, int]] = []

    def note(run: Run, done: int, steps: int, terms: dict[str, float]) -> bool:  # noqa: ARG001 - a callback
        trained.append((run.name, done))
        return True

    finished = plans.carry_out(runs, beats, tmp_path, progress=note)
    assert finished
    assert {name for name, _ in trained} == {"student"}
    assert trained[0][1] == 3
    student = json.loads((tmp_path / "student" / "finished.json").read_text())
    assert student["what"] == "taught"
    assert student["teacher"]["settings"]["width"] == 2
    assert student["raw"]["beats"]["V"] > 0
    assert 0 <= student["raw"]["auc"] <= 1
    assert 0 < student["raw"]["best_f1"] <= 1
    assert student["multiply_adds"] < json.loads((tmp_path / "teacher" / "finished.json").read_text())["multiply_adds"]


def test_a_run_without_its_teacher_is_refused(beats: Dataset, runs: tuple[Run, Run], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="holds no training"):
        plans.carry_out(runs[1:], beats, tmp_path)


def test_speeds_are_measured_in_turns(beats: Dataset, runs: tuple[Run, Run], tmp_path: Path) -> None:
    plans.carry_out(runs, beats, tmp_path)
    speed = plans.measured_speed([tmp_path / "teacher", tmp_path / "student"])
    assert set(speed) == {"teacher", "student"}
    assert min(speed.values()) > 0


def test_preset_and_plan_have_one_definition_of_the_published_recipe() -> None:
    assert steps.PRESETS["paper"] == PAPER
    assert {run.settings for run in PLANS["paper"]} == {PAPER}


def test_every_plan_names_all_its_teachers() -> None:
    """The teacher of a student is trained by some plan on the same split, without the student's test beats."""
    everything = {run.name: run for runs in PLANS.values() for run in runs}
    assert len(everything) == sum(len(runs) for runs in PLANS.values())
    for run in everything.values():
        needs = run.settings.distils and not run.settings.self_teacher
        assert (run.teacher is not None) == needs
        if run.teacher is not None:
            assert everything[run.teacher].split == run.split


def test_the_results_of_a_plan_are_collected_and_missing_runs_are_named(tmp_path: Path) -> None:
    def finish(run: str, result: dict[str, Any]) -> None:
        (tmp_path / run).mkdir()
        (tmp_path / run / "finished.json").write_text(json.dumps(result))

    raw = {"auc": 0.9, "ap": 0.8}
    for seed in (0, 2):
        finish(f"ablation-none-{seed}", {"raw": raw})
    found = plans.summary("ablation", tmp_path)
    assert found["variants"][0] == {
        "name": "none",
        "what": "no distillation",
        "seeds": [0, 2],
        "auc": [0.9, 0.9],
        "ap": [0.8, 0.8],
    }
    assert "ablation-none-1" in found["missing"]
    row: dict[str, Any] = {
        "name": "size-2",
        "what": "width 2",
        "split": "fold0",
        "parameters": 1,
        "multiply_adds": 2,
        "raw": raw,
    }
    finish("size-2", row | {"settings": {}})
    found = plans.summary("frontier", tmp_path)
    expected = {"name": "width 2", "parameters": 1, "multiply_adds": 2, **raw, "beats_per_second": None}
    assert found["sizes"] == [expected]
    assert found["teacher"] is None
    finish("teacher-fold0", row | {"what": ""})
    assert plans.summary("frontier", tmp_path)["teacher"] == expected | {"name": "teacher-fold0"}
