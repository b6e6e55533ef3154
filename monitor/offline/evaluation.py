"""``ecgmon evaluate stream``: beats, scores and alerts of a folder's records against their reference annotations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ecgmon.monitor.core.alerts import AlertEngine, AlertKind, End, ScoredBeat, SecondPassed
from ecgmon.monitor.core.outcomes import ScoredRows, latest
from ecgmon.monitor.offline.alerts import alerts_of_rows
from ecgmon.pipelines.evaluation.ec57 import (
    BEAT_SYMBOLS,
    Reference,
    evaluate_records,
    match_beats,
    summarise,
)
from ecgmon.pipelines.items import Quality
from ecgmon.pipelines.limits import MATCH_SECONDS
from ecgmon.pipelines.scoring.chain import Chain
from ecgmon.pipelines.training.classes import SYMBOLS, BeatClass
from ecgmon.pipelines.training.records import ANNOTATOR
from ecgmon.pipelines.training.separation import auc, average_precision

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgmon.models.inference.reconstruction import Scorer
    from ecgmon.monitor.config.schema import AlertSettings
    from ecgmon.monitor.core.alerts import Alert
    from ecgmon.pipelines.items import Items
    from ecgmon.pipelines.sources.annotations import Annotations

RHYTHM: Final = (AlertKind.ASYSTOLE, AlertKind.EXTREME_BRADYCARDIA, AlertKind.EXTREME_TACHYCARDIA)
"""Alerts about the times of beats.  One is true if the annotated beats raise one of the same kind at that time."""

_CLASS_OF: Final = {symbol: aami for aami, symbols in SYMBOLS.items() for symbol in symbols}
_NORMAL_SCORE: Final = 0.0  # of annotated beats, of which only the times matter


@dataclass(slots=True)
class _Found:
    """Results of the records so far."""

    scores: list[NDArray[np.float32]] = field(default_factory=list)
    classes: list[NDArray[np.int64]] = field(default_factory=list)
    raised: dict[str, int] = field(default_factory=dict)
    false: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def evaluate_stream(
    folder: Path, scorer: Scorer, settings: AlertSettings, *, annotator: str = ANNOTATOR, progress: bool = True
) -> dict[str, Any]:
    """Stream every annotated record of a folder through segmenter, scorer and alert rules.

    Parameters
    ----------
    folder : Path
        WFDB records with annotated beats, also in sub-folders.
    scorer : Scorer
    settings : AlertSettings
    annotator : str
        Suffix of the annotation files.
    progress : bool
        Show a progress bar on standard error.

    Returns
    -------
    dict
        ``records``, ``qrs``, ``qrs_after_learning``: see :func:`ecgmon.pipelines.evaluation.ec57.summarise`;
        ``anomaly``: AUC and average precision of the stream's scores, abnormal against normal, over detected beats that
        match an annotated one (classes as in the BeatGAN protocol), and in ``without_q`` the same without paced and
        unclassifiable beats; ``alerts``: raised alerts by kind, and false ones per hour.

    Raises
    ------
    SourceError
        If the folder has no annotated records or one of them cannot be read.

    Notes
    -----
    An anomalous episode is false if none of the beats that raised it matches an annotated abnormal
    beat.  An alert about the rhythm is false if the annotated beats, run through the same rules, raise
    none of its kind at that time.  Technical alerts are not judged, because there are no annotations for them.
    """
    found = _Found()

    def inspect(stream: str, fs: float, annotations: Annotations, items: Items) -> None:
        del stream
        _judge(found, fs, annotations, items, scorer=scorer, settings=settings)

    results = evaluate_records(folder, annotator=annotator, progress=progress, inspect=inspect)
    return {**summarise(results), "anomaly": _anomaly(found), "alerts": _alerts(found)}


def _judge(
    found: _Found, fs: float, annotations: Annotations, items: Items, *, scorer: Scorer, settings: AlertSettings
) -> None:
    reference = Reference.of(annotations, int(items.table["sample"][-1]))
    scored = Chain(items.windows.shape[1]).score(items, scorer)
    score = scored.score

    is_beat = np.isin(annotations.symbol, sorted(BEAT_SYMBOLS))
    truth, symbols = annotations.sample[is_beat], annotations.symbol[is_beat]
    pairs = match_beats(truth, items.beats["sample"].astype(np.int64), round(MATCH_SECONDS * fs))
    classes = np.full(len(score), -1)
    classes[pairs[:, 1]] = [_CLASS_OF.get(str(symbols[i]), -1) for i in pairs[:, 0]]
    known = (classes >= 0) & ~np.isnan(score)
    found.scores.append(score[known])
    found.classes.append(classes[known])

    alerts = alerts_of_rows(ScoredRows.of_items(scored), fs, settings)
    expected = _run_reference(settings, fs, reference, items)
    for alert in alerts:
        kind = alert.kind.value
        if alert.kind == AlertKind.ANOMALOUS_EPISODE:
            false = not (classes[list(alert.beats)] > BeatClass.N).any()
        elif alert.kind in RHYTHM:
            false = not any(other.kind == alert.kind and _overlap(alert, other) for other in expected)
        else:
            continue
        found.raised[kind] = found.raised.get(kind, 0) + 1
        found.false[kind] = found.false.get(kind, 0) + false
    found.seconds += int(items.table["sample"][-1]) / fs


def _run_reference(settings: AlertSettings, fs: float, reference: Reference, items: Items) -> list[Alert]:
    """Return the alerts about the rhythm that the annotated beats raise; all signal counts as usable."""
    engine = AlertEngine(settings)
    changes: list[Alert] = []
    length = int(items.table["sample"][-1]) / fs
    intervals = np.diff(reference.sample, prepend=np.nan) / fs
    moments: list[tuple[float, ScoredBeat | SecondPassed]] = [
        (sample / fs, ScoredBeat(seq, sample / fs, rr, _NORMAL_SCORE, Quality.USABLE))
        for seq, (sample, rr) in enumerate(zip(reference.sample.tolist(), intervals.tolist(), strict=True))
    ]
    moments += [(second + 1.0, SecondPassed(second + 1.0, Quality.USABLE)) for second in range(int(length))]
    for _, item in sorted(moments, key=lambda moment: moment[0]):
        changes += engine.feed(item)
    changes += engine.feed(End(length))
    return [alert for alert in latest(changes) if alert.kind in RHYTHM]


def _overlap(one: Alert, other: Alert) -> bool:
    return one.start <= (other.end or np.inf) and other.start <= (one.end or np.inf)


def _anomaly(found: _Found) -> dict[str, Any]:
    scores, classes = np.concatenate(found.scores), np.concatenate(found.classes)
    normal = classes == BeatClass.N
    counts = {aami.name: int(np.count_nonzero(classes == aami)) for aami in BeatClass}
    if not normal.any() or normal.all():
        return {"auc": None, "ap": None, "per_class": {}, "without_q": None, "beats": counts}
    return {
        "auc": auc(scores[normal], scores[~normal]),
        "ap": average_precision(scores[normal], scores[~normal]),
        "per_class": {
            aami.name: auc(scores[normal], scores[classes == aami])
            for aami in BeatClass
            if aami != BeatClass.N and counts[aami.name]
        },
        "without_q": _without_q(scores[normal], scores[~normal & (classes != BeatClass.Q)]),
        "beats": counts,
    }


def _without_q(normal: NDArray[np.float32], abnormal: NDArray[np.float32]) -> dict[str, float] | None:
    """Return the figures without paced beats, which AAMI EC57 leaves out; None without abnormal beats."""
    return {"auc": auc(normal, abnormal), "ap": average_precision(normal, abnormal)} if len(abnormal) else None


def _alerts(found: _Found) -> dict[str, Any]:
    hours = found.seconds / 3600
    return {
        "false_per_hour": sum(found.false.values()) / hours,
        "hours": hours,
        "kinds": {kind: {"raised": count, "false": found.false[kind]} for kind, count in sorted(found.raised.items())},
    }
