"""The scoring chain: the score of a beat depends only on its own stream, not on how its items are grouped."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ecgmon
from ecgmon.models.score.evidence import Evidence, EvidenceError
from ecgmon.models.score.history import History, latest_rows
from ecgmon.models.weights.checkpoint import default_weights, read_info
from ecgmon.models.windows import LENGTH
from ecgmon.pipelines.items import ITEM, Items, Kind
from ecgmon.pipelines.scoring.chain import Chain, Reconstructed, observe

if TYPE_CHECKING:
    from ecgmon.models.score.score import Score

PACKAGE = Path(ecgmon.__file__).parent


def made_up(beats: int, seed: int, leads: int = 2) -> Reconstructed:
    """Make items of a stream, beats and seconds in turn, with answers for the beats."""
    rng = np.random.default_rng(seed)
    table = np.zeros(2 * beats, ITEM)
    table["kind"][1::2] = Kind.SECOND
    table["sample"] = np.arange(2 * beats) * 180
    table["rr"] = table["rr_ratio"] = np.nan
    table["rr"][::2] = rng.uniform(0.6, 1.1, beats)
    table["rr_ratio"][::2] = rng.uniform(0.6, 1.2, beats)
    windows = (rng.standard_normal((beats, leads, LENGTH)).cumsum(axis=-1) / 8).astype(np.float32)
    ticks = rng.uniform(0, 0.1, (beats, LENGTH)).astype(np.float16)
    return Reconstructed(Items(table, windows), ticks.mean(axis=1, dtype=np.float32), ticks)


def parts_of(whole: Reconstructed, cuts: list[int]) -> list[Reconstructed]:
    parts = []
    for first, last in zip([0, *cuts], [*cuts, len(whole.items)], strict=True):
        items = whole.items[first:last]
        before = int(np.count_nonzero(whole.items.table["kind"][:first] == Kind.BEAT))
        own = slice(before, before + len(items.windows))
        parts.append(Reconstructed(items, whole.ax[own], whole.ticks[own]))
    return parts


@pytest.fixture(scope="module")
def model() -> Score:
    return read_info(default_weights()).score


def same(one: Evidence, other: Evidence) -> bool:
    return np.array_equal(one.features, other.features, equal_nan=True) and np.array_equal(one.outline, other.outline)


@settings(max_examples=30, deadline=None)
@given(
    streams=st.lists(st.tuples(st.integers(1, 2), st.integers(1, 80)), min_size=1, max_size=5),
    cuts=st.lists(st.integers(1, 159), unique=True, max_size=4).map(sorted),
)
def test_streams_scored_together_score_as_each_one_alone(
    model: Score, streams: list[tuple[int, int]], cuts: list[int]
) -> None:
    wholes = [made_up(beats, seed, leads) for seed, (leads, beats) in enumerate(streams)]
    alone = [Chain(leads).observe(whole) for (leads, _), whole in zip(streams, wholes, strict=True)]
    cut = [parts_of(whole, [c for c in cuts if c < len(whole.items)]) for whole in wholes]
    together = observe([(Chain(leads), parts) for (leads, _), parts in zip(streams, cut, strict=True)])
    scores = together.score(model)
    first_item = first = 0
    for number, (last_item, last) in zip(together.order, together.ends, strict=True):
        own = slice(first, last)
        assert same(together.evidence[own], alone[number].evidence)
        assert np.array_equal(scores[own], alone[number].score(model))
        assert together.table[first_item:last_item].tobytes() == wholes[number].items.table.tobytes()
        assert together.remembered[own] == alone[number].remembered
        for beat in range(first, last):
            window, ticks = together.detail(beat)
            assert np.array_equal(window, wholes[number].items.windows[beat - first])
            assert np.array_equal(ticks, wholes[number].ticks[beat - first])
        first_item, first = last_item, last
    assert (first_item, first) == (len(together.table), len(scores))


@pytest.mark.parametrize("before", [1, 20, 100])
def test_a_chain_continues_from_its_snapshot_and_forgets_beats_that_were_not_stored(before: int) -> None:
    whole = made_up(before + 30, seed=1)
    stored, late = parts_of(whole, [2 * before])
    chain = Chain(2)
    remembered = chain.observe(stored).remembered
    chain.keep()
    stood = chain.snapshot()
    expected = chain.observe(late).evidence
    assert chain.snapshot() != stood
    chain.forget()
    assert chain.snapshot() == stood == History.restore(2, b"".join(remembered)).snapshot()
    latest = list(latest_rows(remembered).values())
    for again in (chain, Chain(2, remembered), Chain(2, latest), Chain(2, latest[::-1]), Chain(2, [stood])):
        assert same(again.observe(late).evidence, expected)
    chain.keep()
    kept = chain.snapshot()
    chain.forget()
    assert chain.snapshot() == kept != stood


def test_remembered_beats_with_another_number_of_leads_are_refused() -> None:
    rows = Chain(2).observe(made_up(3, seed=2)).remembered
    with pytest.raises(EvidenceError, match="expected a multiple of 314 for 1 lead"):
        Chain(1, rows)


def test_items_without_beats_give_empty_evidence() -> None:
    quiet = made_up(0, seed=0)
    observed = Chain(2).observe(quiet)
    assert (len(observed.evidence), observed.remembered, observed.ends) == (0, [], [(0, 0)])


def test_only_the_chain_compares_beats_with_the_history_of_a_stream() -> None:
    """The steps are connected in one place only, because a second place could come to score differently."""
    imports = {}
    for folder in ("models", "pipelines", "monitor"):
        for file in sorted((PACKAGE / folder).rglob("*.py")):
            names = [
                f"{node.module}.{alias.name}"
                for node in ast.walk(ast.parse(file.read_text()))
                if isinstance(node, ast.ImportFrom)
                for alias in node.names
            ]
            of_history = {name for name in names if name.startswith("ecgmon.models.score.history")}
            if of_history - {"ecgmon.models.score.history.latest_rows"}:  # which compares nothing
                imports[str(file.relative_to(PACKAGE))] = names
    assert list(imports) == ["pipelines/scoring/chain.py"]
