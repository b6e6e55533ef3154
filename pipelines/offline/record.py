"""Score records offline: run the daemon's segmenter and scoring chain over a record from its beginning.

The results of :func:`score_record` equal those that the daemon stores for the record, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ecgmon.models.features import NAMES
from ecgmon.pipelines.items import Items, Kind, Quality
from ecgmon.pipelines.scoring.stream import StreamScorer
from ecgmon.pipelines.segmentation.rhythm import RHYTHM, around
from ecgmon.pipelines.segmentation.segmenter import DEFAULT_SETTINGS
from ecgmon.pipelines.sources.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from ecgmon.models.inference.reconstruction import Scorer
    from ecgmon.pipelines.scoring.chain import ScoredItems
    from ecgmon.pipelines.segmentation.segmenter import SegmentSettings
    from ecgmon.pipelines.sources.record import RecordSource

CHUNK_SECONDS: Final = 60.0
"""Length of the signal that is segmented and scored at once, in seconds: enough beats to fill the scorer's tiles."""


@dataclass(frozen=True, slots=True)
class ScoredRecord:
    """Results for a record.

    Attributes
    ----------
    stream : str
    fs : float
        Sampling frequency in Hz.
    lead : str
        Lead from which the windows are cut.
    leads : tuple of str
        This lead and, if the record has one, a second lead, which the score also uses.
    substituted : bool
        True if the lead is neither MLII nor II, the leads that the model was trained for.
    first : int
        Sample of the record that is sample 0 of ``items``.
    samples : int
        Number of samples that were read.
    items : ndarray of ITEM, shape (m,)
        Beats, seconds and the end, from the segmenter.
    ax : ndarray of float32, shape (n,)
        A(x) of each beat; NaN if it could not be scored.
    score : ndarray of float32, shape (n,)
        -log10 of the share of normal beats that score at least as high; NaN if a beat could not be scored.
    features : ndarray of float32, shape (n, len(feature_names))
        Evidence for the score, one column for each of :attr:`feature_names`; NaN where not known.
    windows : ndarray of float32, shape (n, leads, LENGTH)
        Filtered windows in mV; no rows unless requested.
    failure : SourceError or None
        Why reading stopped before the end of the record; the results before it are valid.
    """

    stream: str
    fs: float
    lead: str
    leads: tuple[str, ...]
    substituted: bool
    first: int
    samples: int
    items: NDArray[np.void]
    ax: NDArray[np.float32]
    score: NDArray[np.float32]
    features: NDArray[np.float32]
    windows: NDArray[np.float32]
    failure: SourceError | None

    @property
    def beats(self) -> NDArray[np.void]:
        """The rows of ``items`` that are beats, shape (n,)."""
        beats: NDArray[np.void] = self.items[self.items["kind"] == Kind.BEAT]
        return beats

    @property
    def sample(self) -> NDArray[np.int64]:
        """R peaks as sample indices into the record, shape (n,)."""
        sample: NDArray[np.int64] = self.beats["sample"] + self.first
        return sample

    @property
    def seconds(self) -> NDArray[np.float64]:
        """R peaks in seconds from the record's beginning, shape (n,)."""
        return self.sample / self.fs

    @property
    def rr(self) -> NDArray[np.float32]:
        """RR interval to the previous beat, in s, shape (n,); NaN if there is none."""
        rr: NDArray[np.float32] = self.beats["rr"]
        return rr

    @property
    def rr_ratio(self) -> NDArray[np.float32]:
        """``rr`` over the mean of the (up to) eight intervals before it, shape (n,); NaN until four are known."""
        rr_ratio: NDArray[np.float32] = self.beats["rr_ratio"]
        return rr_ratio

    @property
    def quality(self) -> NDArray[np.uint8]:
        """:class:`ecgmon.pipelines.items.Quality` of the signal at each beat, shape (n,)."""
        quality: NDArray[np.uint8] = self.beats["quality"]
        return quality

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the columns of ``features``: see :mod:`ecgmon.models.score.evidence`."""
        return NAMES

    @property
    def quality_seconds(self) -> dict[Quality, int]:
        """Number of seconds of each quality."""
        qualities = self.items["quality"][self.items["kind"] == Kind.SECOND]
        return {quality: int(np.count_nonzero(qualities == quality)) for quality in Quality}

    def table(self, threshold: float) -> dict[str, NDArray[Any]]:
        """Return the columns of the results, in the order in which they are written.

        Parameters
        ----------
        threshold : float
            A beat is anomalous if its score is at least this.

        Returns
        -------
        dict from str to ndarray, each of shape (n,)
            ============== ======= ================================================================
            seq            int64   number of the beat in the stream
            sample         int64   R peak as a sample index into the record
            seconds        float64 R peak in seconds from the record's beginning
            rr             float32 RR interval to the previous beat, in s; NaN if there is none
            rr_ratio       float32 ``rr`` over the mean of up to eight before; NaN until four are known
            rr_after       float32 RR interval to the next beat, in s; NaN if there is none
            rr_after_ratio float32 ``rr_after`` over the same mean; NaN if ``rr_ratio`` is
            rate           float32 local heart rate in beats/min: 60 over that mean
            quality        str     signal at the beat: usable, noisy, saturated, flat or missing
            ax             float32 A(x); NaN if the beat could not be scored
            score          float32 -log10 of the share of normal beats that score at least as high
            anomalous      bool    score at or above the threshold
            ============== ======= ================================================================
        """
        beats = self.beats
        sample = beats["sample"] + self.first
        rhythm = around(sample / self.fs, beats["rr"], beats["rr_ratio"])
        return {
            "seq": beats["seq"].astype(np.int64),
            "sample": sample,
            "seconds": sample / self.fs,
            "rr": beats["rr"],
            "rr_ratio": beats["rr_ratio"],
            **{name: rhythm[name] for name in RHYTHM.names or ()},
            "quality": np.array([Quality(quality).name.lower() for quality in beats["quality"]], np.str_),
            "ax": self.ax,
            "score": self.score,
            "anomalous": self.score >= threshold,
        }


def scored_parts(
    source: RecordSource,
    through: StreamScorer,
    *,
    until: int | None = None,
    chunk_seconds: float = CHUNK_SECONDS,
    progress: Callable[[int], None] | None = None,
) -> Iterator[ScoredItems]:
    """Read a source from its beginning and yield its scored items, chunk by chunk.

    Parameters
    ----------
    source : RecordSource
        Read from its beginning; its position does not matter.
    through : StreamScorer
        Segmenter and scorer, made for the sampling frequency and leads of the source.
    until : int, optional
        Sample index of the stream at which to stop; by default the end.
    chunk_seconds : float
        Length of the signal that is read at once, in seconds; it changes no result.
    progress : callable, optional
        Called after the items of each chunk are taken, with the number of samples read so far.

    Raises
    ------
    SourceError
        If reading fails; all items before the failure are yielded first.
    """
    samples, failure = 0, None
    try:
        for chunk in source.at(0).chunks(chunk_seconds):
            part = chunk if until is None else chunk[: until - samples]
            yield through.push(part)
            samples += len(part)
            if progress is not None:
                progress(samples)
            if until is not None and samples >= until:
                break
    except SourceError as error:
        failure = error
    if until is None or failure is not None:
        yield through.finish()
    if failure is not None:
        raise failure


def score_record(
    source: RecordSource,
    scorer: Scorer,
    *,
    settings: SegmentSettings | None = None,
    until: int | None = None,
    keep_windows: bool = False,
    progress: Callable[[int], None] | None = None,
) -> ScoredRecord:
    """Segment and score a record.

    Parameters
    ----------
    source : RecordSource
        Read from its beginning; its position does not matter.  It must have an end.
    scorer : ecgmon.models.inference.reconstruction.Scorer
    settings : SegmentSettings, optional
        Settings of the segmenter; by default those of the daemon.
    until : int, optional
        Sample index of the stream at which to stop; by default the end.
    keep_windows : bool
        Keep the windows, which take 1.3 kB per beat and lead.
    progress : callable, optional
        Called after every chunk with the number of samples read so far.

    Returns
    -------
    ScoredRecord
        Results up to the end or to a failure; the reason of the failure is in ``failure``.

    Raises
    ------
    ecgmon.pipelines.segmentation.segmenter.SegmentationError
        If the segmenter refuses the source.
    ValueError
        If the source never ends.
    """
    if source.length is None and until is None:
        raise ValueError(f"{source.stream} repeats without end and cannot be scored as a whole")
    through = StreamScorer(source.fs, source.leads, scorer, settings=settings or DEFAULT_SETTINGS)
    results: list[_Kept] = []
    samples, failure = 0, None

    def count(read: int) -> None:
        nonlocal samples
        samples = read
        if progress is not None:
            progress(read)

    try:
        for scored in scored_parts(source, through, until=until, progress=count):
            windows = scored.items.windows
            if not keep_windows:
                windows = Items.empty(windows.shape[1]).windows
            results.append(_Kept(scored.items.table, scored.ax, scored.score, scored.evidence.features, windows))
    except SourceError as error:
        failure = error

    return ScoredRecord(
        stream=source.stream,
        fs=source.fs,
        lead=through.lead,
        leads=through.leads,
        substituted=through.substituted,
        first=source.first,
        samples=samples,
        items=np.concatenate([result.items for result in results]),
        ax=np.concatenate([result.ax for result in results]),
        score=np.concatenate([result.score for result in results]),
        features=np.concatenate([result.features for result in results]),
        windows=np.concatenate([result.windows for result in results]),
        failure=failure,
    )


@dataclass(frozen=True, slots=True)
class _Kept:
    """Results of one chunk."""

    items: NDArray[np.void]
    ax: NDArray[np.float32]
    score: NDArray[np.float32]
    features: NDArray[np.float32]
    windows: NDArray[np.float32]
