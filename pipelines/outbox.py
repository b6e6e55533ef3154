"""What a producer has cut and the monitor has not stored yet.

Pure: no sockets, no clocks.  The rule it keeps: an item leaves the outbox only when the monitor has
said that it is stored, and no more items are under way than the monitor allows.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipelines.items import Items


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
        part = slice(start - self.first, stop - self.first)
        return _Lot(start, self.items[part], self.arrivals[part])


@dataclass(slots=True)
class _Stream:
    stored: int = 0
    sent: int = 0
    end: int = 0
    high: int = 0
    """One past the highest position ever sent, to tell what is sent again."""
    under_way: deque[_Lot] = field(default_factory=deque)
    unsent: deque[_Lot] = field(default_factory=deque)

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

    Attributes
    ----------
    window : int
        Most items that may be under way, set by the monitor.
    resent : int
        Beats that were sent more than once.
    """

    def __init__(self, streams: int, limit: int) -> None:
        self._streams = [_Stream() for _ in range(streams)]
        self._limit = limit
        self._waiting: deque[int] = deque()
        self._queued = [False] * streams
        self.window = 0
        self.held = 0
        self.under_way = 0
        self.resent = 0

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

    def take(self, most: int) -> list[tuple[int, int, Items, NDArray[np.float64]]]:
        """Take what to send now: (stream, first position, items, arrivals), at most ``most`` items.

        Streams take turns, so that a long backlog of one does not hold up the others.
        """
        room = min(most, self.window - self.under_way)
        parts = []
        while room > 0 and self._waiting:
            number = self._waiting.popleft()
            self._queued[number] = False
            state = self._streams[number]
            lot = state.unsent.popleft()
            start, stop = lot.first, min(lot.end, lot.first + room)
            part = lot.cut(start, stop)
            if stop < lot.end:
                state.unsent.appendleft(lot.cut(stop, lot.end))
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
        if position > max(state.sent, state.stored):
            raise OutboxError(f"stream {stream}: the monitor confirms position {position}, only {state.sent} was sent")
        if position <= state.stored:
            return
        self.under_way -= position - state.stored
        state.stored = position
        state.end = max(state.end, position)
        while state.under_way and state.under_way[0].end <= position:
            self.held -= len(state.under_way.popleft().items)

    def resume(self, stream: int, received: int, stored: int) -> bool:
        """Take up a stream where the monitor stands, after a hello.

        Returns
        -------
        bool
            False if the monitor stands before what is still held here (its store was lost): then
            the source has to be read again from its beginning; the outbox has forgotten the stream.
        """
        state = self._streams[stream]
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

    def _enqueue(self, stream: int) -> None:
        state = self._streams[stream]
        if not self._queued[stream] and state.unsent:
            self._queued[stream] = True
            self._waiting.append(stream)
