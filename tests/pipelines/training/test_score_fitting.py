"""A score is fitted to the evidence of a stream, and is calibrated on other beats."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgmon.models.features import NAMES
from ecgmon.models.inference.reconstruction import Reconstruction, Reconstructor, Scorer
from ecgmon.models.weights.checkpoint import shipped
from ecgmon.pipelines.training import score_fitting
from ecgmon.pipelines.training.fitting import TrainingError
from ecgmon.pipelines.training.mitdb import prepare, split
from ecgmon.pipelines.training.separation import separation

if TYPE_CHECKING:
    from pathlib import Path

    from ecgmon.pipelines.training.dataset import Dataset
    from ecgmon.pipelines.training.score_fitting import Gathered


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(shipped("fold0"))


@pytest.fixture(scope="module")
def dataset(mitdb: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepare(mitdb, tmp_path_factory.mktemp("data"), records=["100", "105", "119", "208", "213", "220"])


@pytest.fixture(scope="module")
def found(dataset: Dataset, scorer: Scorer) -> Gathered:
    return score_fitting.annotated(dataset, score_fitting.reconstructed(dataset, scorer))


@pytest.mark.slow
def test_a_fitted_score_is_calibrated_on_other_beats(dataset: Dataset, found: Gathered) -> None:
    used = split(dataset, "fold0")
    # a tenth of the beats of these few records would be too few
    held_out = used.held_out | (used.train & (dataset.beats["tenth"] < 4))
    used = type(used)(used.name, used.train & ~held_out, held_out, used.test)
    score = score_fitting.fitted(found, used).score(found.evidence)
    tested = used.test & dataset.normal
    assert np.mean(score[tested] > 1) == pytest.approx(0.1, rel=0.35)
    assert np.mean(score[tested] > 2) == pytest.approx(0.01, rel=0.75)
    assert separation(score[used.test], dataset.beats["aami"][used.test])["per_class"]["V"] > 0.98


def test_too_few_beats_for_a_score_are_refused(dataset: Dataset, found: Gathered) -> None:
    used = split(dataset, "ds1")
    few = type(used)(used.name, used.train & (np.arange(len(used.train)) < 500), used.held_out & False, used.test)
    with pytest.raises(TrainingError, match="no score can be fitted to the normal beats of ds1"):
        score_fitting.fitted(replace(found, of_unseen=True), few)


def test_the_evidence_of_a_record_is_by_the_half_that_has_not_seen_its_patient(
    dataset: Dataset, scorer: Scorer, found: Gathered
) -> None:
    generators: dict[str, Reconstructor] = {"ds1-a": scorer, "ds1-b": Scorer(shipped("fold1"))}
    halves = score_fitting.Halves(dataset, [(split(dataset, name), one) for name, one in generators.items()])
    raw = Reconstruction(np.full(len(found.ticks), 9, np.float32), found.ticks + 9)  # only the ticks are kept
    of_unseen = score_fitting.annotated(dataset, raw, halves=halves)
    assert of_unseen.of_unseen
    assert not found.of_unseen
    assert np.array_equal(of_unseen.ticks, raw.ticks)
    by_other = score_fitting.annotated(dataset, score_fitting.reconstructed(dataset, generators["ds1-b"]))
    expected = {"ds1-a": found.evidence.features, "ds1-b": by_other.evidence.features}
    for record, unseen in (
        ("119", "ds1-b"),
        ("208", "ds1-a"),
        ("220", "ds1-b"),
    ):  # every second patient, from the first
        assert halves.unseen(dataset.records.index(record)) is generators[unseen]
        here = dataset.of_records([record])
        for name, features in expected.items():
            same = of_unseen.evidence.features[here] == pytest.approx(features[here], abs=1e-3, nan_ok=True)
            assert same == (name == unseen)


@pytest.mark.parametrize("names", [(), ("ds1-a",), ("ds1", "all-b"), ("fold0", "fold1")])
def test_generators_that_are_not_halves_are_refused(dataset: Dataset, scorer: Scorer, names: tuple[str, ...]) -> None:
    with pytest.raises(TrainingError, match="are not the halves of a split"):
        score_fitting.Halves(dataset, [(split(dataset, name), scorer) for name in names])


def test_the_evidence_of_a_stream_is_by_the_half_that_has_not_seen_its_patient(
    mitdb: Path, dataset: Dataset, scorer: Scorer
) -> None:
    other = Scorer(shipped("fold1"))
    halves = score_fitting.Halves(dataset, [(split(dataset, name), other) for name in ("ds1-a", "ds1-b")])
    of_unseen = score_fitting.streamed(dataset, mitdb, scorer, halves=halves)
    by_other, by_itself = (score_fitting.streamed(dataset, mitdb, one) for one in (other, scorer))
    assert of_unseen.of_unseen
    assert not by_itself.of_unseen
    assert of_unseen.evidence.features.tobytes() == by_other.evidence.features.tobytes()
    assert of_unseen.evidence.features.tobytes() != by_itself.evidence.features.tobytes()
    assert of_unseen.ticks.tobytes() == by_itself.ticks.tobytes()


def test_beats_of_a_stream_are_the_annotated_ones_with_the_same_evidence(
    mitdb: Path, dataset: Dataset, scorer: Scorer, found: Gathered
) -> None:
    streamed = score_fitting.streamed(dataset, mitdb, scorer)
    assert len(streamed.beats) > 0.99 * len(dataset.beats)
    assert len(np.unique(streamed.beats)) > 0.999 * len(streamed.beats)
    there, here = streamed.evidence.features, found.evidence.features[streamed.beats]
    both = np.isfinite(there) & np.isfinite(here)
    assert both.mean() > 0.97
    for name, column in zip(NAMES, range(there.shape[1]), strict=True):
        known = both[:, column]
        assert np.corrcoef(there[known, column], here[known, column])[0, 1] > 0.9, name


def test_the_usual_error_is_the_mean_error_of_the_held_out_beats(dataset: Dataset, found: Gathered) -> None:
    used = split(dataset, "fold1")
    usual = score_fitting.usual_errors(found, used)
    assert usual == pytest.approx(found.ticks[used.held_out].astype(float).mean(axis=0), rel=1e-5)
    assert usual[-1] > 2 * np.median(usual)  # normal beats differ most where the next beat may begin
