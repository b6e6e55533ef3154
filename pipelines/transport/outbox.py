"""What a producer has cut and the monitor has not stored yet.

Pure: no sockets, no clocks.  The rule it keeps: an item leaves the outbox only when the monitor has
said that it is stored, and no more items are under way than the monitor allows.

A live source cannot wait.  Where the outbox is full its oldest items that were not sent yet give
way to the newest, and one item of kind GAP says how many beats that cost.  Positions are those of
the items that are left, so the monitor sees a stream without holes in it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ecgmon.pipelines.items import ITEM, Items, Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray


class OutboxError(Exception):
    """The monitor and the outbox cannot both be right about a stream."""


@dataclass(slots=True)
class _Lot:
    """Consecutive items that were offered together."""

    first: int
    items: Items
    arrivals: NDArray[np.float64]

    @property
    def end(self) -> int:
        return self.first + len(self.items)

    def cut(self, start: int, stop: int) -> _Lot:
        if start == self.first and stop == self.end:
            return self  # nearly always; to count its beats takes as long as all else that is done with it here
        part = slice(start - self.first, stop - self.first)
        return _Lot(start, self.items[part], self.arrivals[part])


@dataclass(slots=True)
class _Stream:
    stored: int = 0
    sent: int = 0
    end: int = 0
    high: int = 0
    """One past the highest position ever sent, to tell what is sent again."""
    under_way: list[_Lot] = field(default_factory=list)  # lists: a deque takes 600 bytes before it holds anything
    unsent: list[_Lot] = field(default_factory=list)

    @property
    def waiting(self) -> int:
        """Items that were not sent yet, or are to be sent again."""
        return sum(len(lot.items) for lot in self.unsent)

    def move(self, by: int) -> None:
        """Give all items that are held other positions."""
        self.under_way = [replace(lot, first=lot.first + by) for lot in self.under_way]
        self.unsent = [replace(lot, first=lot.first + by) for lot in self.unsent]

    def place(self, lots: list[_Lot]) -> None:
        """Sort lots into sent and unsent by the cursor, cutting the one that it stands in."""
        self.under_way.clear()
        self.unsent.clear()
        for lot in lots:
            if lot.end <= self.stored:
                continue
            if lot.first < self.sent:
                self.under_way.append(lot.cut(lot.first, min(lot.end, self.sent)))
            if lot.end > self.sent:
                self.unsent.append(lot.cut(max(lot.first, self.sent), lot.end))


class Outbox:
    """Unstored items of a producer's streams, in order, with a cursor to what was sent.

    Parameters
    ----------
    streams : int
        Number of streams.
    limit : int
        Items that may wait here, sent or not; :attr:`full` beyond it.
    live : bool
        Whether the streams cannot wait: see :meth:`take_in`.

    Attributes
    ----------
    credit : int
        Most items that may be under way, set by the monitor.
    resent : int
        Beats that were sent more than once.
    dropped : int
        Beats of live streams that gave way to newer ones.

    Raises
    ------
    OutboxError
        If the limit leaves no room for a live stream: each needs three items.
    """

    def __init__(self, streams: int, limit: int, *, live: bool = False) -> None:
        if live and limit < 3 * streams:  # one under way, a gap, and the newest
            raise OutboxError(f"{limit} items cannot hold {streams} live streams; expected at least {3 * streams}")
        self._live = live
        self._streams = [_Stream() for _ in range(streams)]
        self._limit = limit
        self._waiting: deque[int] = deque()
        self._queued = [False] * streams
        self.credit = 0
        self.held = 0
        self.under_way = 0
        self.resent = 0
        self.dropped = 0

    @property
    def full(self) -> bool:
        """Whether the source should wait."""
        return self.held >= self._limit

    def stored(self, stream: int) -> int:
        """Position before which everything of a stream is stored."""
        return self._streams[stream].stored

    def offer(self, stream: int, first: int, items: Items, arrivals: NDArray[np.float64]) -> None:
        """Add the next items of a stream; those that are stored already are passed over.

        Parameters
        ----------
        stream : int
        first : int
            Position of the first of ``items``: the stream's items are offered in order, none left out.
        items : Items
        arrivals : ndarray of float64, shape (len(items),)
            When the last sample of each arrived, on the producer's monotonic clock in seconds.
        """
        state = self._streams[stream]
        if first > state.end:
            raise OutboxError(f"stream {stream}: position {first} offered where {state.end} is next")
        lot = _Lot(first, items, arrivals)
        if lot.end <= state.end:
            return
        lot = lot.cut(state.end, lot.end)
        state.end = lot.end
        self.held += len(lot.items)
        if lot.first >= state.sent:
            state.unsent.append(lot)
        else:  # the monitor holds these already from a producer before this one, unstored
            state.place([*state.under_way, *state.unsent, lot])
        self._enqueue(stream)

    def take_in(self, stream: int, items: Items, arrivals: NDArray[np.float64]) -> None:
        """Add the next items of a live stream; where there is no room, older ones of some live stream give way.

        Parameters
        ----------
        stream, items, arrivals
            As :meth:`offer`.
        """
        if not len(items):
            return
        state = self._streams[stream]
        state.unsent.append(_Lot(state.end, items, arrivals))
        state.end += len(items)
        self.held += len(items)
        self._enqueue(stream)
        while self.held > self._limit:
            # the longest backlog gives way, so that a fast stream does not cost a slow one its beats
            self._give_way(max(self._streams, key=lambda state: state.waiting), self.held - self._limit)

    def _give_way(self, state: _Stream, excess: int) -> None:
        """Replace the oldest unsent items by one gap, so that ``excess`` fewer are held if there are as many."""
        going: list[_Lot] = []
        count = min(excess + 1, state.waiting - 1)  # the newest stays
        while count:
            lot = state.unsent.pop(0)
            going.append(lot.cut(lot.first, lot.first + min(count, len(lot.items))))
            if count < len(lot.items):
                state.unsent.insert(0, lot.cut(lot.first + count, lot.end))
            count -= len(going[-1].items)
        table = np.concatenate([lot.items.table for lot in going])
        beats = int(np.count_nonzero(table["kind"] == Kind.BEAT))
        self.dropped += beats
        row = np.zeros(1, ITEM)
        row["kind"], row["rr"], row["rr_ratio"] = Kind.GAP, np.nan, np.nan
        row["seq"] = beats + table["seq"][table["kind"] == Kind.GAP].sum()
        row["sample"] = row["ready"] = table["ready"][-1]
        leads = going[-1].items.windows.shape[1]
        gap = _Lot(going[0].first, Items(row, Items.empty(leads).windows), going[-1].arrivals[-1:])
        gone = len(table) - 1
        state.unsent = [gap, *(replace(lot, first=lot.first - gone) for lot in state.unsent)]
        state.end -= gone
        state.high = state.sent
        self.held -= gone

    def take(self, most: int) -> list[tuple[int, int, Items, NDArray[np.float64]]]:
        """Take what to send now: (stream, first position, items, arrivals), at most ``most`` items.

        Streams take turns, so that a long backlog of one does not hold up the others.
        """
        credit = self.credit
        if self._live:  # a gap and the newest item of every stream find room beside what is under way
            credit = min(credit, self._limit - 2 * len(self._streams))
        room = min(most, credit - self.under_way)
        parts = []
        while room > 0 and self._waiting:
            number = self._waiting.popleft()
            self._queued[number] = False
            state = self._streams[number]
            lot = state.unsent.pop(0)
            start, stop = lot.first, min(lot.end, lot.first + room)
            part = lot.cut(start, stop)
            if stop < lot.end:
                state.unsent.insert(0, lot.cut(stop, lot.end))
            state.under_way.append(part)
            state.sent = stop
            room -= stop - start
            self.under_way += stop - start
            if start < state.high:
                again = part.items[: min(stop, state.high) - start]
                self.resent += len(again.windows)
            state.high = max(state.high, stop)
            parts.append((number, start, part.items, part.arrivals))
            self._enqueue(number)
        return parts

    def confirm(self, stream: int, position: int) -> None:
        """Forget what the monitor has stored.

        Raises
        ------
        OutboxError
            If the monitor says it stored what was never sent to it.
        """
        state = self._streams[stream]
        if position > max(state.high, state.stored):
            raise OutboxError(f"stream {stream}: the monitor confirms position {position}, only {state.high} was sent")
        if position <= state.stored:
            return
        if position > state.sent:
            # After a hello it said that it had less, and by then more was on the way: that need not be sent again.
            self.resume(stream, position, position)
            return
        self.under_way -= position - state.stored
        state.stored = position
        state.end = max(state.end, position)
        while state.under_way and state.under_way[0].end <= position:
            self.held -= len(state.under_way.pop(0).items)
        if self._live and state.under_way and state.under_way[0].first < position:
            lot = state.under_way[0]
            state.under_way[0] = lot.cut(position, lot.end)
            self.held -= position - lot.first

    def resume(self, stream: int, received: int, stored: int) -> bool:
        """Take up a stream where the monitor stands, after a hello.

        Returns
        -------
        bool
            False if the monitor stands before what is still held here (its store was lost): then
            the source has to be read again from its beginning; the outbox has forgotten the stream.
        """
        state = self._streams[stream]
        if self._live:
            self._resume_live(stream, received, stored)
            return True
        if stored < state.stored:
            self.held -= sum(len(lot.items) for lot in (*state.under_way, *state.unsent))
            self.under_way -= state.sent - state.stored
            self._streams[stream] = _Stream(stored=stored, sent=stored, end=stored, high=stored)
            return False
        lots = [*state.under_way, *state.unsent]
        self.held -= sum(len(lot.items) for lot in lots if lot.end <= stored)
        self.under_way -= state.sent - state.stored
        state.stored = stored
        state.sent = max(received, stored)
        state.end = max(state.end, stored)
        state.high = max(state.high, state.sent)
        self.under_way += state.sent - state.stored
        state.place(lots)
        self._enqueue(stream)
        return True

    def _resume_live(self, stream: int, received: int, stored: int) -> None:
        """Take up a stream that cannot be read again, wherever the monitor stands."""
        state = self._streams[stream]
        self.under_way -= state.sent - state.stored
        lots = [*state.under_way, *state.unsent]
        first = lots[0].first if lots else received
        if received < first:
            # The monitor has lost what is not held here: a former process's items, or its store.
            state.move(received - first)
            state.end += received - first
            lots = [*state.under_way, *state.unsent]
        self.held -= sum(min(len(lot.items), max(0, stored - lot.first)) for lot in lots)
        lots = [lot.cut(max(lot.first, stored), lot.end) for lot in lots if lot.end > stored]
        state.stored, state.sent = stored, received
        state.end = max(state.end, received) if lots else received
        state.high = max(state.high, received)
        self.under_way += received - stored
        state.place(lots)
        self._enqueue(stream)

    def _enqueue(self, stream: int) -> None:
        state = self._streams[stream]
        if not self._queued[stream] and state.unsent:
            self._queued[stream] = True
            self._waiting.append(stream)
