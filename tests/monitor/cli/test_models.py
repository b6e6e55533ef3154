"""``ecgmon models``: what is printed of models, comparisons on records, and errors in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

import ecgmon
from ecgmon.models.weights.checkpoint import default_weights, read_info, shipped
from ecgmon.monitor.cli.main import main
from ecgmon.testing import synthetic_ecg

if TYPE_CHECKING:
    from pathlib import Path

Models = Callable[..., dict[str, Any]]
"""The fixture ``models``: run ``ecgmon models`` with some arguments."""


@pytest.fixture
def models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Models:
    """Run ``ecgmon models ... --json`` with a state folder and no daemon; return the object."""

    def run(*words: object) -> dict[str, Any]:
        flags = ["--state", str(tmp_path / "state"), "--set", f"runtime.dir={tmp_path / 'run'}", "--json"]
        status = main(["models", *map(str, words), *flags])
        printed = capsys.readouterr()
        assert status == 0, printed.err
        return json.loads(printed.out)

    return run


def test_the_list_marks_the_deployed_model_and_shows_a_damaged_one(models: Models, tmp_path: Path) -> None:
    models("add", shipped("fold0"))
    models("add", shipped("ds1"), "--name", "apart")
    models("promote", "apart")
    for file in (tmp_path / "state" / "models").glob(f"{read_info(shipped('fold0')).fingerprint}*"):
        file.write_bytes(b"")
    found = models("list")
    assert found["deployed"] == "apart"
    assert [model["name"] for model in found["models"]] == ["shipped", "fold0", "apart"]
    assert found["models"][0]["fingerprint"] == read_info(default_weights()).fingerprint
    assert ["error" in model for model in found["models"]] == [False, True, False]


def test_a_card_has_what_the_checkpoint_says_of_the_model(models: Models) -> None:
    info = read_info(shipped("fold0"))
    added = models("add", shipped("fold0"))
    found = models("show", info.fingerprint[:10])
    assert {key: found[key] for key in added if key != "fingerprint"} == {
        key: added[key] for key in added if key != "fingerprint"
    }
    assert (found["model"], found["command"], found["data"]) == (info.name, info.command, info.data)
    assert (found["parameters"], found["multiply_adds"]) == (info.parameters, info.multiply_adds)
    assert (found["score_beats"], found["second_lead"], found["deployed"]) == (info.score.beats, True, False)


def test_tables_have_the_same_contents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = ["--state", str(tmp_path)]
    assert main(["models", "add", str(shipped("fold0")), *state]) == 0
    for words in (["list"], ["show", "fold0"], ["history"], ["compare", "fold0", "shipped"]):
        assert main(["models", *words, *state]) == 0
    shown = capsys.readouterr().out
    for text in ("deployed", "shipped", read_info(shipped("fold0")).fingerprint[:12], "multiply-adds"):
        assert text in shown


def test_two_models_are_compared_on_the_same_beats(models: Models, tmp_path: Path) -> None:
    models("add", shipped("fold0"))
    (tmp_path / "records").mkdir()
    for number in range(3):
        synthetic_ecg(60, ectopic=[30, 36], rate=66 + 6 * number, seed=number).write(tmp_path / "records", f"r{number}")
    found = models("compare", "shipped", shipped("fold1"), "--db", tmp_path / "records")
    expected = ecgmon.evaluate(tmp_path / "records", shipped("fold1"))
    assert found["figures"][1]["ax"]["auc"] == expected.ax.auc
    assert found["figures"][0]["scored"] == found["figures"][1]["scored"]
    assert [card["fingerprint"] for card in found["models"]] == [each["fingerprint"] for each in found["figures"]]
    low, high = found["differences"]["ax"]["ap"]
    assert low <= found["figures"][1]["ax"]["ap"] - found["figures"][0]["ax"]["ap"] <= high
    same = models("compare", "fold0", "fold0", "--db", tmp_path / "records")
    assert same["differences"]["score"] == {"auc": [0, 0], "ap": [0, 0]}
    one = models("compare", "fold0", "shipped", "--db", tmp_path / "records" / "r1")
    assert one["figures"][0]["records"] == ["r1"]
    assert one["differences"]["score"] == {"auc": None, "ap": None}


def test_the_table_of_a_comparison_has_intervals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "records").mkdir()
    for number in range(2):
        synthetic_ecg(40, ectopic=[20], seed=number).write(tmp_path / "records", f"r{number}")
    words = ["models", "compare", "shipped", "shipped", "--db", str(tmp_path / "records"), "--state", str(tmp_path)]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "0.000 to 0.000" in shown
    assert "2 records and 2 patients" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show", "nothing"], "there is no model 'nothing'"),
        (["compare", "shipped", "nothing"], "there is no model 'nothing'"),
        (["add", "nowhere.safetensors"], "there is no checkpoint at nowhere.safetensors"),
        (["add", str(shipped("fold0")), "--name", "a b"], "cannot be named 'a b'"),
        (["promote", "shipped"], "shipped is deployed already"),
        (["rollback"], "nothing to go back to"),
        (["compare", "shipped", "shipped", "--db", "nowhere/100"], "nowhere"),
    ],
)
def test_an_error_is_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", *words, "--state", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert len(printed.err.strip().splitlines()) == 1
