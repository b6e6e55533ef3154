"""Offline scoring gives the beats and scores of the daemon."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgmon.models.score.history import History
from ecgmon.pipelines.items import Items, Quality
from ecgmon.pipelines.offline.record import score_record
from ecgmon.pipelines.segmentation.segmenter import Segmenter
from ecgmon.pipelines.sources.errors import RecordTruncatedError
from ecgmon.pipelines.sources.finding import RecordRef
from ecgmon.pipelines.sources.memory_record import MemoryRecord
from ecgmon.pipelines.sources.record import RecordSource, open_source

if TYPE_CHECKING:
    from ecgmon.models.inference.reconstruction import Scorer
    from ecgmon.pipelines.offline.record import ScoredRecord

THRESHOLD = 2.0


def test_the_beats_and_scores_of_a_record_are_those_of_its_stream_bit_for_bit(
    source: RecordSource, scorer: Scorer, scored: ScoredRecord
) -> None:
    segmenter = Segmenter(source.fs, source.leads)
    pieces = [segmenter.push(chunk) for chunk in source.chunks(0.25)]
    streamed = Items.concatenate([*pieces, segmenter.finish()])
    history = History(len(segmenter.leads))
    ax, score, features = [], [], []
    for k, beat in enumerate(streamed.beats):
        window = streamed.windows[k : k + 1]
        raw = scorer.score(window[:, :1])
        evidence, _ = history.observe(window, raw.ax, raw.ticks, beat["rr"][None])
        ax.append(raw.ax[0])
        score.append(scorer.info.score.score(evidence)[0])
        features.append(evidence.features[0])
    assert scored.beats.tobytes() == streamed.beats.tobytes()
    assert scored.windows.tobytes() == streamed.windows.tobytes()
    assert scored.ax.tobytes() == np.array(ax, np.float32).tobytes()
    assert scored.score.tobytes() == np.array(score, np.float32).tobytes()
    np.testing.assert_array_equal(scored.features, np.array(features, np.float32))
    assert scored.features.shape == (len(scored.beats), len(scored.feature_names))


def test_progress_reaches_the_end(source: RecordSource, scorer: Scorer) -> None:
    seen: list[int] = []
    score_record(source, scorer, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == source.length


def test_stopping_early_does_not_change_earlier_beats(
    source: RecordSource, scorer: Scorer, scored: ScoredRecord
) -> None:
    part = score_record(source, scorer, until=30 * 360)
    assert part.samples == 30 * 360
    assert 0 < len(part.beats) < len(scored.beats)
    assert part.beats.tobytes() == scored.beats[: len(part.beats)].tobytes()
    assert part.score.tobytes() == scored.score[: len(part.beats)].tobytes()


def test_a_truncated_record_keeps_its_beats_and_the_reason(source: RecordSource, scorer: Scorer) -> None:
    samples = source.read(0, 20 * 360)
    record = MemoryRecord("cut", 360.0, source.leads, samples, truncated=RecordTruncatedError("cut: too short"))
    cut = score_record(RecordSource("cut", record, 0, len(samples)), scorer)
    assert len(cut.beats) > 15
    assert str(cut.failure) == "cut: too short"


def test_an_endless_source_is_refused(source: RecordSource, scorer: Scorer) -> None:
    with pytest.raises(ValueError, match="repeats without end"):
        score_record(replace(source, loop=0), scorer)


def test_times_of_a_part_of_a_record_are_those_of_the_record(scorer: Scorer) -> None:
    part = score_record(open_source(RecordRef("toy", None), start=30, stop=60), scorer).table(THRESHOLD)
    assert 30 <= part["seconds"][0] < 32
    np.testing.assert_array_equal(part["seconds"], part["sample"] / 360)


def test_every_beat_has_the_next_interval_and_the_local_rate(scored: ScoredRecord) -> None:
    table = scored.table(THRESHOLD)
    np.testing.assert_array_equal(table["rr_after"][:-1], table["rr"][1:])
    assert np.isnan(table["rr_after"][-1])
    known = ~np.isnan(table["rr_ratio"])
    assert known.sum() > 10
    np.testing.assert_allclose(table["rate"][known], 60 * table["rr_ratio"][known] / table["rr"][known], rtol=1e-6)


def test_the_columns_of_a_record_are_those_of_its_table(scorer: Scorer) -> None:
    part = score_record(open_source(RecordRef("toy", None), start=30, stop=60), scorer)
    table = part.table(THRESHOLD)
    for name in ("sample", "seconds", "rr", "rr_ratio", "ax", "score"):
        np.testing.assert_array_equal(getattr(part, name), table[name])
    assert [Quality(quality).name.lower() for quality in part.quality] == table["quality"].tolist()
    assert sum(part.quality_seconds.values()) == 30
