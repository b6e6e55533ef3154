"""``ecgmon.testing``, which users use in their own tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ecgmon.testing import SyntheticECG, synthetic_ecg

if TYPE_CHECKING:
    from pathlib import Path


def test_the_signal_has_the_known_beats() -> None:
    ecg = synthetic_ecg(30, 500, noise=0, wander=0, ectopic=[10])
    for peak, symbol in zip(ecg.r_peaks[:-1], ecg.symbols[:-1], strict=True):
        near = ecg.signal[round((peak - 0.2) * 500) : round((peak + 0.2) * 500), 0]
        assert near.max() == pytest.approx(1.5 if symbol == "V" else 1.1, abs=0.05)
        assert abs(int(near.argmax()) - 100) <= 1
    assert np.count_nonzero(ecg.symbols == "V") == 1
    rr = np.diff(ecg.r_peaks)
    assert rr[9] < 0.75 * rr[8]
    assert rr[10] > 1.25 * rr[8]


def test_rate_noise_and_gaps_are_as_given() -> None:
    ecg = synthetic_ecg(60, 250, rate=120, noise=0.1, leads=1, gaps=[(10, 12)])
    assert ecg.signal.shape == (15000, 1)
    assert len(ecg.r_peaks) == pytest.approx(119, abs=3)
    assert np.isnan(ecg.signal).nonzero()[0].tolist() == list(range(2500, 3000))
    clean = synthetic_ecg(60, 250, rate=120, noise=0, leads=1)
    assert np.nanstd(ecg.signal - clean.signal) == pytest.approx(0.1, rel=0.05)
    assert np.array_equal(synthetic_ecg(5).signal, synthetic_ecg(5).signal)
    assert not np.array_equal(synthetic_ecg(5).signal, synthetic_ecg(5, seed=1).signal)


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"fs": 10}, {"rate": -1}, {"leads": 13}, {"noise": -1}])
def test_wrong_arguments_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        synthetic_ecg(**wrong)


def test_it_can_be_written_as_a_record_with_annotations(ecg: SyntheticECG, ecg_record: Path) -> None:
    import wfdb

    record, annotations = wfdb.rdrecord(str(ecg_record)), wfdb.rdann(str(ecg_record), "atr")
    assert np.abs(record.p_signal - ecg.signal).max() <= 0.0005 + 1e-6
    assert annotations.symbol == ecg.symbols.tolist()
    assert record.sig_name == ["MLII", "V1"]


def test_a_user_can_load_the_fixtures(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = ["ecgmon.testing.fixtures"]')
    pytester.makepyfile(
        """
        def test_mine(ecg, ecg_record, ecg_state):
            assert ecg.signal.shape == (21600, 2)
            assert ecg_record.with_suffix(".hea").exists()
            assert (ecg_state / "ecgmon.sqlite").exists()
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
