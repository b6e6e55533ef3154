"""The commands ``score`` and ``explain``, with the arguments that a user gives."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from matplotlib.image import imread

from ecgmon.monitor.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path


def test_score_writes_every_format_and_prints_one_json_object(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["score", "toy", "--stop", "30", "--out", str(tmp_path), "--format", "wfdb,csv,parquet", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert status == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["toy.csv", "toy.ecg", "toy.parquet"]
    assert sorted(answer["records"]["toy"]["files"]) == sorted(str(path) for path in tmp_path.iterdir())
    assert answer["records"]["toy"]["beats"] == (tmp_path / "toy.csv").read_text().count("\n") - 1
    assert answer["errors"] == {}


def test_score_lists_the_alerts_that_the_daemon_would_raise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["score", "toy", "--start", "30", "--stop", "90", "--threshold", "1", "--out", str(tmp_path)]
    assert main([*arguments, "--json"]) == 0
    alerts = json.loads(capsys.readouterr().out)["records"]["toy"]["alerts"]
    assert {alert["kind"] for alert in alerts} == {"anomalous_episode"}
    assert all(30 <= alert["start"] <= alert["raised"] <= 90 for alert in alerts), "times of the record"
    assert main(arguments) == 0
    assert "anomalous episode" not in capsys.readouterr().out
    assert main([*arguments, "--alerts"]) == 0
    assert capsys.readouterr().out.count("anomalous episode") == len(alerts)


def test_a_bad_record_is_reported_and_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.hea").write_text("nonsense\n")
    bad, missing = str(tmp_path / "bad"), str(tmp_path / "no" / "such")
    status = main(["score", bad, missing, "toy", "--stop", "0:20", "--out", str(tmp_path / "out"), "--json"])
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert status == 1
    assert list(answer["records"]) == ["toy"]
    assert set(answer["errors"]) == {"bad", missing}
    assert [line for line in captured.err.splitlines() if line] == [
        f"ecgmon: {answer['errors'][missing]}",
        f"ecgmon: {answer['errors']['bad']}",
    ]


def test_explain_draws_the_beat_and_prints_its_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "new" / "beat.png"
    assert main(["explain", "toy", "--at", "0:20", "--out", str(picture), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["picture"] == str(picture)
    assert abs(answer["seconds"] - 20) < 1
    assert imread(picture).shape[1] == 1800
    assert main(["explain", "toy", "--at", "0:20", "--out", str(picture)]) == 0
    assert f"beat {answer['seq']} at 0:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["toy", "--at", "6:00"], "6:00.00 is outside the record; expected 0:00.00 to 5:00.00"),
        (["toy", "--at", "1:00", "--leads", "V1"], "there is no lead 'V1'; it has MLII"),
        (["toy", "--at", "1:00", "--weights", "/dev/null"], "/dev/null"),
        (["toy", "--at", "1:00", "--device", "abacus"], "--device abacus cannot be used"),
        (["toy", "--at", "1:00", "--out", "/dev/null/a.png"], "/dev/null/a.png cannot be written"),
        (["/no/such", "--at", "1:00"], "there is no header /no/such.hea"),
    ],
)
def test_an_error_is_one_line_and_exit_status_1(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["explain", *arguments]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["score", "toy"],
        ["score", "--out", "x"],
        ["score", "toy", "--out", "x", "--format", "xml"],
        ["score", "toy", "--out", "x", "--threshold", "-1"],
        ["score", "toy", "--out", "x", "--leads", "MLII,"],
        ["score", "toy", "--out", "x", "--start", "1:99"],
        ["explain", "toy"],
        ["explain", "toy", "--at", "noon"],
    ],
)
def test_wrong_usage_is_exit_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err
