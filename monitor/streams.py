"""What the monitor makes of a stream's items once they are scored: rows, alerts and their state.

Runs over the items in their order, each once, so its results depend on the stream alone.
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from models.evidence import BEATS, History
from monitor.alerts import Alert, AlertEngine, AlertSettings, End, Gap, ScoredBeat, SecondPassed, Stalled
from monitor.store import Entry, StreamState
from pipelines.items import Kind, Quality

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from models.evidence import Evidence
    from monitor.delivery import Lot

_QUALITIES: Final = tuple(Quality)


@dataclass(frozen=True, slots=True)
class Observed:
    """The next items of a stream with what is known of their beats, ready to be scored.

    Attributes
    ----------
    table : ndarray of ITEM, shape (items,)
    windows : list of ndarray of float32, shape (leads, 320)
    errors : ndarray of float32, shape (beats,)
        A(x).
    ticks : list of ndarray of float16, shape (320,)
    evidence : Evidence
        Of the beats.
    kept : list of bytes
        What is remembered of each beat.
    """

    table: NDArray[np.void]
    windows: list[NDArray[np.float32]]
    errors: NDArray[np.float32]
    ticks: list[NDArray[np.float16]]
    evidence: Evidence
    kept: list[bytes]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What some lots of a stream came to.

    Attributes
    ----------
    entry : Entry
        For the store.
    scores : ndarray of float32, shape (beats,)
    rr : ndarray of float32, shape (beats,)
        RR intervals in s.
    sample : ndarray of int64, shape (beats,)
        R peaks, in the stream's own rate.
    seconds : list of Quality
        Quality of every second that passed.
    dropped : int
        Beats that the source dropped.
    """

    entry: Entry
    scores: NDArray[np.float32]
    rr: NDArray[np.float32]
    sample: NDArray[np.int64]
    seconds: list[Quality]
    dropped: int


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
        self._history = History.restore(len(state.leads), b"".join(recent))
        self._committed = copy(self._history)

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
        self._history = copy(self._committed)

    def commit(self, entry: Entry) -> None:
        """Take note that an entry is in the store."""
        self.state = entry.state
        self._committed = copy(self._history)

    @property
    def active(self) -> tuple[Alert, ...]:
        """Alerts raised and not cleared."""
        return self.engine.active

    def stalled(self) -> Entry:
        """Say that the stream has stopped coming."""
        alerts = self.engine.feed(Stalled(self.state.seconds))
        return Entry(replace(self.state, rules=self.engine.snapshot()), [], alerts=alerts)

    def observe(self, lots: Sequence[Lot]) -> Observed:
        """Look at the next lots of the stream, which must be complete and in order."""
        table = np.concatenate([lot.items.table for lot in lots])
        windows = np.concatenate([lot.items.windows for lot in lots])
        errors = np.concatenate([lot.errors for lot in lots])
        ticks = np.concatenate([lot.ticks for lot in lots])
        beats = table[table["kind"] == Kind.BEAT]
        evidence, kept = self._history.observe(windows, errors, ticks, beats["rr"], beats["rr_ratio"])
        return Observed(table, list(windows), errors, list(ticks), evidence, kept)

    def conclude(self, observed: Observed, scores: NDArray[np.float32]) -> Outcome:
        """Run over what was observed last, with the scores of its beats, shape (beats,)."""
        state = self.state
        table, windows, errors, ticks = observed.table, observed.windows, observed.errors, observed.ticks
        beats = table[table["kind"] == Kind.BEAT]
        rows: list[tuple[int, int, float, float, int, int, float, float]] = []
        details: list[tuple[int, NDArray[np.float32], NDArray[np.float16]]] = []
        alerts: list[Alert] = []
        seconds: list[Quality] = []
        runs = [] if state.run is None else [state.run]
        n_runs = len(runs)
        seq, time, ended, dropped = state.beats, state.seconds, state.ended, 0
        fs = state.fs
        detail_from = self._detail_from
        scored = zip(scores.tolist(), errors.tolist(), strict=True)
        beat = 0
        feed = self.engine.feed
        for kind, quality, flags, number, sample, _, rr, rr_ratio in table.tolist():
            if kind == Kind.BEAT:
                score, error = next(scored)
                changes = feed(ScoredBeat(seq, sample / fs, rr, score, _QUALITIES[quality]))
                rows.append((seq, sample, rr, rr_ratio, quality, flags, error, score))
                raised = detail_from < math.inf and any(change.end is None for change in changes)
                if raised or score >= detail_from or detail_from == -math.inf:
                    details.append((seq, windows[beat], ticks[beat]))
                seq += 1
                beat += 1
                time = max(time, sample / fs)
            elif kind == Kind.SECOND:
                time = max(time, sample / fs + 1.0)
                changes = feed(SecondPassed(sample / fs + 1.0, _QUALITIES[quality]))
                seconds.append(_QUALITIES[quality])
                if runs and runs[-1][2] == quality and runs[-1][0] + runs[-1][1] == number:
                    runs[-1] = (runs[-1][0], runs[-1][1] + 1, quality)
                else:
                    runs.append((number, 1, quality))
            elif kind == Kind.GAP:
                dropped += number
                changes = feed(Gap(number, sample / fs))
            else:
                ended = True
                time = max(time, sample / fs)
                changes = feed(End(time))
            alerts += changes

        after = replace(
            state,
            position=state.position + len(table),
            beats=seq,
            seconds=time,
            ended=ended,
            rules=self.engine.snapshot(),
            run=runs[-1] if runs else None,
        )
        if n_runs and runs[0] == state.run:
            runs = runs[1:]
        return Outcome(
            Entry(after, rows, details, alerts, runs, observed.kept[-BEATS:]), scores, np.ascontiguousarray(beats["rr"]),
            np.ascontiguousarray(beats["sample"]), seconds, dropped,
        )  # fmt: skip
