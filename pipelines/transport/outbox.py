"""Items that a producer has cut and the monitor has not stored yet.

This module uses no sockets and no clocks.  An item leaves the outbox only after the monitor has
confirmed that it is stored.  Never more items are under way than the monitor allows.

A live source cannot wait.  If the outbox is full, the oldest unsent items are dropped, and one item
of kind GAP takes their place with the number of dropped beats.  The remaining items are renumbered,
so that the positions of a stream have no holes.
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
    """A confirmation or an offer contradicts the state of the outbox."""


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
            return self  # the usual case; counting the beats of a slice takes as long as all other steps together
        part = slice(start - self.first, stop - self.first)
        return _Lot(start, self.items[part], self.arrivals[part])


@dataclass(slots=True)
class _Stream:
    stored: int = 0
    sent: int = 0
    end: int = 0
    high: int = 0
    """One past the highest position ever sent; items before it count as resent."""
    under_way: list[_Lot] = field(default_factory=list)  # lists: an empty deque takes 600 bytes
    unsent: list[_Lot] = field(default_factory=list)

    @property
    def waiting(self) -> int:
        """Number of items to send, for the first time or again."""
        return sum(len(lot.items) for lot in self.unsent)

    def renumber(self, by: int) -> None:
        """Add ``by`` to the positions of all held items."""
        self.under_way = [replace(lot, first=lot.first + by) for lot in self.under_way]
        self.unsent = [replace(lot, first=lot.first + by) for lot in self.unsent]

    def place(self, lots: list[_Lot]) -> None:
        """Sort lots into sent and unsent ones, and cut the lot that is partly sent."""
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
    """Unstored items of a producer's streams, in order.

    Parameters
    ----------
    streams : int
        Number of streams.
    limit : int
        Number of items, sent or unsent, at which the outbox is :attr:`full`.
    live : bool
        Whether the sources are live and cannot wait: see :meth:`take_in`.

    Attributes
    ----------
    credit : int
        Most items that may be under way, set by the monitor.
    resent : int
        Beats that were sent more than once.
    dropped : int
        Beats of live streams that were dropped for newer ones.

    Raises
    ------
    OutboxError
        If the limit is too small for the live streams: each needs three items.
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
        """Add the next items of a stream; items that are already stored are skipped.

        Parameters
        ----------
        stream : int
        first : int
            Position of the first of ``items``.  Items must be offered in order and without gaps.
        items : Items
        arrivals : ndarray of float64, shape (len(items),)
            Time at which the last sample of each item arrived, in seconds on the producer's monotonic clock.
        """
        state = self._streams[stream]
        if first > state.end:
            raise OutboxError(f"stream {stream}: position {first} was offered, expected {state.end}")
        lot = _Lot(first, items, arrivals)
        if lot.end <= state.end:
            return
        lot = lot.cut(state.end, lot.end)
        state.end = lot.end
        self.held += len(lot.items)
        if lot.first >= state.sent:
            state.unsent.append(lot)
        else:  # an earlier producer has sent these; the monitor holds them but has not stored them
            state.place([*state.under_way, *state.unsent, lot])
        self._enqueue(stream)

    def take_in(self, stream: int, items: Items, arrivals: NDArray[np.float64]) -> None:
        """Add the next items of a live stream; drop older items of the live streams if there is no room.

        Parameters
        ----------
        stream, items, arrivals
            As in :meth:`offer`.
        """
        if not len(items):
            return
        state = self._streams[stream]
        state.unsent.append(_Lot(state.end, items, arrivals))
        state.end += len(items)
        self.held += len(items)
        self._enqueue(stream)
        while self.held > self._limit:
            # Drop from the longest backlog, so that a fast stream does not displace the beats of a slow one.
            self._drop_oldest(max(self._streams, key=lambda state: state.waiting), self.held - self._limit)

    def _drop_oldest(self, state: _Stream, excess: int) -> None:
        """Replace the oldest unsent items with one gap, so that up to ``excess`` fewer items are held."""
        dropped: list[_Lot] = []
        count = min(excess + 1, state.waiting - 1)  # the newest stays
        while count:
            lot = state.unsent.pop(0)
            dropped.append(lot.cut(lot.first, lot.first + min(count, len(lot.items))))
            if count < len(lot.items):
                state.unsent.insert(0, lot.cut(lot.first + count, lot.end))
            count -= len(dropped[-1].items)
        table = np.concatenate([lot.items.table for lot in dropped])
        beats = int(np.count_nonzero(table["kind"] == Kind.BEAT))
        self.dropped += beats
        row = np.zeros(1, ITEM)
        row["kind"], row["rr"], row["rr_ratio"] = Kind.GAP, np.nan, np.nan
        row["seq"] = beats + table["seq"][table["kind"] == Kind.GAP].sum()
        row["sample"] = row["ready"] = table["ready"][-1]
        leads = dropped[-1].items.windows.shape[1]
        gap = _Lot(dropped[0].first, Items(row, Items.empty(leads).windows), dropped[-1].arrivals[-1:])
        removed = len(table) - 1
        state.unsent = [gap, *(replace(lot, first=lot.first - removed) for lot in state.unsent)]
        state.end -= removed
        state.high = state.sent
        self.held -= removed

    def take(self, most: int) -> list[tuple[int, int, Items, NDArray[np.float64]]]:
        """Take the items to send now: (stream, first position, items, arrivals), at most ``most`` items.

        Streams take turns, so that a long backlog of one stream does not delay the others.
        """
        credit = self.credit
        if self._live:  # keep room for a gap and the newest item of every stream
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
        """Remove the items that the monitor has stored.

        Raises
        ------
        OutboxError
            If the monitor confirms items that were never sent.
        """
        state = self._streams[stream]
        if position > max(state.high, state.stored):
            raise OutboxError(f"stream {stream}: the monitor confirms position {position}, only {state.high} was sent")
        if position <= state.stored:
            return
        if position > state.sent:
            # Items were still on their way when the monitor answered the hello: they need not be sent again.
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
        """Continue a stream at the monitor's position, after a hello.

        Returns
        -------
        bool
            False if the monitor's position is before the items held here because its store was lost.
            The outbox is then empty, and the source must be read again from its beginning.
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
        """Continue a stream that cannot be read again, at any position of the monitor."""
        state = self._streams[stream]
        self.under_way -= state.sent - state.stored
        lots = [*state.under_way, *state.unsent]
        first = lots[0].first if lots else received
        if received < first:
            # The monitor has lost items that are not held here: those of an earlier process, or its store.
            state.renumber(received - first)
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
