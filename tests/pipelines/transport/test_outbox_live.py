"""A live source cannot wait: the outbox keeps the newest items, up to its limit, and counts every lost beat."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ecgmon.models.windows import LENGTH
from ecgmon.pipelines.items import ITEM, Items, Kind
from ecgmon.pipelines.transport.outbox import Outbox, OutboxError


def cut(first: int, count: int) -> Items:
    """Make one item for each sample: every third is a second, the others are beats."""
    table = np.zeros(count, ITEM)
    table["sample"] = table["ready"] = np.arange(first, first + count)
    table["kind"] = np.where(table["sample"] % 3 == 2, Kind.SECOND, Kind.BEAT)
    beats = int(np.count_nonzero(table["kind"] == Kind.BEAT))
    return Items(table, np.zeros((beats, 1, LENGTH), np.float32))


def filled(limit: int, count: int, credit: int = 1000) -> Outbox:
    outbox = Outbox(1, limit, live=True)
    outbox.credit = credit
    outbox.resume(0, 0, 0)
    for first in range(count):
        outbox.take_in(0, cut(first, 1), np.array([float(first)]))
    return outbox


def test_the_newest_items_are_kept_and_one_gap_counts_the_lost_ones() -> None:
    outbox = filled(limit=10, count=25)
    ((_, first, items, arrivals),) = outbox.take(1)
    assert (first, items.table["kind"].tolist(), items.table["seq"].tolist()) == (0, [Kind.GAP], [11])
    assert (items.table["ready"].tolist(), arrivals.tolist()) == ([15], [15.0])
    assert outbox.dropped == 11
    assert outbox.held == 10
    rest = np.concatenate([items.table for _, _, items, _ in outbox.take(100)])
    assert rest["sample"].tolist()[:7] == list(range(16, 23))


def test_sent_items_are_never_dropped() -> None:
    outbox = filled(limit=10, count=6)
    sent = outbox.take(6)
    assert sum(len(items) for _, _, items, _ in sent) == 6
    for first in range(6, 40):
        outbox.take_in(0, cut(first, 1), np.zeros(1))
        assert outbox.held <= 10
    outbox.confirm(0, 6)
    (gap,) = outbox.take(1)
    assert gap[1] == 6
    assert gap[2].table["kind"][0] == Kind.GAP


def test_a_fast_stream_does_not_displace_the_beats_of_a_slow_one() -> None:
    outbox = Outbox(2, 20, live=True)
    outbox.resume(0, 0, 0)
    outbox.resume(1, 0, 0)
    outbox.take_in(1, cut(0, 5), np.zeros(5))
    for first in range(100):
        outbox.take_in(0, cut(first, 1), np.zeros(1))
    outbox.credit = 1000
    slow = [items.table["sample"].tolist() for stream, _, items, _ in outbox.take(1000) if stream == 1]
    assert [sample for part in slow for sample in part] == [0, 1, 2, 3, 4]


def test_the_end_of_a_stream_is_never_dropped() -> None:
    outbox = filled(limit=6, count=30)
    end = np.zeros(1, ITEM)
    end["kind"] = Kind.END
    outbox.take_in(0, Items(end, Items.empty(1).windows), np.zeros(1))
    kept = np.concatenate([items.table for _, _, items, _ in outbox.take(100)])
    while outbox.under_way:
        outbox.confirm(0, outbox.stored(0) + outbox.under_way)
        kept = np.concatenate([kept, *[items.table for _, _, items, _ in outbox.take(100)]])
    assert kept["kind"][-1] == Kind.END
    assert outbox.held == 0


def test_a_limit_that_leaves_no_space_is_refused() -> None:
    with pytest.raises(OutboxError, match="expected at least 6"):
        Outbox(2, 5, live=True)


class Live(RuleBasedStateMachine):
    """A live producer and a monitor that takes items in order; messages are lost, both crash, and the store is lost."""

    @initialize(limit=st.integers(6, 14), credit=st.integers(1, 10))
    def begin(self, limit: int, credit: int) -> None:
        self.limit, self.credit = limit, credit
        self.received: list[list[np.void]] = [[], []]
        self.stored = [0, 0]
        self.next = [0, 0]
        self.lost_store = self.restarted = self.may_jump = False
        self.link: deque[Any] = deque()
        self.to_producer: deque[Any] = deque()
        self.producer_starts()

    @rule()
    def producer_starts(self) -> None:
        self.outbox = Outbox(2, self.limit, live=True)
        self.outbox.credit = self.credit
        self.hello()
        for number, rows in enumerate(self.received):
            self.next[number] = int(rows[-1]["ready"]) + 1 if rows else 0
            self.restarted |= bool(rows)

    @rule()
    def hello(self) -> None:
        self.link.clear()
        self.to_producer.clear()
        for number in range(2):
            assert self.outbox.resume(number, len(self.received[number]), self.stored[number])

    @rule(number=st.integers(0, 1), count=st.integers(1, 7))
    def source_continues(self, number: int, count: int) -> None:
        self.outbox.take_in(number, cut(self.next[number], count), np.zeros(count))
        self.next[number] += count

    @rule(most=st.integers(1, 8), lost=st.booleans())
    def producer_sends(self, most: int, lost: bool) -> None:
        for part in self.outbox.take(most):
            if not lost:
                self.link.append(part)

    @rule()
    def monitor_receives(self) -> None:
        if self.link:
            number, first, items, _ = self.link.popleft()
            rows = self.received[number]
            if first > len(rows):
                self.hello()
                return
            rows += list(items.table[len(rows) - first :])

    @rule(number=st.integers(0, 1), count=st.integers(1, 5))
    def monitor_commits(self, number: int, count: int) -> None:
        self.stored[number] = min(self.stored[number] + count, len(self.received[number]))
        self.to_producer.append((number, self.stored[number]))

    @rule()
    def producer_receives(self) -> None:
        if self.to_producer:
            self.outbox.confirm(*self.to_producer.popleft())

    @rule()
    def monitor_crashes(self) -> None:
        self.may_jump |= self.restarted
        self.received = [rows[:stored] for rows, stored in zip(self.received, self.stored, strict=True)]
        self.hello()

    @rule()
    def store_is_lost(self) -> None:
        self.lost_store = True
        self.may_jump |= self.restarted
        self.received, self.stored = [[], []], [0, 0]
        self.hello()

    @invariant()
    def every_lost_beat_is_counted(self) -> None:
        for rows in getattr(self, "received", []):
            at = int(rows[0]["sample"]) if rows and self.lost_store and rows[0]["kind"] != Kind.GAP else 0
            for k, row in enumerate(rows):
                if row["kind"] == Kind.GAP:
                    beats = sum(sample % 3 != 2 for sample in range(at, int(row["ready"]) + 1))
                    # beats that an emptied store had held do not count as dropped
                    assert row["seq"] == beats or (k == 0 and self.lost_store and row["seq"] <= beats)
                    at = int(row["ready"]) + 1
                else:
                    # if producer and monitor both crash, items that only they held are lost
                    assert row["sample"] == at or (self.may_jump and row["sample"] > at)
                    at = int(row["sample"]) + 1

    @invariant()
    def nothing_grows_beyond_its_limit(self) -> None:
        if hasattr(self, "outbox"):
            assert self.outbox.held <= self.limit
            assert self.outbox.under_way >= 0
            assert self.outbox.held >= 0


TestLive = Live.TestCase
TestLive.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
