"""Find the beats of an array or a record, without a model."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecgmon.pipelines.items import Items, Quality
from ecgmon.pipelines.segmentation.segmenter import DEFAULT_SETTINGS, Segmenter
from ecgmon.pipelines.sources.arrays import source_of
from ecgmon.pipelines.sources.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from ecgmon.pipelines.segmentation.segmenter import SegmentSettings

_CHUNK_SECONDS = 60.0
_QUALITIES = np.array([quality.name.lower() for quality in Quality], np.str_)


@dataclass(frozen=True, slots=True, eq=False)
class Beats:
    """The beats that :func:`ecgmon.segment` found; every array has one row per beat.

    Attributes
    ----------
    record : str
        Name of the record; ``array`` for samples.
    fs : float
        Sampling frequency in Hz.
    leads : tuple of str
        Leads of the windows; a model scores the first one.
    duration : float
        Length of the signal in s.
    sample : ndarray of int64, shape (beats,)
        R peaks, as indices into the samples.
    time : ndarray of float64, shape (beats,)
        R peaks, in s from the first sample.
    rr : ndarray of float32, shape (beats,)
        RR interval to the previous beat, in s; NaN for the first beat and after a part without signal.
    rr_ratio : ndarray of float32, shape (beats,)
        ``rr`` over the mean of the (up to) eight RR intervals before it; NaN until four are known.
    quality : ndarray of str, shape (beats,)
        Quality of the signal at the beat: ``usable``, ``noisy``, ``saturated``, ``flat`` or ``missing``.
    windows : ndarray of float32, shape (beats, leads, 320)
        Input of a model: in mV, 3-45 Hz, at 360 Hz, with the R peak at index 140.
    """

    record: str
    fs: float
    leads: tuple[str, ...]
    duration: float
    sample: NDArray[np.int64]
    time: NDArray[np.float64]
    rr: NDArray[np.float32]
    rr_ratio: NDArray[np.float32]
    quality: NDArray[np.str_]
    windows: NDArray[np.float32]

    __module__ = "ecgmon"

    def __len__(self) -> int:
        return len(self.sample)

    def __repr__(self) -> str:
        return f"<ecgmon.Beats: {len(self)} beats in {self.duration:g} s of {lead_list(self.leads)} at {self.fs:g} Hz>"

    def to_dataframe(self) -> pd.DataFrame:
        """Return a table with one row per beat.

        Returns
        -------
        pandas.DataFrame
            Columns ``sample``, ``time``, ``rr``, ``rr_ratio`` and ``quality``.
        """
        import pandas as pd

        return pd.DataFrame({name: getattr(self, name) for name in ("sample", "time", "rr", "rr_ratio", "quality")})


def lead_list(leads: Sequence[str]) -> str:
    """Format leads as text: ``lead MLII``, ``leads MLII, V1``."""
    return f"{'lead' if len(leads) == 1 else 'leads'} {', '.join(leads)}"


def quality_names(quality: NDArray[np.uint8]) -> NDArray[np.str_]:
    """Return the names of qualities (``usable``, ``noisy``, ``saturated``, ``flat``, ``missing``); same shape."""
    names: NDArray[np.str_] = _QUALITIES[quality]
    return names


def segment(
    x: ArrayLike | str | Path,
    fs: float | None = None,
    *,
    leads: Sequence[str] | None = None,
    settings: SegmentSettings = DEFAULT_SETTINGS,
) -> Beats:
    """Find the beats of an ECG, as the daemon does.

    Parameters
    ----------
    x : array_like of float, shape (samples,) or (samples, leads), or str or Path
        One or two leads in mV, NaN where missing.  Or a record: a path to a WFDB record, a name such as
        ``mitdb/208``, or ``toy`` for the built-in record.
    fs : float, optional
        Sampling frequency of the samples in Hz, 100 to 1000.  Not for a record: its header has the frequency.
    leads : sequence of str, optional
        Names of the columns; for a record, the leads to use, all by default.  Windows are cut from MLII, or else from
        II, or else from the first lead.
    settings : SegmentSettings
        Settings of the detector; by default those of the daemon.

    Returns
    -------
    Beats

    Raises
    ------
    ecgmon.errors.SourceError
        If the samples or the record cannot be used; the message has the reason and a remedy.

    Warns
    -----
    UserWarning
        If a record is truncated; the beats before its end are returned.

    Examples
    --------
    >>> import ecgmon
    >>> from ecgmon.testing import synthetic_ecg
    >>> ecg = synthetic_ecg(20, fs=250)
    >>> beats = ecgmon.segment(ecg.signal, ecg.fs)
    >>> beats
    <ecgmon.Beats: 24 beats in 20 s of leads 1, 2 at 250 Hz>
    >>> beats.time[:3].round(2), beats.rr[:3].round(2)
    (array([0.6 , 1.43, 2.28]), array([ nan, 0.83, 0.85], dtype=float32))
    >>> beats.windows.shape
    (24, 2, 320)
    >>> ecgmon.segment(ecg.signal, 50)
    Traceback (most recent call last):
        ...
    ecgmon.errors.SamplingRateError: fs=50 Hz is out of range; expected 100 to 1000 Hz
    """
    source = source_of(x, fs, leads=leads)
    segmenter = Segmenter(source.fs, source.leads, settings=settings)
    parts: list[Items] = []
    read = 0
    try:
        for chunk in source.chunks(_CHUNK_SECONDS):
            parts.append(segmenter.push(chunk))
            read += len(chunk)
    except SourceError as error:
        warnings.warn(str(error), stacklevel=2)
    items = Items.concatenate([*parts, segmenter.finish()])
    beats = items.beats
    sample = beats["sample"].astype(np.int64)
    return Beats(
        record=source.stream,
        fs=source.fs,
        leads=segmenter.leads,
        duration=read / source.fs,
        sample=sample,
        time=sample / source.fs,
        rr=np.ascontiguousarray(beats["rr"]),
        rr_ratio=np.ascontiguousarray(beats["rr_ratio"]),
        quality=quality_names(beats["quality"]),
        windows=items.windows,
    )


segment.__module__ = "ecgmon"
