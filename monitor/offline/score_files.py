"""Score a record without a daemon, and write the scores to files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from ecgmon.monitor.config.schema import AlertSettings
from ecgmon.monitor.offline.alerts import alerts_of
from ecgmon.pipelines.offline.files import write_annotations, write_csv, write_parquet
from ecgmon.pipelines.offline.record import score_record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ecgmon.models.inference.reconstruction import Scorer
    from ecgmon.monitor.core.alerts import Alert
    from ecgmon.pipelines.offline.record import ScoredRecord
    from ecgmon.pipelines.sources.record import RecordSource

_WRITERS: Final[dict[str, Callable[[Path, ScoredRecord, float, str], Path]]] = {
    "wfdb": lambda folder, scored, threshold, _: write_annotations(folder, scored, threshold),
    "csv": lambda folder, scored, threshold, _: write_csv(folder, scored, threshold),
    "parquet": write_parquet,
}


@dataclass(frozen=True, slots=True)
class ScoreFiles:
    """A scored record and its files.

    Attributes
    ----------
    scored : ScoredRecord
    alerts : list of Alert
        Those that the daemon would raise by its default rules with this threshold; times in s of the record.
    files : list of Path
    notes : tuple of str
        Remarks on the record.
    threshold : float
        A beat with at least this score is anomalous.
    """

    scored: ScoredRecord
    alerts: list[Alert]
    files: list[Path]
    notes: tuple[str, ...]
    threshold: float

    def as_json(self) -> dict[str, Any]:
        """Return the object that ``ecgmon score --json`` prints for a record."""
        scored = self.scored
        return {
            "lead": scored.lead,
            "fs": scored.fs,
            "seconds": scored.samples / scored.fs,
            "beats": len(scored.beats),
            "anomalous": int(np.count_nonzero(scored.score >= self.threshold)),
            "unscored": int(np.count_nonzero(np.isnan(scored.score))),
            "quality_seconds": {quality.name.lower(): count for quality, count in scored.quality_seconds.items()},
            "alerts": [msgspec.to_builtins(alert) for alert in self.alerts],
            "files": [str(file) for file in self.files],
            "notes": list(self.notes),
            "failure": None if scored.failure is None else str(scored.failure),
        }


def write_scores(
    source: RecordSource,
    scorer: Scorer,
    folder: Path,
    *,
    formats: Sequence[str],
    threshold: float,
    progress: Callable[[int], None],
) -> ScoreFiles:
    """Score every beat of a record and write the scores.

    Parameters
    ----------
    source : RecordSource
    scorer : Scorer
    folder : Path
        Created if missing; files in it are replaced.
    formats : sequence of str
        Some of ``wfdb``, ``csv`` and ``parquet``.
    threshold : float
        A beat with at least this score is anomalous.
    progress : callable
        Called with the number of samples that were read so far.

    Raises
    ------
    ecgmon.pipelines.sources.errors.SourceError, ecgmon.pipelines.segmentation.segmenter.SegmentationError
        If the record cannot be read.
    ecgmon.models.inference.reconstruction.ScoringError
        If the model cannot score it.
    ecgmon.pipelines.offline.files.OutputError
        If a file cannot be written.
    """
    scored = score_record(source, scorer, progress=progress)
    files = [_WRITERS[name](folder, scored, threshold, scorer.info.fingerprint) for name in formats]
    alerts = alerts_of(scored, AlertSettings(score_threshold=threshold))
    notes = list(source.notes)
    if scored.substituted:
        notes.append(f"no lead MLII or II, so lead {scored.lead} is scored in its place")
    return ScoreFiles(scored, alerts, files, tuple(notes), threshold)
