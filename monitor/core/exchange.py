"""Assigns beats to workers, and returns scored items in the order of their stream.

Pure: no sockets, no clocks, no store.  Time is an argument, in seconds on any monotonic clock.
These rules hold in spite of any fault of a producer or worker:

* the items of a stream are taken in the order of their positions, each once (deduplication);
* a beat is with one worker at a time; if that worker fails, leaves or lets its lease run out, the
  beat goes to another, before newer ones (redelivery);
* an answer counts only if its lease has not expired;
* a worker whose lease expired is overdue: it gets no more beats until it answers, even if it answers late.
  After that its leases are twice as long.  A worker that hangs therefore delays beats once only, and a slow
  worker still completes its work;
* an item leaves once it and all items before it are scored, in the order of their positions (ordering).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from ecgmon.models.windows import LENGTH

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from numpy.typing import NDArray

    from ecgmon.pipelines.items import Items


_MAX_LEASE_FACTOR: Final = 64  # a slow worker's lease grows up to this multiple

_NO_AX: Final = np.empty(0, np.float32)  # shared, because many lots hold no beats
_NO_TICKS: Final = np.empty((0, LENGTH), np.float16)


@dataclass(slots=True, eq=False)
class Lot:
    """Consecutive items of one stream that arrived together, with the answers to their beats.

    Attributes
    ----------
    stream : str
    first : int
        Position of the first item.
    items : Items
    arrivals : ndarray of float64, shape (items,)
        When the last sample of each item arrived, in seconds on the monitor's monotonic clock.
    received : float
        When the lot reached the monitor, on the same clock.
    ax : ndarray of float32, shape (beats,)
        A(x); NaN until the beat is scored, and permanently if no worker could score it.
    ticks : ndarray of float16, shape (beats, 320)
        Squared difference per tick.
    unscored : int
        Beats that are not scored yet.
    """

    stream: str
    first: int
    items: Items
    arrivals: NDArray[np.float64]
    received: float
    ax: NDArray[np.float32] = field(init=False)
    ticks: NDArray[np.float16] = field(init=False)
    unscored: int = field(init=False)

    def __post_init__(self) -> None:
        self.unscored = beats = len(self.items.windows)
        self.ax = np.full(beats, np.nan, np.float32) if beats else _NO_AX
        self.ticks = np.zeros((beats, LENGTH), np.float16) if beats else _NO_TICKS


@dataclass(slots=True, frozen=True)
class _Piece:
    """Beats ``start`` to ``stop`` of a lot."""

    lot: Lot
    start: int
    stop: int
    failures: int = 0

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(slots=True, eq=False)
class Lease:
    """A batch that a worker must answer before ``deadline``."""

    batch: int
    worker: Hashable
    pieces: list[_Piece]
    assigned: float
    deadline: float

    @property
    def beats(self) -> int:
        """Beats in the batch."""
        return sum(len(piece) for piece in self.pieces)

    def windows(self, leads: int) -> NDArray[np.float32]:
        """Return the first ``leads`` leads of the batch's windows, float32, shape (beats, leads, 320)."""
        parts = [piece.lot.items.windows[piece.start : piece.stop, :leads] for piece in self.pieces]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


@dataclass(slots=True)
class _Worker:
    credit: int
    leases: dict[int, Lease] = field(default_factory=dict)
    lease_factor: int = 1
    """The worker's leases are this many times as long as configured."""
    overdue: bool = False
    """Whether a lease expired and the worker has not answered since."""


@dataclass(slots=True)
class _Stream:
    received: int
    lots: list[Lot] = field(default_factory=list)
    """A list, because it is usually empty and an empty deque takes 600 bytes."""


class Exchange:
    """Assigns beats to workers, removes duplicates and restores the order of items.

    Parameters
    ----------
    batch_beats : int
        Maximum number of beats in a batch.
    lease_seconds : float
        Time in s that a worker has to answer a batch.
    max_failures : int
        Attempts at a batch that workers *report* as failed.  After the first failure the batch is split
        into single beats, so that one bad beat does not affect its neighbours.  After the last one A(x)
        stays NaN.  A worker that dies or hangs does not count as a report.

    Attributes
    ----------
    redelivered : int
        Beats assigned more than once.
    """

    def __init__(self, *, batch_beats: int = 64, lease_seconds: float = 10.0, max_failures: int = 3) -> None:
        self._batch_beats = batch_beats
        self._lease_seconds = lease_seconds
        self._max_failures = max_failures
        self._streams: dict[str, _Stream] = {}
        self._queue: deque[_Piece] = deque()
        self._workers: dict[Hashable, _Worker] = {}
        self._complete: dict[str, None] = {}  # an ordered set
        self._next_batch = 0
        self.queued = 0
        self.leased = 0
        self.redelivered = 0

    # ---- streams

    def open(self, stream: str, stored: int) -> int:
        """Return the position from which a stream's producer should send.

        Parameters
        ----------
        stream : str
        stored : int
            Position up to which the stream is stored; used only the first time that the stream is opened.
        """
        return self._streams.setdefault(stream, _Stream(received=stored)).received

    def accept(self, lot: Lot) -> Lot | None:
        """Accept items; items that were accepted before are ignored.

        Returns
        -------
        Lot or None
            The new items.  None if there are none, or if earlier items are missing: :meth:`open` returns
            the expected position.
        """
        state = self._streams[lot.stream]
        new = state.received - lot.first
        if new < 0 or new >= len(lot.items):
            return None
        if new:
            lot = Lot(lot.stream, state.received, lot.items[new : len(lot.items)], lot.arrivals[new:], lot.received)
        state.received += len(lot.items)
        state.lots.append(lot)
        if lot.unscored:
            self._queue.append(_Piece(lot, 0, lot.unscored))
            self.queued += lot.unscored
        if state.lots[0].unscored == 0:
            self._complete[lot.stream] = None
        return lot

    def completed(self) -> Iterator[Lot]:
        """Remove and yield the scored lots that are next in their streams, stream by stream, in order."""
        for stream in list(self._complete):
            lots = self._streams[stream].lots
            scored = 0
            while scored < len(lots) and lots[scored].unscored == 0:
                scored += 1
            taken = lots[:scored]
            del lots[:scored]
            yield from taken
        self._complete.clear()

    # ---- workers

    def join(self, worker: Hashable, credit: int) -> None:
        """Add a worker that takes ``credit`` batches at a time; one that joins again starts without leases."""
        self.leave(worker)
        self._workers[worker] = _Worker(credit)

    def leave(self, worker: Hashable) -> int:
        """Remove a worker, and move its unanswered beats to the front of the queue.  Returns their number."""
        state = self._workers.pop(worker, None)
        if state is None:
            return 0
        return sum(self._requeue(lease) for lease in sorted(state.leases.values(), key=lambda lease: -lease.batch))

    def assign(self, now: float) -> list[Lease]:
        """Assign queued beats to workers that have credit, the least busy first."""
        leases = []
        while self._queue:
            free = [
                (len(state.leases), name)
                for name, state in self._workers.items()
                if len(state.leases) < state.credit and not state.overdue
            ]
            if not free:
                break
            name = min(free, key=lambda pair: pair[0])[1]
            deadline = now + self._lease_seconds * self._workers[name].lease_factor
            lease = Lease(self._next_batch, name, self._take_batch(), now, deadline)
            self._next_batch += 1
            self._workers[name].leases[lease.batch] = lease
            self.queued -= lease.beats
            self.leased += lease.beats
            leases.append(lease)
        return leases

    def lease(self, worker: Hashable, batch: int) -> Lease | None:
        """Return the lease that a worker holds on a batch; None if there is none or it has expired."""
        state = self._workers.get(worker)
        return None if state is None else state.leases.get(batch)

    def answer(self, lease: Lease, ax: NDArray[np.float32], ticks: NDArray[np.float16]) -> None:
        """Accept the scores of a lease that has not expired.

        Parameters
        ----------
        lease : Lease
            From :meth:`lease`.
        ax : ndarray of float32, shape (beats,)
        ticks : ndarray of float16, shape (beats, 320)
        """
        self._end(lease)
        self.mark_responsive(lease.worker)
        at = 0
        for piece in lease.pieces:
            n = len(piece)
            piece.lot.ax[piece.start : piece.stop] = ax[at : at + n]
            piece.lot.ticks[piece.start : piece.stop] = ticks[at : at + n]
            at += n
            self._mark_scored(piece)

    def fail(self, lease: Lease) -> None:
        """Accept a worker's report that it could not score a batch."""
        self._end(lease)
        for piece in reversed(lease.pieces):
            if piece.failures + 1 >= self._max_failures:
                self._mark_scored(piece)
                continue
            for beat in reversed(range(piece.start, piece.stop)):
                self._queue.appendleft(_Piece(piece.lot, beat, beat + 1, piece.failures + 1))
            self.queued += len(piece)
            self.redelivered += len(piece)

    def expire(self, now: float) -> list[Lease]:
        """Requeue the batches whose lease has expired, and return these leases."""
        late = [lease for state in self._workers.values() for lease in state.leases.values() if lease.deadline <= now]
        for lease in sorted(late, key=lambda lease: -lease.batch):
            state = self._workers[lease.worker]
            state.leases.pop(lease.batch)
            if not state.overdue:
                state.overdue, state.lease_factor = True, min(2 * state.lease_factor, _MAX_LEASE_FACTOR)
            self._requeue(lease)
        return late

    def mark_responsive(self, worker: Hashable) -> None:
        """Record that a worker answered, even if too late: it gets work again."""
        if worker in self._workers:
            self._workers[worker].overdue = False

    def set_limits(self, *, batch_beats: int, lease_seconds: float) -> None:
        """Change the limits; current leases keep theirs."""
        self._batch_beats = batch_beats
        self._lease_seconds = lease_seconds

    def reset(self) -> None:
        """Remove all workers and all answers that :meth:`completed` has not returned, because the model has changed."""
        for name in list(self._workers):
            self.leave(name)
        lots = [lot for state in self._streams.values() for lot in state.lots]
        for lot in lots:
            beats = len(lot.items.windows)
            self.redelivered += beats - lot.unscored
            lot.unscored = beats
            lot.ax[:] = np.nan
        lots.sort(key=lambda lot: lot.received)  # stable: a stream's lots stay in order
        self._queue = deque(_Piece(lot, 0, lot.unscored) for lot in lots if lot.unscored)
        self.queued = sum(map(len, self._queue))
        self._complete = {
            name: None for name, state in self._streams.items() if state.lots and state.lots[0].unscored == 0
        }

    # ---- internal

    def _take_batch(self) -> list[_Piece]:
        pieces: list[_Piece] = []
        room = self._batch_beats
        while room and self._queue:
            piece = self._queue[0]
            if pieces and piece.failures:  # a beat that failed before gets a batch of its own
                break
            self._queue.popleft()
            if len(piece) > room:
                self._queue.appendleft(_Piece(piece.lot, piece.start + room, piece.stop, piece.failures))
                piece = _Piece(piece.lot, piece.start, piece.start + room, piece.failures)
            pieces.append(piece)
            room -= len(piece)
            if piece.failures:
                break
        return pieces

    def _end(self, lease: Lease) -> None:
        self._workers[lease.worker].leases.pop(lease.batch)
        self.leased -= lease.beats

    def _requeue(self, lease: Lease) -> int:
        self._queue.extendleft(reversed(lease.pieces))
        beats = lease.beats
        self.leased -= beats
        self.queued += beats
        self.redelivered += beats
        return beats

    def _mark_scored(self, piece: _Piece) -> None:
        lot = piece.lot
        lot.unscored -= len(piece)
        if lot.unscored == 0 and self._streams[lot.stream].lots[0] is lot:
            self._complete[lot.stream] = None
