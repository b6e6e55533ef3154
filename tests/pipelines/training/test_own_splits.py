"""A user's own split keeps patients or records apart as requested, and an invalid split is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgmon.pipelines.training import splits
from ecgmon.pipelines.training.classes import BeatClass
from ecgmon.pipelines.training.dataset import Dataset, _random_parts
from ecgmon.pipelines.training.records import BEAT
from ecgmon.pipelines.training.splits import Drawn, Named, SplitError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgmon.pipelines.training.splits import Split

RECORDS = ("a1", "a2", "b1", "b2", "c1", "d/1")
PATIENTS = {"a1": "a", "a2": "a", "b1": "b", "b2": "b"}


@pytest.fixture(scope="module")
def beats() -> Dataset:
    """A hundred beats of each record, a tenth of them abnormal."""
    table = np.zeros(600, BEAT)
    table["record"] = np.repeat(np.arange(6), 100)
    table["aami"][::10] = BeatClass.V
    table["fold"], table["tenth"] = np.divmod(_random_parts(table["aami"], 0), 10)
    about = {"records": list(RECORDS), "patients": PATIENTS, "left_out": {"e": "e: unreadable"}}
    return Dataset(table, np.zeros((2, 0), np.int16), (), about)


def of(beats: Dataset, mask: NDArray[np.bool_]) -> set[str]:
    return set(beats.names(beats.beats[mask]).tolist())


def check(beats: Dataset, used: Split) -> None:
    assert not (used.train & used.held_out).any()
    assert not ((used.train | used.held_out) & used.test).any()
    assert beats.normal[used.train | used.held_out].all()


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_parts_drawn_by_patient_keep_patients_apart(beats: Dataset, share: float, seed: int) -> None:
    used = splits.split(beats, Drawn(share, "patient", seed))
    check(beats, used)
    patients = beats.patient_of_beats()
    trained, tested = set(patients[used.train | used.held_out]), set(patients[used.test])
    assert trained
    assert tested
    assert not trained & tested
    assert trained | tested == set(patients)


def test_the_random_parts_depend_on_the_seed(beats: Dataset) -> None:
    drawn = [of(beats, splits.split(beats, Drawn(0.3, "record", seed)).test) for seed in (0, 1, 2, 3, 0)]
    assert drawn[0] == drawn[4]
    assert len({frozenset(names) for names in drawn}) > 1
    assert all(len(names) == 2 for names in drawn)


def test_parts_drawn_by_beat_have_all_records_and_all_abnormal_beats_test(beats: Dataset) -> None:
    used = splits.split(beats, Drawn(0.25, "beat"))
    check(beats, used)
    assert np.count_nonzero(used.test & beats.normal) == 135
    assert used.test[~beats.normal].all()
    assert of(beats, used.train) == of(beats, used.test) == set(RECORDS)


def test_at_least_a_tenth_and_at_most_half_is_held_out(beats: Dataset) -> None:
    used = splits.whole(beats)
    check(beats, used)
    assert np.count_nonzero(used.held_out) == pytest.approx(270, abs=5)  # half of them, because a score needs far more
    many = Dataset(np.tile(beats.beats, 30), beats.signal, (), beats.about)
    assert splits.whole(many).held_out.mean() == pytest.approx(0.09, abs=0.01)


def test_named_records_train_validate_and_test(beats: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "split.csv"
    path.write_text("record, part, patient\na1, train, a\na2, validation, a\nb1, test, b\ne, test, e\n")
    rule = splits.read(path)
    assert rule.patients == {"a1": "a", "a2": "a", "b1": "b", "e": "e"}
    used = splits.split(beats, rule)
    check(beats, used)
    assert (of(beats, used.train), of(beats, used.held_out), of(beats, used.test)) == ({"a1"}, {"a2"}, {"b1"})
    assert used.train.sum() == 90  # all its normal beats: others are held out
    assert used.test.sum() == 100


def test_named_patients_include_all_their_records_and_the_rest_trains(beats: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "split.toml"
    path.write_text('by = "patient"\ntest = ["b", "d/1"]\n')
    used = splits.split(beats, splits.read(path))
    check(beats, used)
    assert of(beats, used.test) == {"b1", "b2", "d/1"}
    assert of(beats, used.train) == of(beats, used.held_out) == {"a1", "a2", "c1"}


def test_halves_have_different_patients(beats: Dataset) -> None:
    everything = np.ones(len(beats.beats), np.bool_)
    one, other = (splits.half(beats, name, everything, which) for which, name in enumerate("ab"))
    assert of(beats, one.train) == {"a1", "a2", "c1"}
    assert of(beats, other.train) == {"b1", "b2", "d/1"}
    assert of(beats, one.test) == of(beats, other.train)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.toml", "train = [", "s.toml"),
        ("s.toml", "train = [1]", "expected a list of names in quotation marks"),
        ("s.toml", 'train = ["a1"]\ntest = ["a1"]', "'a1' is in train and in test"),
        ("s.toml", 'trian = ["a1"]', "'trian' is not known"),
        ("s.toml", 'by = "beat"\ntest = ["a1"]', "cannot be named by 'beat'"),
        ("s.toml", "", "the split is empty"),
        ("s.toml", "patients = 3", "not a table of strings"),
        ("s.csv", "", "'part' is missing"),
        ("s.csv", "record,part\n", "no rows"),
        ("s.csv", "name,part\na1,train\n", "expected record or patient"),
        ("s.csv", "record,part\na1,exam\n", "'exam'; expected one of train"),
        ("s.csv", "record,part\na1,train,b\n", "more or fewer fields"),
        ("s.csv", "record,part\na1,train\na1,test\n", "'a1' is in train and in test"),
    ],
)
def test_an_invalid_split_file_is_refused_with_the_reason(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SplitError, match=message):
        splits.read(tmp_path / name)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Named({"a1": "train", "z9": "test"}), "the split names z9; the records of the data set are a1"),
        (Named({"a1": "train"}, "patient"), "the patients of the data set are a, a, b"),
        (Named({"a1": "test", "a2": "validation", "e": "train"}), "no normal beat is left to train on"),
    ],
)
def test_a_split_of_unknown_records_is_refused(beats: Dataset, rule: Named, message: str) -> None:
    with pytest.raises(SplitError, match=message):
        splits.split(beats, rule)


def test_one_patient_cannot_be_split(beats: Dataset) -> None:
    alone = Dataset(beats.beats[:200], beats.signal, (), beats.about)
    with pytest.raises(SplitError, match="there is only one patient; draw parts by beat"):
        splits.split(alone, Drawn())
    assert splits.split(alone, Drawn(0.5, "record")).train.any()


@pytest.mark.parametrize("wrong", [{"test": 0.0}, {"test": float("nan")}, {"by": "lead"}, {"seed": -1}])
def test_an_invalid_random_split_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SplitError, match="expected"):
        Drawn(**wrong)


def test_a_list_of_patients_is_read_and_a_record_has_only_one(tmp_path: Path) -> None:
    path = tmp_path / "patients.csv"
    path.write_text("patient,record\na,a1\na,a2\n")
    assert splits.read_patients(path) == {"a1": "a", "a2": "a"}
    path.write_text("patient,record\na,a1\nb,a1\n")
    with pytest.raises(SplitError, match="'a1' has two patients"):
        splits.read_patients(path)
