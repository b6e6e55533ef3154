"""The picture at the end of a demo: the strip with the most anomalous beats, one of them explained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from ecgmon.models.inference.reconstruction import Scorer
from ecgmon.models.inference.ticks import relative
from ecgmon.monitor.store import Reader
from ecgmon.pipelines.items import Quality
from ecgmon.pipelines.offline.explanation import unscale
from ecgmon.pipelines.offline.pictures import Beat, Strip, busiest_stretch, draw_strip
from ecgmon.pipelines.segmentation.segmenter import Segmenter

if TYPE_CHECKING:
    from pathlib import Path

    from ecgmon.pipelines.sources.record import RecordSource

_SECONDS: Final = 30.0  # of signal: three rows


def draw_closing_picture(
    path: Path, state: Path, source: RecordSource, *, threshold: float, weights: Path | None = None
) -> None:
    """Draw the most anomalous part of a record from its store.

    Parameters
    ----------
    path : Path
        PNG to write.
    state : Path
        State folder of the store.
    source : RecordSource
        The record that was replayed.
    threshold : float
        A beat with at least this score is anomalous.
    weights : Path, optional
        The model that scored; the shipped one by default.

    Raises
    ------
    OSError
        If the file cannot be written.
    ecgmon.monitor.store.StoreError
        If the store cannot be read.
    """
    with Reader(state) as reader:
        beats = reader.beats(source.stream)
        start = busiest_stretch(beats["seconds"], beats["score"] >= threshold, _SECONDS)
        shown = beats[(beats["seconds"] >= start) & (beats["seconds"] < start + _SECONDS)]
        kept = [(row, detail) for row in shown if (detail := reader.detail(source.stream, int(row["seq"]))) is not None]
    if not kept:
        return  # no beat was stored with its window, so no beat can be explained
    # the beat with the highest score, of those with usable signal if there are any
    row, (window, ticks) = max(
        kept, key=lambda pair: (pair[0]["quality"] == Quality.USABLE, float(np.nan_to_num(pair[0]["score"], nan=-1.0)))
    )
    lead = Segmenter(source.fs, source.leads).lead
    scorer = Scorer(weights)
    _, reconstruction = scorer.reconstruct(np.ascontiguousarray(window[None, : scorer.info.leads]))
    signal = source.read(round(start * source.fs), round((start + _SECONDS) * source.fs))
    draw_strip(
        path,
        Strip(
            stream=source.stream,
            lead=lead,
            fs=source.fs,
            start=start,
            signal=signal[:, source.leads.index(lead)],
            beat_seconds=shown["seconds"],
            beat_scores=shown["score"].astype(np.float32),
        ),
        Beat(
            seq=int(row["seq"]),
            seconds=float(row["seconds"]),
            score=float(row["score"]),
            ax=float(row["error"]),
            rr=float(row["rr"]),
            rr_ratio=float(row["rr_ratio"]),
            window=window[0],
            reconstruction=unscale(reconstruction[0, 0], window[0]),
            relative_error=relative(ticks[None], scorer.info.usual)[0],
        ),
        threshold=threshold,
    )
