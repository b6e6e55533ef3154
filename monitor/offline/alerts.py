"""Alerts without a daemon, from the same items and rules: they are the same to the last bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ecgmon.monitor.core.commit import StreamState
from ecgmon.monitor.core.outcomes import Rules, ScoredRows, latest
from ecgmon.pipelines.offline.record import CHUNK_SECONDS, scored_parts
from ecgmon.pipelines.scoring.stream import StreamScorer
from ecgmon.pipelines.segmentation.segmenter import DEFAULT_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ecgmon.models.inference.reconstruction import Scorer
    from ecgmon.monitor.config.schema import AlertSettings
    from ecgmon.monitor.core.alerts import Alert
    from ecgmon.monitor.core.commit import Entry
    from ecgmon.monitor.core.outcomes import Detail
    from ecgmon.pipelines.offline.record import ScoredRecord
    from ecgmon.pipelines.scoring.chain import ScoredItems
    from ecgmon.pipelines.segmentation.segmenter import SegmentSettings
    from ecgmon.pipelines.sources.record import RecordSource


@dataclass(frozen=True, slots=True)
class Watched:
    """The next items of a source, and what a daemon would store for them.

    Attributes
    ----------
    scored : ScoredItems
    entry : Entry
        Rows, details, alerts raised and cleared, and the state of the stream after them.
    """

    scored: ScoredItems
    entry: Entry

    @property
    def alerts(self) -> list[Alert]:
        """Alerts that these items raise (``end`` is None) and clear, in order; times in s of stream time."""
        return self.entry.alerts


def watch(
    source: RecordSource,
    scorer: Scorer,
    settings: AlertSettings,
    *,
    segmentation: SegmentSettings = DEFAULT_SETTINGS,
    detail: Detail = "anomalous",
    chunk_seconds: float = CHUNK_SECONDS,
) -> Iterator[Watched]:
    """Score a source from its beginning, and yield what a daemon would commit for it.

    Parameters
    ----------
    source : RecordSource
        It can be endless.
    scorer : ecgmon.models.inference.reconstruction.Scorer
    settings : AlertSettings
    segmentation : SegmentSettings
    detail : Detail
        Beats that are kept with their window.
    chunk_seconds : float
        Signal that is read at a time, in seconds; it changes only how many items are yielded together.

    Raises
    ------
    SourceError
        If the source cannot be read further; all items before are yielded first.
    ecgmon.pipelines.segmentation.segmenter.SegmentationError
        If the segmenter refuses the source.
    """
    stream_scorer = StreamScorer(source.fs, source.leads, scorer, settings=segmentation)
    rules = Rules(StreamState(0, source.stream, source.fs, stream_scorer.leads), settings, detail=detail)
    for scored in scored_parts(source, stream_scorer, chunk_seconds=chunk_seconds):
        outcome = rules.conclude(ScoredRows.of_items(scored))
        rules.commit(outcome.entry)
        yield Watched(scored, outcome.entry)


def alerts_of(record: ScoredRecord, settings: AlertSettings) -> list[Alert]:
    """Return the alerts of a scored record, each in its last state.

    Parameters
    ----------
    record : ScoredRecord
    settings : AlertSettings

    Returns
    -------
    list of Alert
        In the order in which they were raised; times in s from the record's beginning, as in ``record``.
    """
    alerts = alerts_of_rows(ScoredRows.of_table(record.items, record.ax, record.score), record.fs, settings)
    if not record.first:
        return alerts
    first = record.first / record.fs
    return [
        replace(
            alert,
            start=alert.start + first,
            raised=alert.raised + first,
            end=None if alert.end is None else alert.end + first,
        )
        for alert in alerts
    ]


def alerts_of_rows(rows: ScoredRows, fs: float, settings: AlertSettings) -> list[Alert]:
    """Return the alerts of a complete stream, each in its last state, in the order in which they were raised.

    Parameters
    ----------
    rows : ScoredRows
        All items of the stream.
    fs : float
        Sampling frequency in Hz.
    settings : AlertSettings
    """
    rules = Rules(StreamState(0, "", fs, ()), settings, detail="none")
    return latest(rules.conclude(rows).entry.alerts)
