"""Runs the alert rules of a stream over its items, in order."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING, Self

import msgspec

from ecgmon.monitor.core.alerts import asystole, dropped, episode, heart_rate, stalled, technical
from ecgmon.monitor.core.alerts.items import Gap, ScoredBeat, SecondPassed, Stalled
from ecgmon.monitor.core.alerts.state import NOISY, SNAPSHOT_VERSION, UNUSABLE, State, StreamAlerts
from ecgmon.pipelines.items import Quality

if TYPE_CHECKING:
    from ecgmon.monitor.config.schema import AlertSettings
    from ecgmon.monitor.core.alerts.items import Alert, Item


class AlertStateError(Exception):
    """A snapshot of the alert rules cannot be used, or an item followed the end of its stream."""


class AlertEngine:
    """The alert rules of one stream.

    Feed it the stream's items in order; for each item it returns the alerts that the item raises and clears.

    Parameters
    ----------
    settings : AlertSettings

    Notes
    -----
    A beat that was found by searching back may lie before seconds that have already passed.  Beats come in the
    order of their R peaks.
    """

    __slots__ = ("_alerts",)

    def __init__(self, settings: AlertSettings) -> None:
        self._alerts = StreamAlerts(settings)

    @classmethod
    def restore(cls, data: bytes, settings: AlertSettings) -> Self:
        """Continue from a snapshot.

        Parameters
        ----------
        data : bytes
            From :meth:`snapshot`.
        settings : AlertSettings
            May differ from the settings at the time of the snapshot.  They apply from the next item on; an active alert
            stays active until its rule clears it under the new settings.

        Raises
        ------
        AlertStateError
            If ``data`` is no snapshot of this version.
        """
        engine = cls(settings)
        try:
            state = msgspec.msgpack.decode(data, type=State)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise AlertStateError(
                f"{len(data)} bytes are not a snapshot of the alert rules ({error}); expected the result of snapshot()"
            ) from error
        if state.version != SNAPSHOT_VERSION:
            raise AlertStateError(
                f"the snapshot of the alert rules has version {state.version}, expected {SNAPSHOT_VERSION};"
                " use the version of ecgmon that wrote it"
            )
        state.chain = state.chain[-engine._alerts.limits.chain_length :]
        state.qualities = state.qualities[-engine._alerts.limits.quality_seconds :]
        engine._alerts.state = state
        return engine

    def snapshot(self) -> bytes:
        """Return the state of the rules, for :meth:`restore`; its size is bounded by the settings."""
        return msgspec.msgpack.encode(self._alerts.state)

    @property
    def active(self) -> tuple[Alert, ...]:
        """The active alerts, in the order in which they were raised."""
        return tuple(self._alerts.state.active.values())

    def feed(self, item: Item) -> list[Alert]:
        """Process the next item of the stream.

        Parameters
        ----------
        item : ScoredBeat, SecondPassed, Gap, Stalled or End

        Returns
        -------
        list of Alert
            Alerts that this item clears (``end`` is set) and raises (``end`` is None), in the order of events.

        Raises
        ------
        AlertStateError
            If an item follows the end; only :class:`Stalled` may, and it is ignored.
        """
        state = self._alerts.state
        changes: list[Alert] = []
        if state.ended:
            if isinstance(item, Stalled):
                return changes
            raise AlertStateError(f"{item} came after the end of the stream at {state.now:g} s; nothing may follow it")
        if item.seconds > state.now:  # noqa: PLR1730 max() takes several times as long, for every item of every stream
            state.now = item.seconds
        if isinstance(item, Stalled):
            stalled.at_stall(self._alerts, changes)
            return changes
        if state.active:
            stalled.at_item(self._alerts, changes)
        if isinstance(item, ScoredBeat):
            self._beat(item, changes)
        elif isinstance(item, SecondPassed):
            self._second(item, changes)
        elif isinstance(item, Gap):
            dropped.at_gap(self._alerts, item, changes)
        else:
            state.ended = True
            for kind in list(state.active):
                self._alerts.end(changes, kind)
        return changes

    def beat(self, seq: int, seconds: float, rr: float, score: float, quality: Quality) -> list[Alert]:
        """Do the same as :meth:`feed` with a :class:`ScoredBeat`, but much faster for most beats."""
        if self._ordinary_beat(seconds, rr, score, quality):
            return []
        return self.feed(ScoredBeat(seq, seconds, rr, score, quality))

    def second(self, seconds: float, quality: Quality) -> list[Alert]:
        """Do the same as :meth:`feed` with a :class:`SecondPassed`, but much faster for most seconds."""
        if self._ordinary_second(seconds, quality):
            return []
        return self.feed(SecondPassed(seconds, quality))

    def _ordinary_beat(self, seconds: float, rr: float, score: float, quality: Quality) -> bool:
        """Process a beat if no rule can raise or clear an alert because of it; the full rules are several times slower.

        Most beats are ordinary: clean signal, normal rate, not anomalous, and no alert active or about to begin.
        Returns False, and changes no state, if the beat is not ordinary.
        """
        state, rules, settings = self._alerts.state, self._alerts.limits, self._alerts.settings
        chain = state.chain
        # Comparisons with NaN are False; `not` makes a beat with NaN fail the test, so it is not ordinary
        if (
            quality >= NOISY
            or state.active
            or state.anomalous
            or state.ended
            or len(chain) < rules.chain_length
            or state.quiet_since is None
            or not score < settings.score_threshold
            or not rr < rules.pause
            or not chain[-1][0] < seconds < chain[-1][0] + rules.pause
            or not state.quiet_since < seconds < state.quiet_since + rules.pause
            or seconds - chain[rules.slow_from][0] > rules.slow
            or seconds - chain[rules.fast_from][0] < rules.fast
            or seconds - state.last_scored > settings.episode_gap_seconds
        ):
            return False
        if seconds > state.now:  # noqa: PLR1730 - as in feed()
            state.now = seconds
        chain.append((seconds, False))
        del chain[0]
        state.scored += 1
        state.last_scored = state.quiet_since = seconds
        state.had_beat = True
        return True

    def _ordinary_second(self, seconds: float, quality: Quality) -> bool:
        """Process a second if no rule can raise or clear an alert because of it; see :meth:`_ordinary_beat`."""
        state = self._alerts.state
        qualities = state.qualities
        if (
            quality != Quality.USABLE
            or state.active
            or state.ended
            or state.quiet_since is None
            or not seconds - state.quiet_since < self._alerts.pause_limit()
            or any(qualities)
        ):
            return False
        if seconds > state.now:  # noqa: PLR1730 - as in feed()
            state.now = seconds
        qualities.append(0)
        if len(qualities) > self._alerts.limits.quality_seconds:
            del qualities[0]
        return True

    def _beat(self, beat: ScoredBeat, changes: list[Alert]) -> None:
        alerts = self._alerts
        if beat.quality >= UNUSABLE:
            alerts.forget_rhythm(beat.seconds)
            return
        asystole.at_beat(alerts, beat, changes)
        heart_rate.at_beat(alerts, beat, changes)
        # In noise the score does not describe the beat's shape, and NaN is no score
        if beat.quality != NOISY and not isnan(beat.score):
            episode.at_beat(alerts, beat, changes)
        state = alerts.state
        state.had_beat = True
        if state.quiet_since is None or beat.seconds > state.quiet_since:
            state.quiet_since = beat.seconds

    def _second(self, second: SecondPassed, changes: list[Alert]) -> None:
        alerts = self._alerts
        if alerts.state.quiet_since is None:
            alerts.state.quiet_since = second.seconds - 1.0
        if second.quality >= UNUSABLE:
            alerts.forget_rhythm(second.seconds)
        else:
            asystole.at_second(alerts, second.seconds, changes)
        technical.at_second(alerts, second, changes)
        dropped.at_second(alerts, second.seconds, changes)
