"""The messages of workers, and the batches that they get."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from ecgmon.monitor.core.admission import refuse_worker
from ecgmon.monitor.core.alerts import Priority
from ecgmon.monitor.core.peers import Worker
from ecgmon.monitor.process.connections import Connection
from ecgmon.pipelines import wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ecgmon.monitor.process.context import Context

_log = structlog.get_logger("monitor")

_DEVICE_FAILED: Final = "device_failed"  # kind of the alert about workers


class Workers:
    """Handles the messages of workers, and hands out beats to them.

    Parameters
    ----------
    context : Context

    Attributes
    ----------
    scored : int
        Beats scored since the start.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._device_alert = False
        self.scored = 0

    def handle(self, peer: Connection, frames: Sequence[bytes | memoryview]) -> None:
        """Handle a message."""
        context = self._context
        try:
            message = wire.decode(wire.from_worker, frames)
            if isinstance(message, wire.Ready):
                self._join(peer, message)
                return
            worker = context.peers.workers.get(peer)
            if worker is None or message.epoch != context.epoch:
                if not isinstance(message, wire.Bye):
                    context.introduce_again(peer)
                return
            worker.last_seen = context.clock()
            if isinstance(message, wire.Scores):
                self._scores(peer, worker, message, frames)
            elif isinstance(message, wire.Failed):
                self._failed(peer, worker, message)
            elif isinstance(message, wire.WorkerPing):
                context.send(peer, [wire.encode(wire.Pong(context.epoch))])
            else:
                self.drop(peer, "left")
        except wire.WireError as error:
            context.reject("worker", error)

    def hand_out(self) -> None:
        """Send queued beats to workers that have credit."""
        context = self._context
        now = context.clock()
        for lease in context.exchange.assign(now):
            worker = lease.worker
            assert isinstance(worker, Connection)
            context.instruments.handed_out(now - lease.pieces[0].lot.received)
            context.send(worker, wire.pack_batch(context.epoch, lease.batch, lease.windows(context.info.leads)))

    def take_back(self, now: float) -> None:
        """Take back batches that were not answered in time."""
        context = self._context
        for lease in context.exchange.expire(now):
            assert isinstance(lease.worker, Connection)
            if (more := context.rate_limit.due("lease-expired")) is not None:
                worker = context.peers.workers[lease.worker]
                _log.warning("lease-expired", worker=worker.name, beats=lease.beats, others_since=more)

    def drop(self, peer: Connection, why: str) -> None:
        """Remove a worker; its beats go to others."""
        worker = self._context.peers.workers.pop(peer)
        beats = self._context.exchange.leave(peer)
        _log.info("worker-gone", worker=worker.name, why=why, redelivered=beats)

    def drop_silent(self, now: float, limit: float) -> None:
        """Remove workers that have sent nothing for longer than ``limit`` seconds."""
        for peer in self._context.peers.silent_workers(now, limit):
            self.drop(peer, "silent")

    def drop_withdrawn(self) -> None:
        """Remove workers whose key was removed from the client list."""
        for peer in [peer for peer in self._context.peers.workers if not self._context.may_work(peer)]:
            self.drop(peer, "key withdrawn")

    def reset(self) -> None:
        """Remove all workers and ask them to join again, because the model has changed."""
        for peer in list(self._context.peers.workers):
            self.drop(peer, "another model")
            self._context.introduce_again(peer)

    def check_devices(self) -> None:
        """Raise or clear the alert that a worker's GPU has failed; it belongs to no stream."""
        degraded = self._context.peers.degraded()
        if bool(degraded) == self._device_alert:
            return
        self._device_alert = raised = bool(degraded)
        kind, priority = _DEVICE_FAILED, Priority.MEDIUM.value
        self._context.instruments.device_alert(kind, priority, raised=raised)
        log = _log.warning if raised else _log.info
        log("alert-raised" if raised else "alert-cleared", kind=kind, priority=priority, workers=degraded)

    def _join(self, peer: Connection, ready: wire.Ready) -> None:
        context = self._context
        if context.may_work(peer):
            limits, info = context.config.delivery, context.info
            refused = refuse_worker(ready, peer, peers=context.peers, limits=limits, info=info)
        else:
            refused = wire.Refused("this key does not belong to a worker", retry=False)
        if refused is not None:
            if (more := context.rate_limit.due(("refused", peer.client))) is not None:
                _log.warning("worker-refused", worker=ready.worker, reason=refused.reason, others_since=more)
            if peer in context.peers.workers:  # it has changed, and cannot answer the batches that it was given before
                self.drop(peer, "refused")
            context.send(peer, [wire.encode(refused)])
            return
        for other in context.peers.other_connections(ready.worker, peer):
            if other in context.peers.workers and other.client == peer.client:
                self.drop(other, "reconnected")
        context.exchange.join(peer, ready.credit)
        context.peers.workers[peer] = Worker(ready.worker, ready.device, context.clock(), degraded=ready.degraded)
        if ready.degraded:
            _log.error("worker-degraded", worker=ready.worker, device=ready.device, reason=ready.degraded)
        _log.info("worker-joined", worker=ready.worker, device=ready.device, credit=ready.credit)
        context.send(peer, [wire.encode(wire.Accepted(context.epoch, context.config.delivery.heartbeat_seconds))])

    def _scores(
        self, peer: Connection, worker: Worker, message: wire.Scores, frames: Sequence[bytes | memoryview]
    ) -> None:
        context = self._context
        lease = context.exchange.lease(peer, message.batch)
        if lease is None:
            context.exchange.mark_responsive(peer)  # too late: the batch has gone to another worker
            return
        ax, ticks = wire.unpack_scores(frames, lease.beats)
        context.exchange.answer(lease, ax, ticks)
        worker.scored += lease.beats
        self.scored += lease.beats
        context.instruments.answered(lease.beats, worker.device, worker.last_seen - lease.assigned, message.seconds)

    def _failed(self, peer: Connection, worker: Worker, message: wire.Failed) -> None:
        context = self._context
        lease = context.exchange.lease(peer, message.batch)
        if lease is None:
            return
        if (more := context.rate_limit.due("batch-failed")) is not None:
            _log.error(
                "batch-failed", worker=worker.name, beats=lease.beats, reason=message.reason, others_since=more
            )  # fmt: skip
        context.exchange.fail(lease)
