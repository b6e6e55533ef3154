"""Anomalous episode: several of the last beats have a high score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ecgmon.monitor.core.alerts.kinds import AlertKind

if TYPE_CHECKING:
    from ecgmon.monitor.core.alerts.items import Alert, ScoredBeat
    from ecgmon.monitor.core.alerts.state import StreamAlerts


_KIND: Final = AlertKind.ANOMALOUS_EPISODE


def at_beat(alerts: StreamAlerts, beat: ScoredBeat, changes: list[Alert]) -> None:
    """Raise or clear the alert: at least K of the last M scored beats are anomalous."""
    state, settings = alerts.state, alerts.settings
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

    if _KIND in state.active:
        if state.scored >= settings.episode_beats_m and len(anomalous) <= settings.episode_clear_beats:
            alerts.end(changes, _KIND)
    elif len(anomalous) >= settings.episode_beats_k:
        seqs = [seq for _, _, seq in anomalous]
        considered = min(state.scored, settings.episode_beats_m)
        message = (
            f"{len(seqs)} of the last {considered} beats scored {settings.score_threshold:g} or more"
            f" (the newest {beat.score:.1f})"
        )
        alerts.begin(changes, _KIND, anomalous[0][1], message, seqs)
