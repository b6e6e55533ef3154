"""What is known of a beat when it is scored: its reconstruction, its rhythm, and how it compares with the beats before.

A reconstruction error says how unlike all normal beats a beat is.  It can not say that a beat is
unlike those of its own patient, or that it came early; both are what a premature beat is known by.
This module measures that, causally, from the beat and from a bounded :class:`History` of its stream:

=========  ===========================================================================================
error      log of A(x)
error_qrs  log of the squared error over the ticks of the QRS complex
early      -log of ``rr_ratio``: how much earlier than the mean of the intervals before
fast       -log of the RR interval in seconds
late_run   log of the ninetieth percentile of the last 32 intervals over this one: a run of early beats
           draws the mean along, the percentile hardly
spread     log of the standard deviation of the log of the last 17 intervals, this one included
jump       mean absolute difference of successive log intervals over the last 3, this one included
own_qrs    log of how far the QRS complex is from those of the stream's last 64 beats
own_p      the same of the stretch before the QRS complex, where the P wave is
own_qrs_2  ``own_qrs`` on the second lead
own_p_2    ``own_p`` on the second lead
=========  ===========================================================================================

In all of them but ``spread`` and ``jump`` more is odder by design; nothing is measured against a label here.
A feature that can not be known yet, or at all, is NaN: what is said of the beats before needs some of them, and
a lead that shows nothing under this beat has nothing to compare.

How far a part of a beat is from the beats before is the thirtieth percentile of its mean squared
differences to each.  The percentile asks that a third of the recent beats look like this one, so a
few earlier ones of an ectopic focus do not make it usual; dividing by the stream's own amplitude
makes streams comparable.  The percentile (the fifteenth was tried) and the ticks of both parts were chosen with
abnormal beats in sight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from models import windows

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAMES: Final = (
    "error",
    "error_qrs",
    "early",
    "fast",
    "late_run",
    "spread",
    "jump",
    "own_qrs",
    "own_p",
    "own_qrs_2",
    "own_p_2",
)
"""The features, in the order of the columns of :attr:`Evidence.features`."""

RHYTHM: Final = ("early", "fast", "late_run", "spread", "jump")
OWN: Final = ("own_qrs", "own_p")
OWN_2: Final = ("own_qrs_2", "own_p_2")
"""The features by what they are about."""

BEATS: Final = 64
"""Beats before that a stream is remembered by; with 200 the distances tell hardly more."""

LEAST_BEATS: Final = 8
"""Beats before that a distance to the stream's own beats needs."""

LEAST_INTERVALS: Final = 4
"""Intervals before that a percentile or a spread of intervals needs; ``rr_ratio`` needs as many."""

PERCENTILE: Final = 30
"""Percentile of the distances to the beats before that counts as the distance to them."""

INTERVALS: Final = 32
"""Intervals before that the ninetieth percentile is taken of."""

SPREAD_INTERVALS: Final = 17
"""Intervals, the beat's own included, that the spread is taken of."""

JUMP_INTERVALS: Final = 3
"""Intervals, the beat's own included, that are compared one with the next."""

P_TICKS: Final = np.arange(50, 128, 3)
"""Ticks of a window before the QRS complex: 250 to 36 ms before the R peak, every 8 ms."""

QRS_TICKS: Final = np.arange(118, 172, 2)
"""Ticks of a window around the QRS complex: 61 ms before the R peak to 83 ms after it, every 6 ms."""

ERROR_TICKS: Final = slice(122, 168)
"""Ticks whose reconstruction error counts as that of the QRS complex."""

OUTLINE_TICKS: Final = slice(0, windows.LENGTH, 4)
"""Ticks that :attr:`Evidence.outline` keeps of a window: 90 Hz holds the pass band's 45."""

OUTLINE: Final = windows.LENGTH // 4
"""Values in an outline."""

_FEW: Final = 3
_TOGETHER: Final = 24  # beats whose distances are found at once: 650 kB for two leads, which a core's cache holds

_P: Final = slice(0, len(P_TICKS))
_QRS: Final = slice(len(P_TICKS), len(P_TICKS) + len(QRS_TICKS))
_TICKS: Final = np.array([len(QRS_TICKS), len(P_TICKS)], np.float32)
_KEPT: Final = np.concatenate([P_TICKS, QRS_TICKS])

_HIGHEST: Final = 1000.0  # mV; no electrode gives more, and squares of it stay finite
_FLAT: Final = 1e-3  # mV, half a step of common converters: a lead whose beats span less shows nothing

# So that the logarithm of a perfect match is finite: far below what is measured of any real beat.
_LEAST_ERROR: Final = 1e-6
_LEAST_DISTANCE: Final = 1e-5
_LEAST_SPREAD: Final = 5e-3


class EvidenceError(Exception):
    """Beats or a stored history that do not fit each other."""


def row_type(leads: int) -> np.dtype[np.void]:
    """Layout of what a history keeps of one beat, little-endian, the same in memory and in a store.

    ``rr`` is the RR interval in seconds, NaN where not known; ``span`` the range of each lead's
    window in mV; ``shape`` the ticks :data:`P_TICKS` and :data:`QRS_TICKS` of each lead in mV, the mean of
    either part removed.  114 bytes for one lead, 224 for two.
    """
    return np.dtype([("rr", "<f4"), ("span", "<f4", (leads,)), ("shape", "<f2", (leads, len(_KEPT)))])


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What is known of some beats.

    Attributes
    ----------
    features : ndarray of float32, shape (n, len(NAMES))
        NaN where not known.
    outline : ndarray of float32, shape (n, OUTLINE)
        The first lead, scaled to [-1, 1], every fourth tick: the shape that the features go with.  NaN where the
        window has a NaN.
    """

    features: NDArray[np.float32]
    outline: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.features)

    def without(self, names: tuple[str, ...]) -> Self:
        """Forget some features, as if they were not known."""
        features = self.features.copy()
        features[:, [NAMES.index(name) for name in names]] = np.nan
        return type(self)(features, self.outline)

    def with_errors(self, error: NDArray[np.float32], squared_error: NDArray[np.floating[Any]]) -> Self:
        """Replace what another generator makes of the same beats; arguments as in :meth:`History.observe`."""
        features = self.features.copy()
        features[:, :2] = _error_features(error, squared_error)
        return type(self)(features, self.outline)

    def __getitem__(self, part: slice | NDArray[np.bool_] | NDArray[np.intp]) -> Self:
        return type(self)(self.features[part], self.outline[part])

    @classmethod
    def concatenate(cls, parts: list[Self]) -> Self:
        """Join parts; there must be at least one."""
        return cls(np.concatenate([p.features for p in parts]), np.concatenate([p.outline for p in parts]))


class History:
    """The last beats of one stream, at most :data:`BEATS`.

    Parameters
    ----------
    leads : int
        Leads of the stream's windows, 1 or 2; further leads are not looked at.

    Notes
    -----
    A history is nothing but the rows of its last beats: one restored from stored rows goes on
    exactly as if it had never been interrupted.  A shallow copy goes on apart from its original.
    """

    def __init__(self, leads: int) -> None:
        if leads < 1:
            raise EvidenceError(f"a stream of {leads} leads has no beats; expected 1 or 2")
        self._rows = np.empty(0, row_type(min(leads, 2)))

    @classmethod
    def restore(cls, leads: int, rows: bytes) -> Self:
        """Make a history from rows that :meth:`snapshot` gave, or :meth:`observe` one by one, oldest first.

        Raises
        ------
        EvidenceError
            If the bytes are not whole rows for that number of leads.
        """
        history = cls(leads)
        size = history._rows.dtype.itemsize
        if len(rows) % size:
            raise EvidenceError(
                f"a stored history has {len(rows)} bytes; expected a multiple of {size} for {leads} lead(s)"
            )
        history._rows = np.frombuffer(rows, history._rows.dtype)[-BEATS:]
        return history

    def snapshot(self) -> bytes:
        """Return the rows that are remembered, oldest first, at most ``BEATS`` of them."""
        return self._rows.tobytes()

    def observe(
        self,
        windows_mv: NDArray[np.float32],
        error: NDArray[np.float32],
        squared_error: NDArray[np.floating[Any]],
        rr: NDArray[np.float32],
        rr_ratio: NDArray[np.float32],
    ) -> tuple[Evidence, list[bytes]]:
        """Take the stream's next beats, in order.

        Parameters
        ----------
        windows_mv : ndarray of float32, shape (n, leads, 320)
            Filtered windows in mV.
        error : ndarray of float32, shape (n,)
            A(x), of the first lead; NaN where a beat could not be scored.
        squared_error : ndarray of float16 or float32, shape (n, 320)
            Squared difference of window and reconstruction at each tick of the first lead.
        rr : ndarray of float32, shape (n,)
            RR interval to the beat before, in seconds; NaN where not known.
        rr_ratio : ndarray of float32, shape (n,)
            ``rr`` over the mean of the intervals before it; NaN where not known.

        Returns
        -------
        evidence : Evidence
            Of each beat, as it was known when that beat came.
        rows : list of bytes
            What a store has to keep of each, to :meth:`restore` from the last :data:`BEATS`.

        Raises
        ------
        EvidenceError
            If the windows have fewer leads than the history, or the arrays do not have one entry a beat.

        Notes
        -----
        The evidence of a beat is the same to the last bit however many beats are taken at a time.
        """
        kind = self._rows.dtype
        (leads,) = kind["span"].shape
        n = len(windows_mv)
        if windows_mv.ndim != 3 or windows_mv.shape[1] < leads or windows_mv.shape[2] != windows.LENGTH:  # noqa: PLR2004 - beats, leads, ticks
            raise EvidenceError(
                f"windows of shape {windows_mv.shape} do not fit a history of {leads} lead(s); "
                f"expected (beats, {leads}, {windows.LENGTH})"
            )
        if not len(error) == len(squared_error) == len(rr) == len(rr_ratio) == n:
            raise EvidenceError(
                f"{n} windows came with {len(error)} errors, {len(squared_error)} errors per tick, {len(rr)} intervals "
                f"and {len(rr_ratio)} ratios; expected as many of each"
            )
        limited = np.clip(windows_mv[:, :leads], -_HIGHEST, _HIGHEST)
        new = _rows(limited, rr)
        rows = np.concatenate([self._rows, new])
        first = len(self._rows)
        features = np.full((n, len(NAMES)), np.nan, np.float32)
        features[:, :2] = _error_features(error, squared_error)
        features[:, 2] = -np.log(rr_ratio)
        features[:, 3] = -np.log(rr)
        log_rr = np.log(rows["rr"])
        # Ticks before beats: what is summed over ticks then adds whole rows of beats, in one order however many there are
        shape = np.ascontiguousarray(rows["shape"].transpose(1, 2, 0)).astype(np.float32)
        span = np.ascontiguousarray(rows["span"].T)
        # Many beats together cost a fraction, one by one less than together where they are few; the answers are the same.
        alone = n if n <= _FEW else min(n, max(0, BEATS - first))
        for k in range(alone):
            now = first + k
            before = slice(max(0, now - BEATS), now)
            features[k, 4:7] = _rhythm(log_rr[before], log_rr[now])
            if now >= LEAST_BEATS:
                features[k, 7 : 7 + 2 * leads] = _distances(
                    shape[..., before], shape[..., now, None], span[:, before]
                ).ravel()
        if alone < n:
            known = slice(first + alone - BEATS, first + n)
            features[alone:, 4:7] = _rhythms(log_rr[known])
            shapes, spans = _before(shape[..., known]), _before(span[:, known])
            for k in range(0, n - alone, _TOGETHER):
                part = slice(k, min(k + _TOGETHER, n - alone))
                own = shape[..., first + alone + part.start : first + alone + part.stop, None]
                distances = _distances(shapes[:, :, part], own, spans[:, part])
                features[alone + part.start : alone + part.stop, 7 : 7 + 2 * leads] = distances.reshape(2 * leads, -1).T
        dull = ~(rows["span"][first:] > _FLAT)
        features[:, 7 : 7 + 2 * leads][np.repeat(dull, 2, axis=1)] = np.nan
        self._rows = rows[-BEATS:].copy()
        outline = windows.scale(limited[:, 0])[:, OUTLINE_TICKS]
        return Evidence(features, np.ascontiguousarray(outline)), [row.tobytes() for row in new]


def log_error(error: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Turn mean squared errors, such as A(x), into the features ``error`` and ``error_qrs``; same shape."""
    logarithm: NDArray[np.float32] = np.log(error.astype(np.float32) + np.float32(_LEAST_ERROR))
    return logarithm


def _error_features(error: NDArray[np.float32], squared_error: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Find ``error`` and ``error_qrs``; shape (n, 2)."""
    of_qrs = squared_error[:, ERROR_TICKS].astype(np.float32).mean(axis=1)
    return log_error(np.stack([error, of_qrs], axis=1))


def _rows(windows_mv: NDArray[np.float32], rr: NDArray[np.float32]) -> NDArray[np.void]:
    """Keep of beats what later ones are compared with."""
    rows = np.empty(len(windows_mv), row_type(windows_mv.shape[1]))
    kept = np.ascontiguousarray(windows_mv[..., _KEPT])
    for part in (_P, _QRS):
        kept[..., part] -= kept[..., part].mean(axis=-1, keepdims=True)
    rows["rr"] = rr
    rows["span"] = windows_mv.max(axis=-1) - windows_mv.min(axis=-1)
    rows["shape"] = kept
    return rows


def _rhythm(before: NDArray[np.float32], now: np.float32) -> tuple[float, float, float]:
    """Find ``late_run``, ``spread`` and ``jump`` from log RR intervals; NaN among them are not known."""
    recent = before[-INTERVALS:]
    recent = recent[~np.isnan(recent)]
    if np.isnan(now) or len(recent) < LEAST_INTERVALS:
        return np.nan, np.nan, np.nan
    late = np.sort(recent)[round(0.9 * (len(recent) - 1))]
    run = np.append(recent[1 - SPREAD_INTERVALS :], now)
    around = run - run.sum() / len(run)
    spread = math.sqrt(np.square(around).sum() / len(run))
    jumps = np.abs(run[1 - JUMP_INTERVALS :] - run[-JUMP_INTERVALS:-1])
    return late - now, math.log(spread + _LEAST_SPREAD), jumps.sum() / len(jumps)


def _rhythms(log_rr: NDArray[np.float32]) -> NDArray[np.float64]:
    """Find what :func:`_rhythm` does for every beat after the first :data:`BEATS`; shape (n, 3)."""
    of_each = sliding_window_view(log_rr, BEATS + 1)
    found = np.empty((len(of_each), 3))
    known = ~np.isnan(of_each[:, -INTERVALS - 1 :]).any(axis=1)
    for k in np.flatnonzero(~known):  # an interval is not known: as many as are
        found[k] = _rhythm(of_each[k, :-1], of_each[k, -1])
    intervals = of_each[known, -INTERVALS - 1 :]
    late = np.sort(intervals[:, :-1], axis=1)[:, round(0.9 * (INTERVALS - 1))]
    run = np.ascontiguousarray(intervals[:, -SPREAD_INTERVALS:])
    around = run - run.sum(axis=1, keepdims=True) / np.float32(SPREAD_INTERVALS)
    variances = (np.square(around).sum(axis=1) / np.float32(SPREAD_INTERVALS)).tolist()
    jumps = np.abs(run[:, 1 - JUMP_INTERVALS :] - run[:, -JUMP_INTERVALS:-1])
    found[known, 0] = late - intervals[:, -1]
    found[known, 1] = [math.log(math.sqrt(variance) + _LEAST_SPREAD) for variance in variances]
    found[known, 2] = jumps.sum(axis=1) / np.float32(JUMP_INTERVALS - 1)
    return found


def _before(beats: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give, for each beat after the first :data:`BEATS`, these before it: (..., n + BEATS) to (..., n, BEATS), a view."""
    return sliding_window_view(beats[..., :-1], BEATS, axis=-1)


def _distances(
    before: NDArray[np.float32], now: NDArray[np.float32], spans: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Find ``own_qrs`` and ``own_p``, in that order, of every lead.

    Parameters
    ----------
    before : ndarray of float32, shape (leads, ticks, ..., beats)
    now : ndarray of float32, shape (leads, ticks, ..., 1)
    spans : ndarray of float32, shape (leads, ..., beats)

    Returns
    -------
    ndarray of float32, shape (leads, 2, ...)
    """
    squares = np.subtract(before, now)
    np.square(squares, out=squares)
    apart = np.stack([np.add.reduce(squares[:, part], axis=1) for part in (_QRS, _P)], axis=1)
    beats = before.shape[-1]
    rank, middle = beats * PERCENTILE // 100, beats // 2
    apart.partition(rank, axis=-1)
    usual = np.partition(spans, middle, axis=-1)[..., middle]
    usual[~(usual > _FLAT)] = np.nan
    scale = np.square(np.float32(2) / usual)
    logarithms: NDArray[np.float32] = np.log(
        apart[..., rank] / _TICKS.reshape(2, *[1] * (apart.ndim - 3)) * scale[:, None] + np.float32(_LEAST_DISTANCE)
    )
    return logarithms
