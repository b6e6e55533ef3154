"""Every item is stored once and in order, in spite of faults of producers and workers."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ecgmon.models.windows import LENGTH
from ecgmon.monitor.core.exchange import Exchange, Lot
from ecgmon.pipelines.items import ITEM, Items, Kind
from ecgmon.pipelines.transport.outbox import Outbox, OutboxError

if TYPE_CHECKING:
    from collections.abc import Hashable

    from numpy.typing import NDArray


def make_items(kinds: list[int], start: int = 0) -> Items:
    """Make items whose samples are their positions and whose windows hold their positions."""
    table = np.zeros(len(kinds), ITEM)
    table["kind"] = kinds
    table["sample"] = np.arange(start, start + len(kinds))
    beats = table["sample"][table["kind"] == Kind.BEAT].astype(np.float32)
    windows = np.broadcast_to(beats[:, None, None], (len(beats), 1, LENGTH)).copy()
    return Items(table, windows)


def make_lot(first: int, kinds: list[int], stream: str = "a") -> Lot:
    return Lot(stream, first, make_items(kinds, first), np.zeros(len(kinds)), 0.0)


def answer_of(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Make a 'score' that identifies the scored beat."""
    return windows[:, 0, 0] + np.float32(0.5), np.zeros((len(windows), LENGTH), np.float16)


BEAT, SECOND = Kind.BEAT.value, Kind.SECOND.value


# ---- examples


def test_beats_of_a_dead_worker_go_to_another_before_newer_ones() -> None:
    exchange = Exchange(batch_beats=2)
    exchange.open("a", 0)
    exchange.join("w1", 1)
    exchange.accept(make_lot(0, [BEAT] * 4))
    (lease,) = exchange.assign(0.0)
    assert lease.windows(1)[:, 0, 0].tolist() == [0, 1]
    assert exchange.leave("w1") == 2
    exchange.join("w2", 2)
    first, second = exchange.assign(0.0)
    assert first.windows(1)[:, 0, 0].tolist() == [0, 1]
    assert second.windows(1)[:, 0, 0].tolist() == [2, 3]
    assert exchange.redelivered == 2


def test_new_model_scores_everything_that_is_not_completed() -> None:
    exchange = Exchange(batch_beats=2)
    exchange.open("a", 0)
    exchange.join("w", 3)
    exchange.accept(make_lot(0, [BEAT] * 6))
    first, second, _ = exchange.assign(0.0)
    exchange.answer(second, *answer_of(second.windows(1)))
    exchange.reset()
    assert (exchange.queued, exchange.leased, exchange.redelivered) == (6, 0, 6)
    assert exchange.lease("w", first.batch) is None
    exchange.join("w", 3)
    for lease in exchange.assign(0.0):
        exchange.answer(lease, *answer_of(lease.windows(1) + 100))
    (lot,) = exchange.completed()
    assert lot.ax.tolist() == [100.5, 101.5, 102.5, 103.5, 104.5, 105.5]


def test_answer_after_the_lease_expired_changes_nothing() -> None:
    exchange = Exchange(lease_seconds=1.0)
    exchange.open("a", 0)
    exchange.join("slow", 1)
    exchange.accept(make_lot(0, [BEAT]))
    (lease,) = exchange.assign(0.0)
    assert exchange.expire(0.99) == []
    assert exchange.expire(1.0) == [lease]
    assert exchange.lease("slow", lease.batch) is None
    assert exchange.queued == 1
    assert list(exchange.completed()) == []


def test_worker_that_hangs_delays_beats_once() -> None:
    exchange = Exchange(batch_beats=1, lease_seconds=1.0)
    exchange.open("a", 0)
    exchange.join("hangs", 2)
    exchange.accept(make_lot(0, [BEAT] * 6))
    assert len(exchange.assign(0.0)) == 2
    exchange.join("works", 1)
    now = 0.0
    for _ in range(20):
        now += 0.5
        exchange.expire(now)
        for lease in exchange.assign(now):
            assert lease.worker == "works"
            exchange.answer(lease, *answer_of(lease.windows(1)))
    assert [lot.unscored for lot in exchange.completed()] == [0]
    assert exchange.redelivered == 2


def test_a_worker_that_is_slower_than_its_lease_gets_more_time_when_it_answers() -> None:
    exchange = Exchange(batch_beats=1, lease_seconds=1.0)
    exchange.open("a", 0)
    exchange.join("slow", 1)
    exchange.accept(make_lot(0, [BEAT] * 3))
    now, busy, takes = 0.0, None, 5.0
    for _ in range(200):
        now += 0.5
        exchange.expire(now)
        if busy is None:
            busy = next(iter(exchange.assign(now)), None)
            due = now + takes
        if busy is not None and now >= due:
            lease = exchange.lease("slow", busy.batch)
            if lease is None:
                exchange.mark_responsive("slow")
            else:
                exchange.answer(lease, *answer_of(lease.windows(1)))
            busy = None
    assert [lot.unscored for lot in exchange.completed()] == [0]


def test_worker_that_rejoins_gets_work_again() -> None:
    exchange = Exchange(lease_seconds=1.0)
    exchange.open("a", 0)
    exchange.join("w", 1)
    exchange.accept(make_lot(0, [BEAT]))
    exchange.assign(0.0)
    exchange.expire(5.0)
    assert exchange.assign(5.0) == []
    exchange.join("w", 1)
    (lease,) = exchange.assign(5.0)
    assert lease.beats == 1


def test_a_stream_waits_for_its_own_oldest_beat_but_not_for_other_streams() -> None:
    exchange = Exchange(batch_beats=1)
    for stream in ("a", "b"):
        exchange.open(stream, 0)
        exchange.accept(make_lot(0, [BEAT], stream))
    exchange.accept(make_lot(1, [SECOND], "a"))
    exchange.join("w", 2)
    of_a, of_b = exchange.assign(0.0)
    exchange.answer(of_b, *answer_of(of_b.windows(1)))
    assert [lot.stream for lot in exchange.completed()] == ["b"]
    exchange.answer(of_a, *answer_of(of_a.windows(1)))
    assert [(lot.stream, lot.first) for lot in exchange.completed()] == [("a", 0), ("a", 1)]


def test_one_beat_that_no_worker_can_score_is_stored_alone_without_a_score() -> None:
    exchange = Exchange(batch_beats=8, max_failures=3)
    exchange.open("a", 0)
    exchange.join("w", 1)
    exchange.accept(make_lot(0, [BEAT] * 3))
    for now in range(20):
        for lease in exchange.assign(float(now)):
            if 1 in lease.windows(1)[:, 0, 0]:
                exchange.fail(lease)
            else:
                exchange.answer(lease, *answer_of(lease.windows(1)))
    (lot,) = exchange.completed()
    assert lot.ax[[0, 2]].tolist() == [0.5, 2.5]
    assert np.isnan(lot.ax[1])


def test_work_is_shared_between_workers_and_credit_is_respected() -> None:
    exchange = Exchange(batch_beats=1)
    exchange.open("a", 0)
    exchange.join("w1", 2)
    exchange.join("w2", 1)
    exchange.accept(make_lot(0, [BEAT] * 9))
    leases = exchange.assign(0.0)
    assert sorted(str(lease.worker) for lease in leases) == ["w1", "w1", "w2"]
    assert (exchange.queued, exchange.leased) == (6, 3)
    assert exchange.assign(0.0) == []


def test_outbox_never_sends_more_than_the_credit() -> None:
    outbox = Outbox(2, limit=100)
    outbox.credit = 5
    for stream in (0, 1):
        outbox.resume(stream, 0, 0)
        outbox.offer(stream, 0, make_items([BEAT] * 10), np.zeros(10))
    assert sum(len(items) for _, _, items, _ in outbox.take(100)) == 5
    assert outbox.take(100) == []
    outbox.confirm(0, 2)
    assert sum(len(items) for _, _, items, _ in outbox.take(100)) == 2


def test_outbox_refuses_confirmation_of_items_that_were_never_sent() -> None:
    outbox = Outbox(1, limit=10)
    outbox.resume(0, 0, 0)
    outbox.offer(0, 0, make_items([BEAT] * 3), np.zeros(3))
    with pytest.raises(OutboxError, match="confirms position 2"):
        outbox.confirm(0, 2)


def test_outbox_accepts_confirmation_above_the_position_in_an_earlier_welcome() -> None:
    outbox = Outbox(1, limit=10)
    outbox.credit = 4
    outbox.resume(0, 0, 0)
    outbox.offer(0, 0, make_items([BEAT] * 8), np.zeros(8))
    outbox.take(4)
    outbox.resume(0, 0, 0)  # the answer to a hello that was sent before the four items
    outbox.take(2)
    outbox.confirm(0, 3)
    assert outbox.stored(0) == 3
    assert outbox.under_way == 0
    assert [(first, len(items)) for _, first, items, _ in outbox.take(10)] == [(3, 1), (4, 3)]
    outbox.confirm(0, 7)
    outbox.take(10)
    outbox.confirm(0, 8)
    assert (outbox.held, outbox.under_way) == (0, 0)


def test_a_lost_store_makes_the_producer_read_its_source_again() -> None:
    outbox = Outbox(1, limit=10)
    outbox.credit = 10
    outbox.resume(0, 0, 0)
    outbox.offer(0, 0, make_items([BEAT] * 3), np.zeros(3))
    outbox.take(10)
    outbox.confirm(0, 3)
    assert outbox.resume(0, 0, 0) is False
    assert (outbox.held, outbox.under_way) == (0, 0)
    outbox.offer(0, 0, make_items([BEAT] * 3), np.zeros(3))
    assert [first for _, first, _, _ in outbox.take(10)] == [0]


# ---- any interleaving

STREAMS = ("a", "b")
KINDS = {"a": [BEAT, SECOND, BEAT, BEAT, SECOND] * 4, "b": [SECOND, BEAT] * 7}


class Delivery(RuleBasedStateMachine):
    """A producer, a monitor and workers, with every message, crash and time-out in any order."""

    @initialize(batch=st.integers(1, 5), credit=st.integers(1, 8), limit=st.integers(1, 12))
    def begin(self, batch: int, credit: int, limit: int) -> None:
        self.batch, self.credit, self.limit = batch, credit, limit
        self.now = 0.0
        self.store: dict[str, list[tuple[int, int, float]]] = {stream: [] for stream in STREAMS}
        self.workers = 0
        self.monitor_starts()
        self.producer_starts()

    # -- the processes

    def monitor_starts(self) -> None:
        self.exchange = Exchange(batch_beats=self.batch, lease_seconds=10.0)
        self.opened: set[str] = set()
        self.waiting: list[Lot] = []  # scored, and not stored yet
        self.to_monitor: deque[tuple[int, int, Items, NDArray[Any]]] = deque()
        self.to_producer: deque[Any] = deque()
        self.held: dict[Hashable, deque[tuple[int, NDArray[np.float32]]]] = {}
        self.welcomed = False

    def producer_starts(self) -> None:
        self.outbox = Outbox(len(STREAMS), self.limit)
        self.outbox.credit = self.credit
        self.position = dict.fromkeys(STREAMS, 0)
        self.to_monitor.clear()
        self.to_producer.clear()
        self.welcomed = False

    @rule()
    def producer_sends_hello(self) -> None:
        self.to_monitor.clear()
        self.to_producer.clear()
        for number, stream in enumerate(STREAMS):
            stored = len(self.store[stream])
            self.opened.add(stream)
            received = self.exchange.open(stream, stored)
            if not self.outbox.resume(number, received, stored):
                self.position[stream] = 0
        self.welcomed = True

    @rule(number=st.integers(0, 1), count=st.integers(1, 4))
    def producer_cuts(self, number: int, count: int) -> None:
        stream = STREAMS[number]
        first = self.position[stream]
        kinds = KINDS[stream][first : first + count]
        if self.welcomed and kinds and not self.outbox.full:
            self.outbox.offer(number, first, make_items(kinds, first), np.zeros(len(kinds)))
            self.position[stream] = first + len(kinds)

    @rule(most=st.integers(1, 6), lost=st.booleans())
    def producer_sends(self, most: int, lost: bool) -> None:
        if self.welcomed:
            for part in self.outbox.take(most):
                if not lost:  # a broken link loses the messages in transit
                    self.to_monitor.append(part)

    @rule()
    def monitor_receives(self) -> None:
        if self.to_monitor:
            number, first, items, arrivals = self.to_monitor.popleft()
            lot = self.exchange.accept(Lot(STREAMS[number], first, items, arrivals, self.now))
            if lot is None and first > self.exchange.open(STREAMS[number], 0):
                self.welcomed = False  # it answers Unknown, and the producer sends a hello

    @rule(credit=st.integers(1, 3))
    def worker_joins(self, credit: int) -> None:
        self.workers += 1
        name = f"w{self.workers}"
        self.exchange.join(name, credit)
        self.held[name] = deque()

    @rule()
    def monitor_assigns(self) -> None:
        for lease in self.exchange.assign(self.now):
            self.held[lease.worker].append((lease.batch, lease.windows(1)))

    @rule(data=st.data(), fails=st.booleans())
    def worker_answers(self, data: st.DataObject, fails: bool) -> None:
        busy = [name for name, held in self.held.items() if held]
        if busy:
            name = data.draw(st.sampled_from(busy))
            batch, windows = self.held[name].popleft()
            lease = self.exchange.lease(name, batch)
            if lease is None:
                self.exchange.mark_responsive(name)
            elif not fails:
                self.exchange.answer(lease, *answer_of(windows))

    @rule(data=st.data())
    def worker_dies(self, data: st.DataObject) -> None:
        if self.held:
            name = data.draw(st.sampled_from(sorted(self.held, key=str)))
            self.held.pop(name)
            self.exchange.leave(name)

    @rule()
    def monitor_changes_its_model(self) -> None:
        self.waiting += self.exchange.completed()
        if not self.waiting:  # complete lots are stored first
            self.exchange.reset()
            self.held.clear()

    @rule(seconds=st.sampled_from([1.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.exchange.expire(self.now)

    @rule(disk_full=st.booleans())
    def monitor_commits(self, disk_full: bool) -> None:
        self.waiting += self.exchange.completed()
        if disk_full:
            return
        lots, self.waiting = self.waiting, []
        for lot in lots:
            assert lot.first == len(self.store[lot.stream])
            scores = iter(lot.ax.tolist())
            self.store[lot.stream] += [
                (int(row["sample"]), int(row["kind"]), next(scores) if row["kind"] == BEAT else -1.0)
                for row in lot.items.table
            ]
            self.to_producer.append((STREAMS.index(lot.stream), len(self.store[lot.stream])))

    @rule()
    def producer_receives(self) -> None:
        if self.to_producer and self.welcomed:
            self.outbox.confirm(*self.to_producer.popleft())

    @rule()
    def producer_crashes(self) -> None:
        self.producer_starts()

    @rule()
    def monitor_crashes(self) -> None:
        self.monitor_starts()

    # -- what must hold

    @invariant()
    def stored_items_are_a_prefix_of_the_stream(self) -> None:
        for stream, rows in getattr(self, "store", {}).items():
            assert [row[0] for row in rows] == list(range(len(rows)))
            assert [row[1] for row in rows] == KINDS[stream][: len(rows)]
            assert all(score == sample + 0.5 for sample, kind, score in rows if kind == BEAT)

    @invariant()
    def nothing_grows_beyond_its_limit(self) -> None:
        if hasattr(self, "outbox"):
            assert self.outbox.held <= self.limit + 4  # one offer may exceed the limit; then it is full
            assert self.outbox.under_way >= 0
            assert self.exchange.queued >= 0
            assert self.exchange.leased >= 0

    def teardown(self) -> None:
        """Everything is stored from any state, if no further faults occur."""
        if not hasattr(self, "store"):
            return
        self.worker_joins(1)
        self.now += 100.0
        self.exchange.expire(self.now)
        for _ in range(200):
            if not self.welcomed:
                self.producer_sends_hello()
            for number in range(len(STREAMS)):
                self.producer_cuts(number, 4)
            self.producer_sends(6, lost=False)
            while self.to_monitor:
                self.monitor_receives()
            self.monitor_assigns()
            for held in self.held.values():
                while held:
                    batch, windows = held.popleft()
                    lease = self.exchange.lease(next(n for n, h in self.held.items() if h is held), batch)
                    if lease is not None:
                        self.exchange.answer(lease, *answer_of(windows))
            self.monitor_commits(disk_full=False)
            while self.to_producer and self.welcomed:
                self.producer_receives()
            self.now += 11.0
            self.exchange.expire(self.now)
            if self.outbox.under_way and not self.to_monitor:
                self.welcomed = False  # pings got no answer or items were lost: it sends a hello again
        assert {stream: len(rows) for stream, rows in self.store.items()} == {s: len(k) for s, k in KINDS.items()}
        assert (self.outbox.held, self.outbox.under_way) == (0, 0)


TestDelivery = Delivery.TestCase
TestDelivery.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
