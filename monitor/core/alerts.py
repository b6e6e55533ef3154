"""Alert rules: which conditions of a stream are raised and cleared, and when.

A pure function of the items of a stream in their order, without a clock: the same items give the
same alerts, however fast they came and wherever the state was saved and restored in between.

Kinds and limits of asystole, extreme bradycardia and extreme tachycardia are those of the
PhysioNet/Computing in Cardiology Challenge 2015 (Clifford et al., "The PhysioNet/Computing in
Cardiology Challenge 2015: Reducing False Arrhythmia Alarms in the ICU"); the priorities are those
of IEC 60601-1-8.  docs/alerts.md explains every rule and its default.

All times are stream time: seconds from the stream's first sample.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from itertools import pairwise
from math import inf, isnan
from typing import TYPE_CHECKING, Final, Self

import msgspec
from msgspec import Struct

from ecgmon.monitor.config.schema import AlertSettings
from ecgmon.pipelines.items import Quality

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Alert",
    "AlertEngine",
    "AlertKind",
    "AlertSettings",
    "AlertStateError",
    "End",
    "Gap",
    "Priority",
    "ScoredBeat",
    "SecondPassed",
    "Stalled",
]

SNAPSHOT_VERSION: Final = 1
"""Raised when the meaning of a snapshot's fields changes."""

_UNUSABLE: Final = int(Quality.SATURATED)
"""From this quality on the signal says nothing about the heart.

Noise is below it: ventricular fibrillation looks like noise, and to keep silent about it would be
the worse error.
"""

_NOISY: Final = int(Quality.NOISY)


class AlertStateError(Exception):
    """A snapshot of the alert rules cannot be used, or items came in an impossible order."""


class AlertKind(StrEnum):
    """What is the matter with a stream."""

    ASYSTOLE = "asystole"
    EXTREME_BRADYCARDIA = "extreme_bradycardia"
    EXTREME_TACHYCARDIA = "extreme_tachycardia"
    ANOMALOUS_EPISODE = "anomalous_episode"
    LEAD_OFF = "lead_off"
    SIGNAL_MISSING = "signal_missing"
    SATURATED = "saturated"
    NOISY = "noisy"
    STREAM_STALLED = "stream_stalled"
    BEATS_DROPPED = "beats_dropped"


# Python 3.11 looks a member of an enum up in Python code, which takes ten times as long as a name of the module
_ASYSTOLE: Final = AlertKind.ASYSTOLE
_BRADYCARDIA: Final = AlertKind.EXTREME_BRADYCARDIA
_TACHYCARDIA: Final = AlertKind.EXTREME_TACHYCARDIA
_EPISODE: Final = AlertKind.ANOMALOUS_EPISODE
_STALLED: Final = AlertKind.STREAM_STALLED
_DROPPED: Final = AlertKind.BEATS_DROPPED


class Priority(StrEnum):
    """How urgent an alert is, after IEC 60601-1-8."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


_TECHNICAL: Final = (
    (AlertKind.NOISY, _NOISY, "noise hides the shape of the beats"),
    (AlertKind.SATURATED, int(Quality.SATURATED), "the signal is at the limit of the converter"),
    (AlertKind.LEAD_OFF, int(Quality.FLAT), "the signal is flat: a lead is off, or there is nothing to see"),
    (AlertKind.SIGNAL_MISSING, int(Quality.MISSING), "the source delivers no values"),
)
"""Alerts on the quality of the signal: kind, quality of the seconds it counts, what it says."""


class ScoredBeat(Struct, frozen=True, gc=False):
    """A beat with its score.

    Parameters
    ----------
    seq : int
        Number of the beat in its stream.
    seconds : float
        R peak in stream time, in s.
    rr : float
        RR interval to the beat before, in s; NaN where there is none.
    score : float
        -log10 of the share of normal beats that look at least this odd; NaN where the beat could not be scored.
    quality : Quality
        Quality of the signal under the beat.
    """

    seq: int
    seconds: float
    rr: float
    score: float
    quality: Quality


class SecondPassed(Struct, frozen=True, gc=False):
    """One second of the stream has passed.

    Parameters
    ----------
    seconds : float
        Its end, in stream time, in s.
    quality : Quality
        Quality of the signal in it.
    """

    seconds: float
    quality: Quality


class Gap(Struct, frozen=True, gc=False):
    """A live source could not be taken in time.

    Parameters
    ----------
    dropped : int
        Beats that were lost.
    seconds : float
        Stream time from which on there are items again, in s.
    """

    dropped: int
    seconds: float


class Stalled(Struct, frozen=True, gc=False):
    """Nothing has come from the stream for :attr:`AlertSettings.stalled_seconds`; the next item ends it.

    Parameters
    ----------
    seconds : float
        Stream time reached, in s.
    """

    seconds: float


class End(Struct, frozen=True, gc=False):
    """The stream has ended.

    Parameters
    ----------
    seconds : float
        Its length, in s.
    """

    seconds: float


Item = ScoredBeat | SecondPassed | Gap | Stalled | End


class Alert(Struct, frozen=True, kw_only=True):
    """A condition of a stream that was raised and, when ``end`` is set, cleared.

    Parameters
    ----------
    number : int
        0, 1, 2, ... in the order in which the stream's alerts were raised.
    kind : AlertKind
    priority : Priority
    start : float
        When the condition began, in s of stream time.
    raised : float
        When that was known: the stream time reached, in s.
    end : float or None
        When it was known to be over, in s; None while it lasts.  It lies before ``raised`` only where a beat found by
        searching back showed that a pause was too short for asystole after all.
    beats : tuple of int
        Numbers of the beats that raised it; empty where no beat did.
    message : str
        What was found, in one line.
    """

    number: int
    kind: AlertKind
    priority: Priority
    start: float
    raised: float
    end: float | None = None
    beats: tuple[int, ...] = ()
    message: str


class _State(Struct, kw_only=True):
    """All that the rules remember of a stream; bounded by the settings."""

    version: int = SNAPSHOT_VERSION
    now: float = 0.0
    """Stream time reached: the latest time of any item."""
    raised: int = 0
    """Alerts raised so far; the next one's number."""
    active: dict[AlertKind, Alert] = {}  # msgspec makes a new one for every state
    ended: bool = False

    quiet_since: float | None = None
    """Since when the signal could be used and no beat was seen; None before the first item."""
    beaten: bool = False
    """Whether the stream has had a beat."""
    recovered: int = 0
    """Beats since asystole, each soon enough after the one before."""

    chain: list[tuple[float, bool]] = []
    """R peaks of consecutive beats without a break, newest last, and whether they lie in noise."""

    scored: int = 0
    """Beats scored since the episode's window was last emptied."""
    last_scored: float = -inf
    """R peak of the newest of them."""
    anomalous: list[tuple[int, float, int]] = []
    """Those of the last M that were anomalous: ``scored`` at that beat, R peak, seq."""

    qualities: list[int] = []
    """Quality of the last seconds, newest last."""
    last_gap: float = 0.0
    """Stream time of the newest gap."""


class _Rules(Struct, frozen=True):
    """What follows from the settings; all streams share it."""

    priority: dict[AlertKind, Priority]
    pause: float
    """A pause of so many seconds is an asystole alert of its own, and says nothing about the rate of the rhythm around it."""
    chain_length: int
    slow: float
    slow_over: float
    fast: float
    fast_over: float
    slow_from: int
    fast_from: int
    """Which beat of a whole chain the next beat's rates begin with."""
    quality_seconds: int
    technical: tuple[tuple[AlertKind, int, str, int, int], ...]
    """Of each technical alert: kind, quality, message, seconds of that quality that raise it, of how many."""


@lru_cache(maxsize=8)  # settings change where a configuration is read again
def _rules(settings: AlertSettings) -> _Rules:
    names = msgspec.structs.asdict(settings.priorities)
    priority = {AlertKind(kind): Priority(name) for kind, name in names.items() if name != "off"}
    unusable = (settings.technical_seconds, settings.technical_window_seconds)
    noisy = (settings.noisy_seconds, settings.noisy_window_seconds)
    chain_length = max(settings.bradycardia_beats, settings.tachycardia_beats)
    return _Rules(
        priority=priority,
        pause=settings.asystole_seconds if _ASYSTOLE in priority else inf,
        chain_length=chain_length,
        slow=_span(settings.bradycardia_beats, settings.bradycardia_per_minute),
        slow_over=_span(settings.bradycardia_beats, settings.bradycardia_clear_per_minute),
        fast=_span(settings.tachycardia_beats, settings.tachycardia_per_minute),
        fast_over=_span(settings.tachycardia_beats, settings.tachycardia_clear_per_minute),
        slow_from=chain_length + 1 - settings.bradycardia_beats,
        fast_from=chain_length + 1 - settings.tachycardia_beats,
        quality_seconds=max(settings.technical_window_seconds, settings.noisy_window_seconds),
        technical=tuple(
            (kind, quality, message, *(noisy if quality == _NOISY else unusable))
            for kind, quality, message in _TECHNICAL
        ),
    )


class AlertEngine:
    """The alert rules of one stream.

    Feed it the stream's items in their order; it answers with the alerts that each of them raises and clears.

    Parameters
    ----------
    settings : AlertSettings

    Notes
    -----
    A beat may be found by searching back and then lie before seconds that have already passed; beats among
    themselves come in the order of their R peaks.
    """

    __slots__ = ("_rules", "_settings", "_state")

    def __init__(self, settings: AlertSettings) -> None:
        self._settings = settings
        self._rules = _rules(settings)
        self._state = _State()

    @classmethod
    def restore(cls, data: bytes, settings: AlertSettings) -> Self:
        """Go on from a snapshot.

        Parameters
        ----------
        data : bytes
            From :meth:`snapshot`.
        settings : AlertSettings
            May differ from those at the time of the snapshot: they hold from the next item on, and an active alert
            stays active until its rule, as it is now, clears it.

        Raises
        ------
        AlertStateError
            If ``data`` is no snapshot of this version.
        """
        engine = cls(settings)
        try:
            state = msgspec.msgpack.decode(data, type=_State)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise AlertStateError(
                f"{len(data)} bytes are no snapshot of the alert rules ({error}); expected what snapshot() returned"
            ) from error
        if state.version != SNAPSHOT_VERSION:
            raise AlertStateError(
                f"the snapshot of the alert rules has version {state.version}, expected {SNAPSHOT_VERSION};"
                " use the version of ecgmon that wrote it"
            )
        state.chain = state.chain[-engine._rules.chain_length :]
        state.qualities = state.qualities[-engine._rules.quality_seconds :]
        engine._state = state
        return engine

    def snapshot(self) -> bytes:
        """Everything that the rules remember, for :meth:`restore`; bounded by the settings."""
        return msgspec.msgpack.encode(self._state)

    @property
    def active(self) -> tuple[Alert, ...]:
        """Alerts raised and not cleared, in the order in which they were raised."""
        return tuple(self._state.active.values())

    def feed(self, item: Item) -> list[Alert]:
        """Take the next item of the stream.

        Parameters
        ----------
        item : ScoredBeat, SecondPassed, Gap, Stalled or End

        Returns
        -------
        list of Alert
            Alerts that this item clears (``end`` is set) and raises (``end`` is None), in that order of events.

        Raises
        ------
        AlertStateError
            If anything but :class:`Stalled`, which then means nothing, follows the end.
        """
        state = self._state
        changes: list[Alert] = []
        if state.ended:
            if isinstance(item, Stalled):
                return changes
            raise AlertStateError(f"{item} came after the end of the stream at {state.now:g} s; nothing may follow it")
        if item.seconds > state.now:  # noqa: PLR1730 max() takes several times as long, for every item of every stream
            state.now = item.seconds
        if isinstance(item, Stalled):
            if _STALLED not in state.active:
                self._raise(changes, _STALLED, state.now, "nothing arrives from the stream")
            return changes
        if state.active:
            self._clear(changes, _STALLED)
        if isinstance(item, ScoredBeat):
            self._beat(item, changes)
        elif isinstance(item, SecondPassed):
            self._second(item, changes)
        elif isinstance(item, Gap):
            self._gap(item, changes)
        else:
            state.ended = True
            for kind in list(state.active):
                self._clear(changes, kind)
        return changes

    def beat(self, seq: int, seconds: float, rr: float, score: float, quality: Quality) -> list[Alert]:
        """Do what :meth:`feed` does with a :class:`ScoredBeat` of these, in a fraction of the time with most of them."""
        if self._ordinary_beat(seconds, rr, score, quality):
            return []
        return self.feed(ScoredBeat(seq, seconds, rr, score, quality))

    def second(self, seconds: float, quality: Quality) -> list[Alert]:
        """Do what :meth:`feed` does with a :class:`SecondPassed` of these, in a fraction of the time with most of them."""
        if self._ordinary_second(seconds, quality):
            return []
        return self.feed(SecondPassed(seconds, quality))

    def _ordinary_beat(self, seconds: float, rr: float, score: float, quality: Quality) -> bool:
        """Take a beat if no rule has anything to say about it, which the rules need several times as long to find.

        So it is with most beats of most streams: seen clearly, at an ordinary rate, not anomalous, and no alert is
        active or beginning.  Where this is False nothing has changed.
        """
        state, rules = self._state, self._rules
        chain = state.chain
        # A comparison with NaN is False, and a beat that has one is not ordinary
        if (
            quality >= _NOISY
            or state.active
            or state.anomalous
            or state.ended
            or len(chain) < rules.chain_length
            or state.quiet_since is None
            or not score < self._settings.score_threshold
            or not rr < rules.pause
            or not chain[-1][0] < seconds < chain[-1][0] + rules.pause
            or not state.quiet_since < seconds < state.quiet_since + rules.pause
            or seconds - chain[rules.slow_from][0] > rules.slow
            or seconds - chain[rules.fast_from][0] < rules.fast
            or seconds - state.last_scored > self._settings.episode_gap_seconds
        ):
            return False
        if seconds > state.now:  # noqa: PLR1730 - as in feed()
            state.now = seconds
        chain.append((seconds, False))
        del chain[0]
        state.scored += 1
        state.last_scored = state.quiet_since = seconds
        state.beaten = True
        return True

    def _ordinary_second(self, seconds: float, quality: Quality) -> bool:
        """Take a second of the stream if no rule has anything to say about it: see :meth:`_ordinary_beat`."""
        state = self._state
        qualities = state.qualities
        if (
            quality != Quality.USABLE
            or state.active
            or state.ended
            or state.quiet_since is None
            or not seconds - state.quiet_since < self._pause_limit()
            or any(qualities)
        ):
            return False
        if seconds > state.now:  # noqa: PLR1730 - as in feed()
            state.now = seconds
        qualities.append(0)
        if len(qualities) > self._rules.quality_seconds:
            del qualities[0]
        return True

    def _beat(self, beat: ScoredBeat, changes: list[Alert]) -> None:
        state = self._state
        quality = beat.quality
        if quality >= _UNUSABLE:
            self._lose_sight(beat.seconds)
            return
        self._asystole_at_beat(beat, changes)
        self._rates(beat, changes)
        # The shape of noise is not the shape of a beat, and NaN is no score
        if quality != _NOISY and not isnan(beat.score):
            self._episode(beat, changes)
        state.beaten = True
        if state.quiet_since is None or beat.seconds > state.quiet_since:
            state.quiet_since = beat.seconds

    def _second(self, second: SecondPassed, changes: list[Alert]) -> None:
        state = self._state
        if state.quiet_since is None:
            state.quiet_since = second.seconds - 1.0
        if second.quality >= _UNUSABLE:
            self._lose_sight(second.seconds)
        elif second.seconds - state.quiet_since >= self._pause_limit() and _ASYSTOLE not in state.active:
            self._asystole(changes, state.quiet_since, second.seconds)
        self._technical(second, changes)
        if _DROPPED in state.active and second.seconds - state.last_gap >= self._settings.dropped_clear_seconds:
            self._clear(changes, _DROPPED)

    def _gap(self, gap: Gap, changes: list[Alert]) -> None:
        state = self._state
        self._lose_sight(gap.seconds)
        state.qualities.clear()
        state.last_gap = state.now
        if _DROPPED not in state.active:
            self._raise(changes, _DROPPED, gap.seconds, f"{gap.dropped} beats of a live source were lost")

    def _lose_sight(self, seconds: float) -> None:
        """Forget the rhythm: there was signal up to ``seconds`` that says nothing about the heart."""
        state = self._state
        state.chain.clear()
        if state.quiet_since is None or seconds > state.quiet_since:
            state.quiet_since = seconds

    def _pause_limit(self) -> float:
        settings = self._settings
        return settings.asystole_seconds if self._state.beaten else settings.asystole_first_seconds

    def _asystole(self, changes: list[Alert], start: float, until: float) -> None:
        self._state.recovered = 0
        self._raise(changes, _ASYSTOLE, start, f"no beat for {until - start:.1f} s")

    def _asystole_at_beat(self, beat: ScoredBeat, changes: list[Alert]) -> None:
        """Clear asystole, or find that the pause before this beat was one between two whole seconds."""
        state = self._state
        quiet_since = beat.seconds if state.quiet_since is None else state.quiet_since
        pause = beat.seconds - quiet_since
        alert = state.active.get(_ASYSTOLE)
        if alert is None:
            # rr is NaN where the signal was lost before the beat, though the second that says so may still be to come
            if pause >= self._rules.pause and beat.rr >= self._rules.pause:
                self._asystole(changes, quiet_since, beat.seconds)
                state.recovered = 1
        elif alert.start < beat.seconds < alert.start + self._pause_limit():
            self._clear(changes, _ASYSTOLE, end=beat.seconds)
        elif beat.seconds > alert.start:
            state.recovered = state.recovered + 1 if pause < self._settings.asystole_seconds else 1
            if state.recovered >= self._settings.asystole_clear_beats:
                self._clear(changes, _ASYSTOLE)

    def _rates(self, beat: ScoredBeat, changes: list[Alert]) -> None:
        """Extreme bradycardia and tachycardia: the mean rate over some consecutive beats."""
        state, settings = self._state, self._settings
        chain = state.chain
        # The comparison is False for NaN, which also breaks the chain
        if chain and not (
            beat.rr < self._rules.pause and chain[-1][0] < beat.seconds < chain[-1][0] + self._rules.pause
        ):
            chain.clear()
        chain.append((beat.seconds, beat.quality == _NOISY))
        n = len(chain)
        if n > self._rules.chain_length:
            del chain[0]
            n -= 1

        beats = settings.bradycardia_beats
        if n >= beats:
            span = beat.seconds - chain[-beats][0]
            if _BRADYCARDIA in state.active:
                if span <= self._rules.slow_over:
                    self._clear(changes, _BRADYCARDIA)
            elif span > self._rules.slow and self._slow_without_pause(chain[-beats:]):
                self._raise_rate(changes, _BRADYCARDIA, beat.seq, chain[-beats:])

        beats = settings.tachycardia_beats
        if n >= beats:
            span = beat.seconds - chain[-beats][0]
            if _TACHYCARDIA in state.active:
                if span >= self._rules.fast_over:
                    self._clear(changes, _TACHYCARDIA)
            elif span < self._rules.fast:
                self._raise_rate(changes, _TACHYCARDIA, beat.seq, chain[-beats:])

    def _raise_rate(
        self, changes: list[Alert], kind: AlertKind, last_seq: int, beats: Sequence[tuple[float, bool]]
    ) -> None:
        start, end = beats[0][0], beats[-1][0]
        if kind == _BRADYCARDIA:
            limit = f"below {self._settings.bradycardia_per_minute:g}/min"
        else:
            limit = f"above {self._settings.tachycardia_per_minute:g}/min"
        rate = (len(beats) - 1) * 60.0 / (end - start)
        in_noise = sum(noisy for _, noisy in beats)
        doubt = f"; {in_noise} of them in noise" if in_noise else ""
        message = f"heart rate {rate:.1f}/min over {len(beats)} beats, {limit}{doubt}"
        self._raise(changes, kind, start, message, range(last_seq - len(beats) + 1, last_seq + 1))

    def _slow_without_pause(self, beats: Sequence[tuple[float, bool]]) -> bool:
        """Tell whether beats are too slow also without the longest interval: one pause is no bradycardia."""
        intervals = [later[0] - earlier[0] for earlier, later in pairwise(beats)]
        if len(intervals) > 1:
            intervals.remove(max(intervals))
        return sum(intervals) > len(intervals) * 60.0 / self._settings.bradycardia_per_minute

    def _episode(self, beat: ScoredBeat, changes: list[Alert]) -> None:
        """Anomalous episode: at least K of the last M scored beats are anomalous."""
        state, settings = self._state, self._settings
        anomalous = state.anomalous
        if beat.seconds - state.last_scored > settings.episode_gap_seconds:
            anomalous.clear()
            state.scored = 0
        state.last_scored = beat.seconds
        state.scored += 1
        while anomalous and anomalous[0][0] <= state.scored - settings.episode_beats_m:
            del anomalous[0]
        if beat.score >= settings.score_threshold:
            anomalous.append((state.scored, beat.seconds, beat.seq))

        if _EPISODE in state.active:
            if state.scored >= settings.episode_beats_m and len(anomalous) <= settings.episode_clear_beats:
                self._clear(changes, _EPISODE)
        elif len(anomalous) >= settings.episode_beats_k:
            seqs = [seq for _, _, seq in anomalous]
            looked_back_on = min(state.scored, settings.episode_beats_m)
            message = (
                f"{len(seqs)} of the last {looked_back_on} beats scored {settings.score_threshold:g} or more"
                f" (the newest {beat.score:.1f})"
            )
            self._raise(changes, _EPISODE, anomalous[0][1], message, seqs)

    def _technical(self, second: SecondPassed, changes: list[Alert]) -> None:
        """Lead off, signal missing, saturated, noisy: some of the last seconds have that quality."""
        state = self._state
        qualities = state.qualities
        qualities.append(int(second.quality))
        if len(qualities) > self._rules.quality_seconds:
            del qualities[0]
        if not state.active and not any(qualities):
            return
        for kind, quality, message, at_least, window in self._rules.technical:
            last = qualities[-window:]
            count = last.count(quality)
            if kind in state.active:
                if count == 0 and len(last) == window:
                    self._clear(changes, kind)
            elif count >= at_least:
                start = max(0.0, second.seconds - (len(last) - last.index(quality)))
                self._raise(changes, kind, start, f"{message} ({count} of the last {len(last)} s)")

    def _raise(
        self, changes: list[Alert], kind: AlertKind, start: float, message: str, beats: Sequence[int] = ()
    ) -> None:
        state = self._state
        priority = self._rules.priority.get(kind)
        if priority is None:
            return
        alert = Alert(
            number=state.raised,
            kind=kind,
            priority=priority,
            start=start,
            raised=state.now,
            beats=tuple(beats),
            message=message,
        )
        state.raised += 1
        state.active[kind] = alert
        changes.append(alert)

    def _clear(self, changes: list[Alert], kind: AlertKind, end: float | None = None) -> None:
        """Clear an alert if it is active, at ``end`` or else at the stream time reached."""
        alert = self._state.active.pop(kind, None)
        if alert is not None:
            changes.append(msgspec.structs.replace(alert, end=self._state.now if end is None else end))


def _span(beats: int, per_minute: float) -> float:
    """Time in s from the first to the last of some beats at a rate."""
    return (beats - 1) * 60.0 / per_minute
