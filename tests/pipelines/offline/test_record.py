"""Offline scoring: the daemon's beats and scores, in files that others can read."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgmon.models.inference.reconstruction import Scorer
from ecgmon.models.score.history import History
from ecgmon.models.windows import LENGTH, scale
from ecgmon.pipelines.items import Items, Quality
from ecgmon.pipelines.offline.record import (
    NEAREST_SECONDS,
    OutputError,
    ScoredRecord,
    explain_beat,
    score_record,
    unscale,
    write_annotations,
    write_csv,
    write_parquet,
)
from ecgmon.pipelines.segmentation.segmenter import Segmenter
from ecgmon.pipelines.sources.errors import RangeError, RecordTruncatedError
from ecgmon.pipelines.sources.finding import RecordRef
from ecgmon.pipelines.sources.record import RecordSource, open_source
from ecgmon.pipelines.sources.wfdb_files import MemoryRecord

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


THRESHOLD = 2.0


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer()


@pytest.fixture(scope="module")
def source() -> RecordSource:
    return open_source(RecordRef("toy", None), stop=90)


@pytest.fixture(scope="module")
def scored(source: RecordSource, scorer: Scorer) -> ScoredRecord:
    return score_record(source, scorer, keep_windows=True)


def test_a_record_has_the_beats_and_scores_of_the_stream_bit_for_bit(
    source: RecordSource, scorer: Scorer, scored: ScoredRecord
) -> None:
    segmenter = Segmenter(source.fs, source.leads)
    pieces = [segmenter.push(chunk) for chunk in source.chunks(0.25)]
    streamed = Items.concatenate([*pieces, segmenter.finish()])
    history = History(len(segmenter.leads))
    error, score = [], []
    for k, beat in enumerate(streamed.beats):
        window = streamed.windows[k : k + 1]
        raw = scorer.score(window[:, :1])
        evidence, _ = history.observe(window, raw.error, raw.ticks, beat["rr"][None], beat["rr_ratio"][None])
        error.append(raw.error[0])
        score.append(scorer.info.score.score(evidence)[0])
    assert scored.beats.tobytes() == streamed.beats.tobytes()
    assert scored.windows.tobytes() == streamed.windows.tobytes()
    assert scored.error.tobytes() == np.array(error, np.float32).tobytes()
    assert scored.score.tobytes() == np.array(score, np.float32).tobytes()


def test_progress_reaches_the_end(source: RecordSource, scorer: Scorer) -> None:
    seen: list[int] = []
    score_record(source, scorer, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == source.length


def test_breaking_off_early_changes_no_beat_before(source: RecordSource, scorer: Scorer, scored: ScoredRecord) -> None:
    part = score_record(source, scorer, until=30 * 360)
    assert part.samples == 30 * 360
    assert 0 < len(part.beats) < len(scored.beats)
    assert part.beats.tobytes() == scored.beats[: len(part.beats)].tobytes()
    assert part.score.tobytes() == scored.score[: len(part.beats)].tobytes()


def test_a_truncated_record_keeps_what_was_read_and_says_why_it_ended(source: RecordSource, scorer: Scorer) -> None:
    samples = source.read(0, 20 * 360)
    record = MemoryRecord("cut", 360.0, source.leads, samples, truncated=RecordTruncatedError("cut: too short"))
    cut = score_record(RecordSource("cut", record, 0, len(samples)), scorer)
    assert len(cut.beats) > 15
    assert str(cut.failure) == "cut: too short"


def test_an_endless_source_is_refused(source: RecordSource, scorer: Scorer) -> None:
    with pytest.raises(ValueError, match="for ever"):
        score_record(replace(source, loop=0), scorer)


def test_a_part_of_a_record_is_reported_in_the_records_own_time(scorer: Scorer) -> None:
    part = score_record(open_source(RecordRef("toy", None), start=30, stop=60), scorer).table(THRESHOLD)
    assert 30 <= part["seconds"][0] < 32
    np.testing.assert_array_equal(part["seconds"], part["sample"] / 360)


# Files


def test_annotations_can_be_read_by_wfdb_with_every_beat_and_score(tmp_path: Path, scored: ScoredRecord) -> None:
    import wfdb

    path = write_annotations(tmp_path / "new", scored, THRESHOLD)
    read = wfdb.rdann(str(path.with_suffix("")), "ecg")
    assert read.fs == 360
    np.testing.assert_array_equal(read.sample, scored.table(THRESHOLD)["sample"])
    assert "".join(read.symbol) == "".join("Q" if score >= THRESHOLD else "N" for score in scored.score)
    assert [float(note) for note in read.aux_note] == [round(float(score), 2) for score in scored.score]
    assert {"N", "Q"} == set(read.symbol)


def test_a_beat_without_a_score_is_marked_and_not_called_normal(tmp_path: Path, scored: ScoredRecord) -> None:
    import wfdb

    score = scored.score.copy()
    score[3] = np.nan
    path = write_annotations(tmp_path, replace(scored, score=score), THRESHOLD)
    read = wfdb.rdann(str(path.with_suffix("")), "ecg")
    assert [k for k, symbol in enumerate(read.symbol) if symbol == "?"] == [3]
    assert [k for k, note in enumerate(read.aux_note) if not note] == [3]


def test_a_beat_cut_through_by_the_beginning_is_annotated_at_the_first_sample(
    tmp_path: Path, scored: ScoredRecord
) -> None:
    import wfdb

    beats = scored.beats.copy()
    beats["sample"][0] = -2
    path = write_annotations(tmp_path, replace(scored, beats=beats), THRESHOLD)
    assert wfdb.rdann(str(path.with_suffix("")), "ecg").sample[0] == 0


@pytest.mark.parametrize("fs", [128.0, 257.5, 1000.0])
def test_annotations_keep_their_sampling_rate(tmp_path: Path, scored: ScoredRecord, fs: float) -> None:
    import wfdb

    path = write_annotations(tmp_path, replace(scored, fs=fs), THRESHOLD)
    assert wfdb.rdann(str(path.with_suffix("")), "ecg").fs == fs


def test_csv_brings_back_every_bit(tmp_path: Path, scored: ScoredRecord) -> None:
    with write_csv(tmp_path, scored, THRESHOLD).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    table = scored.table(THRESHOLD)
    assert list(rows[0]) == list(table)
    for name in ("rr", "rr_ratio", "rr_after", "rr_after_ratio", "rate", "error", "score"):
        values = np.array([float(row[name] or "nan") for row in rows], np.float32)
        np.testing.assert_array_equal(values, table[name])
    np.testing.assert_array_equal([float(row["seconds"]) for row in rows], table["seconds"])
    np.testing.assert_array_equal([int(row["anomalous"]) for row in rows], table["anomalous"])
    assert [int(row["seq"]) for row in rows] == list(range(len(scored.beats)))
    assert {row["quality"] for row in rows} <= {quality.name.lower() for quality in Quality}


def test_every_beat_has_the_interval_after_it_and_the_local_rate(scored: ScoredRecord) -> None:
    table = scored.table(THRESHOLD)
    np.testing.assert_array_equal(table["rr_after"][:-1], table["rr"][1:])
    assert np.isnan(table["rr_after"][-1])
    known = ~np.isnan(table["rr_ratio"])
    assert known.sum() > 10
    np.testing.assert_allclose(table["rate"][known], 60 * table["rr_ratio"][known] / table["rr"][known], rtol=1e-6)


def test_parquet_brings_back_every_bit_and_says_where_it_is_from(tmp_path: Path, scored: ScoredRecord) -> None:
    from pyarrow import parquet

    read = parquet.read_table(write_parquet(tmp_path, scored, THRESHOLD, "abc"))
    for name, column in scored.table(THRESHOLD).items():
        np.testing.assert_array_equal(read.column(name).to_numpy(), column)
    assert read.schema.metadata[b"model"] == b"abc"
    assert read.schema.metadata[b"lead"] == b"MLII"


def test_without_pyarrow_the_error_says_what_to_install(
    tmp_path: Path, scored: ScoredRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(OutputError, match=r"pip install 'ecgmon\[parquet\]'"):
        write_parquet(tmp_path, scored, THRESHOLD, "abc")


def test_a_stream_named_with_its_folder_is_written_into_that_folder(tmp_path: Path, scored: ScoredRecord) -> None:
    assert write_csv(tmp_path, replace(scored, stream="mitdb/208"), THRESHOLD) == tmp_path / "mitdb" / "208.csv"


@pytest.mark.parametrize("write", [write_annotations, write_csv])
def test_a_file_that_can_not_be_put_in_place_leaves_nothing_behind(
    tmp_path: Path, scored: ScoredRecord, write: Callable[[Path, ScoredRecord, float], Path]
) -> None:
    suffix = "ecg" if write is write_annotations else "csv"
    (tmp_path / f"toy.{suffix}" / "in the way").mkdir(parents=True)
    with pytest.raises(OutputError, match=f"toy.{suffix} cannot be written"):
        write(tmp_path, scored, THRESHOLD)
    assert [path.name for path in tmp_path.iterdir()] == [f"toy.{suffix}"]


def test_an_older_file_is_replaced(tmp_path: Path, scored: ScoredRecord) -> None:
    (tmp_path / "toy.csv").write_text("old\n")
    write_csv(tmp_path, scored, THRESHOLD)
    assert (tmp_path / "toy.csv").read_text().startswith("seq,sample,")
    assert [path.name for path in tmp_path.iterdir()] == ["toy.csv"]


def test_a_folder_that_is_a_file_is_said(tmp_path: Path, scored: ScoredRecord) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written: File exists"):
        write_csv(tmp_path / "file", scored, THRESHOLD)


def test_a_record_without_beats_has_an_empty_table_and_no_annotations(tmp_path: Path, scorer: Scorer) -> None:
    record = MemoryRecord("flat", 360.0, ("MLII",), np.zeros((3600, 1), np.float32))
    flat = score_record(RecordSource("flat", record, 0, 3600), scorer)
    assert write_csv(tmp_path, flat, THRESHOLD).read_text().count("\n") == 1
    assert flat.seconds[Quality.FLAT] > 0
    with pytest.raises(OutputError, match="no beats"):
        write_annotations(tmp_path, flat, THRESHOLD)


# Explaining


def test_the_explained_beat_is_the_one_that_was_scored(
    source: RecordSource, scorer: Scorer, scored: ScoredRecord
) -> None:
    index = int(scored.score[10:-10].argmax()) + 10
    seconds = scored.table(THRESHOLD)["seconds"]
    explained = explain_beat(source, scorer, float(seconds[index]) + 0.01)
    assert explained.seq == index
    assert explained.score == scored.score[index]
    assert explained.window.tobytes() == scored.windows[index, 0].tobytes()
    assert explained.ticks.mean() == pytest.approx(explained.error, rel=1e-5)
    near = np.abs(seconds - seconds[index]) < 4.9
    assert set(seconds[near]) <= set(explained.beat_seconds)
    in_mv = np.square(explained.window - explained.reconstruction).mean()
    span = float(np.ptp(explained.window))
    assert in_mv * (2 / span) ** 2 == pytest.approx(explained.error, rel=1e-3)


@pytest.mark.parametrize("at", [0.2, 89.0])
def test_beats_at_either_end_are_explained_with_the_signal_there_is(
    source: RecordSource, scorer: Scorer, at: float
) -> None:
    explained = explain_beat(source, scorer, at)
    assert abs(explained.seconds - at) < NEAREST_SECONDS
    assert explained.start >= 0
    assert 5 <= len(explained.signal) / explained.fs < 10


def test_a_time_in_a_part_of_a_record_is_a_time_in_the_record(scorer: Scorer) -> None:
    part = open_source(RecordRef("toy", None), start=30, stop=60)
    assert explain_beat(part, scorer, 45).seconds == pytest.approx(45, abs=NEAREST_SECONDS)
    with pytest.raises(RangeError, match=r"0:10\.00 is outside the record; expected 0:30\.00 to 1:00\.00"):
        explain_beat(part, scorer, 10)


def test_a_time_without_a_beat_names_the_nearest_one(source: RecordSource, scorer: Scorer) -> None:
    samples = source.read(0, 30 * 360).copy()
    samples[10 * 360 : 20 * 360] = 0
    quiet = RecordSource("quiet", MemoryRecord("quiet", 360.0, ("MLII",), samples), 0, len(samples))
    with pytest.raises(RangeError, match=r"no beat within 2 s of 0:15\.00; the nearest is at 0:\d\d"):
        explain_beat(quiet, scorer, 15)


def test_a_reconstruction_is_shown_in_the_windows_own_millivolts() -> None:
    window = np.random.default_rng(0).normal(size=LENGTH).astype(np.float32)
    np.testing.assert_allclose(unscale(scale(window), window), window, atol=1e-6)
