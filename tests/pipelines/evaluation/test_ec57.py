"""Measurement of detection: matching, flutter that is left out, and the limits for every change."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgmon.pipelines.evaluation.ec57 import (
    BEAT_SYMBOLS,
    BeatCounts,
    Reference,
    evaluate_records,
    match_beats,
    summarise,
)
from ecgmon.pipelines.limits import MATCH_SECONDS
from ecgmon.pipelines.sources.annotations import Annotations
from ecgmon.pipelines.sources.errors import AnnotationError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgmon.pipelines.items import Items

heartbeats = st.lists(st.integers(72, 900), min_size=1, max_size=30).map(np.cumsum)  # 0.2 s and more
samples = st.lists(st.integers(0, 3000), max_size=30, unique=True).map(lambda s: np.array(sorted(s), np.int64))


@given(samples, samples)
def test_matches_are_one_to_one_and_within_the_window(
    reference: NDArray[np.int64], detected: NDArray[np.int64]
) -> None:
    pairs = match_beats(reference, detected, 54)
    assert len(set(pairs[:, 0].tolist())) == len(set(pairs[:, 1].tolist())) == len(pairs)
    assert (np.abs(reference[pairs[:, 0]] - detected[pairs[:, 1]]) <= 54).all()


@given(samples)
def test_a_perfect_detector_is_perfect(reference: NDArray[np.int64]) -> None:
    assert len(match_beats(reference, reference, 54)) == len(reference)


def test_flutter_is_left_out_whether_or_not_it_ends() -> None:
    annotations = Annotations(
        np.array([10, 100, 200, 300, 400, 500]), np.array(["N", "[", "!", "]", "V", "["]), ("",) * 6
    )
    reference = Reference.of(annotations, 1000)
    assert reference.sample.tolist() == [10, 400]
    assert reference.outside_flutter(np.array([99, 100, 300, 301, 600])).tolist() == [True, False, False, True, False]


def test_figures_without_beats_are_none() -> None:
    assert BeatCounts().sensitivity is None
    assert json.dumps(BeatCounts().as_dict())


def test_a_folder_without_reference_beats_is_refused_with_the_reason(mitdb: Path, tmp_path: Path) -> None:
    for suffix in ("hea", "dat"):
        (tmp_path / f"100.{suffix}").symlink_to(mitdb / f"100.{suffix}")
    with pytest.raises(AnnotationError, match="atr"):
        evaluate_records(tmp_path, progress=False)


def part_of(mitdb: Path, tmp_path: Path, *names: str) -> Path:
    for name in names:
        for suffix in ("hea", "dat", "atr"):
            (tmp_path / f"{name}.{suffix}").symlink_to(mitdb / f"{name}.{suffix}")
    return tmp_path


def matched_by_wfdb(reference: NDArray[np.int64], detected: NDArray[np.int64], window: int) -> list[tuple[int, int]]:
    """Pairs that WFDB matches, as positions in both; WFDB excludes the bound of the window, EC57 includes it."""
    from wfdb.processing import compare_annotations

    theirs = compare_annotations(reference, detected, window + 1)
    return [(i, int(j)) for i, j in enumerate(theirs.matching_sample_nums) if j >= 0]


@given(heartbeats, heartbeats)
@settings(deadline=None)  # the first example imports wfdb
def test_the_matched_pairs_are_those_of_wfdb(reference: NDArray[np.int64], detected: NDArray[np.int64]) -> None:
    assert match_beats(reference, detected, 54).tolist() == list(map(list, matched_by_wfdb(reference, detected, 54)))


LIMITS = {  # largest numbers of missed and false beats of a whole record: those measured, plus one or two
    "100": (2, 1),
    "105": (13, 17),
    "119": (1, 1),
    "203": (31, 17),
    "208": (13, 10),
    "232": (1, 8),
}


def test_detection_stays_within_its_limits_on_easy_and_hard_records(mitdb: Path, tmp_path: Path) -> None:
    results = evaluate_records(part_of(mitdb, tmp_path, *LIMITS), progress=False)
    for name, (missed, false) in LIMITS.items():
        counts = results[name].counts
        assert counts.fn <= missed, (name, counts)
        assert counts.fp <= false, (name, counts)


@pytest.mark.slow
def test_detection_on_the_whole_database_stays_within_its_limits_and_matches_as_wfdb(mitdb: Path) -> None:
    compared = []

    def compare_with_wfdb(name: str, fs: float, annotations: Annotations, items: Items) -> None:
        reference = annotations.sample[np.isin(annotations.symbol, sorted(BEAT_SYMBOLS))]
        detected = items.beats["sample"].astype(np.int64)
        window = round(MATCH_SECONDS * fs)
        ours = match_beats(reference, detected, window)
        assert ours.tolist() == list(map(list, matched_by_wfdb(reference, detected, window))), name
        compared.append(name)

    summary = summarise(evaluate_records(mitdb, progress=False, inspect=compare_with_wfdb))
    assert len(compared) == 48
    qrs = summary["qrs"]
    assert qrs["tp"] + qrs["fn"] == 109_494
    assert qrs["sensitivity"] >= 0.9991
    assert qrs["positive_predictivity"] >= 0.9989
    assert min(record["f1"] for record in summary["records"].values()) >= 0.985
    assert qrs["offset_seconds"]["median"] <= 0.010
    assert qrs["offset_seconds"]["p95"] <= 0.020
    assert qrs["delay_seconds"]["p99"] <= 1.0
    assert qrs["delay_seconds"]["max"] <= 2.5
    assert json.dumps(summary)
