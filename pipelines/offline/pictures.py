"""Pictures of scored ECG: a strip on ECG paper, and one enlarged beat with its reconstruction.

All inputs are plain arrays, so that the offline commands, the demo and a report from the store make the
same pictures.  Figures are drawn without pyplot: no window, no global state.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ecgmon.models.score.calibration import CAP
from ecgmon.models.windows import BEFORE, FS, LENGTH
from ecgmon.pipelines.sources.record import format_time

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

ROW_SECONDS: Final = 10.0
"""Length of one row of a strip, in seconds: 25 cm of paper at 25 mm/s."""

DISCLAIMER: Final = "Not a medical device."

_DPI: Final = 150
_SCREEN_DPI: Final = 75  # in a notebook

# layout: heights in inches, horizontal positions as shares of the width
_WIDTH: Final = 12.0
_HEAD: Final = 0.72
_FOOT: Final = 0.85
_FOOT_ALONE: Final = 0.3  # without an enlarged beat
_ROW_GAP: Final = 0.05
_BEAT_HEIGHT: Final = 3.6
_LEFT: Final = 0.055
_RIGHT: Final = 0.98
_BEAT_WIDTH: Final = 0.60
_TICK_POINTS: Final = 72 * _WIDTH * _BEAT_WIDTH / LENGTH + 0.2  # width of one tick, in points; bars touch

# ECG paper: a small square is 0.04 s by 0.1 mV, a large one five of them (25 mm/s, 10 mm/mV)
_SMALL_S: Final = 0.04
_SMALL_MV: Final = 0.1
_LARGE: Final = 5
_MV_INCHES: Final = _WIDTH * (_RIGHT - _LEFT) / ROW_SECONDS * _SMALL_S / _SMALL_MV  # squares are square

_LEAST_SPAN_MV: Final = 1.2  # smallest range of a row, so that noise does not look like an ECG
_MOST_MV: Final = 3.0  # largest distance from the baseline: larger artefacts are cut off, so that rows stay low
_SCORE_ROOM_MV: Final = 0.6  # space above the signal for the scores
_BAND_SECONDS: Final = 0.15  # half width of the band at an anomalous R peak: a QRS complex and a little more
_LEAST_RELATIVE_ERROR: Final = 10.0  # smallest maximum of the colour scale, so that small errors do not look large

_PAPER: Final = "#fffdfb"
_SMALL_LINES: Final = "#f9e3df"
_LARGE_LINES: Final = "#efc3bb"
_TRACE: Final = "#17202a"
_QUIET: Final = "#7b8794"
_ANOMALOUS: Final = "#c2410c"  # burnt orange: differs from the trace also for people with colour blindness
_RECONSTRUCTION: Final = "#1f6fb2"
_ERROR_COLOURS: Final = ("#e8d5b0", "#f0a63a", "#d9480f", "#7a0d12")  # from usual to large: from pale to dark
_DASHES: Final = (0, (5, 2))
_SMALL_PRINT: Final = (
    "Above each beat: its score, -log10 of the share of normal beats that score at least as high. "
    f"Small squares are 0.04 s by 0.1 mV; the strip is as recorded. {DISCLAIMER}"
)


@dataclass(frozen=True, slots=True)
class Strip:
    """A part of one lead with its beats.

    Attributes
    ----------
    stream, lead : str
    fs : float
        Sampling frequency in Hz.
    start : float
        Time of the first sample in the stream or record, in s.
    signal : ndarray of float32, shape (samples,)
        As recorded, in mV; NaN where missing.
    beat_seconds : ndarray of float64, shape (beats,)
        R peaks, on the clock of ``start``.
    beat_scores : ndarray of float32, shape (beats,)
        NaN if a beat could not be scored.
    """

    stream: str
    lead: str
    fs: float
    start: float
    signal: NDArray[np.float32]
    beat_seconds: NDArray[np.float64]
    beat_scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Beat:
    """One beat and its reconstruction by the generator.

    Attributes
    ----------
    seq : int
    seconds : float
        R peak, on the clock of the strip.
    score : float
    ax : float
        A(x): the mean squared error, with the window scaled to [-1, 1].
    rr, rr_ratio : float
        RR interval in s, and its ratio to the mean of those before it; NaN where not known.
    window, reconstruction : ndarray of float32, shape (LENGTH,)
        In mV, filtered.
    relative_error : ndarray of float32, shape (LENGTH,)
        Error around each tick, as a multiple of the usual error of normal beats there.
    """

    seq: int
    seconds: float
    score: float
    ax: float
    rr: float
    rr_ratio: float
    window: NDArray[np.float32]
    reconstruction: NDArray[np.float32]
    relative_error: NDArray[np.float32]


def busiest_stretch(beat_seconds: NDArray[np.float64], anomalous: NDArray[np.bool_], length: float) -> float:
    """Find the part of a record with the most anomalous beats.

    Parameters
    ----------
    beat_seconds : ndarray of float64, shape (beats,)
        R peaks in s, increasing.
    anomalous : ndarray of bool, shape (beats,)
    length : float
        Length of the part in s.

    Returns
    -------
    float
        Its start in s: half a second before its first anomalous beat; 0 if no beat is anomalous.
    """
    marked = beat_seconds[anomalous]
    if not marked.size:
        return 0.0
    lead_in = 0.5
    count = np.searchsorted(marked, marked + (length - lead_in)) - np.arange(marked.size)
    return max(0.0, float(marked[count.argmax()]) - lead_in)


def draw_strip(path: Path, strip: Strip, beat: Beat, *, threshold: float) -> None:
    """Draw a strip and one enlarged beat with :func:`strip_figure`, and write the picture.

    Parameters
    ----------
    path : Path
        PNG to write; an existing file is replaced as a whole.
    strip, beat, threshold
        As for :func:`strip_figure`.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    _save(strip_figure(strip, beat, threshold=threshold), path)


def strip_figure(strip: Strip, beat: Beat | None = None, *, threshold: float) -> Figure:
    """Draw a strip in rows on ECG paper.

    Parameters
    ----------
    strip : Strip
        Up to about a minute; each row shows :data:`ROW_SECONDS`.
    beat : Beat, optional
        A beat to enlarge and explain below the strip; a frame in the strip marks it.
    threshold : float
        A beat is marked as anomalous if its score is at least this.

    Returns
    -------
    matplotlib.figure.Figure
        A notebook displays it.
    """
    rows = max(1, math.ceil(len(strip.signal) / strip.fs / ROW_SECONDS - 1e-6))
    limits = [_row_limits(strip, row) for row in range(rows)]
    row_heights = [_MV_INCHES * (high - low) for low, high in limits]
    height = _HEAD + sum(row_heights) + rows * _ROW_GAP + (_FOOT_ALONE if beat is None else _BEAT_HEIGHT + _FOOT)
    figure = figure_type()(figsize=(_WIDTH, height), dpi=_DPI, facecolor="white")
    marked = np.count_nonzero(strip.beat_scores >= threshold)
    title = f"{strip.stream} · lead {strip.lead}"
    if beat is not None:
        title += f" · beat {beat.seq} at {format_time(beat.seconds)} scores {_score_text(beat.score)}"
    subtitle = (
        f"{format_time(strip.start)} to {format_time(strip.start + len(strip.signal) / strip.fs)}: "
        f"{marked} of {len(strip.beat_scores)} beats score {threshold:g} or more and are marked"
    )
    figure.text(_LEFT, 1 - 0.14 / height, title, fontsize=15, fontweight="bold", color=_TRACE, va="top")
    figure.text(_LEFT, 1 - 0.44 / height, subtitle, fontsize=10.5, color=_QUIET, va="top")
    bottom = height - _HEAD + _ROW_GAP
    for row, row_height in enumerate(row_heights):
        bottom -= row_height + _ROW_GAP
        axes = figure.add_axes((_LEFT, bottom / height, _RIGHT - _LEFT, row_height / height))
        _draw_row(axes, strip, row, limits=limits[row], threshold=threshold, enlarged=beat)
    if beat is not None:
        _draw_beat(figure, beat, height)
        _draw_key(figure, beat, height, threshold)
    figure.text(_LEFT, 0.08 / height, _SMALL_PRINT, fontsize=7, color=_QUIET, va="bottom")
    return figure


@cache
def figure_type() -> type[Figure]:
    """Return a subclass of matplotlib's Figure that a notebook displays without pyplot."""
    import matplotlib.figure

    class Figure(matplotlib.figure.Figure):
        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            self.savefig(file, format="png", dpi=_SCREEN_DPI)
            return file.getvalue()

    return Figure


def meaning(score: float) -> str:
    """Describe the meaning of a score in a sentence.

    Examples
    --------
    >>> meaning(3.0)
    'About 1 normal beat in 1,000 scores at least as high.'
    """
    if math.isnan(score):
        return "No score: part of the signal is missing."
    if score >= CAP:
        return f"Fewer than 1 normal beat in {10**CAP:,.0f} scores as high."
    share = 10.0**score
    if share < 10:  # noqa: PLR2004 - a percentage is easier to read than one in 1.4
        return f"About {100 / share:.0f} % of normal beats score at least as high."
    digits = 10 ** (math.floor(score) - 1)  # two significant digits, the precision of a table
    return f"About 1 normal beat in {round(share / digits) * digits:,} scores at least as high."


def _score_text(score: float) -> str:
    # rounded down: 1.97 shown as 2.0 would look like a beat that should be marked at a threshold of 2
    return "-" if math.isnan(score) else f"{math.floor(score * 10) / 10:.1f}"


def _row_limits(strip: Strip, row: int) -> tuple[float, float]:
    """Return the lowest and highest mV of a row, at whole small squares, with space for the scores above."""
    samples = round(ROW_SECONDS * strip.fs)
    signal = strip.signal[row * samples : (row + 1) * samples]
    finite = signal[np.isfinite(signal)]
    low, usual, high = (float(x) for x in np.percentile(finite, (0, 50, 100))) if finite.size else (0.0, 0.0, 0.0)
    low, high = max(low, usual - _MOST_MV), min(high, usual + _MOST_MV)
    spare = max(_LEAST_SPAN_MV - (high - low), 0.0) / 2
    first = math.floor((low - spare - _SMALL_MV) / _SMALL_MV)
    last = math.ceil((high + spare + _SCORE_ROOM_MV) / _SMALL_MV)
    return first * _SMALL_MV, last * _SMALL_MV


def _paper(axes: Any, first: float, last: float, low: float, high: float) -> None:  # noqa: ANN401 - matplotlib has no types
    """Draw the lines of ECG paper on the axes."""
    for step, begin, end, rule, across in (
        (_SMALL_S, first, last, axes.vlines, (low, high)),
        (_SMALL_MV, low, high, axes.hlines, (first, last)),
    ):
        numbers = np.arange(math.ceil(begin / step - 1e-6), math.floor(end / step + 1e-6) + 1)
        is_large = numbers % _LARGE == 0
        rule(numbers[~is_large] * step, *across, colors=_SMALL_LINES, linewidth=0.3, zorder=0)
        rule(numbers[is_large] * step, *across, colors=_LARGE_LINES, linewidth=0.6, zorder=0)
    axes.set_xlim(first, last)
    axes.set_ylim(low, high)
    axes.set_facecolor(_PAPER)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(_LARGE_LINES)


def _draw_row(
    axes: Any,  # noqa: ANN401 - matplotlib has no types
    strip: Strip,
    row: int,
    *,
    limits: tuple[float, float],
    threshold: float,
    enlarged: Beat | None,
) -> None:
    """Draw one row of a strip with its beats and their scores."""
    first = strip.start + row * ROW_SECONDS
    last = first + ROW_SECONDS
    low, high = limits
    _paper(axes, first, last, low, high)
    begin, end = round(row * ROW_SECONDS * strip.fs), round((row + 1) * ROW_SECONDS * strip.fs)
    seconds = strip.start + np.arange(len(strip.signal)) / strip.fs
    axes.plot(seconds[begin:end], strip.signal[begin:end], color=_TRACE, linewidth=0.9, zorder=3)
    for second, score in zip(strip.beat_seconds.tolist(), strip.beat_scores.tolist(), strict=True):
        if not first <= second < last:
            continue
        marked = score >= threshold
        colour = _ANOMALOUS if marked else _QUIET
        if marked:
            axes.axvspan(
                second - _BAND_SECONDS, second + _BAND_SECONDS, color=_ANOMALOUS, alpha=0.13, linewidth=0, zorder=1
            )
        axes.plot(
            [second, second], [high - 0.42, high - 0.33], color=colour, linewidth=1.6 if marked else 0.8, zorder=5
        )
        axes.text(
            second,
            high - 0.04,
            _score_text(score),
            ha="center",
            va="top",
            fontsize=8 if marked else 6.5,
            fontweight="bold" if marked else "normal",
            color=colour,
            zorder=6,
        )
    if enlarged is not None and first <= enlarged.seconds < last:
        window = (enlarged.seconds - BEFORE / FS, enlarged.seconds + (LENGTH - BEFORE) / FS)
        axes.axvspan(*window, fill=False, edgecolor=_RECONSTRUCTION, linewidth=1.3, zorder=4)
        axes.text(
            window[0] + 0.03, low + 0.06, "enlarged below", fontsize=7, color=_RECONSTRUCTION, clip_on=True, zorder=6
        )
    axes.text(
        -0.006,
        0.5,
        format_time(first),
        transform=axes.transAxes,
        ha="right",
        va="center",
        fontsize=8,
        color=_QUIET,
        rotation=90,
    )


def _draw_beat(figure: Any, beat: Beat, height: float) -> None:  # noqa: ANN401 - matplotlib has no types
    """Draw the enlarged beat, coloured by its relative error, and its reconstruction; below them the relative error."""
    from matplotlib.collections import LineCollection

    colours, norm = _error_colours(beat)
    seconds = (np.arange(LENGTH) - BEFORE) / FS
    bottom = _FOOT - 0.1
    error_height, gap = 0.8, 0.08
    trace_height = _BEAT_HEIGHT - error_height - gap - 0.3
    axes = figure.add_axes((_LEFT, (bottom + error_height + gap) / height, _BEAT_WIDTH, trace_height / height))
    both = np.concatenate([beat.window, beat.reconstruction])
    low, high = (float(np.nanmin(both)), float(np.nanmax(both))) if np.isfinite(both).any() else (-1.0, 1.0)
    margin = max(0.08 * (high - low), 0.05)
    axes.set_ylim(low - margin, high + margin)
    axes.grid(visible=True, color=_LARGE_LINES, linewidth=0.5)
    axes.axvline(0.0, color=_QUIET, linewidth=0.8, linestyle=":")
    axes.plot(seconds, beat.reconstruction, color=_RECONSTRUCTION, linewidth=1.5, linestyle=_DASHES, zorder=6)
    # a dark outline keeps well reconstructed parts, which are pale, visible on pale paper
    axes.plot(seconds, beat.window, color=_TRACE, linewidth=3.6, solid_capstyle="round", zorder=4)
    points = np.column_stack([seconds, beat.window])
    pieces = np.stack([points[:-1], points[1:]], axis=1)
    line = LineCollection(list(pieces), cmap=colours, norm=norm, linewidths=2.6, capstyle="round", zorder=5)
    line.set_array((beat.relative_error[:-1] + beat.relative_error[1:]) / 2)
    axes.add_collection(line)
    axes.set_ylabel("mV", fontsize=9)
    axes.tick_params(labelsize=8, labelbottom=False, length=3)
    errors = figure.add_axes((_LEFT, bottom / height, _BEAT_WIDTH, error_height / height))
    errors.vlines(seconds, 0.0, beat.relative_error, colors=colours(norm(beat.relative_error)), linewidth=_TICK_POINTS)
    errors.axhline(1.0, color=_TRACE, linewidth=0.8, linestyle="--")
    errors.set_ylim(0, norm.vmax * 1.08)
    errors.set_xlabel("seconds from the R peak", fontsize=9)
    errors.set_ylabel("relative error", fontsize=9)
    errors.tick_params(labelsize=8, length=3)
    for part in (axes, errors):
        part.set_xlim(seconds[0], seconds[-1])
        part.set_facecolor(_PAPER)
        for spine in part.spines.values():
            spine.set_color(_LARGE_LINES)


def _draw_key(figure: Any, beat: Beat, height: float, threshold: float) -> None:  # noqa: ANN401
    """Write the key and the numbers beside the enlarged beat."""
    from matplotlib.cm import ScalarMappable

    colours, norm = _error_colours(beat)
    left, width, bottom = 0.69, _RIGHT - 0.69, _FOOT - 0.1
    top = (bottom + _BEAT_HEIGHT - 0.32) / height
    if math.isnan(beat.score):
        verdict = "No score"
    elif beat.score >= threshold:
        verdict = f"Score {_score_text(beat.score)}: anomalous"
    else:
        verdict = f"Score {_score_text(beat.score)}: below the threshold of {threshold:g}"
    colour = _ANOMALOUS if beat.score >= threshold else _TRACE
    figure.text(left, top, verdict, fontsize=12, fontweight="bold", color=colour, va="top")
    rhythm = "RR interval before it: not known"
    if not math.isnan(beat.rr):
        rhythm = f"RR interval before it: {beat.rr:.2f} s"
        if not math.isnan(beat.rr_ratio):
            rhythm += f", {100 * beat.rr_ratio:.0f} % of the recent mean"
    facts = [meaning(beat.score), f"A(x), the mean squared error: {beat.ax:.4f}", rhythm]
    figure.text(left, top - 0.32 / height, "\n".join(facts), fontsize=9, color=_TRACE, va="top", linespacing=1.6)
    key = figure.add_axes((left, (bottom + 0.72) / height, width, 0.56 / height))
    key.set_xlim(0, 1)
    key.set_ylim(0, 2)
    key.axis("off")
    key.plot([0, 0.11], [1.5, 1.5], color=_TRACE, linewidth=3.6)
    key.plot([0, 0.11], [1.5, 1.5], color=colours(0.5), linewidth=2.6)
    key.text(0.14, 1.5, "the beat (3 to 45 Hz), coloured by relative error", fontsize=8.5, va="center", color=_TRACE)
    key.plot([0, 0.11], [0.5, 0.5], color=_RECONSTRUCTION, linewidth=1.6, linestyle=_DASHES)
    key.text(0.14, 0.5, "its reconstruction by the generator", fontsize=8.5, va="center", color=_TRACE)
    bar = figure.add_axes((left, (bottom + 0.36) / height, width, 0.13 / height))
    figure.colorbar(ScalarMappable(norm, colours), cax=bar, orientation="horizontal").outline.set_visible(False)
    bar.tick_params(labelsize=7.5, length=2)
    bar.set_xlabel("relative error: a multiple of the usual error there (1, dashed)", fontsize=8, color=_TRACE)


def _error_colours(beat: Beat) -> tuple[Any, Any]:
    """Return the colour map and the scale of the relative error per tick."""
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    largest = float(np.nanmax(beat.relative_error)) if np.isfinite(beat.relative_error).any() else 0.0
    return LinearSegmentedColormap.from_list("error", _ERROR_COLOURS), Normalize(
        0.0, max(largest, _LEAST_RELATIVE_ERROR)
    )


def _save(figure: Any, path: Path) -> None:  # noqa: ANN401 - matplotlib has no types
    """Write a figure to a temporary file beside ``path``, then rename it."""
    unfinished = path.with_name(f".unfinished-{path.name}")
    try:
        figure.savefig(unfinished, format="png")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
