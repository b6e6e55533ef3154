"""The monitor's loop: receives messages, hands out beats, commits, acknowledges.

One thread runs it.  :mod:`ecgmon.monitor.core` makes the decisions and has no sockets or clocks.  Other modules of
this package communicate with producers, workers and the store.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

import structlog
import zmq

from ecgmon.monitor.core.exchange import Exchange
from ecgmon.monitor.core.instruments import Gauges
from ecgmon.monitor.core.status import Status, StreamStatus, WorkerStatus
from ecgmon.monitor.process import connections as endpoints
from ecgmon.monitor.process.commits import Commits
from ecgmon.monitor.process.connections import Listener
from ecgmon.monitor.process.context import Context
from ecgmon.monitor.process.control import Control
from ecgmon.monitor.process.feed import Feed
from ecgmon.monitor.process.producers import Producers
from ecgmon.monitor.process.workers import Workers
from ecgmon.pipelines import wire
from ecgmon.pipelines.roles.memory import Freed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ecgmon.models.weights.checkpoint import ModelInfo
    from ecgmon.monitor.config.schema import Config
    from ecgmon.monitor.core.instruments import Instruments
    from ecgmon.monitor.process.authenticator import Authenticator
    from ecgmon.monitor.process.connections import Connection
    from ecgmon.monitor.store import Store

_log = structlog.get_logger("monitor")

_BURST: Final = 256  # most messages received from a socket before the others are served
_IDLE_MS: Final = 50  # longest sleep of the loop in milliseconds: the longest delay of a signal
_PRUNE_SECONDS: Final = 60.0
_HOUSEKEEPING_SECONDS: Final = 0.5


class Monitor:
    """The role between producers and workers.

    Parameters
    ----------
    config : Config
    info : ModelInfo
        The model: workers must have its fingerprint, and its scores are stored.
    store : Store
    instruments : Instruments
    runtime : Path
        Folder in which the sockets are bound; already claimed.
    authenticator : Authenticator or None
        For the tcp addresses of ``[network]``; without one they are not bound.
    reload : callable
        Requests a reload, when a client asks for one.
    clock : callable
        Monotonic time in seconds.
    wall : callable
        Seconds since 1970.
    """

    def __init__(
        self,
        config: Config,
        *,
        info: ModelInfo,
        store: Store,
        instruments: Instruments,
        runtime: Path,
        authenticator: Authenticator | None = None,
        reload: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        limits = config.delivery
        self._runtime = runtime
        self._clock = clock
        self._sockets: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

        def bound(kind: int, name: str) -> zmq.Socket[bytes]:
            return endpoints.bind(self._sockets, kind, endpoints.endpoint(runtime, name))

        self._producer_listeners = [Listener(bound(zmq.ROUTER, endpoints.PRODUCERS))]
        self._worker_listeners = [Listener(bound(zmq.ROUTER, endpoints.WORKERS))]
        control = bound(zmq.REP, endpoints.CONTROL)
        feed = Feed(bound(zmq.XPUB, endpoints.FEED))
        self._authenticator = authenticator
        if authenticator is not None:
            for role, listeners, address in (
                ("producer", self._producer_listeners, config.network.bind_producers),
                ("worker", self._worker_listeners, config.network.bind_workers),
            ):
                if address:
                    listeners.append(Listener(endpoints.unbound(self._sockets, zmq.ROUTER), authenticated=True))
                    authenticator.bind(self._sockets, listeners[-1].socket, role, address)
        self._poller = zmq.Poller()
        for listener in (*self._producer_listeners, *self._worker_listeners):
            self._poller.register(listener.socket, zmq.POLLIN)
        self._poller.register(control, zmq.POLLIN)

        self._context = Context(
            config=config,
            info=info,
            model=store.use_model(info.fingerprint, info.name),
            epoch=random.SystemRandom().randrange(1, 2**53),
            exchange=Exchange(batch_beats=limits.batch_beats, lease_seconds=limits.lease_seconds),
            store=store,
            instruments=instruments,
            authenticator=authenticator,
            clock=clock,
            wall=wall,
        )
        self._producers = Producers(self._context)
        self._workers = Workers(self._context)
        self._commits = Commits(self._context, feed, self._producers)
        self._control = Control(
            control,
            status=self.status,
            latencies=self._latencies,
            reload=reload,
            rejected=lambda: instruments.rejected("control", "question"),
        )
        self._freed = Freed(clock=clock)
        self._messages: Counter[Connection] = Counter()
        """Messages of each peer since the last housekeeping."""
        self._stopping: float | None = None
        self._started = self._last_turn = clock()
        self._last_stored = (0, clock())
        self.metrics_url = ""
        self._show_model()
        instruments.queue_limit(limits.queue_items)

    def reconfigure(self, config: Config, info: ModelInfo) -> None:
        """Switch to another configuration or another model, between two turns of the loop.

        Items that are already scored are stored with the old ones.  With another model, beats without a stored
        score are scored again, workers join again when they have the model, and producers are not affected.

        Parameters
        ----------
        config : Config
            With the folders and addresses of the current one.
        info : ModelInfo

        Raises
        ------
        ReloadError, StoreError
            If the switch is not possible now; nothing has changed then.
        """
        context, limits = self._context, config.delivery
        self._commits.collect()
        self._commits.commit(force=True)
        if info.fingerprint != context.info.fingerprint:
            self._commits.change_model(info)
            self._workers.reset()
            self._show_model()
        context.config = config
        context.instruments.queue_limit(limits.queue_items)
        context.exchange.set_limits(batch_beats=limits.batch_beats, lease_seconds=limits.lease_seconds)
        for stream in context.streams.values():
            stream.rules.configure(config.alerts, config.store.detail)

    def _show_model(self) -> None:
        info = self._context.info
        self._context.instruments.model(
            {"name": info.name, "fingerprint": info.fingerprint, "leads": str(info.leads), "width": str(info.width)}
        )

    def run(self, stopping: Callable[[], bool], turned: Callable[[Callable[[], str]], None] = lambda _: None) -> None:
        """Serve until ``stopping()`` is true, then finish the work in progress within ``drain_seconds``.

        Parameters
        ----------
        stopping : callable
        turned : callable
            Called at every turn of the loop with a function that returns a status line.
        """
        next_housekeeping = next_prune = 0.0
        while True:
            now = self._clock()
            if self._stopping is None and stopping():
                self._stopping = now + self._context.config.runtime.drain_seconds
                for listener in self._producer_listeners:
                    self._poller.unregister(listener.socket)  # producers keep unstored items
                _log.info("draining", queued=self._context.exchange.queued, leased=self._context.exchange.leased)
            if self._stopping is not None and (self._drained() or now >= self._stopping):
                break
            events = dict(self._poller.poll(self._poll_ms(now)))
            for listener in self._producer_listeners:
                if listener.socket in events:
                    self._answer(listener, "producer", self._producers.handle)
            for listener in self._worker_listeners:
                if listener.socket in events:
                    self._answer(listener, "worker", self._workers.handle)
            self._workers.hand_out()
            self._commits.collect()
            self._commits.commit()
            if self._control.socket in events:
                self._control.answer()
            now = self._last_turn = self._clock()
            turned(self._status_line)
            if now >= next_housekeeping:
                next_housekeeping = now + _HOUSEKEEPING_SECONDS
                self._housekeeping(now)
            if self._context.config.store.retention_days and now >= next_prune:
                next_prune = now + _PRUNE_SECONDS
                self._commits.prune()
        self._commits.commit(force=True)
        _log.info(
            "stopped", stored=self._commits.stored, left=self._context.exchange.queued + self._context.exchange.leased
        )

    def _status_line(self) -> str:
        """Return a line for ``systemctl status``; called once a second."""
        now, stored = self._clock(), self._commits.stored
        before, at = self._last_stored
        self._last_stored = (stored, now)
        rate = (stored - before) / max(now - at, 1e-3)
        alerts = self._context.streams.alerts()
        running = sum(not stream.rules.state.ended for stream in self._context.streams.values())
        store = "" if self._commits.store_ok else ", the store cannot be written"
        return (
            f"{running} streams, {rate:.0f} beats/s, {alerts} alerts, {len(self._context.peers.workers)} workers, "
            f"{self._context.exchange.queued} beats queued{store}"
        )

    def close(self) -> None:
        """Close the sockets and remove their files; messages still queued have 200 ms to be sent."""
        for listener in (*self._producer_listeners, *self._worker_listeners):
            listener.socket.close()
        if self._authenticator is not None:
            self._authenticator.close()
        self._sockets.destroy(linger=200)
        for name in (endpoints.PRODUCERS, endpoints.WORKERS, endpoints.CONTROL, endpoints.FEED):
            (self._runtime / name).unlink(missing_ok=True)  # ours: this process holds the lock

    def health(self) -> dict[str, bool]:
        """Return the conditions of readiness by name; called by the exporter's threads."""
        # the loop turns at least every 50 ms, but a commit on a slow disk may take longer
        return {
            "alive": self._clock() - self._last_turn < max(5.0, self._context.config.delivery.dead_after_seconds),
            "worker": bool(self._context.peers.workers),
            "store": self._commits.store_ok,
            "serving": self._stopping is None,
        }

    def _drained(self) -> bool:
        exchange = self._context.exchange
        busy = exchange.leased or (exchange.queued and self._context.peers.workers)
        return not busy and not self._commits.waiting

    def _poll_ms(self, now: float) -> int:
        if not self._commits.waiting:
            return _IDLE_MS
        return min(_IDLE_MS, max(0, int((self._commits.due() - now) * 1000)))

    def _answer(
        self, listener: Listener, role: str, handle: Callable[[Connection, list[bytes | memoryview]], None]
    ) -> None:
        """Handle the messages that wait at a listener, at most ``_BURST`` of them."""
        most = self._context.config.delivery.max_messages_per_second * _HOUSEKEEPING_SECONDS
        for _ in range(_BURST):
            if (found := listener.receive()) is None:
                return
            peer, frames = found
            self._messages[peer] += 1
            if self._messages[peer] > most:
                # A correct peer notices the loss and sends the messages again: see docs/protocol.md.
                self._context.reject(role, wire.WireError("rate", "more messages per second than are allowed"))
                continue
            handle(peer, frames)

    def _housekeeping(self, now: float) -> None:
        dead_after = self._context.config.delivery.dead_after_seconds
        self._freed.turned()
        self._messages.clear()
        self._producers.drop_silent(now, dead_after)
        self._workers.drop_silent(now, dead_after)
        self._workers.take_back(now)
        if self._authenticator is not None:
            self._authenticator.refresh()
            self._workers.drop_withdrawn()
            self._producers.drop_withdrawn()
        self._workers.check_devices()
        self._commits.check_stalls(now)
        context = self._context
        ready = all(self.health().values())
        context.instruments.refresh(
            Gauges.of(
                context.exchange, context.peers, context.streams, now=now, wall=context.wall(), ready=ready
            )
        )  # fmt: skip

    def _latencies(self) -> bytes:
        return self._commits.latency.counts.tobytes()

    def status(self) -> Status:
        """Return the status of the monitor."""
        context, commits, producers, now = self._context, self._commits, self._producers, self._clock()
        busy = 0.0 if commits.last is None or producers.first_item is None else commits.last - producers.first_item
        return Status(
            uptime=now - self._started,
            busy_seconds=max(0.0, busy),
            model=context.info.name,
            fingerprint=context.info.fingerprint,
            metrics=self.metrics_url,
            producers=len(context.peers.producers),
            workers=[WorkerStatus.of(worker, now) for worker in context.peers.workers.values()],
            queued=context.exchange.queued,
            leased=context.exchange.leased,
            segmented=producers.segmented,
            scored=self._workers.scored,
            stored=commits.stored,
            redelivered=context.exchange.redelivered + producers.resent,
            dropped=commits.dropped,
            store_ok=commits.store_ok,
            troubles=context.troubles,
            latency_p50=commits.latency.quantile(0.5),
            latency_p99=commits.latency.quantile(0.99),
            streams={name: StreamStatus.of(stream) for name, stream in context.streams.items()},
        )
