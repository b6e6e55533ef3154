"""Alert rules: which conditions of a stream are raised and cleared, and when.

A pure function of the items of a stream in their order, without a clock: the same items give the
same alerts, however fast they came and wherever the state was saved and restored in between.

Kinds and limits of asystole, extreme bradycardia and extreme tachycardia are those of the
PhysioNet/Computing in Cardiology Challenge 2015 (Clifford et al., "The PhysioNet/Computing in
Cardiology Challenge 2015: Reducing False Arrhythmia Alarms in the ICU"); the priorities are those
of IEC 60601-1-8.  docs/alerts.md explains every rule and its default.

All times are stream time: seconds from the stream's first sample.
Each rule is a module: asystole, heart_rate, episode, technical, dropped, stalled.  The engine runs them.
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
