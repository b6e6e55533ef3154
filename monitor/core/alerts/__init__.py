"""Alert rules: when the conditions of a stream are raised and cleared.

Alerts depend only on the items of a stream and their order.  There is no clock: the same items give the
same alerts at any speed, even if the state was saved and restored in between.

The kinds and limits of asystole, extreme bradycardia and extreme tachycardia are those of the
PhysioNet/Computing in Cardiology Challenge 2015 (Clifford et al., "The PhysioNet/Computing in
Cardiology Challenge 2015: Reducing False Arrhythmia Alarms in the ICU"); the priorities are those
of IEC 60601-1-8.  docs/alerts.md explains every rule and its default.

All times are stream time: seconds from the stream's first sample.
Each rule has its own module: asystole, heart_rate, episode, technical, dropped, stalled.  The engine runs them.
"""

from ecgmon.monitor.core.alerts.engine import AlertEngine, AlertStateError
from ecgmon.monitor.core.alerts.items import Alert, End, Gap, ScoredBeat, SecondPassed, Stalled
from ecgmon.monitor.core.alerts.kinds import AlertKind, Priority

__all__ = [
    "Alert",
    "AlertEngine",
    "AlertKind",
    "AlertStateError",
    "End",
    "Gap",
    "Priority",
    "ScoredBeat",
    "SecondPassed",
    "Stalled",
]
