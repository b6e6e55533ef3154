"""A data set has the published beats, with their classes, windows and rhythm."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgmon.models import windows
from ecgmon.pipelines.sources.errors import SourceError
from ecgmon.pipelines.training import dataset, records
from ecgmon.pipelines.training import mitdb as protocol
from ecgmon.pipelines.training.classes import SYMBOLS, BeatClass
from ecgmon.pipelines.training.dataset import Dataset, DatasetError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


@pytest.fixture(scope="module")
def two_records(mitdb: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Records 114, whose MLII is its second signal, and 207, which has flutter waves."""
    return protocol.prepare(mitdb, tmp_path_factory.mktemp("two"), records=["114", "207"])


@pytest.fixture(scope="module")
def everything(mitdb: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return protocol.prepare(mitdb, tmp_path_factory.mktemp("all"))


@pytest.mark.slow
def test_the_numbers_of_beats_are_the_published_ones(everything: Dataset) -> None:
    counts = everything.about["counts"]
    assert counts == {"N": 89_836, "S": 3_026, "V": 7_008, "F": 802, "Q": 15}
    assert len(everything.about["records"]) == len(set(protocol.RECORDS)) == 44
    # In the paper, a fold tests a fifth of the remaining normal beats and nine tenths of the abnormal ones.
    assert [round(0.9 * counts[name]) for name in "SVF"] == pytest.approx([2_723, 6_307, 721], abs=1)


@pytest.mark.slow
def test_folds_and_tenths_are_random_and_of_equal_size_in_every_class(everything: Dataset) -> None:
    for aami in BeatClass:
        members = everything.beats[everything.beats["aami"] == aami]
        sizes = np.bincount(members["fold"] * 10 + members["tenth"], minlength=50)
        assert sizes.max() - sizes.min() <= 1
    fold = everything.beats[everything.beats["fold"] == 3]
    assert set(fold["record"]) == set(everything.beats["record"])


@pytest.mark.slow
def test_a_second_detector_finds_nearly_all_normal_beats(everything: Dataset) -> None:
    dropped = everything.normal & ~everything.beats["confirmed"]
    assert dropped.sum() == everything.about["unconfirmed"]
    assert 0.005 < dropped.sum() / everything.normal.sum() < 0.05  # the original dropped 3.5 %


def test_windows_are_those_that_a_stream_cuts(two_records: Dataset, mitdb: Path) -> None:
    import wfdb

    signal = wfdb.rdrecord(str(mitdb / "114"), channel_names=["MLII"]).p_signal.T.astype(np.float32)
    beats = two_records.beats[two_records.of_records(["114"])]
    r_peaks = beats["sample"].astype(np.int64)
    whole = windows.complete(r_peaks, signal.shape[1])
    assert whole.sum() > 1800
    found = two_records.windows(beats[whole])
    assert np.abs(found[:, :1] - windows.cut(signal, r_peaks[whole])).max() <= 0.51 * records.STEP
    assert two_records.about["leads"]["114"] == ["MLII", "V5"]
    assert np.abs(found[:, 1]).max() > 0.1  # the other lead has a signal as well


def test_beats_at_the_ends_of_a_record_have_windows_without_a_jump(two_records: Dataset) -> None:
    beats = two_records.beats
    ends = beats[(beats["sample"] < windows.RAW_BEFORE) | (beats["sample"] > 650_000 - windows.RAW_AFTER)]
    assert len(ends) > 0
    assert np.abs(two_records.windows(ends)).max() < 5


def test_an_annotation_that_is_not_a_beat_is_left_out(two_records: Dataset) -> None:
    symbols = set(two_records.beats["symbol"].tolist())
    assert symbols <= {symbol.encode() for group in SYMBOLS.values() for symbol in group}
    flutter_record = two_records.beats[two_records.of_records(["207"])]
    assert flutter_record["rr"].max() < 4  # the seconds of flutter are not one long RR interval


def test_classes_follow_the_annotations(two_records: Dataset) -> None:
    for aami, symbols in SYMBOLS.items():
        members = two_records.beats["symbol"][two_records.beats["aami"] == aami]
        assert {symbol.decode() for symbol in members.tolist()} <= set(symbols)


def test_a_stored_data_set_is_the_one_that_was_prepared(two_records: Dataset, mitdb: Path, tmp_path: Path) -> None:
    again = protocol.prepare(mitdb, tmp_path, records=["114", "207"])
    assert again.about == two_records.about
    assert dataset.load(tmp_path).beats.tobytes() == two_records.beats.tobytes()


def test_another_seed_gives_other_folds(two_records: Dataset, mitdb: Path, tmp_path: Path) -> None:
    other = dataset.prepare(mitdb, tmp_path, records=["114", "207"], seed=1)
    assert not np.array_equal(other.beats["fold"], two_records.beats["fold"])


def test_files_that_do_not_belong_together_are_refused(mitdb: Path, tmp_path: Path) -> None:
    dataset.prepare(mitdb, tmp_path, records=["114"])
    about = json.loads((tmp_path / "dataset.json").read_text())
    about["sha256"]["beats"] = "0" * 64
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    with pytest.raises(DatasetError, match=r"do not belong to its dataset\.json"):
        dataset.load(tmp_path)


def test_a_folder_without_a_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no prepared data set"):
        dataset.load(tmp_path)


def test_records_that_cannot_be_used_are_named(mitdb: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="999"):
        dataset.prepare(mitdb, tmp_path, records=["999"])
    with pytest.raises(DatasetError, match="102 is not among the protocol's records"):
        protocol.prepare(mitdb, tmp_path, records=["100", "102"])  # has paced beats
    with pytest.raises(DatasetError, match="no record"):
        dataset.prepare(mitdb, tmp_path, records=[])


def test_a_record_without_annotations_is_named(mitdb: Path, tmp_path: Path) -> None:
    for kind in ("hea", "dat"):
        shutil.copy(mitdb / f"100.{kind}", tmp_path)
    with pytest.raises(SourceError, match="100"):
        dataset.prepare(tmp_path, tmp_path / "out", records=["100"])


def test_each_beat_has_the_interval_after_it(two_records: Dataset) -> None:
    for record in ("114", "207"):
        here = two_records.beats[two_records.of_records([record])]
        together = here["rr_after"][:-1] == here["rr"][1:]
        assert together.mean() > 0.95  # except where flutter lies between two beats
        assert np.isfinite(here["rr_after"][:-1]).all()


def resampled(
    prepared: Dataset, beats: NDArray[np.void], shift: float, warp: float, lead: int = 0
) -> NDArray[np.float32]:
    return prepared.resampled(beats, np.full(len(beats), lead), np.full(len(beats), shift), np.full(len(beats), warp))


@pytest.mark.parametrize("lead", [0, 1])
def test_a_shifted_and_warped_window_has_the_signal_at_its_place(two_records: Dataset, lead: int) -> None:
    beats = two_records.beats[100:103]
    plain = two_records.windows(beats)[:, lead : lead + 1]
    assert np.array_equal(resampled(two_records, beats, 0.0, 1.0, lead), plain)
    shifted = resampled(two_records, beats, 4.0, 1.0, lead)
    assert np.allclose(shifted[..., :-4], plain[..., 4:])
    compressed = resampled(two_records, beats, 0.0, 2.0, lead)
    assert np.allclose(compressed[..., 140:230], plain[..., 140::2])


def test_augmentation_does_not_use_samples_of_the_next_record(two_records: Dataset) -> None:
    first, last = two_records.spans[0]
    assert two_records.spans[1][0] == last
    record = two_records.beats[two_records.of_records(["114"])]
    end = resampled(two_records, record[-1:], 1e6, 1.0)
    assert np.allclose(end, two_records.signal[0, last - 1] * records.STEP, atol=1e-5)
    start = resampled(two_records, record[:1], -1e6, 1.0)
    assert np.allclose(start, two_records.signal[0, first] * records.STEP)


@given(intervals=st.lists(st.integers(60, 900), min_size=1, max_size=40))
def test_the_rhythm_is_the_ratio_of_each_interval_to_those_before_it(intervals: list[int]) -> None:
    rr, ratio = records.rhythm(np.cumsum([0, *intervals]))
    assert np.isnan(rr[0])
    assert np.allclose(rr[1:], np.array(intervals) / 360)
    assert np.isnan(ratio[:5]).all()
    for k in range(5, len(rr)):
        before = intervals[max(0, k - 9) : k - 1]
        assert ratio[k] == pytest.approx(intervals[k - 1] / np.mean(before), rel=1e-5)


@settings(deadline=None)
@given(scale=st.floats(0.5, 2))
def test_a_faster_heart_rate_does_not_change_the_rhythm_ratio(scale: float) -> None:
    r_peaks = np.round(np.arange(30) * 300 * scale).astype(np.int64)
    assert np.allclose(records.rhythm(r_peaks)[1][5:], 1, atol=0.01)
