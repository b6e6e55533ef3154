"""The producer: reads sources, cuts them into items, and keeps each item until it is stored.

Cutting a record is deterministic.  A producer that restarts cuts it again from the beginning and
skips the items that the monitor already has, so the producer stores no state.
"""

from __future__ import annotations

import heapq
import math
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import structlog

from ecgmon.models.windows import FS
from ecgmon.pipelines import wire
from ecgmon.pipelines.items import Items, Kind
from ecgmon.pipelines.roles.memory import Freed
from ecgmon.pipelines.segmentation.segmenter import SegmentationError, Segmenter
from ecgmon.pipelines.sources import signal_files
from ecgmon.pipelines.sources.errors import SourceError
from ecgmon.pipelines.transport.outbox import Outbox, OutboxError
from ecgmon.pipelines.transport.peer import Peer
from ecgmon.pipelines.transport.rate_limit import RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from ecgmon.pipelines.sources.record import RecordSource
    from ecgmon.pipelines.transport.keys import ConnectionKeys

_log = structlog.get_logger("producer")

_IDLE_MS: Final = 50  # longest sleep of the loop, in milliseconds; also the longest delay of a signal
UNPACED_CHUNK_SECONDS: Final = 60.0
"""Signal per chunk without a pace, in s: long, so that the cost per chunk, here and in the monitor, is negligible."""

_LEAST_UNPACED_SECONDS: Final = 10.0
_UNPACED_TURN_SECONDS: Final = 30_000.0  # signal in one turn over many streams: one second of work for one core

_MESSAGE_ITEMS: Final = 1024  # most items in a message: 1.4 MB of two-lead windows, small enough for prompt answers
_READ_SECONDS: Final = 0.1  # longest reading before the cut items are sent
_TURN_SECONDS: Final = 0.025  # between two groups of paced streams: groups save messages, and no stream waits long
_LATE_SECONDS: Final = 1.0  # a stream that is later than this skips ahead instead of catching up


class ProducerError(Exception):
    """The monitor refuses this producer, or it cannot start; the message says why."""


@dataclass(slots=True, eq=False)
class Feed:
    """One stream that is read, cut and sent.

    Parameters
    ----------
    source : RecordSource
    speed : float
        Multiple of real time; 0 means as fast as possible.
    chunk_seconds : float
        Signal per chunk in s, if the stream has a pace.
    unpaced_seconds : float
        Signal per chunk in s, if it has none.
    live : bool
        Whether the source cannot wait: items that the monitor cannot take are dropped, and nothing is read twice.
    phase : int
        Number among the streams of a producer, so that they read from the disk in turns.
    """

    source: RecordSource
    speed: float
    chunk_seconds: float
    unpaced_seconds: float = UNPACED_CHUNK_SECONDS
    live: bool = False
    phase: int = 0
    segmenter: Segmenter = field(init=False)
    chunks: Iterator[NDArray[np.float32]] = field(init=False)
    position: int = field(init=False, default=0)
    samples: int = field(init=False, default=0)
    due: float = field(init=False, default=0.0)
    done: bool = field(init=False, default=False)
    offset: int = field(init=False, default=0)
    """Sample of the stream at which the segmenter began."""
    _seconds: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Read the source from its beginning again."""
        self._begin(self.source)

    def go_on(self, sample: int) -> None:
        """Read a live source from the next whole second on; an earlier process has sent everything before it.

        Raises
        ------
        ecgmon.pipelines.sources.errors.SourceError
            If the sample is outside the source.
        """
        seconds = math.ceil(sample / self.source.fs)
        start = round(seconds * self.source.fs)
        if self.source.length is not None:
            start = min(start, self.source.length)
        self._begin(self.source.at(start))
        self.offset, self._seconds = start, seconds

    def _begin(self, source: RecordSource) -> None:
        self.segmenter = Segmenter(source.fs, source.leads)
        self.chunks = source.chunks(self.chunk_seconds if self.speed else self.unpaced_seconds, phase=self.phase)
        self.offset = self._seconds = 0
        self.position = self.samples = 0
        self.due = 0.0
        self.done = False

    def advance(self) -> Items:
        """Cut the next chunk into items; sets :attr:`done` with the last ones.

        Raises
        ------
        SourceError
            If the source is truncated; :meth:`finish` still returns the remaining items.
        """
        chunk = next(self.chunks, None)
        if chunk is None:
            return self.finish()
        self.samples += len(chunk)
        return self._placed(self.segmenter.push(chunk))

    def finish(self) -> Items:
        """Return the last items."""
        self.done = True
        return self._placed(self.segmenter.finish())

    def _placed(self, items: Items) -> Items:
        """Count samples and seconds from the stream's beginning if the segmenter started later."""
        if self.offset:
            table = items.table.copy()
            table["sample"] += self.offset
            table["ready"] += self.offset
            table["seq"][table["kind"] == Kind.SECOND] += self._seconds
            items = Items(table, items.windows)
        return items

    def pace(self, now: float) -> None:
        """Set the time at which the next chunk is due."""
        if not self.speed:
            return
        step = self.chunk_seconds / self.speed
        late = now - self.due
        # Whole steps keep the stream in its group.
        self.due += step if late < _LATE_SECONDS else step * math.ceil(late / step)


def unpaced_chunk(streams: int) -> float:
    """Length of a chunk in s for each of ``streams`` streams without a pace.

    A minute; less for thousands of streams, because a stream that waits ten seconds for its turn is reported as stalled.
    """
    return max(_LEAST_UNPACED_SECONDS, min(UNPACED_CHUNK_SECONDS, _UNPACED_TURN_SECONDS / max(1, streams)))


def warm_up() -> None:
    """Compile the code that reads and cuts, before the first stream is announced.

    The first compilation on a machine takes seconds.  A stream that is silent for so long after its
    announcement would raise an alert.
    """
    segmenter = Segmenter(FS, ["MLII", "V1"])
    segmenter.push(np.zeros((2 * FS, 2), np.float32))
    segmenter.finish()
    Segmenter(FS / 2, ["MLII"]).push(np.zeros((FS, 1), np.float32))  # with resampling
    signal_files.warm_up()


class Producer:
    """Sends the items of some sources to the monitor until all of them are stored.

    Parameters
    ----------
    address : str
        ZeroMQ address of the monitor's socket for producers.
    feeds : sequence of Feed
    buffer_items : int
        Unstored items, over all streams, at which reading waits.
    drain_seconds : float
        Longest time to wait for the store after a request to stop.
    keys : ConnectionKeys or None
        Keys, for a monitor on tcp.
    troubles : sequence of (stream, reason)
        Sources that could not be opened; they are reported to the monitor.
    clock : callable
        Monotonic time in seconds.

    Attributes
    ----------
    failed : dict
        Streams that could not be read to their end, and why.
    """

    def __init__(
        self,
        address: str,
        feeds: Sequence[Feed],
        *,
        buffer_items: int,
        drain_seconds: float,
        keys: ConnectionKeys | None = None,
        troubles: Sequence[tuple[str, str]] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._feeds = list(feeds)
        self._clock = clock
        self._rate_limit = RateLimit()
        self._freed = Freed(clock=clock)
        self._drain_seconds = drain_seconds
        self._live = any(feed.live for feed in self._feeds)
        if self._live and not all(feed.live for feed in self._feeds):
            raise ProducerError("live and other sources share one buffer here; give them separate producers")
        try:
            self._outbox = Outbox(len(self._feeds), buffer_items, live=self._live)
        except OutboxError as error:
            raise ProducerError(f"{error} ([producer] buffer_items)") from error
        self.name = secrets.token_hex(4)
        self._segmented = 0
        self._spent = 0.0
        self._greetings = 0
        self._positioned = False  # whether a monitor has sent the positions of the streams
        self._unreported = list(troubles)
        self.failed = dict(troubles)
        self._schedule: list[tuple[float, int]] = []
        self._peer = Peer(address, keys=keys, greeting=self._hello, ping=self._ping, clock=clock)

    def _hello(self) -> list[bytes]:
        self._greetings += 1
        hello = wire.Hello(
            protocol=wire.PROTOCOL,
            producer=self.name,
            streams=[
                wire.StreamInfo(stream=feed.source.stream, fs=feed.source.fs, leads=list(feed.segmenter.leads))
                for feed in self._feeds
            ],
            greeting=self._greetings,
        )
        return [wire.encode(hello)]

    def _ping(self, epoch: int) -> list[bytes]:
        return [wire.encode(wire.ProducerPing(epoch, self._outbox.resent, self._outbox.dropped))]

    def run(self, stopping: Callable[[], bool], turned: Callable[[Callable[[], str]], None] = lambda _: None) -> None:
        """Read and send until everything is stored, or until ``stopping()`` and a drain.

        Parameters
        ----------
        stopping : callable
        turned : callable
            Called at every turn of the loop with a function that returns a status line.

        Raises
        ------
        ProducerError
            If the monitor refuses this producer for good.
        """
        give_up: float | None = None
        while not self._finished(stopped=give_up is not None):
            now = self._clock()
            if give_up is None and stopping():
                give_up = now + self._drain_seconds
                _log.info("draining", unstored=self._outbox.held)
            if give_up is not None and now >= give_up:
                _log.warning(
                    "drain-ended",
                    unstored=self._outbox.held,
                    advice="the next start cuts them again from the source",
                )
                break
            self._peer.tick()
            frames = self._peer.receive(self._wait_ms(now, reading=give_up is None))
            while frames is not None:
                self._handle(frames)
                frames = self._peer.receive(0)
            if self._peer.epoch:
                self._report_troubles()
                if give_up is None:
                    self._read()
                self._send()
            elif self._live and give_up is None:
                self._read()  # a live source goes on while the monitor is away
            self._freed.turned()
            turned(self._status)
        if self._outbox.dropped:
            _log.warning("beats-dropped", beats=self._outbox.dropped)
        if self._peer.epoch:
            self._peer.send(self._ping(self._peer.epoch))  # the final number of resent beats
        self._peer.leave()
        _log.info("stopped", segmented=self._segmented, unstored=self._outbox.held)

    def _status(self) -> str:
        reading = sum(not feed.done for feed in self._feeds)
        away = "" if self._peer.epoch else ", waiting for the monitor"
        return f"{reading} of {len(self._feeds)} streams, {self._segmented} beats, {self._outbox.held} items not stored{away}"

    def close(self) -> None:
        """Close the socket."""
        self._peer.close()

    def _finished(self, *, stopped: bool) -> bool:
        read = stopped or all(feed.done for feed in self._feeds)
        return read and not self._outbox.held and not self._unreported

    def _wait_ms(self, now: float, *, reading: bool) -> int:
        if not reading or not self._schedule:
            return _IDLE_MS
        if not self._live and (not self._peer.epoch or self._outbox.full):
            return _IDLE_MS
        return max(0, min(_IDLE_MS, int((self._schedule[0][0] - now) * 1000)))

    def _handle(self, frames: list[bytes]) -> None:
        try:
            message = wire.decode(wire.to_producer, frames)
        except wire.WireError as error:
            if (more := self._rate_limit.due("message-rejected")) is not None:
                _log.warning("message-rejected", reason=error.reason, detail=str(error), others_since=more)
            return
        if isinstance(message, wire.Welcome):
            self._welcomed(message)
        elif isinstance(message, wire.Stored):
            if message.epoch == self._peer.epoch:
                for stream, position in message.positions:
                    self._outbox.confirm(stream, position)
        elif isinstance(message, wire.Unknown):
            self._peer.greet_again()
        elif isinstance(message, wire.Refused):
            if not message.retry:
                raise ProducerError(f"the monitor refuses this producer: {message.reason}")
            if (more := self._rate_limit.due("refused")) is not None:
                _log.warning("refused", reason=message.reason, others_since=more)
            self._peer.wait_and_greet()

    def _welcomed(self, welcome: wire.Welcome) -> None:
        if self._peer.epoch or welcome.greeting != self._greetings:
            return  # an answer to an older greeting is out of date
        self._peer.welcomed(welcome.epoch, welcome.heartbeat)
        self._outbox.credit = welcome.window
        for number, (feed, received, stored) in enumerate(
            zip(self._feeds, welcome.received, welcome.stored, strict=True)
        ):
            if feed.live and not self._positioned:
                feed.go_on(welcome.samples[number])  # an earlier process may have sent the samples before
            if not self._outbox.resume(number, received, stored):
                _log.warning("stream-restarted", stream=feed.source.stream, reason="the monitor has lost its store")
                feed.restart()
        if not self._positioned:
            self._spread()
        self._positioned = True
        self._schedule = [(feed.due, number) for number, feed in enumerate(self._feeds) if not feed.done]
        heapq.heapify(self._schedule)
        _log.info("joined", streams=len(self._feeds), credit=welcome.window)

    def _spread(self) -> None:
        """Spread paced streams over time in groups, so that they do not wait for each other."""
        now = self._clock()
        for number, feed in enumerate(self._feeds):
            if feed.speed:
                step = feed.chunk_seconds / feed.speed
                turns = max(1, int(step / _TURN_SECONDS))
                feed.due = now + step * (number * turns // len(self._feeds)) / turns

    def _report_troubles(self) -> None:
        for stream, reason in self._unreported:
            self._peer.send([wire.encode(wire.Trouble(self._peer.epoch, stream, reason[: 4 * wire.MAX_TEXT]))])
        self._unreported.clear()

    def _read(self) -> None:
        """Read one chunk of every stream that is due, while there is room, and stop after ``_READ_SECONDS`` to send."""
        until = self._clock() + _READ_SECONDS
        for _ in range(len(self._schedule)):
            now = self._clock()
            if now > until:
                return
            if (self._outbox.full and not self._live) or self._schedule[0][0] > now:
                return
            _, number = heapq.heappop(self._schedule)
            feed = self._feeds[number]
            began = time.thread_time()
            items = self._advance(feed)
            self._spent += time.thread_time() - began
            # Samples of a live source arrived when they were due; the wait since then counts as latency.
            due = max(feed.due, now - _LATE_SECONDS) if feed.live and feed.due else self._clock()
            arrived = np.full(len(items), due)
            if feed.live:
                self._outbox.take_in(number, items, arrived)
            else:
                self._outbox.offer(number, feed.position, items, arrived)
            feed.position += len(items)
            self._segmented += len(items.windows)
            if feed.done:
                continue
            if feed.live or feed.position >= self._outbox.stored(number):
                feed.pace(now)  # chunks that are already stored are skipped without a pace
            # An unpaced stream queues behind the others that are due.
            heapq.heappush(self._schedule, (feed.due if feed.speed else now, number))

    def _advance(self, feed: Feed) -> Items:
        try:
            return feed.advance()
        except (SourceError, SegmentationError) as error:
            stream, reason = feed.source.stream, str(error)
            _log.error("source-failed", stream=stream, reason=reason)
            self.failed[stream] = reason
            self._unreported.append((stream, reason))
            return feed.finish()

    def _send(self) -> None:
        while parts := self._outbox.take(_MESSAGE_ITEMS):
            now = self._clock()
            aged = [
                (stream, first, items, np.maximum(now - arrivals, 0.0).astype(np.float32))
                for stream, first, items, arrivals in parts
            ]
            self._peer.send(wire.pack_deliver(self._peer.epoch, aged, self._spent))
            self._spent = 0.0
