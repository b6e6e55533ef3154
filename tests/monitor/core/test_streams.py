"""The unstored state of a stream: whether it is stalled, its heart rate, and its position."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ecgmon.models.windows import LENGTH
from ecgmon.monitor.config.schema import AlertSettings
from ecgmon.monitor.core.commit import Entry, StoredBeat, StreamState
from ecgmon.monitor.core.exchange import Exchange, Lot
from ecgmon.monitor.core.instruments import Gauges
from ecgmon.monitor.core.outcomes import Outcome, StreamRules
from ecgmon.monitor.core.peers import Peers, Producer, Worker
from ecgmon.monitor.core.status import FeedUpdate, StreamStatus, WorkerStatus
from ecgmon.monitor.core.streams import Stream, Streams
from ecgmon.pipelines.items import ITEM, Items, Kind, Quality

FS = 100.0


def opened(streams: Streams[str], name: str = "a", *, now: float = 0.0, **state: Any) -> Stream[str]:
    known = replace(StreamState(1, name, FS, ("MLII",)), **state)
    return streams.open(StreamRules(known, AlertSettings()), ("producer", 0), now, known.position)


def lot(*kinds: Kind, ready: int = 100) -> Lot:
    table = np.zeros(len(kinds), ITEM)
    table["kind"] = kinds
    table["ready"] = ready
    beats = kinds.count(Kind.BEAT)
    return Lot("a", 0, Items(table, np.zeros((beats, 1, LENGTH), np.float32)), np.zeros(len(kinds)), 0.0)


def outcome(stream: Stream[str], *beats: tuple[float, float], items: int | None = None) -> Outcome:
    """The outcome of beats that are given as (RR interval, score)."""
    before = stream.rules.state
    count = len(beats) if items is None else items
    after = replace(before, position=before.position + count, beats=before.beats + len(beats))
    rows = [StoredBeat(before.beats + k, 100 * k, rr, 1.0, 0, 0, 0.01, score) for k, (rr, score) in enumerate(beats)]
    return Outcome(Entry(after, rows), [score for _, score in beats], [Quality.USABLE], 0)


def test_stream_stalls_after_the_limit_without_items_and_resumes_with_the_next_item() -> None:
    streams: Streams[str] = Streams()
    stream = opened(streams, now=10.0)
    assert streams.silent(15.0, 5.0) == []
    assert streams.silent(15.1, 5.0) == [stream]
    stream.stalled = True
    assert streams.silent(99.0, 5.0) == []  # it is known
    assert streams.states() == {"running": 0, "stalled": 1, "ended": 0}
    stream.take(lot(Kind.SECOND), 100.0)
    assert not stream.stalled
    stream.commit(outcome(stream, items=1))
    assert streams.silent(105.0, 5.0) == []
    assert streams.silent(105.1, 5.0) == [stream]


def test_a_stream_whose_items_wait_to_be_stored_is_not_silent() -> None:
    streams: Streams[str] = Streams()
    stream = opened(streams)
    stream.take(lot(Kind.BEAT, Kind.SECOND), 0.0)
    assert streams.silent(100.0, 5.0) == []
    stream.commit(outcome(stream, (math.nan, 1.0), items=2))
    assert streams.silent(100.0, 5.0) == [stream]


def test_a_stream_that_has_ended_does_not_stall_and_does_not_lag() -> None:
    streams: Streams[str] = Streams()
    opened(streams, "done", ended=True)
    opened(streams, "runs", now=2.0)
    assert [stream.name for stream in streams.silent(100.0, 5.0)] == ["runs"]
    assert streams.states() == {"running": 1, "stalled": 0, "ended": 1}
    assert streams.lags(7.5) == {"done": 0.0, "runs": 5.5}


def test_items_advance_a_stream_and_an_end_item_ends_it() -> None:
    stream = opened(Streams(), seconds=2.005, position=7)
    assert (stream.received, stream.samples, stream.ended) == (7, 201, False)
    stream.take(lot(Kind.BEAT, Kind.SECOND, ready=450), 3.0)
    assert (stream.received, stream.samples, stream.last_seen) == (9, 451, 3.0)
    stream.take(lot(Kind.SECOND, Kind.END, ready=440), 4.0)
    assert (stream.received, stream.samples, stream.ended) == (11, 451, True)


def test_heart_rate_uses_the_last_eight_known_intervals() -> None:
    stream = opened(Streams())
    assert math.isnan(stream.rate)
    stream.commit(outcome(stream, (math.nan, 1.0)))
    assert math.isnan(stream.rate)
    stream.commit(outcome(stream, *[(2.0, 1.0)] * 3))
    assert stream.rate == pytest.approx(30.0)
    stream.commit(outcome(stream, *[(0.5, 1.0)] * 4, (math.nan, 1.0), (0.5, 1.0)))
    assert stream.rate == pytest.approx(60 * 8 / (3 * 2.0 + 5 * 0.5))
    stream.commit(outcome(stream, *[(1.0, 1.0)] * 12))
    assert stream.rate == pytest.approx(60.0)


def test_last_score_is_that_of_the_newest_scored_beat() -> None:
    stream = opened(Streams())
    stream.commit(outcome(stream, (0.8, 1.5), (0.8, math.nan)))
    assert stream.last_score == 1.5
    stream.commit(outcome(stream, (0.8, math.nan)))
    stream.commit(outcome(stream, items=1))
    assert stream.last_score == 1.5
    stream.commit(outcome(stream, (0.8, 2.5)))
    assert stream.last_score == 2.5


def test_commit_updates_the_state_and_a_stall_counts_as_an_alert() -> None:
    streams: Streams[str] = Streams()
    stream = opened(streams)
    stream.commit(outcome(stream, (0.8, 1.0), items=3))
    assert (stream.rules.state.position, stream.rules.state.beats) == (3, 1)
    assert streams.alerts() == 0
    stream.rules.commit(stream.rules.stalled())
    assert streams.alerts() == 1


def test_status_and_feed_contain_the_state_of_the_stream() -> None:
    stream = opened(Streams(), seconds=3.0)
    came = outcome(stream, (0.8, 1.5), (1.0, 2.5))
    stream.commit(came)
    stream.rules.commit(stream.rules.stalled())
    status = StreamStatus.of(stream)
    assert (status.beats, status.seconds, status.last_score, status.ended) == (2, 3.0, 2.5, False)
    assert status.rate == stream.rate
    assert [alert.kind for alert in status.active] == ["stream_stalled"]
    update = FeedUpdate.of(came.entry, 75.0)
    assert (update.stream, update.beats, update.rate) == ("a", [(0.0, 1.5), (1.0, 2.5)], 75.0)
    assert WorkerStatus.of(Worker("w", "cpu", last_seen=2.0, scored=9), 5.0) == WorkerStatus("w", "cpu", 9, 3.0)


def test_gauges_give_a_workers_last_message_on_the_wall_clock() -> None:
    streams, peers, exchange = Streams[str](), Peers[str](), Exchange()
    opened(streams, now=40.0)
    peers.producers["p"] = Producer("p", ["a"], [1], 40.0, 1, 0)
    peers.workers["w"] = Worker("w", "cuda", last_seen=42.0, degraded="it has failed")
    exchange.open("a", 0)
    exchange.accept(lot(Kind.BEAT, Kind.BEAT))
    gauges = Gauges.of(exchange, peers, streams, now=50.0, wall=1_000_000.0, ready=True)
    assert gauges.workers_last_seen == {"w": 1_000_000.0 - 8.0}
    assert (gauges.queued, gauges.leased, gauges.producers, gauges.degraded) == (2, 0, 1, 1)
    assert (gauges.lags, gauges.states["running"], gauges.devices["cuda"]) == ({"a": 10.0}, 1, 1)
