"""What the monitor makes of a stream's items once they are scored: rows, alerts and their state.

Runs over the items in their order, each once, so its results depend on the stream alone.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from ecgmon.models.score import history, normalizing_flow
from ecgmon.models.score.evidence import BEATS, Evidence
from ecgmon.monitor.core.alerts import Alert, AlertEngine, AlertSettings, End, Gap, Stalled
from ecgmon.monitor.core.commit import Entry, StreamState
from ecgmon.pipelines.items import ITEM, Kind, Quality

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ecgmon.monitor.core.exchange import Lot

_QUALITIES: Final = tuple(Quality)
_BEAT: Final = Kind.BEAT.value  # for every item of every stream: looking into an enumeration takes ten times as long
_SECOND: Final = Kind.SECOND.value
_GAP: Final = Kind.GAP.value
_NEEDED: Final = ("kind", "quality", "flags", "seq", "sample", "rr", "rr_ratio")


@dataclass(frozen=True, slots=True)
class Observed:
    """The next items of some streams with what is known of their beats, ready to be scored.

    Attributes
    ----------
    order : list of int
        Which of the streams that were asked about comes first, second, ... in all that follows.
    ends : list of (int, int)
        Of each stream in that order: one past its last item, one past its last beat.
    items : list of tuple
        Of each item what :data:`_NEEDED` names.
    errors : list of float
        A(x).
    lots : list of Lot
        That hold the windows and ticks of the beats.
    before : list of int
        Of each lot, beats that come before it.
    evidence : Evidence
        Of the beats.
    kept : list of bytes
        What is remembered of each beat.
    """

    order: list[int]
    ends: list[tuple[int, int]]
    items: list[tuple[Any, ...]]
    errors: list[float]
    lots: list[Lot]
    before: list[int]
    evidence: Evidence
    kept: list[bytes]

    def detail(self, beat: int) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
        """Look up the window of a beat, shape (leads, 320), and its ticks, shape (320,)."""
        number = bisect_right(self.before, beat) - 1
        lot, own = self.lots[number], beat - self.before[number]
        return lot.items.windows[own], lot.ticks[own]


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
    """Look at the next lots of some streams, which must be complete, and in order within each: all together costs less."""

    def leads(number: int) -> int:
        return len(arrived[number][0].state.leads)

    order = sorted(range(len(arrived)), key=leads)  # streams of as many leads are compared in one go
    lots = [lot for number in order for lot in arrived[number][1]]
    # numpy's own way to join tables of named columns takes ten times as long
    table = np.frombuffer(b"".join([lot.items.table.data for lot in lots]), ITEM)
    beats = table[table["kind"] == Kind.BEAT]
    rr, rr_ratio = np.ascontiguousarray(beats["rr"]), np.ascontiguousarray(beats["rr_ratio"])
    errors = np.concatenate([lot.errors for lot in lots])
    ends: list[tuple[int, int]] = []
    evidence: list[Evidence] = []
    kept: list[bytes] = []
    items = done = 0
    for _, alike in groupby(order, key=leads):
        of_these = [arrived[number] for number in alike]
        counts = [sum(len(lot.errors) for lot in own) for _, own in of_these]
        for (_, own), count in zip(of_these, counts, strict=True):
            items += sum(len(lot.items.table) for lot in own)
            ends.append((items, (ends[-1][1] if ends else 0) + count))
        part = slice(done, ends[-1][1])
        done = part.stop
        own_lots = [lot for _, own in of_these for lot in own]
        found, own_kept = history.observe(
            [rules.history for rules, _ in of_these], counts, [lot.items.windows for lot in own_lots],
            errors[part], [lot.ticks for lot in own_lots], rr[part], rr_ratio[part],
        )  # fmt: skip
        evidence.append(found)
        kept += own_kept
    before = list(accumulate((len(lot.errors) for lot in lots), initial=0))[:-1]
    rows = list(zip(*(table[name].tolist() for name in _NEEDED), strict=True))
    return Observed(order, ends, rows, errors.tolist(), lots, before, Evidence.concatenate(evidence), kept)


def warm_up() -> None:
    """Have what is compiled ready before the first beat comes: the first time on a machine that takes seconds."""
    normalizing_flow.warm_up()
    history.warm_up()


def conclude(
    arrived: Sequence[tuple[StreamRules, Sequence[Lot]]], observed: Observed, scores: NDArray[np.float32]
) -> list[Outcome]:
    """Run each stream's rules over what was observed, with the scores of the beats, shape (beats,); one for each stream."""
    outcomes: list[Any] = [None] * len(arrived)
    scored = scores.tolist()
    item = beat = 0
    for number, (last_item, last_beat) in zip(observed.order, observed.ends, strict=True):
        outcomes[number] = arrived[number][0].conclude(observed, slice(item, last_item), slice(beat, last_beat), scored)
        item, beat = last_item, last_beat
    return outcomes


class StreamRules:
    """The running state of one stream: its last beats, alert rules, counts, the last stretch of quality.

    Parameters
    ----------
    state : StreamState
        Where the store stands.
    settings : AlertSettings
    recent : sequence of bytes
        What the store remembers of the stream's last beats, oldest first.
    detail : str
        Beats to keep with their window: ``none``, ``anomalous`` (and those that raise an alert), ``all``.
    """

    __slots__ = ("_detail_from", "_settings", "engine", "history", "state")

    def __init__(
        self,
        state: StreamState,
        settings: AlertSettings,
        recent: Sequence[bytes] = (),
        *,
        detail: Literal["none", "anomalous", "all"] = "anomalous",
    ) -> None:
        self.state = state
        self.configure(settings, detail)
        self.history = history.History.restore(len(state.leads), b"".join(recent))

    def _restored(self, state: StreamState) -> AlertEngine:
        return AlertEngine.restore(state.rules, self._settings) if state.rules else AlertEngine(self._settings)

    def configure(self, settings: AlertSettings, detail: Literal["none", "anomalous", "all"]) -> None:
        """Go on by other rules, between two commits; alerts that are active stay so until the new rules clear them."""
        self._settings = settings
        self._detail_from = {"none": math.inf, "anomalous": settings.score_threshold, "all": -math.inf}[detail]
        self.engine = self._restored(self.state)

    def forget(self) -> None:
        """Go back to the last committed state: what was made of later items could not be stored."""
        self.engine = self._restored(self.state)
        self.history.forget()

    def commit(self, entry: Entry) -> None:
        """Take note that an entry is in the store."""
        self.state = entry.state
        self.history.keep()

    @property
    def active(self) -> tuple[Alert, ...]:
        """Alerts raised and not cleared."""
        return self.engine.active

    def stalled(self) -> Entry:
        """Say that the stream has stopped coming."""
        alerts = self.engine.feed(Stalled(self.state.seconds))
        return Entry(replace(self.state, rules=self.engine.snapshot()), [], alerts=alerts)

    def conclude(self, observed: Observed, items: slice, own: slice, scores: Sequence[float]) -> Outcome:
        """Run over the stream's part of what was observed last: its items, its beats, and the scores of all beats."""
        state = self.state
        rows: list[tuple[int, int, float, float, int, int, float, float]] = []
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
        errors = observed.errors
        # Run for every item of every stream: a name is looked up once, and nothing is made of an answer that is empty
        for kind, quality, flags, number, sample, rr, rr_ratio in observed.items[items]:
            at = sample / fs
            if kind == _BEAT:
                score = scores[beat]
                changes = feed_beat(seq, at, rr, score, _QUALITIES[quality])
                rows.append((seq, sample, rr, rr_ratio, quality, flags, errors[beat], score))
                if score >= detail_from or everything or (changes and raising(changes)):
                    details.append((seq, *observed.detail(beat)))
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
        recent = observed.kept[max(own.start, own.stop - BEATS) : own.stop]
        return Outcome(Entry(after, rows, details, alerts, runs, recent), list(scores[own]), seconds, dropped)
