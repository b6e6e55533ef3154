"""The measuring commands print the documented fields with plausible figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.processes import RunEcgmon, result

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def two_records(tmp_path: Path, mitdb: Path) -> Path:
    """A folder with a quiet record and one with ventricular beats, and a record without annotations."""
    folder = tmp_path / "db"
    folder.mkdir()
    for name in ("100", "119"):
        for suffix in ("hea", "dat", "atr"):
            (folder / f"{name}.{suffix}").symlink_to(mitdb / f"{name}.{suffix}")
    for suffix in ("hea", "dat"):
        (folder / f"101.{suffix}").symlink_to(mitdb / f"101.{suffix}")
    return folder


def test_evaluate_stream_reports_detection_separation_and_alerts(ecgmon: RunEcgmon, two_records: Path) -> None:
    found = result(ecgmon("evaluate", "stream", "--db", two_records, "--json"))
    assert set(found["records"]) == {"100", "119"}
    for part in ("qrs", "qrs_after_learning"):
        assert found[part]["sensitivity"] >= 0.999
        assert found[part]["positive_predictivity"] >= 0.999
    assert found["qrs"]["offset_seconds"]["p95"] <= 0.04
    assert found["qrs"]["delay_seconds"]["p99"] <= 1.0
    assert found["anomaly"]["beats"]["V"] == 445  # 1 of record 100, 444 of 119
    assert found["anomaly"]["auc"] > 0.95
    assert set(found["anomaly"]["per_class"]) == {"S", "V"}
    assert found["alerts"]["hours"] == pytest.approx(2 * 650_000 / 360 / 3600)
    assert found["alerts"]["kinds"]["anomalous_episode"]["raised"] > 0
    assert found["alerts"]["false_per_hour"] < 2


def test_bench_segment_compares_with_its_references(ecgmon: RunEcgmon) -> None:
    found = result(ecgmon("bench", "segment", "toy", "--repeats", 1, "--streams", 10, "--json"))
    assert found["times_real_time"] > found["reference"]["xqrs"] > 0
    assert found["reference"]["sleepecg"] > 0
    assert found["per_chunk_microseconds"]["0.25 s"]["median"] > 0
    assert found["live"]["streams"] == 10


def test_a_folder_without_annotated_records_is_reported(ecgmon: RunEcgmon, tmp_path: Path) -> None:
    run = ecgmon("evaluate", "stream", "--db", tmp_path, "--json")
    assert run.returncode == 1
    assert str(tmp_path) in run.stderr
    assert "Traceback" not in run.stderr
