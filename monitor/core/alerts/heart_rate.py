"""Extreme bradycardia and tachycardia: the mean heart rate over some consecutive beats."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

from ecgmon.monitor.core.alerts.kinds import AlertKind
from ecgmon.monitor.core.alerts.state import NOISY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ecgmon.monitor.core.alerts.items import Alert, ScoredBeat
    from ecgmon.monitor.core.alerts.state import StreamAlerts


# In Python 3.11 a module-level name is ten times faster to look up than a member of an enum
_BRADYCARDIA: Final = AlertKind.EXTREME_BRADYCARDIA
_TACHYCARDIA: Final = AlertKind.EXTREME_TACHYCARDIA


def at_beat(alerts: StreamAlerts, beat: ScoredBeat, changes: list[Alert]) -> None:
    """Raise or clear the alerts, from the mean rate over some consecutive beats."""
    state, settings = alerts.state, alerts.settings
    chain = state.chain
    # The comparison is False if rr is NaN; this also clears the chain
    if chain and not (
        beat.rr < alerts.limits.pause and chain[-1][0] < beat.seconds < chain[-1][0] + alerts.limits.pause
    ):
        chain.clear()
    chain.append((beat.seconds, beat.quality == NOISY))
    n = len(chain)
    if n > alerts.limits.chain_length:
        del chain[0]
        n -= 1

    beats = settings.bradycardia_beats
    if n >= beats:
        span = beat.seconds - chain[-beats][0]
        if _BRADYCARDIA in state.active:
            if span <= alerts.limits.slow_clear:
                alerts.end(changes, _BRADYCARDIA)
        elif span > alerts.limits.slow and _slow_without_pause(alerts, chain[-beats:]):
            _begin(alerts, changes, _BRADYCARDIA, beat.seq, chain[-beats:])

    beats = settings.tachycardia_beats
    if n >= beats:
        span = beat.seconds - chain[-beats][0]
        if _TACHYCARDIA in state.active:
            if span >= alerts.limits.fast_clear:
                alerts.end(changes, _TACHYCARDIA)
        elif span < alerts.limits.fast:
            _begin(alerts, changes, _TACHYCARDIA, beat.seq, chain[-beats:])


def _begin(
    alerts: StreamAlerts, changes: list[Alert], kind: AlertKind, last_seq: int, beats: Sequence[tuple[float, bool]]
) -> None:
    start, end = beats[0][0], beats[-1][0]
    if kind == _BRADYCARDIA:
        limit = f"below {alerts.settings.bradycardia_per_minute:g}/min"
    else:
        limit = f"above {alerts.settings.tachycardia_per_minute:g}/min"
    rate = (len(beats) - 1) * 60.0 / (end - start)
    in_noise = sum(noisy for _, noisy in beats)
    noise = f"; {in_noise} of them in noise" if in_noise else ""
    message = f"heart rate {rate:.1f}/min over {len(beats)} beats, {limit}{noise}"
    alerts.begin(changes, kind, start, message, range(last_seq - len(beats) + 1, last_seq + 1))


def _slow_without_pause(alerts: StreamAlerts, beats: Sequence[tuple[float, bool]]) -> bool:
    """Return whether beats are too slow even without the longest interval: a single pause is not bradycardia."""
    intervals = [later[0] - earlier[0] for earlier, later in pairwise(beats)]
    if len(intervals) > 1:
        intervals.remove(max(intervals))
    return sum(intervals) > len(intervals) * 60.0 / alerts.settings.bradycardia_per_minute
