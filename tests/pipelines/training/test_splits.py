"""Test beats neither train nor calibrate a model, and abnormal beats only test it."""

from __future__ import annotations

import numpy as np
import pytest

from ecgmon.pipelines.training import mitdb as splits
from ecgmon.pipelines.training.classes import BeatClass
from ecgmon.pipelines.training.dataset import Dataset, _random_parts
from ecgmon.pipelines.training.mitdb import COUNTS, PACED, PATIENTS, RECORDS, split
from ecgmon.pipelines.training.records import BEAT


@pytest.fixture(scope="module")
def beats() -> Dataset:
    """The number of beats of each class in the protocol, spread over its records, without signal."""
    aami = np.repeat(np.array(list(COUNTS), np.uint8), list(COUNTS.values()))
    table = np.zeros(len(aami), BEAT)
    table["aami"] = aami
    table["record"] = np.random.default_rng(0).integers(0, len(RECORDS), len(aami))
    table["fold"], table["tenth"] = np.divmod(_random_parts(aami, 0), 10)
    table["confirmed"] = np.arange(len(aami)) % 40 > 0
    about = {"records": list(RECORDS), "patients": PATIENTS}
    return Dataset(table, np.zeros((2, 0), np.int16), (), about)


@pytest.mark.parametrize("name", splits.NAMES)
def test_each_beat_has_one_use_and_only_normal_beats_train(beats: Dataset, name: str) -> None:
    used = split(beats, name)
    assert not (used.train & used.held_out).any()
    assert not (used.train & used.test).any()
    assert not (used.held_out & used.test).any()
    assert beats.normal[used.train].all()
    assert beats.normal[used.held_out].all()
    assert used.train.sum() == pytest.approx(9 * used.held_out.sum(), rel=0.02)


def test_the_five_folds_are_as_large_as_the_published_ones(beats: Dataset) -> None:
    tested = np.zeros(len(beats.beats), int)
    for k in range(5):
        used = split(beats, f"fold{k}")
        tested += used.test
        aami = beats.beats["aami"][used.test]
        # Published, without the 3,119 normal beats that the original drops: 62,436 train, 17,343 test.
        assert used.train.sum() == pytest.approx(62_436 * 89_836 / 86_717, rel=0.001)
        assert np.count_nonzero(aami == BeatClass.N) == pytest.approx(17_343 * 89_836 / 86_717, rel=0.001)
        assert [np.count_nonzero(aami == kind) for kind in BeatClass if kind] == pytest.approx(
            [2_723, 6_307, 721, 13], abs=4
        )
    assert (tested[beats.normal] == 1).all()


def test_patients_are_kept_apart(beats: Dataset) -> None:
    used = split(beats, "ds1")
    trained = set(beats.names(beats.beats[used.train | used.held_out]))
    tested = set(beats.names(beats.beats[used.test]))
    assert trained == set(splits.DS1)
    assert tested == set(splits.DS2)
    assert not trained & tested
    assert trained | tested == set(RECORDS)
    assert not (trained | tested) & set(PACED)
    whole = beats.of_records(splits.DS2)
    assert np.array_equal(used.test, whole)


def test_unconfirmed_normal_beats_are_dropped_only_on_request(beats: Dataset) -> None:
    kept, dropped = split(beats, "fold0"), split(beats, "fold0", only_confirmed=True)
    assert kept.train.sum() > dropped.train.sum()
    assert beats.beats["confirmed"][dropped.train].all()
    abnormal = ~beats.normal
    assert np.array_equal(kept.test & abnormal, dropped.test & abnormal)


@pytest.mark.parametrize("whole", splits.HALVES)
def test_every_patient_is_in_exactly_one_half(beats: Dataset, whole: str) -> None:
    one, other = (split(beats, name) for name in splits.HALVES[whole])
    both = split(beats, whole)
    assert (one.train ^ other.train == both.train).all()
    assert (one.held_out ^ other.held_out == both.held_out).all()
    patients = beats.patient_of_beats()
    for half in (one, other):
        assert not set(patients[half.train | half.held_out]) & set(patients[half.test])
        assert not (half.test & both.test).any()
    assert len(set(patients[one.train])) == pytest.approx(len(set(patients[other.train])), abs=1)
    assert len(set(patients)) == len(RECORDS) - 1  # 201 and 202 are of one patient


def test_an_unknown_split_is_refused(beats: Dataset) -> None:
    with pytest.raises(ValueError, match="no split 'fold5'"):
        split(beats, "fold5")
