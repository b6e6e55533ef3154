"""Scored records are written to files that other programs can read."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgmon.pipelines.items import Kind, Quality
from ecgmon.pipelines.offline.files import OutputError, write_annotations, write_csv, write_parquet
from ecgmon.pipelines.offline.record import score_record
from ecgmon.pipelines.sources.memory_record import MemoryRecord
from ecgmon.pipelines.sources.record import RecordSource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ecgmon.models.inference.reconstruction import Scorer
    from ecgmon.pipelines.offline.record import ScoredRecord

THRESHOLD = 2.0


def test_wfdb_reads_the_annotations_with_every_beat_and_score(tmp_path: Path, scored: ScoredRecord) -> None:
    import wfdb

    path = write_annotations(tmp_path / "new", scored, THRESHOLD)
    read = wfdb.rdann(str(path.with_suffix("")), "ecg")
    assert read.fs == 360
    np.testing.assert_array_equal(read.sample, scored.table(THRESHOLD)["sample"])
    assert "".join(read.symbol) == "".join("Q" if score >= THRESHOLD else "N" for score in scored.score)
    assert [float(note) for note in read.aux_note] == [round(float(score), 2) for score in scored.score]
    assert {"N", "Q"} == set(read.symbol)


def test_a_beat_without_a_score_has_its_own_symbol(tmp_path: Path, scored: ScoredRecord) -> None:
    import wfdb

    score = scored.score.copy()
    score[3] = np.nan
    path = write_annotations(tmp_path, replace(scored, score=score), THRESHOLD)
    read = wfdb.rdann(str(path.with_suffix("")), "ecg")
    assert [k for k, symbol in enumerate(read.symbol) if symbol == "?"] == [3]
    assert [k for k, note in enumerate(read.aux_note) if not note] == [3]


def test_a_beat_before_the_first_sample_is_annotated_at_the_first_sample(tmp_path: Path, scored: ScoredRecord) -> None:
    import wfdb

    items = scored.items.copy()
    items["sample"][np.flatnonzero(items["kind"] == Kind.BEAT)[0]] = -2
    path = write_annotations(tmp_path, replace(scored, items=items), THRESHOLD)
    assert wfdb.rdann(str(path.with_suffix("")), "ecg").sample[0] == 0


@pytest.mark.parametrize("fs", [128.0, 257.5, 1000.0])
def test_annotations_keep_their_sampling_rate(tmp_path: Path, scored: ScoredRecord, fs: float) -> None:
    import wfdb

    path = write_annotations(tmp_path, replace(scored, fs=fs), THRESHOLD)
    assert wfdb.rdann(str(path.with_suffix("")), "ecg").fs == fs


def test_csv_restores_every_bit(tmp_path: Path, scored: ScoredRecord) -> None:
    with write_csv(tmp_path, scored, THRESHOLD).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    table = scored.table(THRESHOLD)
    assert list(rows[0]) == list(table)
    for name in ("rr", "rr_ratio", "rr_after", "rr_after_ratio", "rate", "ax", "score"):
        values = np.array([float(row[name] or "nan") for row in rows], np.float32)
        np.testing.assert_array_equal(values, table[name])
    np.testing.assert_array_equal([float(row["seconds"]) for row in rows], table["seconds"])
    np.testing.assert_array_equal([int(row["anomalous"]) for row in rows], table["anomalous"])
    assert [int(row["seq"]) for row in rows] == list(range(len(scored.beats)))
    assert {row["quality"] for row in rows} <= {quality.name.lower() for quality in Quality}


def test_parquet_restores_every_bit_and_names_its_source(tmp_path: Path, scored: ScoredRecord) -> None:
    from pyarrow import parquet

    read = parquet.read_table(write_parquet(tmp_path, scored, THRESHOLD, "abc"))
    for name, column in scored.table(THRESHOLD).items():
        np.testing.assert_array_equal(read.column(name).to_numpy(), column)
    assert read.schema.metadata[b"model"] == b"abc"
    assert read.schema.metadata[b"lead"] == b"MLII"


def test_without_pyarrow_the_error_names_the_package(
    tmp_path: Path, scored: ScoredRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(OutputError, match=r"pip install 'ecgmon\[parquet\]'"):
        write_parquet(tmp_path, scored, THRESHOLD, "abc")


def test_a_stream_with_a_folder_in_its_name_is_written_to_that_folder(tmp_path: Path, scored: ScoredRecord) -> None:
    assert write_csv(tmp_path, replace(scored, stream="mitdb/208"), THRESHOLD) == tmp_path / "mitdb" / "208.csv"


@pytest.mark.parametrize("write", [write_annotations, write_csv])
def test_a_file_that_cannot_be_renamed_leaves_no_temporary_files(
    tmp_path: Path, scored: ScoredRecord, write: Callable[[Path, ScoredRecord, float], Path]
) -> None:
    suffix = "ecg" if write is write_annotations else "csv"
    (tmp_path / f"toy.{suffix}" / "obstacle").mkdir(parents=True)
    with pytest.raises(OutputError, match=f"toy.{suffix} cannot be written"):
        write(tmp_path, scored, THRESHOLD)
    assert [path.name for path in tmp_path.iterdir()] == [f"toy.{suffix}"]


def test_an_older_file_is_replaced(tmp_path: Path, scored: ScoredRecord) -> None:
    (tmp_path / "toy.csv").write_text("old\n")
    write_csv(tmp_path, scored, THRESHOLD)
    assert (tmp_path / "toy.csv").read_text().startswith("seq,sample,")
    assert [path.name for path in tmp_path.iterdir()] == ["toy.csv"]


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path, scored: ScoredRecord) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written: File exists"):
        write_csv(tmp_path / "file", scored, THRESHOLD)


def test_a_record_without_beats_has_an_empty_table_and_no_annotations(tmp_path: Path, scorer: Scorer) -> None:
    record = MemoryRecord("flat", 360.0, ("MLII",), np.zeros((3600, 1), np.float32))
    flat = score_record(RecordSource("flat", record, 0, 3600), scorer)
    assert write_csv(tmp_path, flat, THRESHOLD).read_text().count("\n") == 1
    assert flat.quality_seconds[Quality.FLAT] > 0
    with pytest.raises(OutputError, match="no beats"):
        write_annotations(tmp_path, flat, THRESHOLD)
