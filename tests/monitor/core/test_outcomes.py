"""The outcome of a stream does not depend on the size of its lots or on failed commits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgmon.models.features import BEATS
from ecgmon.models.windows import LENGTH
from ecgmon.monitor.config.schema import AlertSettings
from ecgmon.monitor.core.alerts import Alert, AlertKind
from ecgmon.monitor.core.commit import StreamState
from ecgmon.monitor.core.exchange import Lot
from ecgmon.monitor.core.outcomes import Outcome, StreamRules, conclude, observe
from ecgmon.pipelines.items import ITEM, Items, Kind, Quality

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

FS = 100.0
Detail = Literal["none", "anomalous", "all"]


def stream_items(
    anomalous: AbstractSet[int] = frozenset(), seconds: int = 30, quality: Quality = Quality.USABLE
) -> Items:
    """Make a beat every second, some with a high score, then the end."""
    rows: list[tuple[float, ...]] = []
    for second in range(seconds):
        rows.append((Kind.BEAT, quality, 0, second, int(second * FS) + 50, int(second * FS) + 130, 1.0, 1.0))
        rows.append((Kind.SECOND, quality, 0, second, int(second * FS), int(second * FS) + 199, np.nan, np.nan))
    rows.append((Kind.END, 0, 0, seconds, int(seconds * FS), int(seconds * FS), np.nan, np.nan))
    windows = np.zeros((seconds, 1, LENGTH), np.float32)
    windows[sorted(anomalous)] = 1.0
    return Items(np.array(rows, ITEM), windows)


def lots(items: Items, cuts: list[int]) -> list[Lot]:
    made = []
    for first, last in zip([0, *cuts], [*cuts, len(items)], strict=True):
        part = items[first:last]
        lot = Lot("a", first, part, np.zeros(len(part)), 0.0)
        lot.ax[:] = np.where(part.windows[:, 0, 0] > 0, 5.0, 0.25)
        lot.unscored = 0
        made.append(lot)
    return made


def feed(rules: StreamRules, lot: Lot) -> Outcome:
    """Process a lot, with A(x) as the score."""
    arrived = [(rules, [lot])]
    observed = observe(arrived)
    return conclude(arrived, observed, observed.ax)[0]


def run(
    items: Items, cuts: list[int], *, fail_at: int = -1, detail: Detail = "anomalous"
) -> tuple[list[Any], list[Alert], dict[int, tuple[int, int]], list[int], StreamState, list[Any]]:
    rules = StreamRules(StreamState(1, "a", FS, ("MLII",)), AlertSettings(), detail=detail)
    beats: list[Any] = []
    alerts: list[Alert] = []
    runs: dict[int, tuple[int, int]] = {}
    details: list[int] = []
    remembered: dict[int, bytes] = {}
    for number, lot in enumerate(lots(items, cuts)):
        if number == fail_at:  # the store was full; the same lot comes again
            feed(rules, lot)
            rules.forget()
        outcome = feed(rules, lot)
        rules.commit(outcome.entry)
        beats += outcome.entry.beats
        alerts += outcome.entry.alerts
        runs |= {first: (count, quality) for first, count, quality in outcome.entry.runs}
        details += [seq for seq, _, _ in outcome.entry.details]
        remembered |= outcome.entry.remembered
    return beats, alerts, runs, details, rules.state, sorted(remembered.items())


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(1, 60), unique=True, max_size=10).map(sorted), fail_at=st.integers(-1, 5))
def test_size_of_lots_and_failed_commits_do_not_change_the_outcome(cuts: list[int], fail_at: int) -> None:
    items = stream_items(anomalous={10, 11, 12, 20})
    whole, in_parts = run(items, []), run(items, cuts, fail_at=fail_at)
    assert repr(in_parts) == repr(whole)  # repr, because NaN equals nothing


def test_beats_are_numbered_in_order_and_the_state_has_the_position() -> None:
    beats, alerts, runs, _, state, _ = run(stream_items(anomalous={10, 11, 12}), [])
    assert [row[0] for row in beats] == list(range(30))
    assert (state.position, state.beats, state.seconds, state.ended) == (61, 30, 30.0, True)
    assert runs == {0: (30, Quality.USABLE)}
    assert [(alert.kind, alert.end is None) for alert in alerts] == [
        (AlertKind.ANOMALOUS_EPISODE, True),
        (AlertKind.ANOMALOUS_EPISODE, False),
    ]


@pytest.mark.parametrize(("detail", "kept"), [("none", []), ("anomalous", [3, 9]), ("all", list(range(30)))])
def test_detail_selects_the_windows_that_are_kept(detail: Detail, kept: list[int]) -> None:
    assert run(stream_items(anomalous={3, 9}), [7], detail=detail)[3] == kept


def test_unusable_signal_raises_only_a_technical_alert() -> None:
    alerts = run(stream_items(anomalous=set(range(30)), quality=Quality.FLAT), [])[1]
    assert {alert.kind for alert in alerts} == {AlertKind.LEAD_OFF}


@pytest.mark.parametrize(("restart_at", "of_lot"), [(1, 10), (5, 10), (20, 10), (85, 10), (85, 160)])
@pytest.mark.parametrize("leads", [("MLII",), ("MLII", "V1")])
def test_restarted_monitor_compares_with_the_same_beats(restart_at: int, of_lot: int, leads: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    items = stream_items(seconds=100)
    items = Items(items.table, rng.standard_normal((len(items.windows), len(leads), LENGTH)).astype(np.float32))
    before, after = items[: 2 * restart_at], items[2 * restart_at :]
    rules = StreamRules(StreamState(1, "a", FS, leads), AlertSettings())
    whole = observe([(rules, lots(items, []))]).evidence
    rules = StreamRules(StreamState(1, "a", FS, leads), AlertSettings())
    stored: dict[int, bytes] = {}
    for lot in lots(before, list(range(2, 2 * restart_at, of_lot))):
        entry = feed(rules, lot).entry
        rules.commit(entry)
        stored |= entry.remembered
    assert len(stored) == min(restart_at, BEATS)
    again = observe([(StreamRules(entry.state, AlertSettings(), list(stored.values())), lots(after, []))]).evidence
    assert np.array_equal(again.features, whole.features[restart_at:], equal_nan=True)
    assert np.isfinite(again.features[-1]).sum() > np.isfinite(whole.features[0]).sum()
