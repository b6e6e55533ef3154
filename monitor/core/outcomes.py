"""What the monitor makes of a stream's items once they are scored: rows, alerts and their state.

Runs over the items in their order, each once, so its results depend on the stream alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from ecgmon.models.features import BEATS
from ecgmon.monitor.core.alerts import Alert, AlertEngine, End, Gap, Stalled
from ecgmon.monitor.core.commit import Entry, StoredBeat, StreamState
from ecgmon.pipelines.items import Kind, Quality
from ecgmon.pipelines.scoring import chain
from ecgmon.pipelines.scoring.chain import Chain, Reconstructed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ecgmon.monitor.config.schema import AlertSettings
    from ecgmon.monitor.core.exchange import Lot
    from ecgmon.pipelines.scoring.chain import Observed, ScoredItems

Detail = Literal["none", "anomalous", "all"]
"""Beats to keep with their window; to the anomalous ones belong those that raise an alert."""

_QUALITIES: Final = tuple(Quality)
_BEAT: Final = Kind.BEAT.value  # for every item of every stream: looking into an enumeration takes ten times as long
_SECOND: Final = Kind.SECOND.value
_GAP: Final = Kind.GAP.value
_NEEDED: Final = ("kind", "quality", "flags", "seq", "sample", "rr", "rr_ratio")


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """Items with their scores as plain numbers, which rules take in a fraction of the time that arrays take.

    Attributes
    ----------
    items : list of tuple
        Of each item what :data:`_NEEDED` names.
    ax : list of float
        A(x) of each beat; NaN where it could not be scored.
    scores : list of float
        Likewise.
    detail : callable
        Looks up the window and the ticks of a beat by its place among the beats.
    remembered : list of bytes
        Of each beat, what its stream remembers of it; empty where nobody goes on from there.
    """

    items: list[tuple[Any, ...]]
    ax: list[float]
    scores: list[float]
    detail: Callable[[int], tuple[NDArray[np.float32], NDArray[np.float16]]]
    remembered: list[bytes]

    @classmethod
    def of_observed(cls, observed: Observed, scores: NDArray[np.float32]) -> Self:
        """Turn what was observed and scored, of any number of streams, into plain numbers."""
        return cls(_rows(observed.table), observed.ax.tolist(), scores.tolist(), observed.detail, observed.remembered)

    @classmethod
    def of_items(cls, scored: ScoredItems) -> Self:
        """Turn what the chain answered for one stream into plain numbers."""

        def detail(beat: int) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
            return scored.items.windows[beat], scored.ticks[beat]

        return cls(_rows(scored.items.table), scored.ax.tolist(), scored.score.tolist(), detail, scored.remembered)

    @classmethod
    def of_table(cls, table: NDArray[np.void], ax: NDArray[np.float32], scores: NDArray[np.float32]) -> Self:
        """Turn items, A(x) and scores into plain numbers; for rules that keep no windows (``detail`` is ``none``)."""

        def detail(beat: int) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
            raise LookupError(f"no window was kept of beat {beat}")

        return cls(_rows(table), ax.tolist(), scores.tolist(), detail, [])


def _rows(table: NDArray[np.void]) -> list[tuple[Any, ...]]:
    return list(zip(*(table[name].tolist() for name in _NEEDED), strict=True))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What some lots of a stream came to.

    Attributes
    ----------
    entry : Entry
        For the store.
    scores : list of float
        Of its beats; NaN where a beat could not be scored.
    seconds : list of Quality
        Quality of every second that passed.
    dropped : int
        Beats that the source dropped.
    """

    entry: Entry
    scores: list[float]
    seconds: list[Quality]
    dropped: int


def observe(arrived: Sequence[tuple[StreamRules, Sequence[Lot]]]) -> Observed:
    """Take the next lots of some streams, which must be complete, and in order within each, through the chain."""
    return chain.observe(
        [(rules.chain, [Reconstructed(lot.items, lot.ax, lot.ticks) for lot in lots]) for rules, lots in arrived]
    )


def conclude(
    arrived: Sequence[tuple[StreamRules, Sequence[Lot]]], observed: Observed, scores: NDArray[np.float32]
) -> list[Outcome]:
    """Run each stream's rules over what was observed, with the scores of the beats, shape (beats,); one for each stream."""
    outcomes: list[Any] = [None] * len(arrived)
    scored = ScoredRows.of_observed(observed, scores)
    item = beat = 0
    for number, (last_item, last_beat) in zip(observed.order, observed.ends, strict=True):
        outcomes[number] = arrived[number][0].conclude(scored, slice(item, last_item), slice(beat, last_beat))
        item, beat = last_item, last_beat
    return outcomes


class Rules:
    """From the scored items of one stream to its rows and alerts: the one way, for the daemon and offline.

    Parameters
    ----------
    state : StreamState
        Where the stream stands.
    settings : AlertSettings
    detail : Detail
    """

    __slots__ = ("_detail_from", "_settings", "engine", "state")

    def __init__(self, state: StreamState, settings: AlertSettings, *, detail: Detail = "anomalous") -> None:
        self.state = state
        self.configure(settings, detail)

    def _restored(self, state: StreamState) -> AlertEngine:
        return AlertEngine.restore(state.rules, self._settings) if state.rules else AlertEngine(self._settings)

    def configure(self, settings: AlertSettings, detail: Detail) -> None:
        """Go on by other rules, between two commits; alerts that are active stay so until the new rules clear them."""
        self._settings = settings
        self._detail_from = {"none": math.inf, "anomalous": settings.score_threshold, "all": -math.inf}[detail]
        self.engine = self._restored(self.state)

    def forget(self) -> None:
        """Go back to the last committed state: what was made of later items could not be stored."""
        self.engine = self._restored(self.state)

    def commit(self, entry: Entry) -> None:
        """Take note that an entry is in the store."""
        self.state = entry.state

    @property
    def active(self) -> tuple[Alert, ...]:
        """Alerts raised and not cleared."""
        return self.engine.active

    def stalled(self) -> Entry:
        """Say that the stream has stopped coming."""
        alerts = self.engine.feed(Stalled(self.state.seconds))
        return Entry(replace(self.state, rules=self.engine.snapshot()), [], alerts=alerts)

    def conclude(self, scored: ScoredRows, items: slice | None = None, own: slice | None = None) -> Outcome:
        """Run over the stream's next items: those of ``scored``, or its part of them, with the beats among them.

        What is concluded is the stream's next state only once :meth:`commit` is told of it.
        """
        items = slice(0, len(scored.items)) if items is None else items
        own = slice(0, len(scored.scores)) if own is None else own
        state = self.state
        rows: list[StoredBeat] = []
        details: list[tuple[int, NDArray[np.float32], NDArray[np.float16]]] = []
        alerts: list[Alert] = []
        seconds: list[Quality] = []
        runs = [] if state.run is None else [state.run]
        n_runs = len(runs)
        seq, time, ended, dropped = state.beats, state.seconds, state.ended, 0
        fs = state.fs
        detail_from = self._detail_from

        def raising(changes: list[Alert]) -> bool:
            return detail_from < math.inf and any(change.end is None for change in changes)

        beat = own.start
        feed, feed_beat, feed_second = self.engine.feed, self.engine.beat, self.engine.second
        everything = detail_from == -math.inf
        ax, scores = scored.ax, scored.scores
        # Run for every item of every stream: a name is looked up once, and nothing is made of an answer that is empty
        for kind, quality, flags, number, sample, rr, rr_ratio in scored.items[items]:
            at = sample / fs
            if kind == _BEAT:
                score = scores[beat]
                changes = feed_beat(seq, at, rr, score, _QUALITIES[quality])
                rows.append(StoredBeat(seq, sample, rr, rr_ratio, quality, flags, ax[beat], score))
                if score >= detail_from or everything or (changes and raising(changes)):
                    details.append((seq, *scored.detail(beat)))
                seq += 1
                beat += 1
            elif kind == _SECOND:
                at += 1.0
                changes = feed_second(at, _QUALITIES[quality])
                seconds.append(_QUALITIES[quality])
                if runs and runs[-1][2] == quality and runs[-1][0] + runs[-1][1] == number:
                    runs[-1] = (runs[-1][0], runs[-1][1] + 1, quality)
                else:
                    runs.append((number, 1, quality))
            elif kind == _GAP:
                dropped += number
                changes = feed(Gap(number, at))
                at = time
            else:
                ended = True
                time = max(time, at)
                changes = feed(End(time))
            if at > time:  # noqa: PLR1730 - max() takes several times as long
                time = at
            if changes:
                alerts += changes

        after = StreamState(
            state.id, state.name, state.fs, state.leads, state.position + items.stop - items.start, seq, time, ended,
            self.engine.snapshot(), runs[-1] if runs else None,
        )  # fmt: skip
        if n_runs and runs[0] == state.run:
            runs = runs[1:]
        recent = scored.remembered[max(own.start, own.stop - BEATS) : own.stop]
        return Outcome(Entry(after, rows, details, alerts, runs, recent), list(scores[own]), seconds, dropped)


class StreamRules(Rules):
    """The running state of one stream of the daemon: its rules, and the chain that scores its beats.

    Parameters
    ----------
    state : StreamState
        Where the store stands.
    settings : AlertSettings
    recent : sequence of bytes
        What the store remembers of the stream's last beats, oldest first.
    detail : Detail
    """

    __slots__ = ("chain",)

    def __init__(
        self,
        state: StreamState,
        settings: AlertSettings,
        recent: Sequence[bytes] = (),
        *,
        detail: Detail = "anomalous",
    ) -> None:
        super().__init__(state, settings, detail=detail)
        self.chain = Chain(len(state.leads), recent)

    def forget(self) -> None:
        """Go back to the last committed state: what was made of later items could not be stored."""
        super().forget()
        self.chain.forget()

    def commit(self, entry: Entry) -> None:
        """Take note that an entry is in the store."""
        super().commit(entry)
        self.chain.keep()


def latest(alerts: Iterable[Alert]) -> list[Alert]:
    """Give each alert of one stream as it was last seen, in the order in which they were raised."""
    return list({alert.number: alert for alert in alerts}.values())
