"""Scores and alerts of an array or a record, and the picture of one beat."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ecgmon.models.inference.model import Model, load_model
from ecgmon.monitor.config.schema import AlertSettings
from ecgmon.monitor.offline.alerts import alerts_of
from ecgmon.pipelines.offline.beats import lead_list, quality_names
from ecgmon.pipelines.offline.explanation import explain_beat, explanation_of
from ecgmon.pipelines.offline.pictures import Strip, busiest_stretch, strip_figure
from ecgmon.pipelines.offline.record import score_record
from ecgmon.pipelines.segmentation.segmenter import DEFAULT_SETTINGS
from ecgmon.pipelines.sources.arrays import source_of
from ecgmon.pipelines.sources.errors import RangeError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

    from ecgmon.monitor.core.alerts import Alert
    from ecgmon.pipelines.offline.record import ScoredRecord
    from ecgmon.pipelines.segmentation.segmenter import SegmentSettings
    from ecgmon.pipelines.sources.record import RecordSource

PLOT_SECONDS: Final = 30.0
"""Signal that :meth:`Scores.plot` draws by default, in s: three rows."""

_MAX_PLOT_SECONDS: Final = 300.0  # 30 rows, as high as ten screens
DEFAULT_ALERTS: Final = AlertSettings()


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """The result of :func:`ecgmon.score`; every array has one row for each beat.

    Attributes
    ----------
    record : str
        Name of the record; ``array`` for samples.
    fs : float
        Sampling frequency in Hz.
    leads : tuple of str
        The scored lead and, if there is one, a second lead that the score also uses.
    duration : float
        Length of the signal in s.
    sample : ndarray of int64, shape (beats,)
        R peaks, as indices into the samples.
    time : ndarray of float64, shape (beats,)
        R peaks, in s from the first sample.
    rr, rr_ratio : ndarray of float32, shape (beats,)
        RR interval from the previous beat in s, and its ratio to the mean of those before it; NaN if not known.
    quality : ndarray of str, shape (beats,)
        ``usable``, ``noisy``, ``saturated``, ``flat`` or ``missing``: the signal under the beat.
    score : ndarray of float32, shape (beats,)
        -log10 of the share of normal beats with at least this score: 2 is one in a hundred.  NaN if a beat could not be
        scored.
    ax : ndarray of float32, shape (beats,)
        The anomaly score A(x): mean squared error of the reconstruction; NaN if a beat could not be scored.
    evidence : ndarray of float32, shape (beats, len(evidence_names))
        The values that the score was computed from; NaN if not known.
    evidence_names : tuple of str
        Names of the columns of ``evidence``.
    alerts : tuple of Alert
        In the order in which they were raised, each in its last state; times in s from the first sample.
    settings : AlertSettings
        Settings with which they were raised.
    model : str
        Fingerprint of the model.
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
    score: NDArray[np.float32]
    ax: NDArray[np.float32]
    evidence: NDArray[np.float32]
    evidence_names: tuple[str, ...]
    alerts: tuple[Alert, ...]
    settings: AlertSettings
    model: str
    _source: RecordSource = field(repr=False)

    __module__ = "ecgmon"

    def __len__(self) -> int:
        return len(self.sample)

    def __repr__(self) -> str:
        return (
            f"<ecgmon.Scores: {len(self)} beats in {self.duration:g} s of {lead_list(self.leads)} at {self.fs:g} Hz, "
            f"{np.count_nonzero(self.anomalous)} anomalous, {len(self.alerts)} alerts>"
        )

    @property
    def anomalous(self) -> NDArray[np.bool_]:
        """Whether the score of each beat is at least ``settings.score_threshold``, shape (beats,)."""
        return self.score >= self.settings.score_threshold

    @property
    def alerts_of_beats(self) -> tuple[tuple[Alert, ...], ...]:
        """The alerts of each beat: those that it helped to raise, and those active at its R peak."""
        number = np.arange(len(self))
        members = [
            ((self.time >= alert.start) & (self.time <= (np.inf if alert.end is None else alert.end)))
            | np.isin(number, alert.beats)
            for alert in self.alerts
        ]
        return tuple(
            tuple(alert for alert, is_member in zip(self.alerts, members, strict=True) if is_member[beat])
            for beat in range(len(self))
        )

    def to_dataframe(self) -> pd.DataFrame:
        """Return a table with one row for each beat.

        Returns
        -------
        pandas.DataFrame
            With the columns ``sample``, ``time``, ``rr``, ``rr_ratio``, ``quality``, ``score``, ``ax``, ``anomalous``,
            ``alerts`` (kinds, separated by commas) and one for each of ``evidence_names``, prefixed with ``evidence_``.
        """
        import pandas as pd

        names = ("sample", "time", "rr", "rr_ratio", "quality", "score", "ax", "anomalous")
        columns: dict[str, Any] = {name: getattr(self, name) for name in names}
        columns["alerts"] = [",".join(alert.kind for alert in alerts) for alerts in self.alerts_of_beats]
        for number, name in enumerate(self.evidence_names):
            columns[f"evidence_{name}"] = self.evidence[:, number]
        return pd.DataFrame(columns)

    def plot(self, start: float | None = None, stop: float | None = None) -> Figure:
        """Draw the signal on ECG paper, with the score above each beat.

        Parameters
        ----------
        start, stop : float, optional
            Range in s from the first sample; by default the 30 s with the most anomalous beats.

        Returns
        -------
        matplotlib.figure.Figure
            A notebook displays it; ``savefig`` writes it to a file.

        Raises
        ------
        ecgmon.errors.RangeError
            If the range is outside the signal, or longer than five minutes.
        ImportError
            If matplotlib is not installed.

        Examples
        --------
        >>> import ecgmon
        >>> from ecgmon.testing import synthetic_ecg
        >>> scores = ecgmon.score(synthetic_ecg(40, ectopic=[20]).signal, 360)
        >>> figure = scores.plot(5, 25)
        >>> figure.savefig("strip.png")
        """
        if start is None:
            length = PLOT_SECONDS if stop is None else min(PLOT_SECONDS, stop)
            start = busiest_stretch(self.time, self.anomalous, length) if stop is None else stop - length
            start = max(0.0, min(start, self.duration - length))
        stop = min(self.duration, start + PLOT_SECONDS if stop is None else stop)
        if not 0 <= start < stop or stop - start > _MAX_PLOT_SECONDS:
            raise RangeError(
                f"cannot draw {start:g} to {stop:g} s of {self.duration:g} s; expected a part of it, "
                f"at most {_MAX_PLOT_SECONDS:g} s"
            )
        first, last = round(start * self.fs), round(stop * self.fs)
        shown = (self.time >= start) & (self.time < stop)
        signal = self._source.read(first, last)[:, self._source.leads.index(self.leads[0])]
        strip = Strip(self.record, self.leads[0], self.fs, start, signal, self.time[shown], self.score[shown])
        return strip_figure(strip, threshold=self.settings.score_threshold)


def score(
    x: ArrayLike | str | Path,
    fs: float | None = None,
    *,
    leads: Sequence[str] | None = None,
    model: Model | Path | str | None = None,
    alerts: AlertSettings = DEFAULT_ALERTS,
    settings: SegmentSettings = DEFAULT_SETTINGS,
) -> Scores:
    """Score the beats of an ECG, as the daemon does: the results are the same to the last bit.

    Parameters
    ----------
    x : array_like of float, shape (samples,) or (samples, leads), or str or Path
        One or two leads in mV, NaN where there is no signal; or a record, as in :func:`ecgmon.segment`.
    fs : float, optional
        Sampling frequency of the samples in Hz, 100 to 1000.  Not for a record, which has its own.
    leads : sequence of str, optional
        Names of the columns; for a record, the leads to use, all by default.
    model : Model, Path or str, optional
        A model of :func:`ecgmon.load_model`, or a checkpoint; the shipped one by default.
    alerts : AlertSettings
        Rules of the alerts; by default, those of the daemon.
    settings : SegmentSettings
        Settings of the beat detector; by default, those of the daemon.

    Returns
    -------
    Scores

    Raises
    ------
    ecgmon.errors.SourceError
        If the samples or the record cannot be used; the message says why and what to do.
    ecgmon.errors.CheckpointError
        If the checkpoint cannot be used.

    Warns
    -----
    UserWarning
        If a record ends too early; the beats up to there are returned.

    Examples
    --------
    >>> import ecgmon
    >>> from ecgmon.testing import synthetic_ecg
    >>> ecg = synthetic_ecg(60, ectopic=[30, 50])
    >>> scores = ecgmon.score(ecg.signal, ecg.fs)
    >>> scores
    <ecgmon.Scores: 71 beats in 60 s of leads 1, 2 at 360 Hz, 2 anomalous, 0 alerts>
    >>> scores.anomalous.nonzero()[0]
    array([30, 50])
    >>> scores.to_dataframe()[["time", "rr", "score"]].iloc[30].round(1).to_dict()
    {'time': 25.2, 'rr': 0.5, 'score': 5.0}
    """
    source = source_of(x, fs, leads=leads)
    used = _model(model)
    with used.running() as scorer:
        found = score_record(source, scorer, settings=settings)
    _warn(found)
    return Scores(
        record=source.stream,
        fs=source.fs,
        leads=found.leads,
        duration=found.samples / source.fs,
        sample=found.sample,
        time=found.seconds,
        rr=np.ascontiguousarray(found.rr),
        rr_ratio=np.ascontiguousarray(found.rr_ratio),
        quality=quality_names(found.quality),
        score=found.score,
        ax=found.ax,
        evidence=found.features,
        evidence_names=found.feature_names,
        alerts=tuple(alerts_of(found, alerts)),
        settings=alerts,
        model=used.fingerprint,
        _source=source,
    )


def explain(
    x: ArrayLike | str | Path,
    fs: float | None = None,
    *,
    beat: int | None = None,
    at: float | None = None,
    leads: Sequence[str] | None = None,
    model: Model | Path | str | None = None,
    alerts: AlertSettings = DEFAULT_ALERTS,
    settings: SegmentSettings = DEFAULT_SETTINGS,
) -> Figure:
    """Draw one beat, its reconstruction by the model, and where the two differ.

    Parameters
    ----------
    x, fs, leads, model, settings
        As in :func:`ecgmon.score`.
    beat : int, optional
        Number of the beat, from 0.
    at : float, optional
        A time near its R peak in s, instead of its number.  By default, the beat with the highest score is drawn.
    alerts : AlertSettings
        Beats with at least its ``score_threshold`` are marked.

    Returns
    -------
    matplotlib.figure.Figure
        Ten seconds of signal, and below them the beat, coloured by its error relative to the usual error.

    Raises
    ------
    ecgmon.errors.RangeError
        If there is no such beat.
    ecgmon.errors.SourceError, ecgmon.errors.CheckpointError
        As in :func:`ecgmon.score`.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import ecgmon
    >>> from ecgmon.testing import synthetic_ecg
    >>> ecg = synthetic_ecg(40, ectopic=[30])
    >>> figure = ecgmon.explain(ecg.signal, ecg.fs)
    >>> figure.texts[0].get_text()
    'array · lead 1 · beat 30 at 0:25.15 scores 4.7'
    >>> ecgmon.explain(ecg.signal, ecg.fs, beat=1000)
    Traceback (most recent call last):
        ...
    ecgmon.errors.RangeError: there is no beat 1000; expected 0 to 47
    """
    if beat is not None and at is not None:
        raise RangeError(f"beat={beat} and at={at:g} were both given; give one of them")
    source = source_of(x, fs, leads=leads)
    with _model(model).running() as scorer:
        if at is not None:
            explanation = explain_beat(source, scorer, at, settings=settings)
        else:
            found = score_record(source, scorer, settings=settings, keep_windows=True)
            _warn(found)
            index = _most_anomalous(found) if beat is None else beat
            if not 0 <= index < len(found.score):
                raise RangeError(
                    f"there is no beat {index}; expected 0 to {len(found.score) - 1}"
                    if len(found.score)
                    else f"there is no beat in {found.samples / found.fs:g} s of signal"
                )
            explanation = explanation_of(source, found, scorer, index)
    return strip_figure(*explanation.drawn, threshold=alerts.score_threshold)


score.__module__ = explain.__module__ = "ecgmon"


def _model(model: Model | Path | str | None) -> Model:
    return model if isinstance(model, Model) else load_model(model)


def _most_anomalous(found: ScoredRecord) -> int:
    return int(np.argmax(np.nan_to_num(found.score, nan=-1.0))) if len(found.score) else 0


def _warn(found: ScoredRecord) -> None:
    if found.failure is not None:
        warnings.warn(str(found.failure), stacklevel=3)
