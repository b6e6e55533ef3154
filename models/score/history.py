"""The last beats of a stream, and the evidence that each next beat gives against them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from ecgmon.models import windows
from ecgmon.models.features import (
    AX_TICKS,
    BEATS,
    INTERVALS,
    LEAST_BEATS,
    LEAST_INTERVALS,
    NAMES,
    OUTLINE,
    P_TICKS,
    PERCENTILE,
    QRS_TICKS,
)
from ecgmon.models.kernels.history import TICKS, Compared, Kept, Memory, compare, look, put_back
from ecgmon.models.score.evidence import Evidence, EvidenceError, ax_features, log

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


_FLAT: Final = 1e-3  # mV, half a step of common converters: a lead whose beats span less shows nothing

# So that the logarithm of a perfect match is finite: far below what is measured of any real beat.
_LEAST_DISTANCE: Final = np.float32(1e-5)

_TICKS: Final = np.array([len(QRS_TICKS), len(P_TICKS)], np.float32)

_RHYTHM: Final = NAMES.index("late_run")
_OWN: Final = NAMES.index("own_qrs")


def row_type(leads: int) -> np.dtype[np.void]:
    """Layout of one remembered beat, little-endian, as in the store.

    ``rr`` is the RR interval in seconds, NaN where not known; ``span`` the range of each lead's
    window in mV; ``shape`` the ticks :data:`P_TICKS` and :data:`QRS_TICKS` of each lead in mV, the mean of
    either part removed.  114 bytes for one lead, 224 for two.
    """
    return np.dtype([("rr", "<f4"), ("span", "<f4", (leads,)), ("shape", "<f2", (leads, len(TICKS)))])


class History:
    """The last beats of one stream, at most :data:`ecgmon.models.features.BEATS`.

    Parameters
    ----------
    leads : int
        Leads of the stream's windows, 1 or 2; further leads are not looked at.

    Notes
    -----
    A history is nothing but the rows of its last beats: one restored from stored rows goes on
    exactly as if it had never been interrupted.  The beats that it took last it can give back: see :meth:`forget`.
    """

    __slots__ = ("_memory", "_written_over", "leads")

    def __init__(self, leads: int) -> None:
        if leads < 1:
            raise EvidenceError(f"a stream of {leads} leads has no beats; expected 1 or 2")
        self.leads = min(leads, windows.MOST_LEADS)
        self._memory = Memory.empty(self.leads)
        self._written_over: Kept | None = None

    @classmethod
    def restore(cls, leads: int, rows: bytes) -> Self:
        """Make a history from rows that :meth:`snapshot` gave, or :meth:`observe` one by one, oldest first.

        Raises
        ------
        EvidenceError
            If the bytes are not whole rows for that number of leads.
        """
        history = cls(leads)
        kind = row_type(history.leads)
        if len(rows) % kind.itemsize:
            raise EvidenceError(
                f"a stored history has {len(rows)} bytes; expected a multiple of {kind.itemsize} for {leads} lead(s)"
            )
        last = np.frombuffer(rows, kind)[-BEATS:]
        memory = history._memory
        memory.taken[0] = len(last)
        memory.rr[: len(last)] = last["rr"]
        memory.span[:, : len(last)] = last["span"].T
        memory.shape[..., : len(last)] = last["shape"].view("<u2").transpose(1, 2, 0)
        return history

    def snapshot(self) -> bytes:
        """Return the rows that are remembered, oldest first, at most ``BEATS`` of them."""
        memory = self._memory
        count = int(memory.taken[0])
        order = np.arange(max(0, count - BEATS), count) % BEATS
        rows = np.empty(len(order), row_type(self.leads))
        rows["rr"] = memory.rr[order]
        rows["span"] = memory.span[:, order].T
        rows["shape"] = memory.shape[..., order].transpose(2, 0, 1).copy().view("<f2")
        return rows.tobytes()

    def observe(
        self,
        windows_mv: NDArray[np.float32],
        ax: NDArray[np.float32],
        ticks: NDArray[np.floating[Any]],
        rr: NDArray[np.float32],
        rr_ratio: NDArray[np.float32],
    ) -> tuple[Evidence, list[bytes]]:
        """Add the stream's next beats, in order, and return their evidence: :func:`observe` of one history."""
        return observe([self], [len(windows_mv)], [windows_mv], ax, [ticks], rr, rr_ratio)

    def keep(self) -> None:
        """Keep the beats observed last, and free what :meth:`forget` would need."""
        self._written_over = None

    def forget(self) -> None:
        """Return to the state before the last observed beats, unless they were already kept or forgotten."""
        if self._written_over is not None:
            put_back(self._memory, self._written_over)
            self._written_over = None

    def take(self, kept: Kept, compared: Compared, written_over: Kept) -> None:
        """Compare beats with those before, and remember them: :func:`ecgmon.models.kernels.history.compare`."""
        self._written_over = written_over
        compare(self._memory, kept, written_over, compared)


def _rows(kept: Kept) -> list[bytes]:
    """Return each beat in the form of the store."""
    rows = np.empty(len(kept.rr), row_type(kept.span.shape[1]))
    rows["rr"], rows["span"], rows["shape"] = kept.rr, kept.span, kept.shapes.view("<f2")
    stored, size = rows.tobytes(), rows.itemsize
    return [stored[at : at + size] for at in range(0, len(stored), size)]


def observe(
    histories: Sequence[History],
    counts: Sequence[int],
    windows_mv: Sequence[NDArray[np.float32]],
    ax: NDArray[np.float32],
    ticks: Sequence[NDArray[np.floating[Any]]],
    rr: NDArray[np.float32],
    rr_ratio: NDArray[np.float32],
) -> tuple[Evidence, list[bytes]]:
    """Take the next beats of some streams, each stream's in order, one stream after the other.

    Parameters
    ----------
    histories : sequence of History
        One for each stream, all of the same number of leads.
    counts : sequence of int
        Beats of each stream, ``n`` in all.
    windows_mv : sequence of ndarray of float32, each of shape (beats, leads, 320)
        Filtered windows in mV, in the parts that they came in: to join them would take longer than to look at them.
    ax : ndarray of float32, shape (n,)
        A(x), of the first lead; NaN where a beat could not be scored.
    ticks : sequence of ndarray of float16 or float32, each of shape (beats, 320)
        Squared difference of window and reconstruction at each tick of the first lead, in the same parts or others.
    rr : ndarray of float32, shape (n,)
        RR interval to the beat before, in seconds; NaN where not known.
    rr_ratio : ndarray of float32, shape (n,)
        ``rr`` over the mean of the intervals before it; NaN where not known.

    Returns
    -------
    evidence : Evidence
        Of each beat, as it was known when that beat came.
    rows : list of bytes
        What a store has to keep of each, to :meth:`History.restore` from the last ``BEATS``.

    Raises
    ------
    EvidenceError
        If the windows have fewer leads than the histories, the histories not all as many, or the arrays do not have one
        entry a beat.

    Notes
    -----
    The evidence of a beat is the same to the last bit however many beats, of however many streams, are taken at a time.
    """
    leads, n = histories[0].leads, sum(counts)
    if any(history.leads != leads for history in histories):
        raise EvidenceError(
            "histories of one lead and of two were to be observed together; expected as many leads in all"
        )
    for each in windows_mv:
        if each.ndim != 3 or each.shape[1] < leads or each.shape[2] != windows.LENGTH:  # noqa: PLR2004 - beats, leads, ticks
            raise EvidenceError(
                f"windows of shape {each.shape} do not fit a history of {leads} lead(s); "
                f"expected (beats, {leads}, {windows.LENGTH})"
            )
    beats, rows = sum(map(len, windows_mv)), sum(map(len, ticks))
    if not beats == len(ax) == rows == len(rr) == len(rr_ratio) == n:
        raise EvidenceError(
            f"{beats} windows came with {len(ax)} values of A(x), {rows} rows of ticks, {len(rr)} "
            f"intervals and {len(rr_ratio)} ratios for {n} beats; expected as many of each"
        )
    kept, outline = _seen(windows_mv, n, leads, rr)
    features = np.full((n, len(NAMES)), np.nan, np.float32)
    features[:, :2] = ax_features(ax, np.concatenate([part[:, AX_TICKS] for part in ticks]))
    features[:, 2] = -log(rr_ratio)
    features[:, 3] = -log(rr)
    compared = Compared.empty(n, leads)
    written_over = Kept.empty(n, leads)
    first = 0
    for history, count in zip(histories, counts, strict=True):
        if count:
            part = slice(first, first + count)
            history.take(kept.of(part), compared.of(part), written_over.of(part))
            first = part.stop
    features[:, _RHYTHM] = _late(compared.intervals, compared.rhythm[:, 0])
    features[:, _RHYTHM + 1 : _RHYTHM + 3] = compared.rhythm[:, 1:]
    features[:, _OWN : _OWN + 2 * leads] = _own(compared, kept.span).reshape(n, 2 * leads)
    return Evidence(features, outline), _rows(kept)


def _seen(
    windows_mv: Sequence[NDArray[np.float32]], n: int, leads: int, rr: NDArray[np.float32]
) -> tuple[Kept, NDArray[np.float32]]:
    """Take from ``n`` windows what is kept of them, and their outlines."""
    span = np.empty((n, leads), np.float32)
    shapes = np.empty((n, leads, len(TICKS)), np.float32)
    outline = np.empty((n, OUTLINE), np.float32)
    first = 0
    for part in windows_mv:
        if len(part):
            given = np.ascontiguousarray(part, np.float32).view()
            given.flags.writeable = False  # as in a message: a loop is compiled again for every kind of array
            look(given, first, span, shapes, outline)
            first += len(part)
    kept = Kept(np.ascontiguousarray(rr, np.float32), span, shapes.astype("<f2").view("<u2"))
    return kept, outline


def _ranked(values: NDArray[np.float32], rank: NDArray[np.int64]) -> NDArray[np.float32]:
    """Find the value of each row, shape (..., m), that ``rank`` others come before; NaN comes last.  Sorts in place."""
    values.sort(axis=-1)
    return np.take_along_axis(values, rank[..., None], axis=-1)[..., 0]


def _late(intervals: NDArray[np.float32], own: NDArray[np.float32]) -> NDArray[np.float32]:
    """Find ``late_run`` from the log RR intervals before each beat and its own."""
    known = INTERVALS - np.isnan(intervals).sum(axis=1)
    late = _ranked(intervals, np.rint(0.9 * (known - 1)).astype(np.int64).clip(0)) - own
    late[known < LEAST_INTERVALS] = np.nan
    return late


def _own(compared: Compared, span: NDArray[np.float32]) -> NDArray[np.float32]:
    """Find ``own_qrs`` and ``own_p`` of every lead, shape (n, leads, 2)."""
    leads = span.shape[1]
    known = compared.known[:, None]
    usual = _ranked(compared.spans, np.repeat(known // 2, leads, axis=1))
    apart = _ranked(compared.apart, np.broadcast_to((known * PERCENTILE // 100)[..., None], (len(known), leads, 2)))
    shown = (known >= LEAST_BEATS) & (usual > _FLAT) & (span > _FLAT)  # other leads show nothing
    scale = np.square(np.divide(np.float32(2), usual, out=np.full_like(usual, np.nan), where=shown))
    return log(apart / _TICKS * scale[..., None] + _LEAST_DISTANCE)


def warm_up() -> None:
    """Compile the loops before the first beat arrives; the first compilation on a machine takes seconds."""
    one = np.zeros(1, np.float32)
    history = History(1)
    history.observe(
        np.zeros((1, 1, windows.LENGTH), np.float32), one, np.zeros((1, windows.LENGTH), np.float16), one + 1, one + 1
    )
    history.forget()
