"""The state of streams that is not stored: their senders, the items received, and their status.

Pure: no sockets, no clock and no store.  ``now`` is in seconds on any monotonic clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic

from ecgmon.monitor.core.peers import Peer
from ecgmon.pipelines.items import Kind
from ecgmon.pipelines.limits import RR_REMEMBERED

if TYPE_CHECKING:
    from ecgmon.monitor.core.exchange import Lot
    from ecgmon.monitor.core.outcomes import Outcome, StreamRules


@dataclass(slots=True)
class Stream(Generic[Peer]):
    """A stream that was sent since the start.

    Attributes
    ----------
    rules : StreamRules
        Its stored state, and the rules that process its next items.
    sender : tuple of (peer, int)
        The connection that sends it, and the stream's number in its messages.
    last_seen : float
        When its latest message arrived.
    received : int
        Items received.
    samples : int
        The stream is known up to this sample.
    recent_rr : list of float
        The last RR intervals stored, in s.
    last_score : float
        NaN before the first score.
    stalled : bool
    ended : bool
        Whether its end was received, stored or not.
    """

    rules: StreamRules
    sender: tuple[Peer, int]
    last_seen: float
    received: int
    samples: int
    recent_rr: list[float] = field(default_factory=list)
    last_score: float = math.nan
    stalled: bool = False
    ended: bool = False

    @property
    def name(self) -> str:
        """Its id."""
        return self.rules.state.name

    @property
    def rate(self) -> float:
        """Heart rate over the last intervals, in beats/min; NaN if none is known."""
        return 60 * len(self.recent_rr) / sum(self.recent_rr) if self.recent_rr else math.nan

    def take(self, lot: Lot, now: float) -> None:
        """Record items that have arrived."""
        self.last_seen = now
        self.stalled = False
        self.received += len(lot.items)
        self.samples = max(self.samples, int(lot.items.table["ready"].max()) + 1)
        self.ended = bool(lot.items.table["kind"][-1] == Kind.END)

    def commit(self, outcome: Outcome) -> None:
        """Record that the outcome of some items is stored."""
        self.rules.commit(outcome.entry)
        if not outcome.scores:
            return
        known = [score for score in outcome.scores if not math.isnan(score)]
        if known:
            self.last_score = known[-1]
        rhythm = [beat.rr for beat in outcome.entry.beats[-RR_REMEMBERED:] if not math.isnan(beat.rr)]
        self.recent_rr = [*self.recent_rr, *rhythm][-RR_REMEMBERED:]


class Streams(dict[str, "Stream[Peer]"], Generic[Peer]):
    """The streams that were announced since the start, by id."""

    def open(self, rules: StreamRules, sender: tuple[Peer, int], now: float, received: int) -> Stream[Peer]:
        """Add a stream that is announced for the first time since the start.

        Parameters
        ----------
        rules : StreamRules
            With the stored state.
        sender : tuple of (peer, int)
        now : float
        received : int
            Items of the stream that the exchange has accepted.
        """
        state = rules.state
        samples = math.ceil(state.seconds * state.fs)
        stream = self[state.name] = Stream(rules, sender, now, received, samples, ended=state.ended)
        return stream

    def silent(self, now: float, limit: float) -> list[Stream[Peer]]:
        """Return streams that sent nothing for longer than ``limit`` seconds and are not yet marked as stalled."""
        found = []
        for stream in self.values():
            state = stream.rules.state
            waiting = stream.received > state.position  # its producer may be waiting for credit
            if not (stream.stalled or state.ended or waiting or now - stream.last_seen <= limit):
                found.append(stream)
        return found

    def states(self) -> dict[str, int]:
        """Count streams that are ``running``, ``stalled`` or ``ended``."""
        counts = dict.fromkeys(("running", "stalled", "ended"), 0)
        for stream in self.values():
            counts["ended" if stream.rules.state.ended else "stalled" if stream.stalled else "running"] += 1
        return counts

    def lags(self, now: float) -> dict[str, float]:
        """Return the time since the last message of each stream, in s; 0 for a stream that has ended."""
        return {name: 0.0 if one.rules.state.ended else now - one.last_seen for name, one in self.items()}

    def alerts(self) -> int:
        """Count active alerts."""
        return sum(len(stream.rules.active) for stream in self.values())
