"""A user's own records train and test a model, and no patient does both."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ecgmon.models import windows
from ecgmon.pipelines.evaluation import ec57
from ecgmon.pipelines.evaluation import own as evaluation
from ecgmon.pipelines.segmentation.segmenter import Segmenter
from ecgmon.pipelines.sources.errors import SourceError
from ecgmon.pipelines.training import dataset, own, records
from ecgmon.pipelines.training.beat_tables import BeatTable, BeatTableError
from ecgmon.pipelines.training.dataset import DatasetError
from ecgmon.pipelines.training.fitting import TrainingError
from ecgmon.pipelines.training.splits import Drawn, Named
from tests import own_records

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgmon.pipelines.training.dataset import Dataset
    from ecgmon.pipelines.training.own import Progress

    Database = tuple[Path, dict[str, tuple[NDArray[np.int64], NDArray[np.str_]]]]

pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")  # pandas, of wfdb, when it is first imported


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Database:
    """Six patients with two records each, a record without annotations, and an invalid header."""
    folder = tmp_path_factory.mktemp("own")
    beats = own_records.write_database(folder)
    own_records.write(folder, "patient_z/silent", own_records.record(99, 1, 30)[0])
    (folder / "broken.hea").write_text("no header\n")
    with (folder / "patients.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("record", "patient"), *((name, name.split("/")[0]) for name in beats)])
    return folder, beats


@pytest.fixture(scope="module")
def prepared(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return dataset.prepare(database[0], tmp_path_factory.mktemp("prepared"))


def ecgmon(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ecgmon", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=280, env=os.environ)


@pytest.mark.slow
def test_own_records_train_and_test_from_the_command_line(database: Database, tmp_path: Path) -> None:
    folder, beats = database
    parts = ["--db", folder, "--patients", folder / "patients.csv", "--test-share", "0.2", "--by", "patient"]
    out = tmp_path / "own.safetensors"
    done = ecgmon("train", "own", *parts, "--work", tmp_path / "work", "--out", out, "--epochs", "20")
    assert done.returncode == 0, done.stderr
    assert "12 records" in done.stdout
    assert "left out: broken" in done.stderr
    assert "left out: patient_z/silent" in done.stderr
    assert {path.name for path in (tmp_path / "work" / "runs").iterdir()} == {
        "own",
        "own-a",
        "own-b",
    }  # for other patients

    done = ecgmon("evaluate", "records", *parts, "--weights", out, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["part"] == "test"
    patient = found["records"][0].split("/")[0]
    assert found["records"] == [f"{patient}/rec-01", f"{patient}/rec-02"]
    tested = sum(len(beats[name][0]) for name in found["records"])
    assert found["beats"]["N"] + found["beats"]["V"] == pytest.approx(tested, abs=4)  # except those at the ends
    assert found["scored"]["V"] > 0.9 * found["beats"]["V"] > 10
    assert found["score"]["auc"] > 0.98
    assert found["score"]["per_class"] == {"V": found["score"]["auc"]}
    assert found["ax"]["auc"] > 0.8
    assert found["over_threshold"]["N"] < 0.1 < found["over_threshold"]["V"]
    assert found["detection"]["sensitivity"] > 0.97

    shown = ecgmon("evaluate", "records", *parts, "--weights", out)
    assert f"{found['score']['auc']:.4f}" in shown.stdout


def test_a_stopped_training_is_resumed(database: Database, tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []

    def until(what: str, step: int) -> Progress:
        def watch(name: str, done: int, _total: int, _terms: Mapping[str, float], /) -> bool:
            seen.append((name, done))
            return (name, done) != (what, step)

        return watch

    wanted: dict[str, Any] = {"patients": database[0] / "patients.csv", "epochs": 4, "work": tmp_path / "work"}
    with pytest.raises(own.Stopped, match="stopped after 2 of 8 steps; the same command continues from there"):
        own.train(database[0], tmp_path / "own.safetensors", progress=until("training own-a", 2), **wanted)
    seen.clear()
    with pytest.raises(own.Stopped):
        own.train(database[0], tmp_path / "own.safetensors", progress=until("training own-b", 1), **wanted)
    assert seen == [("training own-a", step) for step in range(3, 9)] + [("training own-b", 1)]
    assert not (tmp_path / "own.safetensors").exists()
    with pytest.raises(DatasetError, match="holds a data set of other records"):
        own.train(database[0], tmp_path / "own.safetensors", **wanted | {"records": ["patient_a/rec-01"]})


def test_windows_at_another_sampling_rate_are_those_of_a_stream(prepared: Dataset) -> None:
    place = prepared.records.index("patient_c/rec-02")
    samples = own_records.record(21, 2)[0].astype(np.float32)
    segmenter = Segmenter(own_records.FS, ["II"])
    items = segmenter.push(np.round(samples, 3))  # as the file has it, at a gain of 1000
    first = prepared.spans[place][0]
    columns = np.round(items.beats["sample"] * (windows.FS / own_records.FS)).astype(np.int64) + first
    there = np.arange(-windows.BEFORE, windows.AFTER)
    # one sample at 250 Hz corresponds to several at 360 Hz
    near = [prepared.signal[0, (columns + off)[:, None] + there] * records.STEP for off in (-1, 0, 1)]
    differences = np.min([np.abs(part - items.windows[:, 0]).max(axis=1) for part in near], axis=0)
    inside = slice(2, -2)
    assert len(differences) > 150
    assert differences[inside].max() < 0.51 * records.STEP + 1e-4


def test_beats_keep_their_sample_and_their_class(database: Database, prepared: Dataset) -> None:
    for name, (r_peaks, symbols) in database[1].items():
        here = prepared.beats[prepared.of_records([name])]
        assert np.isin(here["sample"], r_peaks).all()
        assert len(here) >= len(r_peaks) - 2
        assert here["symbol"].astype(str).tolist() == symbols[np.isin(r_peaks, here["sample"])].tolist()
        assert np.allclose(here["rr"][1:], np.diff(here["sample"]) / own_records.FS, atol=1e-6)
    assert prepared.about["counts"]["V"] > 100
    assert set(prepared.about["recorded_at"].values()) == {own_records.FS}


def test_records_that_cannot_be_used_are_listed_unless_they_were_named(
    database: Database, prepared: Dataset, tmp_path: Path
) -> None:
    assert set(prepared.left_out) == {"broken", "patient_z/silent"}
    assert "silent.atr is not in" in prepared.left_out["patient_z/silent"]
    with pytest.raises(SourceError, match=r"silent\.atr"):
        dataset.prepare(database[0], tmp_path, records=["patient_a/rec-01", "patient_z/silent"])
    with pytest.raises(SourceError, match="points outside the folder"):
        dataset.prepare(database[0], tmp_path, records=["../own/patient_a/rec-01"])
    with pytest.raises(DatasetError, match=r"none of the 14 records of .* can be used"):
        dataset.prepare(database[0], tmp_path, annotator="qrs")


def test_the_leads_are_those_that_the_daemon_chooses_and_another_annotator_is_read(tmp_path: Path) -> None:
    samples, r_peaks, symbols = own_records.record(5, 0, 60)
    three = np.concatenate([0.3 * samples, -samples, samples], axis=1)
    own_records.write(tmp_path, "x", three, (r_peaks, symbols), leads=("V5", "I", "II"), annotator="man")
    own_records.write(tmp_path, "y", three[:, :2], (r_peaks, symbols), leads=("ECG", "other"), annotator="man")
    header = (tmp_path / "y.hea").read_text()
    (tmp_path / "y.hea").write_text(
        header.replace("other", "ECG")
    )  # two leads of the same name, as in vfdb; wfdb cannot write them
    found = dataset.prepare(tmp_path, tmp_path / "data", annotator="man")
    assert found.about["leads"] == {"x": ["II", "V5"], "y": ["ECG", "ECG"]}
    first = found.windows(found.beats[:1])[0]
    assert np.corrcoef(first[0], first[1])[0, 1] > 0.99
    assert np.ptp(first[0]) > 3 * np.ptp(first[1])


def test_beats_without_signal_are_left_out(tmp_path: Path) -> None:
    samples, r_peaks, symbols = own_records.record(6, 0, 60)
    samples[2000:3000] = np.nan
    own_records.write(tmp_path, "gap", samples, (r_peaks, symbols))
    found = dataset.prepare(tmp_path, tmp_path / "data")
    before, after = (round(part * own_records.FS / windows.FS) for part in (windows.BEFORE, windows.AFTER))
    touched = (r_peaks > 2000 - after + 1) & (r_peaks < 3000 + before - 1)
    assert found.about["without_signal"] == {"gap": touched.sum()}
    assert not np.isin(r_peaks[touched], found.beats["sample"]).any()


@pytest.mark.parametrize("kind", ["csv", "parquet", "arrays"])
def test_a_table_of_beats_gives_the_same_beats_as_annotation_files(
    prepared: Dataset, tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "bare"
    names = ["patient_a/rec-01", "patient_b/rec-02"]
    beats = own_records.write_database(folder, patients=2, annotate=False)
    columns = {
        "patient": np.concatenate([[name[8]] * len(beats[name][0]) for name in names]),
        "record": np.concatenate([[name] * len(beats[name][0]) for name in names]),
        "time": np.concatenate([beats[name][0] / own_records.FS for name in names]),
        "label": np.concatenate([np.where(beats[name][1] == "V", "V", "normal") for name in names]),
    }
    table = tmp_path / f"beats.{kind}"
    if kind == "csv":
        with table.open("w", newline="") as file:
            csv.writer(file).writerows([columns, *zip(*columns.values(), strict=True)])
    elif kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(columns), table)
    given = own.table_of(columns if kind == "arrays" else table)
    found = dataset.prepare(folder, tmp_path / "data", beats=given)
    assert found.records == tuple(names)
    assert found.patients == ("a", "b")
    assert set(found.left_out) == {"patient_a/rec-02", "patient_b/rec-01"}
    there = prepared.beats[prepared.of_records(names)]
    for name in ("sample", "aami", "rr", "rr_ratio"):
        assert np.array_equal(found.beats[name], there[name], equal_nan=name.startswith("rr"))


GOOD: dict[str, Any] = {"record": ["a", "a"], "sample": [10, 400], "symbol": ["N", "V"]}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"record": None}, "'record' is missing"),
        ({"sample": None}, "expected one of sample and time, found neither"),
        ({"time": [0.1, 0.2]}, "expected one of sample and time, found sample and time"),
        ({"symbol": ["N"]}, "differ in length"),
        ({"sample": [10, -1]}, "-1 in row 2; expected 0 or more"),
        ({"sample": ["ten", "1"]}, "a value that is not a number"),
        ({"symbol": None, "label": ["N", "strange"]}, "the label 'strange' is not known"),
        ({"symbol": ["normal", "abnormal"]}, "none of the symbols, such as 'abnormal', stands for a beat"),
        ({"patient": ["x", "y"]}, "the record 'a' has the patients 'x' and 'y'; expected one"),
        ({"record": [], "sample": [], "symbol": []}, "no beats"),
    ],
)
def test_an_invalid_table_of_beats_is_refused_with_the_reason(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(BeatTableError, match=message):
        BeatTable.of({name: values for name, values in (GOOD | changed).items() if values is not None})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"record": ["elsewhere", "elsewhere"]}, "the table of beats names elsewhere; expected the names"),
        ({"sample": [10, 10**6]}, "a beat at sample 1000000, but the record has 0 to 14999"),
        ({"sample": [10, 10]}, "two beats at sample 10"),
    ],
)
def test_a_table_of_beats_that_does_not_fit_the_records_is_refused(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    own_records.write(tmp_path, "a", own_records.record(7, 0, 60)[0])
    with pytest.raises((DatasetError, SourceError), match=message):
        dataset.prepare(tmp_path, tmp_path / "data", records=["a"], beats=BeatTable.of(GOOD | changed))


def test_a_data_set_of_an_earlier_format_is_refused_with_the_command_to_make_it_again(
    database: Database, tmp_path: Path
) -> None:
    dataset.prepare(database[0], tmp_path, records=["patient_a/rec-01"])
    about = json.loads((tmp_path / "dataset.json").read_text())
    del about["format"]
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    with pytest.raises(
        DatasetError, match="format 1; this version of ecgmon reads format 2: make it again with 'ecgmon train"
    ):
        dataset.load(tmp_path)


def test_the_shipped_model_is_evaluated_on_any_records(database: Database) -> None:
    chosen = ["patient_a/rec-01", "patient_b/rec-01"]
    everything = evaluation.evaluate(database[0], records=chosen)
    assert everything.part == "all"
    assert everything.records == tuple(chosen)
    parted = evaluation.evaluate(
        database[0], records=chosen, split={"patient_a/rec-01": "train", "patient_b/rec-01": "test"}
    )
    assert parted.part == "test"
    assert parted.records == ("patient_b/rec-01",)
    assert parted.beats["N"] < everything.beats["N"]
    auc = json.loads(json.dumps(parted.dict()))["score"]["auc"]
    assert auc == parted.score.auc
    assert auc > 0.9


def test_a_table_of_beats_has_no_figures_of_detection(database: Database) -> None:
    r_peaks, symbols = database[1]["patient_a/rec-01"]
    some = {"record": np.full(40, "patient_a/rec-01"), "sample": r_peaks[20:60], "symbol": symbols[20:60]}
    found = evaluation.evaluate(database[0], beats=some, records=["patient_a/rec-01"])
    assert found.detection is None
    assert sum(found.beats.values()) == sum(found.scored.values()) == 40


def test_detection_is_measured_on_records_in_sub_folders(database: Database) -> None:
    found = ec57.evaluate_records(database[0], progress=False)
    assert set(found) == set(database[1])
    assert all(result.counts.fn < 0.05 * result.counts.tp for result in found.values())


def test_records_with_annotated_rhythms_only_are_not_measured(tmp_path: Path) -> None:
    samples = own_records.record(8, 0, 60)[0]
    own_records.write(tmp_path, "rhythms", samples, (np.array([900]), np.array(["+"])))
    with pytest.raises(SourceError, match=r"no beat is annotated in the \.atr files of its 1 records"):
        ec57.evaluate_records(tmp_path, progress=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--test-share", "1.5"], "the test share is 1.5"),
        (["--split", "nowhere.toml"], "nowhere.toml cannot be read"),
        (["--beats", "nowhere.csv"], "nowhere.csv cannot be read"),
        (["--records", "patient_a/rec-77"], "patient_a/rec-77"),
        (["--annotator", "qrs"], "can be used"),
        (["--epochs", "0"], "the number of epochs is 0; expected at least 1"),
        (
            ["--records", "patient_a/rec-01", "patient_a/rec-02", "--test-share", "0.9", "--by", "beat"],
            "do not fill one batch",
        ),
    ],
)
def test_invalid_arguments_are_refused_with_the_reason(
    database: Database, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from ecgmon.monitor.cli.main import main

    out = tmp_path / "own.safetensors"
    status = main(
        ["train", "own", "--db", str(database[0]), "--work", str(tmp_path / "work"), "--out", str(out), *words]
    )
    assert status == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_too_few_normal_beats_for_a_score_are_refused(database: Database, tmp_path: Path) -> None:
    chosen = [name for name in database[1] if name.startswith(("patient_a", "patient_b"))]
    with pytest.raises(TrainingError, match="no score can be fitted to the normal beats of own"):
        own.train(database[0], tmp_path / "own.safetensors", records=chosen, epochs=1)


def test_all_forms_of_a_split_give_the_same_rule(tmp_path: Path) -> None:
    (tmp_path / "split.toml").write_text('test = ["b"]\ntrain = ["a"]\n')
    expected = Named({"a": "train", "b": "test"})
    for given in (expected, {"a": "train", "b": "test"}, tmp_path / "split.toml", str(tmp_path / "split.toml")):
        assert own.rule_of(given) == expected
    assert own.rule_of(None) is None
    assert own.rule_of(Drawn()) == Drawn(0.2, "patient", 0)
