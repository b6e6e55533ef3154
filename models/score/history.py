"""What is remembered of a stream's beats, and the evidence that each next beat gives against it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from ecgmon.models import windows
from ecgmon.models.features import AX_TICKS, BEATS, FOLLOWED, INTERVALS, NAMES, OUTLINE
from ecgmon.models.kernels.history import FIRST, TICKS, Compared, Kept, Memory, Replaced, compare, look, put_back
from ecgmon.models.score.evidence import Evidence, EvidenceError, ax_features, log

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

_FAST: Final = NAMES.index("fast")


def row_type(leads: int) -> np.dtype[np.void]:
    """Layout of one remembered beat, little-endian, as in the store.

    ``place`` is the beat's place among the remembered ones and ``unusual`` whether it was unusual and not admitted;
    ``span`` the range of each lead's window in mV; ``shape`` the ticks
    :data:`ecgmon.models.kernels.history.TICKS` of each lead in mV, the mean of either part removed.  The
    other fields are the small arrays of :class:`ecgmon.models.kernels.history.Memory` after this beat: the first of
    ``counts`` is the beat's number.  314 bytes for one lead, 424 for two.
    """
    return np.dtype(
        [
            ("counts", "<i8", (4,)),
            ("place", "u1"),
            ("unusual", "u1"),
            ("usual_of", "<u2", (1 + FOLLOWED,)),
            ("usual", "<f4", (1 + FOLLOWED,)),
            ("intervals", "<f4", (INTERVALS,)),
            ("span", "<f4", (leads,)),
            ("shape", "<f2", (leads, len(TICKS))),
        ]
    )


class History:
    """What one stream remembers: at most :data:`ecgmon.models.features.BEATS` beats, and usual values.

    Parameters
    ----------
    leads : int
        Leads of the stream's windows, 1 or 2; further leads are not looked at.

    Notes
    -----
    A history is determined by the latest row of each place: one restored from stored rows goes on
    exactly as if it had never been interrupted.  The beats that it took last it can give back: see :meth:`forget`.
    """

    __slots__ = ("_before", "_memory", "_replaced", "leads")

    def __init__(self, leads: int) -> None:
        if leads < 1:
            raise EvidenceError(f"a stream of {leads} leads has no beats; expected 1 or 2")
        self.leads = min(leads, windows.MOST_LEADS)
        self._memory = Memory.empty(self.leads)
        self._replaced: Replaced | None = None
        self._before: list[NDArray[Any]] = []

    @classmethod
    def restore(cls, leads: int, rows: bytes) -> Self:
        """Make a history from the rows of beats, in order: those of :meth:`snapshot`, or all of :func:`observe`.

        Raises
        ------
        EvidenceError
            If the bytes are not whole rows for that number of leads, or not rows at all.
        """
        history = cls(leads)
        kind = row_type(history.leads)
        if len(rows) % kind.itemsize:
            raise EvidenceError(
                f"a stored history has {len(rows)} bytes; expected a multiple of {kind.itemsize} for {leads} lead(s)"
            )
        if not rows:
            return history
        found = np.frombuffer(rows, kind)
        found = found[np.argsort(found["counts"][:, 0], kind="stable")]
        place = found["place"].astype(np.int64)
        if place.max() >= BEATS:
            raise EvidenceError(f"a stored history has a beat in place {place.max()}; expected less than {BEATS}")
        memory = history._memory
        for k, row in zip(place, found, strict=True):  # a later beat replaces an earlier one
            memory.span[:, k] = row["span"]
            memory.shape[..., k] = row["shape"].view("<u2")
        memory.unusual[place] = found["unusual"]
        memory.taken[place] = found["counts"][:, 0]
        for name in _SMALL:
            getattr(memory, name)[:] = found[-1][name]
        return history

    def snapshot(self) -> bytes:
        """Return a row for each remembered beat, oldest first; the small arrays of each are those of now."""
        memory = self._memory
        places = np.argsort(memory.taken, kind="stable")
        places = places[memory.taken[places] > 0]
        rows = np.empty(len(places), row_type(self.leads))
        for name in _SMALL:
            rows[name] = getattr(memory, name)
        rows["place"], rows["unusual"] = places, memory.unusual[places]
        rows["counts"][:, 0] = memory.taken[places]
        rows["span"] = memory.span[:, places].T
        rows["shape"] = memory.shape[..., places].transpose(2, 0, 1).copy().view("<f2")
        return rows.tobytes()

    def observe(
        self,
        windows_mv: NDArray[np.float32],
        ax: NDArray[np.float32],
        ticks: NDArray[np.floating[Any]],
        rr: NDArray[np.float32],
    ) -> tuple[Evidence, list[bytes]]:
        """Add the stream's next beats, in order, and return their evidence: :func:`observe` of one history."""
        return observe([self], [len(windows_mv)], [windows_mv], ax, [ticks], rr)

    def keep(self) -> None:
        """Keep the beats observed last, and free what :meth:`forget` would need."""
        self._replaced = None
        self._before = []

    def forget(self) -> None:
        """Return to the state before the last observed beats, unless they were already kept or forgotten."""
        if self._replaced is not None:
            put_back(self._memory, self._replaced)
            for name, before in zip(_SMALL, self._before, strict=True):
                getattr(self._memory, name)[:] = before
            self.keep()

    def take(self, kept: Kept, replaced: Replaced, compared: Compared) -> None:
        """Compare beats with those remembered, and remember them: :func:`ecgmon.models.kernels.history.compare`."""
        self._before = [getattr(self._memory, name).copy() for name in _SMALL]
        self._replaced = replaced
        compare(self._memory, kept, replaced, compared)


_SMALL: Final = ("counts", "usual_of", "usual", "intervals")


def latest_rows(rows: Iterable[bytes]) -> dict[int, bytes]:
    """Return the last of the rows for each place: all that a store needs to keep."""
    return {row[_PLACE]: row for row in rows}


_PLACE: Final = row_type(1).fields["place"][1]  # type: ignore[index]


def _rows(kept: Kept, replaced: Replaced, compared: Compared) -> list[bytes]:
    """Return each beat in the form of the store."""
    rows = np.empty(len(kept.rr), row_type(kept.span.shape[1]))
    rows["place"], rows["unusual"] = replaced.place, compared.unusual
    rows["span"], rows["shape"] = kept.span, kept.shapes.view("<f2")
    for name in _SMALL:
        rows[name] = getattr(compared, name)
    stored, size = rows.tobytes(), rows.itemsize
    return [stored[at : at + size] for at in range(0, len(stored), size)]


def observe(
    histories: Sequence[History],
    counts: Sequence[int],
    windows_mv: Sequence[NDArray[np.float32]],
    ax: NDArray[np.float32],
    ticks: Sequence[NDArray[np.floating[Any]]],
    rr: NDArray[np.float32],
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

    Returns
    -------
    evidence : Evidence
        Of each beat, as it was known when that beat came.
    rows : list of bytes
        What a store has to keep of each to :meth:`History.restore`; of each place, the :func:`latest_rows`.

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
    if not beats == len(ax) == rows == len(rr) == n:
        raise EvidenceError(
            f"{beats} windows came with {len(ax)} values of A(x), {rows} rows of ticks and {len(rr)} "
            f"intervals for {n} beats; expected as many of each"
        )
    features = np.empty((n, len(NAMES)), np.float32)
    features[:, :_FAST] = ax_features(ax, np.concatenate([part[:, AX_TICKS] for part in ticks]))
    features[:, _FAST] = -log(rr)
    kept, outline = _seen(windows_mv, n, leads, rr, np.ascontiguousarray(features[:, :_FAST]))
    compared, replaced = Compared.empty(n), Replaced.empty(n, leads)
    first = 0
    for history, count in zip(histories, counts, strict=True):
        if count:
            part = slice(first, first + count)
            history.take(kept.of(part), replaced.of(part), compared.of(part))
            first = part.stop
    features[:, FIRST:] = compared.features
    return Evidence(features, outline), _rows(kept, replaced, compared)


def _seen(
    windows_mv: Sequence[NDArray[np.float32]],
    n: int,
    leads: int,
    rr: NDArray[np.float32],
    log_ax: NDArray[np.float32],
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
    kept = Kept(np.ascontiguousarray(rr, np.float32), log_ax, span, shapes.astype("<f2").view("<u2"))
    return kept, outline


def warm_up() -> None:
    """Compile the loops before the first beat arrives; the first compilation on a machine takes seconds."""
    one = np.zeros(1, np.float32)
    history = History(1)
    history.observe(
        np.zeros((1, 1, windows.LENGTH), np.float32), one, np.zeros((1, windows.LENGTH), np.float16), one + 1
    )
    history.forget()
