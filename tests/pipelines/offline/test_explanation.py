"""The explanation of a beat has the window, A(x) and score of the daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgmon.models.windows import BEFORE, FS, LENGTH, scale
from ecgmon.pipelines.offline.explanation import NEAREST_SECONDS, explain_beat, unscale
from ecgmon.pipelines.sources.errors import RangeError
from ecgmon.pipelines.sources.finding import RecordRef
from ecgmon.pipelines.sources.memory_record import MemoryRecord
from ecgmon.pipelines.sources.record import RecordSource, open_source

if TYPE_CHECKING:
    from ecgmon.models.inference.reconstruction import Scorer
    from ecgmon.pipelines.offline.record import ScoredRecord


def test_the_explained_beat_equals_the_scored_beat(source: RecordSource, scorer: Scorer, scored: ScoredRecord) -> None:
    index = int(scored.score[10:-10].argmax()) + 10
    seconds = scored.seconds
    explained = explain_beat(source, scorer, float(seconds[index]) + 0.01)
    assert explained.seq == index
    assert explained.score == scored.score[index]
    assert explained.window.tobytes() == scored.windows[index, 0].tobytes()
    assert explained.ticks.mean() == pytest.approx(explained.ax, rel=1e-5)
    near = np.abs(seconds - seconds[index]) < 4.9
    assert set(seconds[near]) <= set(explained.beat_seconds)
    in_mv = np.square(explained.window - explained.reconstruction).mean()
    span = float(np.ptp(explained.window))
    assert in_mv * (2 / span) ** 2 == pytest.approx(explained.ax, rel=1e-3)
    assert explained.largest_error_seconds is not None
    tick = BEFORE + round(explained.largest_error_seconds * FS)
    assert explained.relative_error[tick] == explained.relative_error.max()


@pytest.mark.parametrize("at", [0.2, 89.0])
def test_beats_at_either_end_are_explained_with_the_available_signal(
    source: RecordSource, scorer: Scorer, at: float
) -> None:
    explained = explain_beat(source, scorer, at)
    assert abs(explained.seconds - at) < NEAREST_SECONDS
    assert explained.start >= 0
    assert 5 <= len(explained.signal) / explained.fs < 10


def test_times_in_a_part_of_a_record_are_those_of_the_record(scorer: Scorer) -> None:
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


def test_a_reconstruction_is_shown_in_millivolts() -> None:
    window = np.random.default_rng(0).normal(size=LENGTH).astype(np.float32)
    np.testing.assert_allclose(unscale(scale(window), window), window, atol=1e-6)
