"""Score the beats of an array or a record, with its alerts, and explain one of them."""

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
"""Signal that :meth:`Scores.plot` draws where nothing else is said, in s: three rows."""

_MOST_PLOT_SECONDS: Final = 300.0  # 30 rows, as high as ten screens
DEFAULT_ALERTS: Final = AlertSettings()


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What :func:`ecgmon.score` found; every array has one row a beat.

    Attributes
    ----------
    record : str
        Name of the record; ``array`` for samples.
    fs : float
        Sampling frequency in Hz.
    leads : tuple of str
        The lead that was scored and, where there is one, a second one, which the score looks at too.
    duration : float
        Length of the signal in s.
    sample : ndarray of int64, shape (beats,)
        R peaks, as indices into the samples.
    time : ndarray of float64, shape (beats,)
        R peaks, in s from the first sample.
    rr, rr_ratio : ndarray of float32, shape (beats,)
        RR interval to the beat before in s, and over the mean of those before it; NaN where not known.
    quality : ndarray of str, shape (beats,)
        ``usable``, ``noisy``, ``saturated``, ``flat`` or ``missing``: the signal under the beat.
    score : ndarray of float32, shape (beats,)
        -log10 of the share of normal beats that look at least this odd: 2 is one in a hundred.  NaN where a beat could not
        be scored.
    ax : ndarray of float32, shape (beats,)
        The anomaly score A(x): mean squared error of the reconstruction; NaN where a beat could not be scored.
    evidence : ndarray of float32, shape (beats, len(evidence_names))
        What the score was made of; NaN where not known.
    evidence_names : tuple of str
        What the columns of ``evidence`` are.
    alerts : tuple of Alert
        In the order in which they were raised, each as it was last seen; times in s from the first sample.
    settings : AlertSettings
        That raised them.
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
        """Whether the score of each beat is at or over ``settings.score_threshold``, shape (beats,)."""
        return self.score >= self.settings.score_threshold

    @property
    def alerts_of_beats(self) -> tuple[tuple[Alert, ...], ...]:
        """The alerts of each beat: those that it raised or that last at its R peak."""
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
        """Return a table with one row a beat.

        Returns
        -------
        pandas.DataFrame
            With the columns ``sample``, ``time``, ``rr``, ``rr_ratio``, ``quality``, ``score``, ``ax``, ``anomalous``,
            ``alerts`` (kinds, separated by commas) and one for each of ``evidence_names``, with ``evidence_`` before it.
        """
        import pandas as pd

        names = ("sample", "time", "rr", "rr_ratio", "quality", "score", "ax", "anomalous")
        columns: dict[str, Any] = {name: getattr(self, name) for name in names}
        columns["alerts"] = [",".join(alert.kind for alert in alerts) for alerts in self.alerts_of_beats]
        for number, name in enumerate(self.evidence_names):
            columns[f"evidence_{name}"] = self.evidence[:, number]
        return pd.DataFrame(columns)

    def plot(self, start: float | None = None, stop: float | None = None) -> Figure:
        """Draw the signal on ECG paper, with the score over each beat.

        Parameters
        ----------
        start, stop : float, optional
            From where to where, in s from the first sample; by default the 30 s with the most anomalous beats.

        Returns
        -------
        matplotlib.figure.Figure
            Which a notebook shows by itself; ``savefig`` writes it.

        Raises
        ------
        ecgmon.errors.RangeError
            If there is no signal there, or more than five minutes.
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
        if not 0 <= start < stop or stop - start > _MOST_PLOT_SECONDS:
            raise RangeError(
                f"cannot draw {start:g} to {stop:g} s of {self.duration:g} s; expected a part of it, "
                f"{_MOST_PLOT_SECONDS:g} s at most"
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
        One or two leads in mV, NaN where there is nothing; or a record, as :func:`ecgmon.segment` takes it.
    fs : float, optional
        Sampling frequency of the samples in Hz, 100 to 1000.  Not for a record, which says its own.
    leads : sequence of str, optional
        Names of the columns.  Of a record: the leads wanted, all by default.
    model : Model, Path or str, optional
        From :func:`ecgmon.load_model`, or its checkpoint; the shipped one by default.
    alerts : AlertSettings
        When alerts are raised; as the daemon does by default.
    settings : SegmentSettings
        Figures of the detector; the daemon's by default.

    Returns
    -------
    Scores

    Raises
    ------
    ecgmon.errors.SourceError
        If the samples or the record cannot be used: the message says why and what to do.
    ecgmon.errors.CheckpointError
        If the checkpoint cannot be used.

    Warns
    -----
    UserWarning
        If a record breaks off before its end; the beats up to there are returned.

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
    {'time': 25.2, 'rr': 0.5, 'score': 2.9}
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
    """Draw one beat, what the model makes of it, and where the two differ.

    Parameters
    ----------
    x, fs, leads, model, settings
        As of :func:`ecgmon.score`.
    beat : int, optional
        Number of the beat, from 0.
    at : float, optional
        A time near its R peak, in s, in place of its number.  Without either it is the beat with the highest score.
    alerts : AlertSettings
        Of which ``score_threshold`` says from which score on a beat is marked.

    Returns
    -------
    matplotlib.figure.Figure
        Ten seconds of signal, and below them the beat, coloured by how its error compares with what is usual.

    Raises
    ------
    ecgmon.errors.RangeError
        If there is no such beat.
    ecgmon.errors.SourceError, ecgmon.errors.CheckpointError
        As :func:`ecgmon.score`.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import ecgmon
    >>> from ecgmon.testing import synthetic_ecg
    >>> ecg = synthetic_ecg(40, ectopic=[30])
    >>> figure = ecgmon.explain(ecg.signal, ecg.fs)
    >>> figure.texts[0].get_text()
    'array · lead 1 · beat 30 at 0:25.15 scores 2.9'
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
