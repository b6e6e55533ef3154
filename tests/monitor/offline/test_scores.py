"""``ecgmon.score`` and ``ecgmon.explain``; tests/e2e/test_python.py compares the results with those of a daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ecgmon
from ecgmon.models.weights.checkpoint import default_weights
from ecgmon.testing import SyntheticECG, synthetic_ecg

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def scores(ecg: SyntheticECG) -> ecgmon.Scores:
    return ecgmon.score(ecg.signal, ecg.fs, leads=ecg.leads)


def test_exactly_the_ventricular_beats_are_anomalous(ecg: SyntheticECG, scores: ecgmon.Scores) -> None:
    truth = ecg.r_peaks[ecg.symbols == "V"]
    found = scores.time[scores.anomalous]
    assert np.abs(found[:, None] - truth).min(axis=0).max() < 0.05
    assert len(found) == len(truth)
    assert scores.evidence.shape == (len(scores), len(scores.evidence_names))
    assert np.isfinite(scores.ax).all()


def test_an_alert_belongs_to_the_beats_that_raised_it_and_to_those_during_it(scores: ecgmon.Scores) -> None:
    (alert,) = scores.alerts
    assert alert.kind == "anomalous_episode"
    of_beats = scores.alerts_of_beats
    assert all(of_beats[beat] == (alert,) for beat in alert.beats)
    members = [number for number, alerts in enumerate(of_beats) if alerts]
    last = scores.time[members[-1]]
    assert members == list(range(members[0], members[-1] + 1))
    assert alert.beats[0] == members[0]
    assert last <= (np.inf if alert.end is None else alert.end)
    table = scores.to_dataframe()
    assert table["alerts"].tolist() == ["anomalous_episode" if alerts else "" for alerts in of_beats]


def test_the_table_has_all_values_of_a_beat(scores: ecgmon.Scores) -> None:
    table = scores.to_dataframe()
    names = ["sample", "time", "rr", "rr_ratio", "quality", "score", "ax", "anomalous", "alerts"]
    assert list(table) == [*names, *(f"evidence_{name}" for name in scores.evidence_names)]
    assert table["score"].to_numpy().tobytes() == scores.score.tobytes()


def test_the_threshold_and_the_model_can_be_chosen(ecg: SyntheticECG, scores: ecgmon.Scores, tmp_path: Path) -> None:
    strict = ecgmon.score(ecg.signal, ecg.fs, leads=ecg.leads, alerts=ecgmon.AlertSettings(score_threshold=5.5))
    assert strict.score.tobytes() == scores.score.tobytes()
    assert not strict.anomalous.any()
    assert not strict.alerts
    model = ecgmon.load_model()
    for chosen in (model, None, default_weights()):
        assert ecgmon.score(ecg.signal, ecg.fs, leads=ecg.leads, model=chosen).model == model.fingerprint
    with pytest.raises(ecgmon.errors.CheckpointError, match="no checkpoint at"):
        ecgmon.score(ecg.signal, ecg.fs, model=tmp_path / "none.safetensors")


def test_a_gap_in_the_signal_is_an_alert_and_no_error() -> None:
    ecg = synthetic_ecg(60, gaps=[(20, 40)])
    scores = ecgmon.score(ecg.signal, ecg.fs)
    assert {alert.kind for alert in scores.alerts} == {"signal_missing"}
    assert np.isfinite(scores.score).all()


def test_a_plot_shows_the_given_range(scores: ecgmon.Scores) -> None:
    figure = scores.plot(10, 25)
    assert "0:10.00 to 0:25.00" in figure.texts[1].get_text()
    assert len(figure.axes) == 2, "two rows of ten seconds"
    assert scores.plot().texts[1].get_text().startswith("0:30.00 to 1:00.00: 3 of")
    assert scores.plot(stop=20).texts[1].get_text().startswith("0:00.00 to 0:20.00")
    shown: Any = scores.plot()
    assert shown._repr_png_().startswith(b"\x89PNG")
    for start, stop in ((-1, 5), (20, 10), (70, 80)):
        with pytest.raises(ecgmon.errors.RangeError, match="cannot draw"):
            scores.plot(start, stop)


def test_an_explanation_shows_the_given_beat(ecg: SyntheticECG, scores: ecgmon.Scores) -> None:
    highest = int(np.argmax(scores.score))
    title = ecgmon.explain(ecg.signal, ecg.fs, leads=ecg.leads).texts[0].get_text()
    assert f"beat {highest} at" in title
    by_number = ecgmon.explain(ecg.signal, ecg.fs, beat=12).texts[0].get_text()
    by_time = ecgmon.explain(ecg.signal, ecg.fs, at=scores.time[12] + 0.1).texts[0].get_text()
    assert by_number == by_time
    assert "beat 12 at" in by_number
    with pytest.raises(ecgmon.errors.RangeError, match=r"no beat 1000; expected 0 to"):
        ecgmon.explain(ecg.signal, ecg.fs, beat=1000)
    with pytest.raises(ecgmon.errors.RangeError, match="outside the record"):
        ecgmon.explain(ecg.signal, ecg.fs, at=1000)
    with pytest.raises(ecgmon.errors.RangeError, match="give one of them"):
        ecgmon.explain(ecg.signal, ecg.fs, at=1, beat=1)
    with pytest.raises(ecgmon.errors.RangeError, match="no beat in 10 s"):
        ecgmon.explain(np.zeros(3600), 360)


def test_a_flat_signal_has_no_beats_and_is_no_error() -> None:
    scores = ecgmon.score(np.zeros(3600), 360)
    assert len(scores) == 0
    assert scores.to_dataframe().empty
    assert scores.alerts_of_beats == ()
    assert scores.plot().axes
