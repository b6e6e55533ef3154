"""From scored items to the store: complete items are committed, then acknowledged, counted and published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import structlog

from ecgmon.monitor.core.outcomes import conclude, observe
from ecgmon.monitor.metrics.latency import LatencyHistogram
from ecgmon.monitor.process.reload import ReloadError
from ecgmon.monitor.store import StoreError
from ecgmon.pipelines.items import Kind

if TYPE_CHECKING:
    from ecgmon.models.weights.checkpoint import ModelInfo
    from ecgmon.monitor.core.commit import Entry
    from ecgmon.monitor.core.exchange import Lot
    from ecgmon.monitor.core.streams import Stream
    from ecgmon.monitor.process.connections import Connection
    from ecgmon.monitor.process.context import Context
    from ecgmon.monitor.process.feed import Feed
    from ecgmon.monitor.process.producers import Producers

_log = structlog.get_logger("monitor")

_ITEMS: Final = 3072  # in one commit; then the loop serves its sockets, before workers run out of beats
_RETRY_SECONDS: Final = 1.0
_DAY: Final = 86_400


class Commits:
    """Commits scored items in the order of their streams.

    Parameters
    ----------
    context : Context
    feed : Feed
        Publishes each commit.
    producers : Producers
        Acknowledges what was committed.

    Attributes
    ----------
    stored, dropped : int
        Beats since the start.
    last : float or None
        Time of the last commit, on the monotonic clock.
    latency : LatencyHistogram
        From the last sample of a window to its commit.
    store_ok : bool
    """

    def __init__(self, context: Context, feed: Feed, producers: Producers) -> None:
        self._context = context
        self._feed = feed
        self._producers = producers
        self._waiting: list[Lot] = []
        self._waiting_since = 0.0
        self._retry_at = 0.0
        self.stored = 0
        self.dropped = 0
        self.last: float | None = None
        self.latency = LatencyHistogram()
        self.store_ok = True

    @property
    def waiting(self) -> bool:
        """Whether scored items are waiting to be stored."""
        return bool(self._waiting)

    def due(self) -> float:
        """Return when the next commit is due, on the monotonic clock."""
        return max(self._waiting_since + self._context.config.store.commit_interval_seconds, self._retry_at)

    def collect(self) -> None:
        """Take from the exchange the scored items that are next in their stream."""
        new = list(self._context.exchange.completed())
        if new and not self._waiting:
            self._waiting_since = self._context.clock()
        self._waiting += new

    def commit(self, *, force: bool = False) -> None:
        """Commit the waiting items if a commit is due, or if ``force``."""
        context = self._context
        now = context.clock()
        if not self._waiting or (not force and now < self.due()):
            return
        lots, rest = (self._waiting, []) if force else _first(self._waiting, _ITEMS)
        self._waiting = rest
        of_stream: dict[str, list[Lot]] = {}
        for lot in lots:
            of_stream.setdefault(lot.stream, []).append(lot)
        streams = [context.streams[name] for name in of_stream]
        arrived = [(stream.rules, own) for stream, own in zip(streams, of_stream.values(), strict=True)]
        # Score the beats of all streams together, which is faster; then apply the rules of each stream to its own
        observed = observe(arrived)
        outcomes = conclude(arrived, observed, observed.score(context.info.score))
        if not self._write([outcome.entry for outcome in outcomes]):
            for stream in streams:
                stream.rules.forget()
            self._waiting = lots + rest
            return
        done = self.last = context.clock()
        wall = context.wall()
        self._feed.read_subscriptions()
        for stream, outcome in zip(streams, outcomes, strict=True):
            stream.commit(outcome)
            self.stored += len(outcome.scores)
            self.dropped += outcome.dropped
            context.instruments.stored(outcome, stream.rate, wall)
            self._announce(stream, outcome.entry)
        self._record_times(lots, done, now)
        self._producers.acknowledge(
            [(stream, sum(len(lot.items) for lot in own)) for stream, (_, own) in zip(streams, arrived, strict=True)]
        )

    def check_stalls(self, now: float) -> None:
        """Raise an alert for each stream that has stopped coming."""
        for stream in self._context.streams.silent(now, self._context.config.alerts.stalled_seconds):
            entry = stream.rules.stalled()
            if self._write([entry]):
                stream.rules.commit(entry)
                stream.stalled = True
                self._feed.read_subscriptions()
                self._announce(stream, entry)
            else:
                stream.rules.forget()

    def change_model(self, info: ModelInfo) -> None:
        """Use the scores of another model from now on.

        Raises
        ------
        ReloadError, StoreError
            If the model cannot be changed now; nothing has changed then.
        """
        context = self._context
        for name, stream in context.streams.items():
            if len(stream.rules.state.leads) < info.leads and not stream.rules.state.ended:
                raise ReloadError(f"the model {info.name} needs {info.leads} leads; stream {name} has fewer")
        if self._waiting:
            raise ReloadError("the model cannot be changed while scores of the present one cannot be stored")
        context.model = context.store.use_model(info.fingerprint, info.name)
        context.info = info
        context.exchange.reset()

    def prune(self) -> None:
        """Delete data older than the retention time."""
        context = self._context
        try:
            deleted = context.store.prune(int(context.wall() - context.config.store.retention_days * _DAY))
        except StoreError as error:
            context.instruments.store_failed()
            _log.error("prune-failed", reason=str(error))
            return
        if deleted:
            context.instruments.pruned(deleted)
            _log.info("pruned", beats=deleted)

    def _write(self, entries: list[Entry]) -> bool:
        context = self._context
        try:
            context.store.write(entries, context.model, int(context.wall()))
        except StoreError as error:
            context.instruments.store_failed()
            self._retry_at = context.clock() + _RETRY_SECONDS
            if self.store_ok:
                _log.error("store-failed", reason=str(error), retry_seconds=_RETRY_SECONDS)
            self.store_ok = False
            return False
        if not self.store_ok:
            _log.info("store-recovered")
        self.store_ok = True
        context.instruments.store_written()
        return True

    def _record_times(self, lots: list[Lot], done: float, began: float) -> None:
        latencies = done - np.concatenate([lot.arrivals[lot.items.table["kind"] == Kind.BEAT] for lot in lots])
        self.latency.add(latencies)
        waited = began - np.array([lot.received for lot in lots if len(lot.ax)])
        self._context.instruments.committed(done - began, latencies, waited)

    def _announce(self, stream: Stream[Connection], entry: Entry) -> None:
        """Log and count the alerts of a commit, and publish what it added to a stream."""
        for alert in entry.alerts:
            raised = alert.end is None
            self._context.instruments.alert(alert.kind.value, alert.priority.value, raised=raised)
            log = _log.warning if raised else _log.info
            log(
                "alert-raised" if raised else "alert-cleared",
                stream=stream.name, number=alert.number, kind=alert.kind.value, priority=alert.priority.value,
                seconds=round(alert.raised if alert.end is None else alert.end, 3), message=alert.message,
            )  # fmt: skip
        self._feed.publish(entry, stream.rate)


def _first(lots: list[Lot], least: int) -> tuple[list[Lot], list[Lot]]:
    """Split lots after the first ones that have at least ``least`` items together."""
    ends = np.cumsum([len(lot.items) for lot in lots])
    count = int(np.searchsorted(ends, least)) + 1
    return lots[:count], lots[count:]
