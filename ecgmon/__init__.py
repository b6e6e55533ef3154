"""ecgmon: a streaming ECG monitoring daemon, and its parts for use from Python.

>>> import ecgmon
>>> scores = ecgmon.score("toy")
>>> scores
<ecgmon.Scores: 503 beats in 300 s of lead MLII at 360 Hz, 92 anomalous, 5 alerts>

Names are imported when they are first used, so ``import ecgmon`` is fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecgmon._lazy import lazily

if TYPE_CHECKING:
    from ecgmon import errors, testing
    from ecgmon.models.inference.model import Model, load_model
    from ecgmon.monitor.config.schema import AlertSettings
    from ecgmon.monitor.core.alerts import Alert
    from ecgmon.monitor.offline.scores import Scores, explain, score
    from ecgmon.monitor.process.client import MonitorClient, connect
    from ecgmon.monitor.process.observations import LiveScore, MonitorStatus, StreamAlert, StreamStatus
    from ecgmon.pipelines.evaluation.own import Figures, Separation, evaluate
    from ecgmon.pipelines.offline.beats import Beats, segment
    from ecgmon.pipelines.training.own import train
    from ecgmon.pipelines.training.splits import Drawn

__all__ = [
    "Alert",
    "AlertSettings",
    "Beats",
    "Drawn",
    "Figures",
    "LiveScore",
    "Model",
    "MonitorClient",
    "MonitorStatus",
    "Scores",
    "Separation",
    "StreamAlert",
    "StreamStatus",
    "connect",
    "errors",
    "evaluate",
    "explain",
    "load_model",
    "score",
    "segment",
    "testing",
    "train",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "ecgmon.errors": (),
        "ecgmon.models.inference.model": ("Model", "load_model"),
        "ecgmon.monitor.config.schema": ("AlertSettings",),
        "ecgmon.monitor.core.alerts": ("Alert",),
        "ecgmon.monitor.offline.scores": ("Scores", "explain", "score"),
        "ecgmon.monitor.process.client": ("MonitorClient", "connect"),
        "ecgmon.monitor.process.observations": ("LiveScore", "MonitorStatus", "StreamAlert", "StreamStatus"),
        "ecgmon.pipelines.evaluation.own": ("Figures", "Separation", "evaluate"),
        "ecgmon.pipelines.offline.beats": ("Beats", "segment"),
        "ecgmon.pipelines.training.own": ("train",),
        "ecgmon.pipelines.training.splits": ("Drawn",),
        "ecgmon.testing": (),
    },
)
