"""Alerts of a record without a daemon; tests/e2e/test_pipeline.py compares them with those of a daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgmon.models.inference.reconstruction import Scorer
from ecgmon.monitor.config.schema import AlertSettings
from ecgmon.monitor.core.outcomes import latest
from ecgmon.monitor.offline.alerts import alerts_of, watch
from ecgmon.pipelines.offline.record import score_record
from ecgmon.pipelines.sources.errors import RecordTruncatedError
from ecgmon.pipelines.sources.finding import RecordRef
from ecgmon.pipelines.sources.memory_record import MemoryRecord
from ecgmon.pipelines.sources.record import RecordSource, open_source

if TYPE_CHECKING:
    from ecgmon.monitor.offline.alerts import Watched

ALERTS = AlertSettings(score_threshold=1.0)


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer()


@pytest.fixture(scope="module")
def source() -> RecordSource:
    return open_source(RecordRef("toy", None), stop=90)


@pytest.fixture(scope="module")
def watched(source: RecordSource, scorer: Scorer) -> list[Watched]:
    return list(watch(source, scorer, ALERTS, detail="all", chunk_seconds=1.0))


def test_watched_items_come_in_parts_and_equal_those_of_the_whole_record(
    source: RecordSource, scorer: Scorer, watched: list[Watched]
) -> None:
    record = score_record(source, scorer, keep_windows=True)
    rows = [row for part in watched for row in part.entry.beats]
    assert len(watched) == 91, "one for every second, and the end"
    assert [row[0] for row in rows] == list(range(len(record.beats)))
    assert [row[6] for row in rows] == record.ax.tolist()
    assert [row[7] for row in rows] == record.score.tolist()
    windows = [window for part in watched for _, window, _ in part.entry.details]
    assert np.array_equal(windows, record.windows)
    assert watched[-1].entry.state.ended
    changes = [alert for part in watched for alert in part.alerts]
    assert any(alert.end is None for alert in changes)
    assert latest(changes) == alerts_of(record, ALERTS)


def test_alerts_of_a_part_of_a_record_have_the_times_of_the_record(scorer: Scorer) -> None:
    source = open_source(RecordRef("toy", None), start=30, stop=90)
    record = score_record(source, scorer)
    in_record = alerts_of(record, ALERTS)
    in_stream = latest(alert for part in watch(source, scorer, ALERTS) for alert in part.alerts)
    assert in_record
    for shifted, own in zip(in_record, in_stream, strict=True):
        assert own.end is not None
        assert (shifted.start, shifted.raised, shifted.end) == (own.start + 30, own.raised + 30, own.end + 30)
        assert 30 <= shifted.start <= shifted.raised <= 90
        assert record.seconds[shifted.beats[0]] == pytest.approx(shifted.start)


def test_a_truncated_source_is_watched_to_its_last_sample(source: RecordSource, scorer: Scorer) -> None:
    samples = source.read(0, 20 * 360)
    record = MemoryRecord("cut", 360.0, source.leads, samples, truncated=RecordTruncatedError("cut: too short"))
    parts: list[Watched] = []
    with pytest.raises(RecordTruncatedError, match="cut: too short"):
        parts.extend(watch(RecordSource("cut", record, 0, len(samples)), scorer, ALERTS))
    assert sum(len(part.scored.score) for part in parts) > 15
    assert parts[-1].entry.state.ended
