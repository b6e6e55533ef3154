"""The scoring chain: from the items of a stream and the reconstructions of their windows to scores.

A beat passes three steps.  A generator reconstructs its window (:func:`reconstruct`), which gives A(x) and its ticks.
A comparison with the stream's last beats gives the evidence (:meth:`Chain.observe`, or :func:`observe` for many streams
at once).  A model turns the evidence into a score (:meth:`Observed.score`).  In the daemon, workers do the first step;
elsewhere :meth:`Chain.score` does all steps in one call.

All bits of a beat's score are independent of how the items of its stream were cut and of the streams that were
processed together with it.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ecgmon.models.score import history, normalizing_flow
from ecgmon.models.score.evidence import Evidence
from ecgmon.models.score.history import History
from ecgmon.pipelines.items import ITEM, Items, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from ecgmon.models.inference.reconstruction import Reconstructor, Scorer
    from ecgmon.models.score.score import Score


class Reconstructed(NamedTuple):
    """Consecutive items of one stream, with A(x) and ticks of their windows.

    Attributes
    ----------
    items : Items
    ax : ndarray of float32, shape (beats,)
        A(x); NaN where a beat could not be scored.
    ticks : ndarray of float16, shape (beats, 320)
        Squared difference of window and reconstruction at each tick.
    """

    items: Items
    ax: NDArray[np.float32]
    ticks: NDArray[np.float16]


def reconstruct(items: Items, generator: Reconstructor, leads: int = 1) -> Reconstructed:
    """Reconstruct the first ``leads`` leads of the windows of some items."""
    raw = generator.score(items.windows[:, :leads])
    return Reconstructed(items, raw.ax, raw.ticks)


@dataclass(frozen=True, slots=True)
class Observed:
    """The next items of some streams with the evidence of their beats, ready to be scored.

    Attributes
    ----------
    order : list of int
        Indices of the given streams in the order in which all other attributes have them.
    ends : list of (int, int)
        For each stream in that order: one past its last item, one past its last beat.
    table : ndarray of ITEM, shape (items,)
    ax : ndarray of float32, shape (beats,)
        A(x); NaN where a beat could not be scored.
    parts : list of Reconstructed
        The parts that hold the windows and ticks of the beats.
    before : list of int
        For each part, the number of beats before it.
    evidence : Evidence
        Of the beats.
    remembered : list of bytes
        Of each beat, what its stream remembers of it.
    """

    order: list[int]
    ends: list[tuple[int, int]]
    table: NDArray[np.void]
    ax: NDArray[np.float32]
    parts: list[Reconstructed]
    before: list[int]
    evidence: Evidence
    remembered: list[bytes]

    def score(self, model: Score) -> NDArray[np.float32]:
        """Score the beats, shape (beats,); NaN where a beat could not be scored."""
        return model.score(self.evidence)

    def detail(self, beat: int) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
        """Look up the window of a beat, shape (leads, 320), and its ticks, shape (320,)."""
        number = bisect_right(self.before, beat) - 1
        part, own = self.parts[number], beat - self.before[number]
        return part.items.windows[own], part.ticks[own]


@dataclass(frozen=True, slots=True)
class ScoredItems:
    """Consecutive items of one stream with all results of the chain for their beats.

    Attributes
    ----------
    items : Items
    ax : ndarray of float32, shape (beats,)
        A(x); NaN where a beat could not be scored.
    ticks : ndarray of float16, shape (beats, 320)
        Squared difference of window and reconstruction at each tick.
    evidence : Evidence
    score : ndarray of float32, shape (beats,)
        NaN where a beat could not be scored.
    remembered : list of bytes
        For each beat, the row that its stream remembers; a :class:`Chain` can continue from the last ones.
    """

    items: Items
    ax: NDArray[np.float32]
    ticks: NDArray[np.float16]
    evidence: Evidence
    score: NDArray[np.float32]
    remembered: list[bytes]


class Chain:
    """The scoring chain of one stream.

    Parameters
    ----------
    leads : int
        Leads of the stream's windows.
    remembered : iterable of bytes
        Rows to continue from, oldest first, from :attr:`Observed.remembered` or :meth:`snapshot`.  A chain that starts
        from the rows of the last beats scores the next beat exactly as the interrupted chain would have.

    Raises
    ------
    ecgmon.models.score.evidence.EvidenceError
        If there are no leads, or the rows are from a stream with another number of leads.
    """

    __slots__ = ("history",)

    def __init__(self, leads: int, remembered: Iterable[bytes] = ()) -> None:
        self.history = History.restore(leads, b"".join(remembered))

    @property
    def leads(self) -> int:
        """Number of leads used: 1 or 2."""
        return self.history.leads

    def score(self, items: Items, scorer: Scorer) -> ScoredItems:
        """Process the stream's next items in all steps, including the reconstruction."""
        part = reconstruct(items, scorer, scorer.info.leads)
        observed = self.observe(part)
        return ScoredItems(*part, observed.evidence, observed.score(scorer.info.score), remembered=observed.remembered)

    def observe(self, part: Reconstructed) -> Observed:
        """Compute the evidence of the stream's next items, which are already reconstructed."""
        return observe([(self, [part])])

    def snapshot(self) -> bytes:
        """Return the remembered rows, oldest first."""
        return self.history.snapshot()

    def keep(self) -> None:
        """Keep the last observed beats for good, and free what :meth:`forget` would need."""
        self.history.keep()

    def forget(self) -> None:
        """Return to the state before the last observed beats, unless they were already kept or forgotten."""
        self.history.forget()


def observe(arrived: Sequence[tuple[Chain, Sequence[Reconstructed]]]) -> Observed:
    """Compute the evidence of the next items of some streams; one call for all costs less than one for each.

    Parameters
    ----------
    arrived : sequence of (Chain, sequence of Reconstructed)
        The streams, at least one, each with its next items in order: at least one part.
    """

    def leads(number: int) -> int:
        return arrived[number][0].leads

    order = sorted(range(len(arrived)), key=leads)  # streams with the same number of leads are observed together
    parts = [part for number in order for part in arrived[number][1]]
    if len(parts) == 1:
        table = parts[0].items.table
    else:  # np.concatenate takes ten times as long for structured arrays
        table = np.frombuffer(b"".join([part.items.table.data for part in parts]), ITEM)
    beats = table[table["kind"] == Kind.BEAT]
    rr = np.ascontiguousarray(beats["rr"])
    ax = np.concatenate([part.ax for part in parts])
    ends: list[tuple[int, int]] = []
    evidence: list[Evidence] = []
    remembered: list[bytes] = []
    items = done = 0
    for _, same_leads in groupby(order, key=leads):
        of_these = [arrived[number] for number in same_leads]
        counts = [sum(len(part.ax) for part in own) for _, own in of_these]
        for (_, own), count in zip(of_these, counts, strict=True):
            items += sum(len(part.items.table) for part in own)
            ends.append((items, (ends[-1][1] if ends else 0) + count))
        now = slice(done, ends[-1][1])
        done = now.stop
        own_parts = [part for _, own in of_these for part in own]
        found, rows = history.observe(
            [chain.history for chain, _ in of_these], counts, [part.items.windows for part in own_parts],
            ax[now], [part.ticks for part in own_parts], rr[now],
        )  # fmt: skip
        evidence.append(found)
        remembered += rows
    before = list(accumulate((len(part.ax) for part in parts), initial=0))[:-1]
    return Observed(order, ends, table, ax, parts, before, Evidence.concatenate(evidence), remembered)


def warm_up() -> None:
    """Compile the kernels before the first beat arrives; the first compilation on a machine takes seconds."""
    normalizing_flow.warm_up()
    history.warm_up()
