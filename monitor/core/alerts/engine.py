"""The alert rules of a stream, run over its items in order."""

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
    """A snapshot of the alert rules cannot be used, or items came in an impossible order."""


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

    __slots__ = ("_alerts",)

    def __init__(self, settings: AlertSettings) -> None:
        self._alerts = StreamAlerts(settings)

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
            state = msgspec.msgpack.decode(data, type=State)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise AlertStateError(
                f"{len(data)} bytes are no snapshot of the alert rules ({error}); expected what snapshot() returned"
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
        """Everything that the rules remember, for :meth:`restore`; bounded by the settings."""
        return msgspec.msgpack.encode(self._alerts.state)

    @property
    def active(self) -> tuple[Alert, ...]:
        """Alerts raised and not cleared, in the order in which they were raised."""
        return tuple(self._alerts.state.active.values())

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
        state, rules, settings = self._alerts.state, self._alerts.limits, self._alerts.settings
        chain = state.chain
        # A comparison with NaN is False, and a beat that has one is not ordinary
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
        state.beaten = True
        return True

    def _ordinary_second(self, seconds: float, quality: Quality) -> bool:
        """Take a second of the stream if no rule has anything to say about it: see :meth:`_ordinary_beat`."""
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
            alerts.lose_sight(beat.seconds)
            return
        asystole.at_beat(alerts, beat, changes)
        heart_rate.at_beat(alerts, beat, changes)
        # The shape of noise is not the shape of a beat, and NaN is no score
        if beat.quality != NOISY and not isnan(beat.score):
            episode.at_beat(alerts, beat, changes)
        state = alerts.state
        state.beaten = True
        if state.quiet_since is None or beat.seconds > state.quiet_since:
            state.quiet_since = beat.seconds

    def _second(self, second: SecondPassed, changes: list[Alert]) -> None:
        alerts = self._alerts
        if alerts.state.quiet_since is None:
            alerts.state.quiet_since = second.seconds - 1.0
        if second.quality >= UNUSABLE:
            alerts.lose_sight(second.seconds)
        else:
            asystole.at_second(alerts, second.seconds, changes)
        technical.at_second(alerts, second, changes)
        dropped.at_second(alerts, second.seconds, changes)
