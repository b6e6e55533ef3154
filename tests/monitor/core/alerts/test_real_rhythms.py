"""Records of MIT-BIH raise the alerts of their annotated rhythms."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import nan
from typing import TYPE_CHECKING

import pytest

from ecgmon.monitor.config.schema import AlertSettings
from ecgmon.monitor.core.alerts import (
    Alert,
    AlertEngine,
    AlertKind,
    End,
    ScoredBeat,
    SecondPassed,
)
from ecgmon.pipelines.items import Kind, Quality
from tests.monitor.core.alerts.streams import (
    USABLE,
)

if TYPE_CHECKING:
    from pathlib import Path

    from ecgmon.monitor.core.alerts.items import Item


RHYTHM = (AlertKind.ASYSTOLE, AlertKind.EXTREME_BRADYCARDIA, AlertKind.EXTREME_TACHYCARDIA)
BEAT_SYMBOLS = frozenset("NLRBAaJSVrFejnE/fQ?")  # of WFDB annotations that mark a beat


def annotated_items(record: Path) -> list[Item]:
    """Make the items of a record from its annotated beats; each second is known one second after its end."""
    import wfdb

    header, annotation = wfdb.rdheader(str(record)), wfdb.rdann(str(record), "atr")
    fs = header.fs
    peaks = [
        float(sample / fs)
        for sample, symbol in zip(annotation.sample, annotation.symbol, strict=True)
        if symbol in BEAT_SYMBOLS
    ]
    intervals = [nan, *[later - earlier for earlier, later in pairwise(peaks)]]
    items: list[tuple[float, Item]] = [
        (peak, ScoredBeat(seq, peak, interval, nan, USABLE))
        for seq, (peak, interval) in enumerate(zip(peaks, intervals, strict=True))
    ]
    items += [(k + 2.0, SecondPassed(k + 1.0, USABLE)) for k in range(int(header.sig_len / fs))]
    items.sort(key=lambda pair: pair[0])
    return [*[item for _, item in items], End(header.sig_len / fs)]


def streamed_items(record: Path) -> list[Item]:
    """Make the items of a record with the segmenter, without scores."""
    import numpy as np
    import wfdb

    from ecgmon.pipelines.segmentation.segmenter import Segmenter

    read = wfdb.rdrecord(str(record), return_res=32)
    segmenter = Segmenter(read.fs, read.sig_name)
    tables = [segmenter.push(read.p_signal.astype(np.float32)).table, segmenter.finish().table]
    items: list[Item] = []
    for row in np.concatenate(tables):
        seconds = float(row["sample"] / read.fs)
        quality = Quality(int(row["quality"]))
        if row["kind"] == Kind.BEAT:
            items.append(ScoredBeat(int(row["seq"]), seconds, float(row["rr"]), nan, quality))
        elif row["kind"] == Kind.SECOND:
            items.append(SecondPassed(seconds + 1.0, quality))
        else:
            items.append(End(seconds))
    return items


def rhythm_alerts(items: list[Item]) -> list[Alert]:
    """Return the alerts about the rhythm, each with its end."""
    engine = AlertEngine(AlertSettings())
    changes = [change for item in items for change in engine.feed(item)]
    return [change for change in changes if change.kind in RHYTHM and change.end is not None]


def records(mitdb: Path) -> list[Path]:
    return sorted(path.with_suffix("") for path in mitdb.glob("*.hea"))


def test_annotated_rhythms_of_mit_bih_raise_the_expected_alerts(mitdb: Path) -> None:
    raised: dict[AlertKind, Counter[str]] = {kind: Counter() for kind in RHYTHM}
    for record in records(mitdb):
        for alert in rhythm_alerts(annotated_items(record)):
            raised[alert.kind][record.name] += 1
    # 232: sinus bradycardia with pauses of up to 6 s; 207: ventricular flutter, whose waves are not annotated as beats
    assert raised[AlertKind.ASYSTOLE] == {"207": 5, "232": 14}
    # 231: second-degree block; 207: idioventricular rhythm
    assert raised[AlertKind.EXTREME_BRADYCARDIA] == {"201": 4, "207": 1, "219": 4, "231": 5, "232": 6}
    # 203: fast atrial fibrillation; 205: ventricular tachycardia; 209: supraventricular tachycardia
    assert raised[AlertKind.EXTREME_TACHYCARDIA] == {"203": 2, "205": 1, "209": 6}


@pytest.mark.slow
def test_streamed_records_raise_the_alerts_of_their_annotated_rhythms_and_few_others(mitdb: Path) -> None:
    missed: list[tuple[str, Alert]] = []
    extra: list[tuple[str, Alert]] = []
    for record in records(mitdb):
        reference, streamed = rhythm_alerts(annotated_items(record)), rhythm_alerts(streamed_items(record))

        def has(alert: Alert, others: list[Alert]) -> bool:
            assert alert.end is not None
            return any(o.kind == alert.kind and o.start < alert.end and alert.start < (o.end or 0) for o in others)

        missed += [(record.name, alert) for alert in reference if not has(alert, streamed)]
        extra += [(record.name, alert) for alert in streamed if not has(alert, reference)]
    # The detector takes some waves of the flutter in 207 for beats: no asystole, but an alert about the rate,
    # whose message mentions noise
    flutter = [alert for name, alert in extra if name == "207"]
    assert all(alert.kind != AlertKind.ASYSTOLE and "in noise" in alert.message for alert in flutter)
    assert [entry for entry in missed if entry[0] != "207"] == []
    assert len(extra) - len(flutter) <= 2, [(name, a.kind, a.start, a.message) for name, a in extra]  # in 24 hours
