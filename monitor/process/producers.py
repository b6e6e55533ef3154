"""The messages of producers, and the monitor's answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import structlog

from ecgmon.monitor.core.admission import refuse_producer
from ecgmon.monitor.core.exchange import Lot
from ecgmon.monitor.core.outcomes import StreamRules
from ecgmon.monitor.core.peers import Producer
from ecgmon.monitor.store import StoreError, StreamChangedError
from ecgmon.pipelines import wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ecgmon.monitor.core.streams import Stream
    from ecgmon.monitor.process.connections import Connection
    from ecgmon.monitor.process.context import Context

_log = structlog.get_logger("monitor")


class Producers:
    """Handles the messages of producers.

    Parameters
    ----------
    context : Context

    Attributes
    ----------
    segmented : int
        Beats received since the start.
    resent : int
        Beats that producers sent more than once.
    first_item : float or None
        Arrival of the first item, on the monotonic clock.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self.segmented = 0
        self.resent = 0
        self.first_item: float | None = None

    def handle(self, peer: Connection, frames: Sequence[bytes | memoryview]) -> None:
        """Handle a message."""
        context = self._context
        try:
            message = wire.decode(wire.from_producer, frames)
            if isinstance(message, wire.Hello):
                self._hello(peer, message)
                return
            producer = context.peers.producers.get(peer)
            if producer is None or message.epoch != context.epoch:
                if not isinstance(message, wire.Bye):
                    context.introduce_again(peer)
                return
            producer.last_seen = context.clock()
            if isinstance(message, wire.Deliver):
                self._deliver(peer, producer, message, frames)
            elif isinstance(message, wire.ProducerPing):
                self._ping(producer, message)
                context.send(peer, [wire.encode(wire.Pong(context.epoch))])
            elif isinstance(message, wire.Trouble):
                self._trouble(peer, message)
            else:
                self.drop(peer, "left")
        except wire.WireError as error:
            context.reject("producer", error)

    def drop(self, peer: Connection, why: str) -> None:
        """Remove a producer."""
        producer = self._context.peers.producers.pop(peer)
        _log.info("producer-gone", producer=producer.name, why=why)

    def drop_silent(self, now: float, limit: float) -> None:
        """Remove producers that have sent nothing for longer than ``limit`` seconds."""
        for peer in self._context.peers.silent_producers(now, limit):
            self.drop(peer, "silent")

    def drop_withdrawn(self) -> None:
        """Remove producers whose key was removed from the client list; their connections stay open but are ignored."""
        for peer, producer in list(self._context.peers.producers.items()):
            if not all(self._context.may_write(peer, stream) for stream in producer.streams):
                self.drop(peer, "key withdrawn")

    def acknowledge(self, committed: Sequence[tuple[Stream[Connection], int]]) -> None:
        """Send each producer the stored positions of its streams.

        Parameters
        ----------
        committed : sequence of (stream, items)
            Streams, each with the number of items just committed.
        """
        context = self._context
        moved: dict[Connection, list[tuple[int, int]]] = {}
        for stream, items in committed:
            peer, number = stream.sender
            producer = context.peers.producers.get(peer)
            if producer is not None:
                producer.under_way -= items
                moved.setdefault(peer, []).append((number, stream.rules.state.position))
        for peer, positions in moved.items():
            context.send(peer, [wire.encode(wire.Stored(context.epoch, positions))])

    def _trouble(self, peer: Connection, message: wire.Trouble) -> None:
        context = self._context
        if not context.may_write(peer, message.stream):
            raise wire.WireError("stream-not-allowed", "trouble of a stream that this key may not write")
        most = context.config.delivery.max_streams
        if message.stream not in context.troubles and len(context.troubles) >= most:
            raise wire.WireError("streams", f"trouble of more than {most} streams")
        context.troubles[message.stream] = message.reason
        context.instruments.source_failed()
        if (more := context.rate_limit.due("source-failed")) is not None:
            _log.error("source-failed", stream=message.stream, reason=message.reason, others_since=more)

    def _hello(self, peer: Connection, hello: wire.Hello) -> None:
        context = self._context
        refused = self._refused(peer, hello)
        if refused is not None:
            if (more := context.rate_limit.due(("refused", peer.client))) is not None:
                _log.warning("producer-refused", producer=hello.producer, reason=refused.reason, others_since=more)
            context.send(peer, [wire.encode(refused)])
            return
        producers, now = context.peers.producers, context.clock()
        for other in context.peers.other_connections(hello.producer, peer):
            if other in producers and other.client == peer.client:
                producers.pop(other)  # the same process over a new connection
        received, stored, samples = [], [], []
        try:
            for number, info in enumerate(hello.streams):
                stream, position = self._opened(peer, number, info, now)
                received.append(position)
                stored.append(stream.rules.state.position)
                samples.append(stream.samples)
        except StoreError as error:
            if (more := context.rate_limit.due("stream-refused")) is not None:
                _log.error("stream-refused", reason=str(error), others_since=more)
            refused = wire.Refused(str(error)[: wire.MAX_TEXT], retry=not isinstance(error, StreamChangedError))
            context.send(peer, [wire.encode(refused)])
            return
        limits = context.config.delivery
        credit = context.peers.grant(limits.queue_items, limits.window_items)
        producers[peer] = Producer(
            hello.producer,
            [info.stream for info in hello.streams],
            [len(info.leads) for info in hello.streams],
            now,
            credit,
            sum(received) - sum(stored),
        )
        _log.info("producer-joined", producer=hello.producer, streams=len(hello.streams))
        welcome = wire.Welcome(
            context.epoch, received, stored, samples, credit, limits.heartbeat_seconds, hello.greeting
        )  # fmt: skip
        context.send(peer, [wire.encode(welcome)])

    def _refused(self, peer: Connection, hello: wire.Hello) -> wire.Refused | None:
        context = self._context
        if foreign := [info.stream for info in hello.streams if not context.may_write(peer, info.stream)]:
            context.instruments.rejected("producer", "stream-not-allowed")
            return wire.Refused(f"this key may not write stream {foreign[0]}", retry=False)
        return refuse_producer(
            hello,
            peer,
            peers=context.peers,
            streams=context.streams,
            limits=context.config.delivery,
            info=context.info,
            same_client=lambda other: other.client == peer.client,
        )

    def _opened(
        self, peer: Connection, number: int, info: wire.StreamInfo, now: float
    ) -> tuple[Stream[Connection], int]:
        """Find or open an announced stream; return it with the position that is expected next."""
        context = self._context
        stream = context.streams.get(info.stream)
        if stream is not None:
            position = context.exchange.open(info.stream, stream.rules.state.position)
            stream.sender, stream.last_seen = (peer, number), now
            return stream, position
        config, store = context.config, context.store
        state = store.open_stream(info.stream, info.fs, info.leads, int(context.wall()))
        rules = StreamRules(state, config.alerts, store.remembered(state), detail=config.store.detail)
        position = context.exchange.open(info.stream, state.position)
        stream = context.streams.open(rules, (peer, number), now, position)
        context.instruments.opened(info.stream, rules.active)
        return stream, position

    def _deliver(
        self, peer: Connection, producer: Producer, message: wire.Deliver, frames: Sequence[bytes | memoryview]
    ) -> None:
        context, now = self._context, producer.last_seen
        if self.first_item is None:
            self.first_item = now
        parts = wire.unpack_deliver(message, frames, producer.leads)
        if producer.under_way + sum(len(items) for items, _ in parts) > producer.credit:
            raise wire.WireError("window", f"more items than the credit of {producer.credit} are under way")
        rewind = False
        for part, (items, ages) in zip(message.parts, parts, strict=True):
            name = producer.streams[part.stream]
            stream = context.streams[name]
            if stream.sender != (peer, part.stream):
                continue  # the stream has moved to another producer
            if stream.ended and part.first + len(items) > stream.received:
                raise wire.WireError("ended", f"stream {name} has ended; nothing can be added to it")
            lot = context.exchange.accept(Lot(name, part.first, items, now - ages.astype(np.float64), now))
            if lot is None:
                rewind = rewind or part.first > context.exchange.open(name, 0)
                continue
            producer.under_way += len(lot.items)
            stream.take(lot, now)
            beats = len(lot.items.windows)
            if beats:
                self.segmented += beats
                context.instruments.segmented(name, beats)
        context.instruments.segmentation_took(message.segment_seconds)
        if rewind:  # earlier items were lost: make the producer ask for the positions of its streams
            context.introduce_again(peer)

    def _ping(self, producer: Producer, ping: wire.ProducerPing) -> None:
        context = self._context
        resent = max(0, ping.resent - producer.resent)
        context.instruments.resent(resent)
        self.resent += resent
        producer.resent = ping.resent
        if ping.dropped > producer.dropped:
            lost = ping.dropped - producer.dropped
            producer.dropped = ping.dropped
            context.instruments.dropped_by_producer(lost)
            if (more := context.rate_limit.due("dropped")) is not None:
                _log.warning("beats-dropped", producer=producer.name, beats=lost, others_since=more)
