"""``ecgmon.segment``: the beats of arrays and records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ecgmon
from ecgmon.testing import SyntheticECG, synthetic_ecg

if TYPE_CHECKING:
    from pathlib import Path

TOLERANCE = 0.03  # largest error of an R peak in s


@pytest.mark.parametrize("fs", [100, 128, 250, 360, 500, 1000])
@pytest.mark.parametrize("leads", [1, 2])
def test_the_beats_of_an_array_are_found_at_any_rate_with_one_or_two_leads(fs: float, leads: int) -> None:
    ecg = synthetic_ecg(40, fs, leads=leads, ectopic=[20])
    beats = ecgmon.segment(ecg.signal, fs)
    truth = ecg.r_peaks[(ecg.r_peaks > 3) & (ecg.r_peaks < 39)]
    nearest = np.abs(beats.time[:, None] - truth).min(axis=0)
    assert nearest.max() < TOLERANCE
    assert len(beats) <= len(ecg.r_peaks)
    assert np.array_equal(beats.sample / fs, beats.time)
    assert beats.windows.shape == (len(beats), leads, 320)
    assert beats.windows.dtype == beats.rr.dtype == np.float32


def test_a_gap_has_no_beats_and_no_interval_spans_it() -> None:
    ecg = synthetic_ecg(60, gaps=[(20, 30)])
    beats = ecgmon.segment(ecg.signal, 360)
    assert not ((beats.time > 20) & (beats.time < 30)).any()
    after = np.flatnonzero(beats.time > 30)[0]
    assert np.isnan(beats.rr[after])
    assert np.isfinite(beats.rr[after + 1 :]).all()
    assert "missing" in beats.quality
    assert set(beats.quality[(beats.time > 5) & (beats.time < 18)]) == {"usable"}


def test_beats_are_found_with_one_lead_missing() -> None:
    ecg = synthetic_ecg(30)
    dead = ecg.without((0, 30), lead=1)
    assert len(ecgmon.segment(dead.signal, 360)) >= len(ecg.r_peaks) - 2


def test_arrays_of_any_float_type_and_their_record_give_the_same_beats(ecg_record: Path) -> None:
    import wfdb

    stored = wfdb.rdrecord(str(ecg_record)).p_signal
    of_record = ecgmon.segment(ecg_record)
    for samples in (stored, stored.astype(np.float32), np.asfortranarray(stored)):
        of_array = ecgmon.segment(samples, 360, leads=("MLII", "V1"))
        assert of_array.windows.tobytes() == of_record.windows.tobytes()
        assert of_array.sample.tolist() == of_record.sample.tolist()
        assert of_array.leads == of_record.leads == ("MLII", "V1")
    one = ecgmon.segment(stored[:, 0], 360)
    assert np.array_equal(one.windows, ecgmon.segment(stored[:, :1].tolist(), 360).windows)
    assert one.record == "array"
    assert of_record.record == "synthetic"


def test_the_lead_of_the_model_is_used_at_any_position(ecg: SyntheticECG) -> None:
    turned = ecgmon.segment(ecg.signal[:, ::-1], 360, leads=("V1", "MLII"))
    assert turned.leads == ("MLII", "V1")
    assert np.array_equal(turned.windows, ecgmon.segment(ecg.signal, 360, leads=ecg.leads).windows)


def test_the_table_has_a_row_for_each_beat(ecg: SyntheticECG) -> None:
    beats = ecgmon.segment(ecg.signal, ecg.fs)
    table = beats.to_dataframe()
    assert list(table) == ["sample", "time", "rr", "rr_ratio", "quality"]
    assert len(table) == len(beats)
    assert table["time"].tolist() == beats.time.tolist()


LONG = np.zeros((2000, 2), np.float32)


@pytest.mark.parametrize(
    ("samples", "more", "error", "says"),
    [
        (LONG, {}, "SamplingRateError", "without their sampling frequency"),
        (LONG, {"fs": 50}, "SamplingRateError", "fs=50 Hz is out of range; expected 100 to 1000 Hz"),
        (LONG, {"fs": float("nan")}, "SamplingRateError", "fs=nan Hz is out of range"),
        (LONG.T, {"fs": 360}, "SignalFormatError", r"shape \(2, 2000\).*transpose"),
        (np.zeros((2000, 3)), {"fs": 360}, "SignalFormatError", r"shape \(2000, 3\)"),
        (np.zeros((2000, 0)), {"fs": 360}, "SignalFormatError", r"shape \(2000, 0\)"),
        (np.zeros(2000, np.int16), {"fs": 360}, "SignalFormatError", "int16, expected floats in mV"),
        (LONG[:100], {"fs": 360}, "RecordTooShortError", r"0\.28 s of samples are too short"),
        (LONG, {"fs": 360, "leads": ["II"]}, "LeadError", "expected 2 different names"),
        (LONG, {"fs": 360, "leads": ["II", "II"]}, "LeadError", "expected 2 different names"),
        ("toy", {"fs": 360}, "SamplingRateError", "leave fs out"),
    ],
)
def test_invalid_samples_are_refused_with_the_reason(samples: Any, more: dict[str, Any], error: str, says: str) -> None:
    with pytest.raises(getattr(ecgmon.errors, error), match=says):
        ecgmon.segment(samples, **more)


def test_a_folder_of_several_records_is_refused(ecg: SyntheticECG, tmp_path: Path) -> None:
    ecg.write(tmp_path, "one")
    ecg.write(tmp_path, "two")
    with pytest.raises(ecgmon.errors.SourceError, match="2 records are in this folder; name one of them"):
        ecgmon.segment(tmp_path)


def test_a_truncated_record_gives_its_beats_and_a_warning(ecg: SyntheticECG, tmp_path: Path) -> None:
    path = ecg.write(tmp_path, "cut")
    data = path.with_suffix(".dat")
    data.write_bytes(data.read_bytes()[: len(data.read_bytes()) // 2 // 4 * 4])
    with pytest.warns(UserWarning, match="cut"):
        beats = ecgmon.segment(path)
    assert 25 < beats.time[-1] < beats.duration + 1 < 32
