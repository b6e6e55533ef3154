"""The steps of ``ecgmon train`` can be stopped, name invalid input, and give the command to repeat them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ecgmon.models.training.settings import STUDENT, Settings
from ecgmon.pipelines.training import mitdb as protocol
from ecgmon.pipelines.training import own, steps
from ecgmon.pipelines.training.fitting import TrainingError

pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")  # pandas, of wfdb, when it is first imported

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def never_stop(_what: str, _done: int, _total: int, _terms: Mapping[str, float]) -> bool:
    return True


def test_only_given_values_change_a_preset() -> None:
    changed = steps.settings_from("student", {"width": 4, "epochs": None})
    assert changed.width == 4
    assert changed.epochs == STUDENT.epochs


def test_an_invalid_setting_is_a_training_error() -> None:
    with pytest.raises(TrainingError, match="spoon"):
        steps.settings_from("student", {"architecture": "spoon"})


def test_a_stopped_preparation_leaves_no_data_set(mitdb: Path, tmp_path: Path) -> None:
    reported: list[tuple[str, int]] = []

    def stop_at_the_second(what: str, done: int, total: int, terms: Mapping[str, float]) -> bool:
        assert total == 44
        assert not terms
        reported.append((what, done))
        return done < 2

    with pytest.raises(own.Stopped, match="the same command repeats this step"):
        steps.prepare(mitdb, tmp_path / "data", seed=0, progress=stop_at_the_second)
    assert reported == [("reading records", 1), ("reading records", 2)]
    assert not (tmp_path / "data" / "dataset.json").exists()


def test_a_score_for_other_patients_needs_trainings_on_both_halves(mitdb: Path, tmp_path: Path) -> None:
    protocol.prepare(mitdb, tmp_path / "data", records=["101"])
    tiny = Settings(width=1, latent=2, discriminator_width=1, epochs=1, batch=64)
    fitted = steps.fit(tmp_path / "data", tmp_path / "run", tiny, "ds1", stop_after=1, progress=never_stop)
    assert not fitted.finished
    assert fitted.raw is None
    with pytest.raises(TrainingError, match="names trainings on nothing; a score of ds1 needs ds1-a and ds1-b"):
        steps.fit_score(
            mitdb, tmp_path / "data", tmp_path / "run", (), tmp_path / "out", threads=1, progress=never_stop
        )
    assert not (tmp_path / "out").exists()
