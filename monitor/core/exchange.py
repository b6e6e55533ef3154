"""Which worker scores which beats, and in which order scored items leave.

Pure: no sockets, no clocks, no store.  Time is an argument, in seconds on any monotonic clock.
The rules it keeps, whatever producers and workers do:

* the items of a stream are taken in the order of their positions, each once (deduplication);
* a beat is with one worker at a time; if that worker fails, leaves or lets its lease run out, the
  beat goes to another, before newer ones (redelivery);
* an answer counts only if it answers a lease that still runs;
* a worker that let a lease run out is overdue: it gets nothing more until it answers, however late,
  and twice the time from then on.  One that hangs delays beats once, one that is slow gets its work done;
* items leave in the order of their positions, when everything up to them is scored (ordering).
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


_MAX_PATIENCE: Final = 64  # leases

_NO_AX: Final = np.empty(0, np.float32)  # of the many lots that hold nothing but seconds
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
        When the last sample of each arrived, in seconds on the monitor's monotonic clock.
    received : float
        When the lot reached the monitor, likewise.
    ax : ndarray of float32, shape (beats,)
        A(x); NaN until scored, and for good where no worker could score the beat.
    ticks : ndarray of float16, shape (beats, 320)
        Squared difference per tick.
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
    """A batch that a worker is to answer before ``deadline``."""

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
        """Windows of the batch, the first leads of each, float32, shape (beats, leads, 320)."""
        parts = [piece.lot.items.windows[piece.start : piece.stop, :leads] for piece in self.pieces]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


@dataclass(slots=True)
class _Worker:
    credit: int
    leases: dict[int, Lease] = field(default_factory=dict)
    patience: int = 1
    """Multiple of the lease that it is given."""
    overdue: bool = False
    """Whether it let a lease run out and has not answered since."""


@dataclass(slots=True)
class _Stream:
    received: int
    lots: list[Lot] = field(default_factory=list)
    """Most often none; a deque would take 600 bytes for that."""


class Exchange:
    """Deduplicates, hands out, takes back and puts in order.

    Parameters
    ----------
    batch_beats : int
        Most beats in a batch.
    lease_seconds : float
        Time that a worker has to answer a batch.
    max_failures : int
        A batch that workers *report* as impossible is tried this often, cut into single beats after
        the first time so that one bad beat does not take its neighbours with it; then its A(x)
        stays NaN.  A worker that dies or hangs is no such report.

    Attributes
    ----------
    redelivered : int
        Beats handed out more than once.
    given_up : int
        Beats that no worker could score.
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
        self.given_up = 0

    # ---- streams

    def open(self, stream: str, stored: int) -> int:
        """Tell the position that a stream's producer should send from.

        Parameters
        ----------
        stream : str
        stored : int
            Position up to which the store holds the stream; counts the first time it is opened.
        """
        return self._streams.setdefault(stream, _Stream(received=stored)).received

    def accept(self, lot: Lot) -> Lot | None:
        """Take items in; what was taken before is passed over.

        Returns
        -------
        Lot or None
            What was new of it.  None if nothing was, or if items before it are missing: see
            :meth:`open` for the position that is expected.
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
        """Take out what is scored and next in its stream, stream by stream, in order."""
        for stream in list(self._complete):
            lots = self._streams[stream].lots
            scored = 0
            while scored < len(lots) and lots[scored].unscored == 0:
                scored += 1
            taken = lots[:scored]
            del lots[:scored]
            yield from taken
        self._complete.clear()

    def put_back(self, lots: list[Lot]) -> None:
        """Return lots that :meth:`completed` gave and that could not be stored, in the same order."""
        for lot in reversed(lots):
            self._streams[lot.stream].lots.insert(0, lot)
            self._complete[lot.stream] = None

    # ---- workers

    def join(self, worker: Hashable, credit: int) -> None:
        """Add a worker that takes ``credit`` batches at a time; one that joins again starts without leases."""
        self.leave(worker)
        self._workers[worker] = _Worker(credit)

    def leave(self, worker: Hashable) -> int:
        """Drop a worker; its unanswered beats go to the front of the queue.  Returns their number."""
        state = self._workers.pop(worker, None)
        if state is None:
            return 0
        return sum(self._requeue(lease) for lease in sorted(state.leases.values(), key=lambda lease: -lease.batch))

    def assign(self, now: float) -> list[Lease]:
        """Hand out queued beats to workers with credit, the least busy first."""
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
            deadline = now + self._lease_seconds * self._workers[name].patience
            lease = Lease(self._next_batch, name, self._take_batch(), now, deadline)
            self._next_batch += 1
            self._workers[name].leases[lease.batch] = lease
            self.queued -= lease.beats
            self.leased += lease.beats
            leases.append(lease)
        return leases

    def lease(self, worker: Hashable, batch: int) -> Lease | None:
        """Find the lease that a worker holds on a batch; None if it holds none (any more)."""
        state = self._workers.get(worker)
        return None if state is None else state.leases.get(batch)

    def answer(self, lease: Lease, ax: NDArray[np.float32], ticks: NDArray[np.float16]) -> None:
        """Take the scores of a running lease.

        Parameters
        ----------
        lease : Lease
            As :meth:`lease` gave it.
        ax : ndarray of float32, shape (beats,)
        ticks : ndarray of float16, shape (beats, 320)
        """
        self._end(lease)
        self.trust(lease.worker)
        at = 0
        for piece in lease.pieces:
            n = len(piece)
            piece.lot.ax[piece.start : piece.stop] = ax[at : at + n]
            piece.lot.ticks[piece.start : piece.stop] = ticks[at : at + n]
            at += n
            self._scored(piece)

    def fail(self, lease: Lease) -> None:
        """Take a worker's report that it could not score a batch."""
        self._end(lease)
        for piece in reversed(lease.pieces):
            if piece.failures + 1 >= self._max_failures:
                self.given_up += len(piece)
                self._scored(piece)
                continue
            for beat in reversed(range(piece.start, piece.stop)):
                self._queue.appendleft(_Piece(piece.lot, beat, beat + 1, piece.failures + 1))
            self.queued += len(piece)
            self.redelivered += len(piece)

    def expire(self, now: float) -> list[Lease]:
        """Take back the batches whose time has run out, and return their leases."""
        late = [lease for state in self._workers.values() for lease in state.leases.values() if lease.deadline <= now]
        for lease in sorted(late, key=lambda lease: -lease.batch):
            state = self._workers[lease.worker]
            state.leases.pop(lease.batch)
            if not state.overdue:
                state.overdue, state.patience = True, min(2 * state.patience, _MAX_PATIENCE)
            self._requeue(lease)
        return late

    def trust(self, worker: Hashable) -> None:
        """Take note that a worker answers, if only too late: it gets work again."""
        if worker in self._workers:
            self._workers[worker].overdue = False

    def set_limits(self, *, batch_beats: int, lease_seconds: float) -> None:
        """Change the limits; leases that run keep theirs."""
        self._batch_beats = batch_beats
        self._lease_seconds = lease_seconds

    def reset(self) -> None:
        """Drop all workers and every answer that was not taken out by :meth:`completed`: another model scores from here on."""
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

    # ---- inside

    def _take_batch(self) -> list[_Piece]:
        pieces: list[_Piece] = []
        room = self._batch_beats
        while room and self._queue:
            piece = self._queue[0]
            if pieces and piece.failures:  # a beat that made a worker fail goes alone
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

    def _scored(self, piece: _Piece) -> None:
        lot = piece.lot
        lot.unscored -= len(piece)
        if lot.unscored == 0 and self._streams[lot.stream].lots[0] is lot:
            self._complete[lot.stream] = None
