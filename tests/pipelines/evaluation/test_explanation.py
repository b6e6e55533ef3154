"""The most anomalous ticks of a beat lie inside its distortion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgmon.models.inference.reconstruction import Scorer
from ecgmon.models.inference.ticks import relative, smooth
from ecgmon.pipelines.evaluation.explanation import RANKINGS, TOP, ExplanationError, compare, evaluate, measure, table
from ecgmon.pipelines.training.mitdb import prepare

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def marked(first: int, last: int, n: int = 1) -> NDArray[np.bool_]:
    ticks = np.zeros((n, 320), np.bool_)
    ticks[:, first:last] = True
    return ticks


def test_the_share_of_ticks_inside_a_distortion_is_measured() -> None:
    ranking = np.tile(np.arange(320.0), (3, 1))  # the last tenth is the most anomalous
    distorted = np.concatenate([marked(320 - TOP, 320), marked(320 - TOP // 2, 320), marked(0, 200)])
    assert compare(ranking, distorted) == pytest.approx({"inside": 0.5, "half": 2 / 3, "all": 1 / 3})


def test_smoothing_keeps_a_constant_and_spreads_a_peak_symmetrically() -> None:
    peak = np.zeros((1, 320))
    peak[0, 100] = 1
    spread = smooth(peak)
    assert smooth(np.full((2, 320), 3.0)) == pytest.approx(np.full((2, 320), 3.0))
    assert spread.sum() == pytest.approx(1)
    assert np.flatnonzero(spread[0]).mean() == 100


def test_the_usual_error_of_a_tick_has_a_relative_error_of_one() -> None:
    usual = np.full(320, 0.001)
    usual[120:160] = 0.1  # the QRS complex
    unusual = usual.copy()
    unusual[220:260] *= 10
    assert 210 <= relative(unusual[None], usual).argmax() < 270
    assert relative(usual[None], usual) == pytest.approx(np.ones((1, 320)))


def test_a_measurement_without_beats_is_refused() -> None:
    none = np.zeros((0, 1, 320), np.float32)
    with pytest.raises(ExplanationError, match="no beats to distort"):
        measure(Scorer(), none)


def test_the_shipped_model_locates_known_distortions(mitdb: Path, tmp_path: Path) -> None:
    dataset = prepare(mitdb, tmp_path, records=("100", "103", "115"))
    found = evaluate(Scorer(), dataset, "all", beats=200)
    for name, row in found["distortions"].items():
        assert row["rises"] > 0.9, f"A(x) does not rise with a {name}"
        assert row["relative"]["inside"] > 2 * row["span"], f"the location of a {name} is little better than chance"
    assert found["mean"]["relative"]["inside"] > 0.85
    assert found == evaluate(Scorer(), dataset, "all", beats=200)
    assert table(found).count("\n") == 2 + len(found["distortions"])
    assert set(found["mean"]) == set(RANKINGS)
