"""``ecgmon train predict`` writes label, A(x), scaled A(x) and latent vector of every beat of a part."""

from __future__ import annotations

import csv
import json
import signal
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from ecgmon.models.training.settings import Settings
from ecgmon.monitor.cli.main import main
from ecgmon.monitor.cli.training_progress import TrainingProgress
from ecgmon.pipelines.training import dataset as datasets
from ecgmon.pipelines.training import fitting, own, prediction, steps
from ecgmon.pipelines.training import mitdb as protocol
from ecgmon.pipelines.training.fitting import TrainingError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")  # pandas, of wfdb, when it is first imported

TINY = Settings(width=1, latent=3, discriminator_width=1, epochs=1, batch=64)


def never_stop(_what: str, _done: int, _total: int, _terms: Mapping[str, float]) -> bool:
    return True


@pytest.fixture(scope="module")
def data(mitdb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    protocol.prepare(mitdb, folder, records=["100", "119"])
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    steps.fit(data, folder, TINY, "fold0", progress=never_stop)
    return folder


def command(*arguments: object) -> int:
    return main(["train", "predict", *map(str, arguments)])


def test_the_table_agrees_with_the_networks_and_the_annotations(
    data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "beats.csv"
    assert command("--data", data, "--run", run, "--out", out) == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    dataset = datasets.load(data)
    beats = dataset.beats[protocol.split(dataset, "fold0").test]
    abnormal = sum(row["abnormal"] == "1" for row in rows)
    assert capsys.readouterr().out == f"{out}: {len(beats)} test beats, {abnormal} of them abnormal\n"
    assert list(rows[0]) == [
        "record", "sample", "label", "abnormal", "ax", "score", "latent_0", "latent_1", "latent_2",
    ]  # fmt: skip
    assert [row["record"] for row in rows] == [("100", "119")[beat["record"]] for beat in beats]
    assert [int(row["sample"]) for row in rows] == beats["sample"].tolist()
    assert [row["label"] for row in rows] == ["NSVFQ"[aami] for aami in beats["aami"]]
    assert [row["abnormal"] for row in rows] == ["0" if aami == 0 else "1" for aami in beats["aami"]]
    assert 400 < abnormal < len(rows)

    x = dataset.windows(beats)[:, :1].astype(np.float64)  # the reference scales and runs one by one, in numpy's float64
    least, most = x.min(axis=-1, keepdims=True), x.max(axis=-1, keepdims=True)
    x = 2 * (x - least) / (most - least) - 1
    generator = fitting.trained(run)[0].double()
    with torch.no_grad():
        x_hat, z = (tensor.numpy() for tensor in generator(torch.from_numpy(x)))
    ax = ((x - x_hat) ** 2).mean(axis=(1, 2))
    assert [float(row["ax"]) for row in rows] == pytest.approx(ax.tolist(), rel=1e-3)
    scaled = (ax - ax.min()) / (ax.max() - ax.min())
    assert [float(row["score"]) for row in rows] == pytest.approx(scaled.tolist(), abs=1e-3)
    for k in range(3):
        assert [float(row[f"latent_{k}"]) for row in rows] == pytest.approx(z[:, k, 0].tolist(), abs=1e-3)


def test_numbers_in_the_file_restore_the_same_bits(data: Path, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "beats.csv"
    columns = steps.predict(data, run, out, progress=never_stop)
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in ("ax", "score", "latent_2"):
        assert np.array_equal(np.array([row[name] for row in rows]).astype(np.float32), columns[name])


def test_the_result_of_a_training_has_the_best_f1_of_the_table(data: Path, run: Path, tmp_path: Path) -> None:
    columns = steps.predict(data, run, tmp_path / "beats.csv", progress=never_stop)
    result = json.loads((run / "result.json").read_text())
    abnormal = columns["abnormal"] == 1
    found = {}
    for threshold in np.unique(columns["score"]):
        flagged = columns["score"] >= threshold
        wrong = np.count_nonzero(flagged != abnormal)
        found[float(threshold)] = 2 * np.count_nonzero(flagged & abnormal) / (2 * (flagged & abnormal).sum() + wrong)
    assert result["best_f1"] == pytest.approx(max(found.values()))
    assert found[result["best_threshold"]] == pytest.approx(result["best_f1"])
    assert np.array_equal(columns["score"] >= result["best_threshold"], columns["ax"] >= result["best_threshold_ax"])


def test_the_other_parts_of_a_split_have_normal_beats_only(data: Path, run: Path, tmp_path: Path) -> None:
    dataset = datasets.load(data)
    used = protocol.split(dataset, "fold0")
    for part, mask in (("held-out", used.held_out), ("train", used.train)):
        columns = steps.predict(data, run, tmp_path / "beats.csv", part=part, progress=never_stop)
        assert columns["sample"].tolist() == dataset.beats["sample"][mask].tolist()
        assert not columns["abnormal"].any()


def test_a_stopped_prediction_leaves_no_file(data: Path, run: Path, tmp_path: Path) -> None:
    reported: list[int] = []

    def stop_at_the_second(what: str, done: int, total: int, _: Mapping[str, float]) -> bool:
        assert what == "reconstructing beats"
        assert total > 512
        reported.append(done)
        return len(reported) < 2

    with pytest.raises(own.Stopped, match="stopped while reconstructing beats; the same command repeats this step"):
        steps.predict(data, run, tmp_path / "beats.csv", progress=stop_at_the_second)
    assert reported == [256, 512]
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_the_command_with_status_130(
    data: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(self: TrainingProgress, *_: object) -> bool:
        signal.raise_signal(signal.SIGINT)
        return not self.interrupted

    monkeypatch.setattr(TrainingProgress, "__call__", interrupt)
    assert command("--data", data, "--run", run, "--out", tmp_path / "beats.csv") == 130
    assert "stopped while reconstructing beats; the same command repeats this step" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_predicted_is_named(data: Path, run: Path, mitdb: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="holds no training"):
        steps.predict(data, tmp_path / "none", tmp_path / "beats.csv", progress=never_stop)
    with pytest.raises(TrainingError, match=r"there is no folder .*missing; make it first"):
        steps.predict(data, run, tmp_path / "missing" / "beats.csv", progress=never_stop)
    protocol.prepare(mitdb, tmp_path / "other", records=["101"])
    with pytest.raises(TrainingError, match="is not a training on the data set in"):
        steps.predict(tmp_path / "other", run, tmp_path / "beats.csv", progress=never_stop)
    steps.fit(data, tmp_path / "run", TINY, "all", stop_after=1, progress=never_stop)
    with pytest.raises(TrainingError, match="has no test beats; choose another part"):
        steps.predict(data, tmp_path / "run", tmp_path / "beats.csv", progress=never_stop)
    (tmp_path / "taken").mkdir()
    with pytest.raises(TrainingError, match="taken cannot be written"):
        prediction.write_csv(tmp_path / "taken", {"ax": np.zeros(1)})


def test_a_finished_training_prints_its_best_f1(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = ["--width", "1", "--latent", "2", "--epochs", "1", "--batch", "256"]
    assert main(["train", "fit", "--data", str(data), "--run", str(tmp_path), "--split", "fold0", *tiny]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert capsys.readouterr().out == (
        f"{tmp_path}: A(x) on the test beats of fold0: AUC {result['auc']:.4f}, AP {result['ap']:.4f}, best F1 "
        f"{result['best_f1']:.4f} at A(x) {result['best_threshold_ax']:.4g} ({result['best_threshold']:.4f} if scaled "
        "to [0, 1]); reported only, no choice depends on it\n"
    )


def test_errors_end_the_command_with_status_1(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--data", data, "--run", tmp_path, "--out", tmp_path / "beats.csv") == 1
    assert "holds no training" in capsys.readouterr().err
