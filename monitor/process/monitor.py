"""The monitor: takes items from producers, has workers score them, stores, alerts, publishes.

One thread runs one loop over its sockets; everything that decides is in :mod:`ecgmon.monitor.core.exchange`,
:mod:`ecgmon.monitor.core.outcomes` and :mod:`ecgmon.monitor.core.alerts`, which know nothing of sockets or clocks.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
import structlog
import zmq

from ecgmon.monitor.core.alerts import Priority
from ecgmon.monitor.core.exchange import Exchange, Lot
from ecgmon.monitor.core.outcomes import Outcome, StreamRules, conclude, observe
from ecgmon.monitor.metrics.histograms import observe_all
from ecgmon.monitor.metrics.latency import LatencyHistogram
from ecgmon.monitor.process import connections as endpoints
from ecgmon.monitor.process.connections import Listener
from ecgmon.monitor.process.reload import ReloadError
from ecgmon.monitor.process.report import FeedAlert, FeedUpdate, Status, StreamStatus, WorkerStatus
from ecgmon.monitor.store import StoreError, StreamChangedError
from ecgmon.pipelines import wire
from ecgmon.pipelines.items import Kind
from ecgmon.pipelines.roles.memory import Freed
from ecgmon.pipelines.transport.rate_limit import RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ecgmon.models.weights.checkpoint import ModelInfo
    from ecgmon.monitor.config.reading import Config
    from ecgmon.monitor.core.commit import Entry
    from ecgmon.monitor.metrics.instruments import Metrics, StreamMetrics
    from ecgmon.monitor.process.authenticator import Authenticator
    from ecgmon.monitor.process.connections import Connection
    from ecgmon.monitor.store import Store

_log = structlog.get_logger("monitor")

_BURST: Final = 256  # messages taken from a socket before the others get their turn
_IDLE_MS: Final = 50  # longest sleep of the loop, in milliseconds: the latency of a signal
_COMMIT_ITEMS: Final = 3072  # items in a commit after which the others get their turn: workers do not run dry meanwhile
_STORE_RETRY_SECONDS: Final = 1.0
_PRUNE_SECONDS: Final = 60.0
_STALL_CHECK_SECONDS: Final = 0.5
_WINDOW_SHARE: Final = 2  # a producer gets at most this fraction (1/n) of the room that is left
_DEVICE_FAILED: Final = "device_failed"  # kind of the alert about workers
_RATE_INTERVALS: Final = 8  # RR intervals in the heart rate, as in the segmenter's rr_ratio


@dataclass(slots=True)
class _Producer:
    name: str
    streams: list[str]
    leads: list[int]
    heard: float
    window: int
    under_way: int
    resent: int = 0
    dropped: int = 0


@dataclass(slots=True)
class _Worker:
    name: str
    device: str
    heard: float
    scored: int = 0
    degraded: str = ""
    """Why it does not compute where it should."""


@dataclass(slots=True)
class _Live:
    """What is known of a stream besides what is stored."""

    rules: StreamRules
    number_of: tuple[Connection, int]
    """Who sends it, and its number there."""
    heard: float
    received: int
    samples: int
    """The stream is known up to this one."""
    shown: StreamMetrics
    recent_rr: list[float] = field(default_factory=list)
    last_score: float = float("nan")
    stalled: bool = False
    ended: bool = False
    """Whether its end was received, stored or not."""

    @property
    def rate(self) -> float:
        """Heart rate over the last intervals, in beats/min."""
        return 60 * len(self.recent_rr) / sum(self.recent_rr) if self.recent_rr else math.nan


class Monitor:
    """The role in the middle.

    Parameters
    ----------
    config : Config
    info : ModelInfo
        The model whose scores are taken: its fingerprint is demanded of workers, its score is the one stored.
    store : Store
    metrics : Metrics
    runtime : Path
        Claimed folder in which the sockets are bound.
    gate : Authenticator or None
        Guard of the tcp addresses of ``[network]``; without one they are not bound.
    clock : callable
        Monotonic time in seconds.
    """

    def __init__(
        self,
        config: Config,
        *,
        info: ModelInfo,
        store: Store,
        metrics: Metrics,
        runtime: Path,
        authenticator: Authenticator | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._info = info
        self._store = store
        self._metrics = metrics
        self._runtime = runtime
        self._clock = clock
        self.epoch = random.SystemRandom().randrange(1, 2**53)
        self._exchange = Exchange(batch_beats=config.delivery.batch_beats, lease_seconds=config.delivery.lease_seconds)
        self._model = store.use_model(info.fingerprint, info.name)
        self._producers: dict[Connection, _Producer] = {}
        self._workers: dict[Connection, _Worker] = {}
        self._streams: dict[str, _Live] = {}
        self._ready_lots: list[Lot] = []
        self._ready_since = 0.0
        self._store_retry_at = 0.0
        self._store_ok = True
        self._stopping: float | None = None
        self._latency = LatencyHistogram()
        self._troubles: dict[str, str] = {}
        self._rate_limit = RateLimit()
        self._freed = Freed(clock=clock)
        self._lately: Counter[Connection] = Counter()
        """Messages since the last housekeeping."""
        self._started = clock()
        self._first_item = self._last_commit = 0.0
        self._beats_stored = 0
        self._lately_stored = (0, clock())
        self._beats_scored = 0
        self._beats_segmented = 0
        self._resent = 0
        self._dropped = 0
        self._seen_redelivered = 0
        self.metrics_url = ""
        self._turned = clock()
        self._device_alert = False

        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

        def bound(kind: int, name: str) -> zmq.Socket[bytes]:
            return endpoints.bind(self._context, kind, endpoints.endpoint(runtime, name))

        self._producer_listeners = [Listener(bound(zmq.ROUTER, endpoints.PRODUCERS))]
        self._worker_listeners = [Listener(bound(zmq.ROUTER, endpoints.WORKERS))]
        self._control_socket = bound(zmq.REP, endpoints.CONTROL)
        self._feed_socket = bound(zmq.XPUB, endpoints.FEED)
        self._topics: set[bytes] = set()
        self._authenticator = authenticator
        if authenticator is not None:
            for role, listeners, address in (
                ("producer", self._producer_listeners, config.network.bind_producers),
                ("worker", self._worker_listeners, config.network.bind_workers),
            ):
                if address:
                    listeners.append(Listener(endpoints.unbound(self._context, zmq.ROUTER), guarded=True))
                    authenticator.bind(self._context, listeners[-1].socket, role, address)
        self._poller = zmq.Poller()
        for listener in (*self._producer_listeners, *self._worker_listeners):
            self._poller.register(listener.socket, zmq.POLLIN)
        self._poller.register(self._control_socket, zmq.POLLIN)
        self._show_model()
        metrics.queue_limit.set(config.delivery.queue_items)

    def reconfigure(self, config: Config, info: ModelInfo) -> None:
        """Go on with another configuration or another model, between two turns of the loop.

        What was scored so far is stored by the old ones.  With another model, beats without a stored score are
        scored again, workers join again when they have it, and producers notice nothing.

        Parameters
        ----------
        config : Config
            With the folders and addresses that this monitor was made with.
        info : ModelInfo

        Raises
        ------
        ReloadError, StoreError
            If that cannot be done now; nothing has changed then.
        """
        self._collect()
        self._commit(force=True)
        if info.fingerprint != self._info.fingerprint:
            self._change_model(info)
        self._config = config
        self._metrics.queue_limit.set(config.delivery.queue_items)
        self._exchange.set_limits(
            batch_beats=config.delivery.batch_beats, lease_seconds=config.delivery.lease_seconds
        )  # fmt: skip
        for live in self._streams.values():
            live.rules.configure(config.alerts, config.store.detail)

    def _change_model(self, info: ModelInfo) -> None:
        for name, live in self._streams.items():
            if len(live.rules.state.leads) < info.leads and not live.rules.state.ended:
                raise ReloadError(f"the model {info.name} takes {info.leads} leads; stream {name} has fewer")
        if self._ready_lots:
            raise ReloadError("the model cannot be changed while what the present one has scored cannot be stored")
        self._model = self._store.use_model(info.fingerprint, info.name)
        self._info = info
        self._exchange.begin_anew()
        for peer in list(self._workers):
            self._drop_worker(peer, "another model")
            self._send(peer, [wire.encode(wire.Unknown(self.epoch))])
        self._show_model()

    def _show_model(self) -> None:
        info = self._info
        self._metrics.model.info(
            {"name": info.name, "fingerprint": info.fingerprint, "leads": str(info.leads), "width": str(info.width)}
        )

    # ---- the loop

    def run(self, stopping: Callable[[], bool], turned: Callable[[Callable[[], str]], None] = lambda _: None) -> None:
        """Serve until ``stopping()`` is true, then finish what is in progress, within the drain bound.

        Parameters
        ----------
        stopping : callable
        turned : callable
            Called at every turn of the loop with a function that says how things stand.
        """
        next_housekeeping = next_prune = 0.0
        while True:
            now = self._clock()
            if self._stopping is None and stopping():
                self._stopping = now + self._config.runtime.drain_seconds
                for listener in self._producer_listeners:
                    self._poller.unregister(listener.socket)  # producers keep what is not stored
                _log.info("draining", queued=self._exchange.queued, leased=self._exchange.leased)
            if self._stopping is not None and (self._drained() or now >= self._stopping):
                break
            events = dict(self._poller.poll(self._poll_ms(now)))
            for listener in self._producer_listeners:
                if listener.socket in events:
                    self._answer(listener, "producer", self._on_producer)
            for listener in self._worker_listeners:
                if listener.socket in events:
                    self._answer(listener, "worker", self._on_worker)
            self._assign()
            self._collect()
            self._commit()
            if self._control_socket in events:
                self._on_control()
            now = self._turned = self._clock()
            turned(self._said)
            if now >= next_housekeeping:
                next_housekeeping = now + _STALL_CHECK_SECONDS
                self._housekeeping(now)
            if self._config.store.retention_days and now >= next_prune:
                next_prune = now + _PRUNE_SECONDS
                self._prune()
        self._commit(force=True)
        _log.info("stopped", stored=self._beats_stored, left=self._exchange.queued + self._exchange.leased)

    def _said(self) -> str:
        """Say in a line how things stand, for ``systemctl status``; called once a second."""
        now, stored = self._clock(), self._beats_stored
        before, at = self._lately_stored
        self._lately_stored = (stored, now)
        rate = (stored - before) / max(now - at, 1e-3)
        alerts = sum(len(live.rules.active) for live in self._streams.values())
        running = sum(not live.rules.state.ended for live in self._streams.values())
        store = "" if self._store_ok else ", the store cannot be written"
        return (
            f"{running} streams, {rate:.0f} beats/s, {alerts} alerts, {len(self._workers)} workers, "
            f"{self._exchange.queued} beats wait{store}"
        )

    def close(self) -> None:
        """Close the sockets and remove their files; what they still hold is sent for a moment."""
        for listener in (*self._producer_listeners, *self._worker_listeners):
            listener.socket.close()
        if self._authenticator is not None:
            self._authenticator.close()
        self._context.destroy(linger=200)
        for name in (endpoints.PRODUCERS, endpoints.WORKERS, endpoints.CONTROL, endpoints.FEED):
            (self._runtime / name).unlink(missing_ok=True)  # ours: the folder's lock is held

    def health(self) -> dict[str, bool]:
        """Conditions of being ready, by name; read by the exporter's threads."""
        # the loop turns at least every 50 ms, but one commit on a slow disk may take its time
        return {
            "alive": self._clock() - self._turned < max(5.0, self._config.delivery.dead_after_seconds),
            "worker": bool(self._workers),
            "store": self._store_ok,
            "serving": self._stopping is None,
        }

    def _drained(self) -> bool:
        busy = self._exchange.leased or (self._exchange.queued and self._workers)
        return not busy and not self._ready_lots

    def _poll_ms(self, now: float) -> int:
        if not self._ready_lots:
            return _IDLE_MS
        due = self._ready_since + self._config.store.commit_interval_seconds
        due = max(due, self._store_retry_at)
        return min(_IDLE_MS, max(0, int((due - now) * 1000)))

    def _answer(
        self, listener: Listener, role: str, handle: Callable[[Connection, list[bytes | memoryview]], None]
    ) -> None:
        """Take what waits at a door, so much that the others get their turn."""
        for _ in range(_BURST):
            if (found := listener.receive()) is None:
                return
            peer, frames = found
            self._lately[peer] += 1
            if self._lately[peer] > self._config.delivery.max_messages_per_second * _STALL_CHECK_SECONDS:
                # An honest peer that was so fast notices, and says again what was lost: see docs/protocol.md.
                self._reject(role, wire.WireError("rate", "more messages in a second than are taken"))
                continue
            handle(peer, frames)

    def _send(self, peer: Connection, frames: Sequence[bytes | memoryview]) -> None:
        if (failed := peer.listener.send(peer, frames)) is not None:
            # The peer has gone; its silence is dealt with in housekeeping, its lease when it runs out.
            _log.debug("peer-unreachable", reason=failed)

    def _reject(self, role: str, error: wire.WireError) -> None:
        self._metrics.rejected.labels(role, error.reason).inc()
        if (more := self._rate_limit.due((role, error.reason))) is not None:
            _log.warning("message-rejected", sender=role, reason=error.reason, detail=str(error), others_since=more)

    # ---- producers

    def _on_producer(self, peer: Connection, frames: Sequence[bytes | memoryview]) -> None:
        try:
            message = wire.decode(wire.from_producer, frames)
            if isinstance(message, wire.Hello):
                self._hello(peer, message)
                return
            producer = self._producers.get(peer)
            if producer is None or message.epoch != self.epoch:
                if not isinstance(message, wire.Bye):
                    self._send(peer, [wire.encode(wire.Unknown(self.epoch))])
                return
            producer.heard = self._clock()
            if isinstance(message, wire.Deliver):
                self._deliver(peer, producer, message, frames)
            elif isinstance(message, wire.ProducerPing):
                self._count_producer(producer, message)
                self._send(peer, [wire.encode(wire.Pong(self.epoch))])
            elif isinstance(message, wire.Trouble):
                self._trouble(peer, message)
            else:
                self._drop_producer(peer, "left")
        except wire.WireError as error:
            self._reject("producer", error)

    def _trouble(self, peer: Connection, message: wire.Trouble) -> None:
        if not self._may_write(peer, message.stream):
            raise wire.WireError("stream-not-allowed", "trouble of a stream that this key may not write")
        if message.stream not in self._troubles and len(self._troubles) >= self._config.delivery.max_streams:
            raise wire.WireError("streams", f"trouble of more than {self._config.delivery.max_streams} streams")
        self._troubles[message.stream] = message.reason
        self._metrics.source_errors.inc()
        if (more := self._rate_limit.due("source-failed")) is not None:
            _log.error("source-failed", stream=message.stream, reason=message.reason, others_since=more)

    def _hello(self, peer: Connection, hello: wire.Hello) -> None:
        refused = self._refuse_hello(peer, hello)
        if refused is not None:
            if (more := self._rate_limit.due(("refused", peer.client))) is not None:
                _log.warning("producer-refused", producer=hello.producer, reason=refused.reason, others_since=more)
            self._send(peer, [wire.encode(refused)])
            return
        now = self._clock()
        for stale in [p for p, known in self._producers.items() if known.name == hello.producer and p != peer]:
            if stale.client == peer.client:
                self._producers.pop(stale)  # the same process over a new connection
        received, stored, samples = [], [], []
        try:
            for number, info in enumerate(hello.streams):
                live = self._streams.get(info.stream)
                if live is None:
                    state = self._store.open_stream(info.stream, info.fs, info.leads, int(time.time()))
                    rules = StreamRules(
                        state, self._config.alerts, self._store.recent(state), detail=self._config.store.detail
                    )
                    position = self._exchange.open(info.stream, state.position)
                    live = self._streams[info.stream] = _Live(
                        rules, (peer, number), now, position, math.ceil(state.seconds * state.fs),
                        self._metrics.of_stream(info.stream), ended=state.ended,
                    )  # fmt: skip
                    for alert in rules.active:
                        self._metrics.alerts_active.labels(alert.kind.value, alert.priority.value).inc()
                else:
                    position = self._exchange.open(info.stream, live.rules.state.position)
                live.number_of = (peer, number)
                live.heard = now
                received.append(position)
                stored.append(live.rules.state.position)
                samples.append(live.samples)
        except StoreError as error:
            if (more := self._rate_limit.due("stream-refused")) is not None:
                _log.error("stream-refused", reason=str(error), others_since=more)
            refused = wire.Refused(str(error)[: wire.MAX_TEXT], retry=not isinstance(error, StreamChangedError))
            self._send(peer, [wire.encode(refused)])
            return
        # Each gets a share of what is left of the monitor's memory, so that nobody ever gets nothing.
        left = self._config.delivery.queue_items - sum(known.window for known in self._producers.values())
        window = max(1, min(self._config.delivery.window_items, left // _WINDOW_SHARE))
        self._producers[peer] = _Producer(
            hello.producer,
            [info.stream for info in hello.streams],
            [len(info.leads) for info in hello.streams],
            now,
            window,
            sum(received) - sum(stored),
        )
        _log.info("producer-joined", producer=hello.producer, streams=len(hello.streams))
        welcome = wire.Welcome(
            self.epoch, received, stored, samples, window, self._config.delivery.heartbeat_seconds, hello.greeting
        )
        self._send(peer, [wire.encode(welcome)])

    def _refuse_hello(self, peer: Connection, hello: wire.Hello) -> wire.Refused | None:
        limits = self._config.delivery
        if foreign := [info.stream for info in hello.streams if not self._may_write(peer, info.stream)]:
            self._metrics.rejected.labels("producer", "stream-not-allowed").inc()
            return wire.Refused(f"this key may not write stream {foreign[0]}", retry=False)
        if hello.protocol != wire.PROTOCOL:
            return wire.Refused(f"protocol {hello.protocol}; this monitor speaks {wire.PROTOCOL}", retry=False)
        names = [info.stream for info in hello.streams]
        if len(set(names)) != len(names):
            return wire.Refused("a stream is named twice", retry=False)
        new = sum(name not in self._streams for name in names)
        if len(self._streams) + new > limits.max_streams:
            return wire.Refused(f"more than {limits.max_streams} streams ([delivery] max_streams)", retry=True)
        if peer not in self._producers and len(self._producers) >= limits.max_producers:
            return wire.Refused(f"more than {limits.max_producers} producers ([delivery] max_producers)", retry=True)
        for info in hello.streams:
            if len(info.leads) < self._info.leads:
                return wire.Refused(
                    f"stream {info.stream} has {len(info.leads)} leads in its windows, the model takes {self._info.leads}",
                    retry=False,
                )
            live = self._streams.get(info.stream)
            if live is not None and not live.rules.state.same(info.fs, info.leads):
                return wire.Refused(f"stream {info.stream} has another sampling frequency or other leads", retry=False)
            if live is None:
                continue
            holder = live.number_of[0]
            owner = self._producers.get(holder)
            if owner is not None and (owner.name, holder.client) != (hello.producer, peer.client):
                return wire.Refused(f"stream {info.stream} is being sent by another producer", retry=True)
        return None

    def _may_write(self, peer: Connection, stream: str) -> bool:
        """Whether a stream is one of the caller's; whoever may enter the runtime folder may write all."""
        if not peer.listener.guarded:
            return True
        client = self._authenticator.client(peer.client) if self._authenticator is not None else None
        return client is not None and client.may_write(stream)

    def _deliver(
        self, peer: Connection, producer: _Producer, message: wire.Deliver, frames: Sequence[bytes | memoryview]
    ) -> None:
        now = producer.heard
        self._first_item = self._first_item or now
        parts = wire.unpack_deliver(message, frames, producer.leads)
        if producer.under_way + sum(len(items) for items, _ in parts) > producer.window:
            raise wire.WireError("window", f"more than the {producer.window} items that were granted are under way")
        rewind = False
        for part, (items, ages) in zip(message.parts, parts, strict=True):
            name = producer.streams[part.stream]
            live = self._streams[name]
            if live.number_of != (peer, part.stream):
                continue  # the stream has moved to another producer
            if live.ended and part.first + len(items) > live.received:
                raise wire.WireError("ended", f"stream {name} has ended; nothing can be added to it")
            lot = self._exchange.accept(Lot(name, part.first, items, now - ages.astype(np.float64), now))
            if lot is None:
                rewind = rewind or part.first > self._exchange.open(name, 0)
                continue
            live.heard = now
            live.stalled = False
            producer.under_way += len(lot.items)
            live.received += len(lot.items)
            live.samples = max(live.samples, int(lot.items.table["ready"].max()) + 1)
            live.ended = bool(lot.items.table["kind"][-1] == Kind.END)
            beats = len(lot.items.windows)
            if beats:
                self._beats_segmented += beats
                live.shown.segmented.inc(beats)
        self._metrics.duration.labels("segment").observe(message.segment_seconds)
        if rewind:  # something before was lost on the way: have the producer ask where the streams stand
            self._send(peer, [wire.encode(wire.Unknown(self.epoch))])

    def _count_producer(self, producer: _Producer, ping: wire.ProducerPing) -> None:
        resent = max(0, ping.resent - producer.resent)
        self._metrics.redelivered.labels("producer").inc(resent)
        self._resent += resent
        producer.resent = ping.resent
        if ping.dropped > producer.dropped:
            lost = ping.dropped - producer.dropped
            producer.dropped = ping.dropped
            self._metrics.producer_dropped.inc(lost)
            if (more := self._rate_limit.due("dropped")) is not None:
                _log.warning("beats-dropped", producer=producer.name, beats=lost, others_since=more)

    def _drop_producer(self, peer: Connection, why: str) -> None:
        producer = self._producers.pop(peer)
        _log.info("producer-gone", producer=producer.name, why=why)

    # ---- workers

    def _on_worker(self, peer: Connection, frames: Sequence[bytes | memoryview]) -> None:
        try:
            message = wire.decode(wire.from_worker, frames)
            if isinstance(message, wire.Ready):
                self._join(peer, message)
                return
            worker = self._workers.get(peer)
            if worker is None or message.epoch != self.epoch:
                if not isinstance(message, wire.Bye):
                    self._send(peer, [wire.encode(wire.Unknown(self.epoch))])
                return
            worker.heard = self._clock()
            if isinstance(message, wire.Scores):
                self._scores(peer, worker, message, frames)
            elif isinstance(message, wire.Failed):
                lease = self._exchange.lease(peer, message.batch)
                if lease is not None:
                    if (more := self._rate_limit.due("batch-failed")) is not None:
                        _log.error(
                            "batch-failed",
                            worker=worker.name,
                            beats=lease.beats,
                            reason=message.reason,
                            others_since=more,
                        )
                    self._exchange.fail(lease)
            elif isinstance(message, wire.WorkerPing):
                self._send(peer, [wire.encode(wire.Pong(self.epoch))])
            else:
                self._drop_worker(peer, "left")
        except wire.WireError as error:
            self._reject("worker", error)

    def _join(self, peer: Connection, ready: wire.Ready) -> None:
        refused, retry = None, False
        if peer.listener.guarded and (
            self._authenticator is None or not self._authenticator.allows("worker", peer.client)
        ):
            refused = "this key may not work here"
        elif ready.protocol != wire.PROTOCOL:
            refused = f"protocol {ready.protocol}; this monitor speaks {wire.PROTOCOL}"
        elif ready.model != self._info.fingerprint:
            refused = f"model {ready.model[:12]}; this monitor takes scores of {self._info.fingerprint[:12]} ({self._info.name})"
            retry = True  # one of us may be about to reload
        elif peer not in self._workers and len(self._workers) >= self._config.delivery.max_workers:
            refused = f"more than {self._config.delivery.max_workers} workers ([delivery] max_workers)"
        if refused is not None:
            if (more := self._rate_limit.due(("refused", peer.client))) is not None:
                _log.warning("worker-refused", worker=ready.worker, reason=refused, others_since=more)
            if peer in self._workers:  # it has changed: what it was given is not for the one that it is now
                self._drop_worker(peer, "refused")
            self._send(peer, [wire.encode(wire.Refused(refused, retry=retry))])
            return
        for stale in [p for p, known in self._workers.items() if known.name == ready.worker and p != peer]:
            if stale.client == peer.client:
                self._drop_worker(stale, "reconnected")
        self._exchange.join(peer, ready.credit)
        self._workers[peer] = _Worker(ready.worker, ready.device, self._clock(), degraded=ready.degraded)
        if ready.degraded:
            _log.error("worker-degraded", worker=ready.worker, device=ready.device, reason=ready.degraded)
        _log.info("worker-joined", worker=ready.worker, device=ready.device, credit=ready.credit)
        self._send(
            peer,
            [wire.encode(wire.Accepted(self.epoch, self._config.delivery.heartbeat_seconds))],
        )

    def _scores(
        self, peer: Connection, worker: _Worker, message: wire.Scores, frames: Sequence[bytes | memoryview]
    ) -> None:
        lease = self._exchange.lease(peer, message.batch)
        if lease is None:
            self._exchange.trust(peer)  # it came too late: the batch has gone to another worker
            return
        errors, ticks = wire.unpack_scores(frames, lease.beats)
        now = worker.heard
        self._exchange.answer(lease, errors, ticks)
        worker.scored += lease.beats
        self._beats_scored += lease.beats
        metrics = self._metrics
        metrics.duration.labels("score").observe(now - lease.assigned)
        metrics.inference.labels(worker.device).observe(message.seconds)
        metrics.batch.observe(lease.beats)

    def _drop_worker(self, peer: Connection, why: str) -> None:
        worker = self._workers.pop(peer)
        beats = self._exchange.leave(peer)
        _log.info("worker-gone", worker=worker.name, why=why, redelivered=beats)

    def _assign(self) -> None:
        now = self._clock()
        for lease in self._exchange.assign(now):
            worker = lease.worker
            assert isinstance(worker, endpoints.Connection)
            self._metrics.duration.labels("queue").observe(now - lease.pieces[0].lot.received)
            self._send(worker, wire.pack_batch(self.epoch, lease.batch, lease.windows(self._info.leads)))

    # ---- the store

    def _collect(self) -> None:
        new = list(self._exchange.completed())
        if new and not self._ready_lots:
            self._ready_since = self._clock()
        self._ready_lots += new

    def _commit(self, *, force: bool = False) -> None:
        now = self._clock()
        if not self._ready_lots or (
            not force
            and (now < self._ready_since + self._config.store.commit_interval_seconds or now < self._store_retry_at)
        ):
            return
        lots, rest = (self._ready_lots, []) if force else _first(self._ready_lots, _COMMIT_ITEMS)
        self._ready_lots = rest
        of_stream: dict[str, list[Lot]] = {}
        for lot in lots:
            of_stream.setdefault(lot.stream, []).append(lot)
        streams = [self._streams[name] for name in of_stream]
        arrived = [(live.rules, own) for live, own in zip(streams, of_stream.values(), strict=True)]
        # The beats of all streams together, which costs less; then each stream's rules over its own
        observed = observe(arrived)
        outcomes = conclude(arrived, observed, observed.score(self._info.score))
        if not self._write([outcome.entry for outcome in outcomes]):
            for live in streams:
                live.rules.forget()
            self._ready_lots = lots + rest
            return
        done = self._last_commit = self._clock()
        self._metrics.duration.labels("commit").observe(done - now)
        wall = time.time()
        self._hear_topics()
        for live, outcome in zip(streams, outcomes, strict=True):
            live.rules.commit(outcome.entry)
            self._note(live, outcome, wall)
        self._note_times(lots, done, now)
        self._acknowledge(
            [(live, sum(len(lot.items) for lot in own)) for live, (_, own) in zip(streams, arrived, strict=True)]
        )

    def _write(self, entries: list[Entry]) -> bool:
        try:
            self._store.write(entries, self._model, int(time.time()))
        except StoreError as error:
            self._metrics.store_errors.inc()
            self._store_retry_at = self._clock() + _STORE_RETRY_SECONDS
            if self._store_ok:
                _log.error("store-failed", reason=str(error), retry_seconds=_STORE_RETRY_SECONDS)
            self._store_ok = False
            return False
        if not self._store_ok:
            _log.info("store-recovered")
        self._store_ok = True
        self._metrics.commits.inc()
        return True

    def _note_times(self, lots: list[Lot], done: float, began: float) -> None:
        """Count how long the beats of a commit took, all of them at once: one by one that costs as much as scoring them."""
        latencies = done - np.concatenate([lot.arrivals[lot.items.table["kind"] == Kind.BEAT] for lot in lots])
        self._latency.add(latencies)
        observe_all(self._metrics.duration.labels("total"), latencies)
        waited = began - np.array([lot.received for lot in lots if len(lot.errors)])
        observe_all(self._metrics.duration.labels("order"), waited)

    def _note(self, live: _Live, outcome: Outcome, wall: float) -> None:
        """Count what has been committed of a stream at a time of day, and tell of it."""
        shown, scores = live.shown, outcome.scores
        if scores:
            self._beats_stored += len(scores)
            shown.stored.inc(len(scores))
            known = [index for index, score in enumerate(scores) if not math.isnan(score)]
            shown.scored.inc(len(known))
            if len(known) < len(scores):
                self._metrics.unscored.inc(len(scores) - len(known))
            if known:
                first = live.rules.state.beats - len(scores)
                observe_all(
                    shown.score,
                    [scores[index] for index in known],
                    lambda index: {"stream": shown.label, "seq": str(first + known[index])},
                )
                live.last_score = scores[known[-1]]
            rhythm = [beat.rr for beat in outcome.entry.beats[-_RATE_INTERVALS:] if not math.isnan(beat.rr)]
            live.recent_rr = [*live.recent_rr, *rhythm][-_RATE_INTERVALS:]
            if live.recent_rr:
                shown.heart_rate.set(live.rate)
        for quality, run in groupby(outcome.seconds):
            shown.quality(quality).inc(len(list(run)))
        if outcome.dropped:
            self._dropped += outcome.dropped
            self._metrics.dropped.labels(shown.label).inc(outcome.dropped)
        shown.last_item.set(wall)
        self._tell(live, outcome.entry)

    def _tell(self, live: _Live, entry: Entry) -> None:
        """Log and count alerts, and publish what is new of a stream, if anybody listens."""
        state = live.rules.state
        for alert in entry.alerts:
            raised = alert.end is None
            labels = (alert.kind.value, alert.priority.value)
            if raised:
                self._metrics.alerts_raised.labels(*labels).inc()
            self._metrics.alerts_active.labels(*labels).inc(1 if raised else -1)
            log = _log.warning if raised else _log.info
            log(
                "alert-raised" if raised else "alert-cleared",
                stream=state.name, number=alert.number, kind=alert.kind.value, priority=alert.priority.value,
                seconds=round(alert.raised if alert.end is None else alert.end, 3), message=alert.message,
            )  # fmt: skip
        if not self._topics:
            return
        update = FeedUpdate(
            stream=state.name,
            seconds=state.seconds,
            beats=[(beat.sample / state.fs, beat.score) for beat in entry.beats],
            rate=live.rate,
            alerts=[FeedAlert.of(alert) for alert in entry.alerts],
            ended=state.ended,
        )
        self._feed_socket.send_multipart([state.name.encode(), msgspec.msgpack.encode(update)], zmq.NOBLOCK)

    def _hear_topics(self) -> None:
        """Learn what is listened to: what nobody listens to need not be said."""
        while True:
            try:
                change = self._feed_socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            if change[:1] == b"\1":
                self._topics.add(change[1:])
            else:
                self._topics.discard(change[1:])

    def _acknowledge(self, committed: list[tuple[_Live, int]]) -> None:
        """Tell each producer how far its streams are safe now."""
        moved: dict[Connection, list[tuple[int, int]]] = {}
        for live, items in committed:
            peer, number = live.number_of
            producer = self._producers.get(peer)
            if producer is not None:
                producer.under_way -= items
                moved.setdefault(peer, []).append((number, live.rules.state.position))
        for peer, positions in moved.items():
            self._send(peer, [wire.encode(wire.Stored(self.epoch, positions))])

    # ---- now and then

    def _housekeeping(self, now: float) -> None:
        dead_after = self._config.delivery.dead_after_seconds
        self._freed.turned()
        self._lately.clear()
        for peer in [p for p, producer in self._producers.items() if now - producer.heard > dead_after]:
            self._drop_producer(peer, "silent")
        for peer in [p for p, worker in self._workers.items() if now - worker.heard > dead_after]:
            self._drop_worker(peer, "silent")
        for lease in self._exchange.expire(now):
            assert isinstance(lease.worker, endpoints.Connection)
            if (more := self._rate_limit.due("lease-expired")) is not None:
                worker = self._workers[lease.worker]
                _log.warning("lease-expired", worker=worker.name, beats=lease.beats, others_since=more)
        if self._authenticator is not None:
            self._authenticator.refresh()
            self._turn_away()
        self._check_devices()
        self._check_stalls(now)
        self._refresh_gauges(now)

    def _turn_away(self) -> None:
        """Drop those whose key has been taken off the list: their connection lasts, their word counts no more."""
        assert self._authenticator is not None
        for peer in [
            p for p in self._workers if p.listener.guarded and not self._authenticator.allows("worker", p.client)
        ]:
            self._drop_worker(peer, "key withdrawn")
        for peer, producer in list(self._producers.items()):
            if not all(self._may_write(peer, stream) for stream in producer.streams):
                self._drop_producer(peer, "key withdrawn")

    def _check_devices(self) -> None:
        """Raise and clear the one alert that is about no stream: a worker's GPU has failed."""
        degraded = {worker.name: worker.degraded for worker in self._workers.values() if worker.degraded}
        if bool(degraded) == self._device_alert:
            return
        self._device_alert = raised = bool(degraded)
        labels = (_DEVICE_FAILED, Priority.MEDIUM.value)
        if raised:
            self._metrics.alerts_raised.labels(*labels).inc()
        self._metrics.alerts_active.labels(*labels).set(int(raised))
        log = _log.warning if raised else _log.info
        log("alert-raised" if raised else "alert-cleared", kind=labels[0], priority=labels[1], workers=degraded)

    def _check_stalls(self, now: float) -> None:
        limit = self._config.alerts.stalled_seconds
        for live in self._streams.values():
            state = live.rules.state
            waiting = live.received > state.position  # the stream is not silent, it waits for us
            if live.stalled or state.ended or waiting or now - live.heard <= limit:
                continue
            entry = live.rules.stalled()
            if self._write([entry]):
                live.rules.commit(entry)
                live.stalled = True
                self._hear_topics()
                self._tell(live, entry)
            else:
                live.rules.forget()

    def _refresh_gauges(self, now: float) -> None:
        metrics, exchange = self._metrics, self._exchange
        metrics.queue.labels("waiting").set(exchange.queued)
        metrics.queue.labels("leased").set(exchange.leased)
        metrics.producers.set(len(self._producers))
        devices = dict.fromkeys(("cpu", "cuda"), 0)
        wall = time.time()
        metrics.worker_seen.clear()
        for worker in self._workers.values():
            devices[worker.device] = devices.get(worker.device, 0) + 1
            metrics.worker_seen.labels(worker.name).set(wall - (now - worker.heard))
        for device, count in devices.items():
            metrics.workers.labels(device).set(count)
        metrics.workers_degraded.set(sum(bool(worker.degraded) for worker in self._workers.values()))
        lags: dict[str, float] = {}
        states = dict.fromkeys(("running", "stalled", "ended"), 0)
        for live in self._streams.values():
            ended = live.rules.state.ended
            states["ended" if ended else "stalled" if live.stalled else "running"] += 1
            label = live.shown.label
            lags[label] = max(lags.get(label, 0.0), 0.0 if ended else now - live.heard)
        for label, lag in lags.items():
            metrics.lag.labels(label).set(lag)
        for state, count in states.items():
            metrics.streams.labels(state).set(count)
        metrics.redelivered.labels("worker").inc(exchange.redelivered - self._seen_redelivered)
        self._seen_redelivered = exchange.redelivered
        metrics.ready.set(all(self.health().values()))

    def _prune(self) -> None:
        try:
            gone = self._store.prune(int(time.time() - self._config.store.retention_days * 86_400))
        except StoreError as error:
            self._metrics.store_errors.inc()
            _log.error("prune-failed", reason=str(error))
            return
        if gone:
            self._metrics.pruned.inc(gone)
            _log.info("pruned", beats=gone)

    # ---- questions

    def _on_control(self) -> None:
        try:
            question = self._control_socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return
        if question == [b"latencies"]:
            self._control_socket.send(self._latency.counts.tobytes())
            return
        if question != [b"status"]:
            self._metrics.rejected.labels("control", "question").inc()
            self._control_socket.send(b"")
            return
        self._control_socket.send(msgspec.msgpack.encode(self.status()))

    def status(self) -> Status:
        """Say how things stand."""
        now = self._clock()
        return Status(
            uptime=now - self._started,
            busy_seconds=max(0.0, self._last_commit - self._first_item),
            model=self._info.name,
            metrics=self.metrics_url,
            producers=len(self._producers),
            workers=[WorkerStatus(w.name, w.device, w.scored, now - w.heard) for w in self._workers.values()],
            queued=self._exchange.queued,
            leased=self._exchange.leased,
            segmented=self._beats_segmented,
            scored=self._beats_scored,
            stored=self._beats_stored,
            redelivered=self._exchange.redelivered + self._resent,
            dropped=self._dropped,
            store_ok=self._store_ok,
            troubles=self._troubles,
            latency_p50=self._latency.quantile(0.5),
            latency_p99=self._latency.quantile(0.99),
            streams={
                name: StreamStatus(
                    beats=live.rules.state.beats,
                    seconds=live.rules.state.seconds,
                    rate=live.rate,
                    last_score=live.last_score,
                    ended=live.rules.state.ended,
                    stalled=live.stalled,
                    active=[FeedAlert.of(alert) for alert in live.rules.active],
                )
                for name, live in self._streams.items()
            },
        )


def _first(lots: list[Lot], least: int) -> tuple[list[Lot], list[Lot]]:
    """Split lots after the first that have so many items together."""
    ends = np.cumsum([len(lot.items) for lot in lots])
    count = int(np.searchsorted(ends, least)) + 1
    return lots[:count], lots[count:]
