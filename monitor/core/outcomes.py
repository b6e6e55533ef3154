"""Turns the scored items of a stream into rows for the store, alerts and the stream's new state.

Each item is processed once, in order, so the results depend only on the stream.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from ecgmon.models.score.history import latest_rows
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
"""Beats whose window is kept; ``anomalous`` includes beats that raise an alert."""

_QUALITIES: Final = tuple(Quality)
_BEAT: Final = Kind.BEAT.value  # read for every item of every stream; an attribute of an enum takes ten times as long
_SECOND: Final = Kind.SECOND.value
_GAP: Final = Kind.GAP.value
_COLUMNS: Final = ("kind", "quality", "flags", "seq", "sample", "rr", "rr_ratio")


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """Items with their scores as plain numbers, because the rules process these much faster than arrays.

    Attributes
    ----------
    items : list of tuple
        The columns :data:`_COLUMNS` of each item.
    ax : list of float
        A(x) of each beat; NaN if it could not be scored.
    scores : list of float
        Score of each beat; NaN if it could not be scored.
    detail : callable
        Returns the window and the ticks of a beat, by its index among the beats.
    remembered : list of bytes
        History record of each beat; empty if the stream is not continued later.
    """

    items: list[tuple[Any, ...]]
    ax: list[float]
    scores: list[float]
    detail: Callable[[int], tuple[NDArray[np.float32], NDArray[np.float16]]]
    remembered: list[bytes]

    @classmethod
    def of_observed(cls, observed: Observed, scores: NDArray[np.float32]) -> Self:
        """Convert observed and scored items of any number of streams."""
        return cls(_rows(observed.table), observed.ax.tolist(), scores.tolist(), observed.detail, observed.remembered)

    @classmethod
    def of_items(cls, scored: ScoredItems) -> Self:
        """Convert the chain's result for one stream."""

        def detail(beat: int) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
            return scored.items.windows[beat], scored.ticks[beat]

        return cls(_rows(scored.items.table), scored.ax.tolist(), scored.score.tolist(), detail, scored.remembered)

    @classmethod
    def of_table(cls, table: NDArray[np.void], ax: NDArray[np.float32], scores: NDArray[np.float32]) -> Self:
        """Convert items, A(x) and scores; for rules that keep no windows (``detail`` is ``none``)."""

        def detail(beat: int) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
            raise LookupError(f"no window was kept of beat {beat}")

        return cls(_rows(table), ax.tolist(), scores.tolist(), detail, [])


def _rows(table: NDArray[np.void]) -> list[tuple[Any, ...]]:
    return list(zip(*(table[name].tolist() for name in _COLUMNS), strict=True))


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of some lots of a stream.

    Attributes
    ----------
    entry : Entry
        For the store.
    scores : list of float
        Scores of its beats; NaN if a beat could not be scored.
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
    """Run the chain over the next lots of some streams; they must be scored, and in order within each stream."""
    return chain.observe(
        [(rules.chain, [Reconstructed(lot.items, lot.ax, lot.ticks) for lot in lots]) for rules, lots in arrived]
    )


def conclude(
    arrived: Sequence[tuple[StreamRules, Sequence[Lot]]], observed: Observed, scores: NDArray[np.float32]
) -> list[Outcome]:
    """Run each stream's rules over observed items and their scores, shape (beats,); returns one outcome per stream."""
    outcomes: list[Any] = [None] * len(arrived)
    scored = ScoredRows.of_observed(observed, scores)
    item = beat = 0
    for number, (last_item, last_beat) in zip(observed.order, observed.ends, strict=True):
        outcomes[number] = arrived[number][0].conclude(scored, slice(item, last_item), slice(beat, last_beat))
        item, beat = last_item, last_beat
    return outcomes


class Rules:
    """Turns the scored items of one stream into rows and alerts, for the daemon and offline.

    Parameters
    ----------
    state : StreamState
        State of the stream.
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
        """Change the rules between two commits; active alerts stay active until the new rules clear them."""
        self._settings = settings
        self._detail_from = {"none": math.inf, "anomalous": settings.score_threshold, "all": -math.inf}[detail]
        self.engine = self._restored(self.state)

    def forget(self) -> None:
        """Go back to the last committed state, because later results could not be stored."""
        self.engine = self._restored(self.state)

    def commit(self, entry: Entry) -> None:
        """Record that an entry is stored."""
        self.state = entry.state

    @property
    def active(self) -> tuple[Alert, ...]:
        """The active alerts."""
        return self.engine.active

    def stalled(self) -> Entry:
        """Raise the alert that the stream has stalled, and return the entry to commit."""
        alerts = self.engine.feed(Stalled(self.state.seconds))
        return Entry(replace(self.state, rules=self.engine.snapshot()), [], alerts=alerts)

    def conclude(self, scored: ScoredRows, items: slice | None = None, own: slice | None = None) -> Outcome:
        """Process the stream's next items.

        The result becomes the stream's state only when :meth:`commit` is called with its entry.

        Parameters
        ----------
        scored : ScoredRows
            May hold several streams.
        items, own : slice, optional
            The stream's items in ``scored.items``, and its beats in ``scored.scores``; default all.
        """
        items = slice(0, len(scored.items)) if items is None else items
        own = slice(0, len(scored.scores)) if own is None else own
        state = self.state
        rows: list[StoredBeat] = []
        details: list[tuple[int, NDArray[np.float32], NDArray[np.float16]]] = []
        alerts: list[Alert] = []
        seconds: list[Quality] = []
        runs = [] if state.run is None else [state.run]
        earlier_runs = len(runs)
        seq, time, ended, dropped = state.beats, state.seconds, state.ended, 0
        fs = state.fs
        detail_from = self._detail_from

        def raises_alert(changes: list[Alert]) -> bool:
            return detail_from < math.inf and any(change.end is None for change in changes)

        beat = own.start
        feed, feed_beat, feed_second = self.engine.feed, self.engine.beat, self.engine.second
        everything = detail_from == -math.inf
        ax, scores = scored.ax, scored.scores
        # This loop runs for every item of every stream, so attributes are looked up before it
        for kind, quality, flags, number, sample, rr, rr_ratio in scored.items[items]:
            at = sample / fs
            if kind == _BEAT:
                score = scores[beat]
                changes = feed_beat(seq, at, rr, score, _QUALITIES[quality])
                rows.append(StoredBeat(seq, sample, rr, rr_ratio, quality, flags, ax[beat], score))
                if score >= detail_from or everything or (changes and raises_alert(changes)):
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
        if earlier_runs and runs[0] == state.run:
            runs = runs[1:]
        remembered = latest_rows(scored.remembered[own])
        return Outcome(Entry(after, rows, details, alerts, runs, remembered), list(scores[own]), seconds, dropped)


class StreamRules(Rules):
    """The current state of one stream of the daemon: its rules, and the chain that scores its beats.

    Parameters
    ----------
    state : StreamState
        Stored state of the stream.
    settings : AlertSettings
    remembered : sequence of bytes
        Stored beats that the stream remembers, in any order.
    detail : Detail
    """

    __slots__ = ("chain",)

    def __init__(
        self,
        state: StreamState,
        settings: AlertSettings,
        remembered: Sequence[bytes] = (),
        *,
        detail: Detail = "anomalous",
    ) -> None:
        super().__init__(state, settings, detail=detail)
        self.chain = Chain(len(state.leads), remembered)

    def forget(self) -> None:
        """Go back to the last committed state, because later results could not be stored."""
        super().forget()
        self.chain.forget()

    def commit(self, entry: Entry) -> None:
        """Record that an entry is stored."""
        super().commit(entry)
        self.chain.keep()


def latest(alerts: Iterable[Alert]) -> list[Alert]:
    """Return the latest version of each alert of one stream, in the order in which they were raised."""
    return list({alert.number: alert for alert in alerts}.values())
