"""The evidence of a beat depends only on its stream, not on batches, restarts or the time that it has run."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ecgmon.models.features import (
    ADMITTED,
    BEATS,
    LEAST_BEATS,
    LEAST_INTERVALS,
    LEAST_IRREGULARITY,
    MOST_UNUSUAL,
    NAMES,
    OUTLINE,
    OUTLINE_TICKS,
    OWN_2,
    P_TICKS,
    PERCENTILE,
    QRS_TICKS,
    RHYTHM,
    UNUSUAL_EARLY,
    UNUSUAL_QRS,
    USUAL_INTERVALS,
)
from ecgmon.models.kernels import history as kernels
from ecgmon.models.score import history
from ecgmon.models.score.evidence import Evidence, EvidenceError
from ecgmon.models.score.history import History, latest_rows, row_type
from ecgmon.models.windows import LENGTH, scale

TICKS = np.arange(-140, 180)


KNOWN = 2 * LEAST_BEATS
"""Beats after which every feature is known: a usual distance needs distances, which need beats."""

FOREIGN = ADMITTED * (1 + BEATS * PERCENTILE // 100 - MOST_UNUSUAL)
"""Beats of another shape in a row that are unusual in a stream with a full memory.

As many are remembered as unusual beats may hold, and all that are admitted.  The next beat is usual once they hold the
place that the percentile looks at.
"""

Beats = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


def made_up_beats(n: int, seed: int, leads: int = 2) -> Beats:
    """Make beats of one stream: windows in mV, A(x), squared error per tick, RR."""
    random = np.random.default_rng(seed)
    rr = (0.8 + 0.04 * random.standard_normal(n)).astype(np.float32)
    rr[0] = np.nan
    p = 0.1 * np.exp(-0.5 * ((TICKS + 60) / 8) ** 2)
    qrs = np.exp(-0.5 * (TICKS / 6) ** 2)
    windows = np.stack([p + qrs, p - 0.5 * qrs][:leads])
    windows = windows + 0.02 * random.standard_normal((n, leads, 320))
    squared_error = (0.01 * random.random((n, 320))).astype(np.float32)
    return windows.astype(np.float32), squared_error.mean(axis=1), squared_error, rr


def part_of(
    beats: Beats,
    part: slice,
) -> Beats:
    windows, error, ticks, rr = (array[part] for array in beats)
    return windows, error, ticks, rr


def signatures(kernel: Any) -> int:
    """Return for how many types of arguments a kernel was compiled."""
    return len(kernel.signatures)


def column(evidence: Evidence, name: str) -> NDArray[np.float32]:
    return evidence.features[:, NAMES.index(name)]


def test_the_evidence_has_a_column_for_every_name() -> None:
    evidence, rows = History(2).observe(*made_up_beats(25, seed=0))
    assert evidence.features.shape == (25, len(NAMES))
    assert evidence.outline.shape == (25, OUTLINE)
    assert evidence.features.dtype == evidence.outline.dtype == np.float32
    assert len(rows) == len(evidence) == 25
    assert np.isfinite(evidence.features[KNOWN:]).all()


@settings(deadline=None, max_examples=30)
@given(leads=st.sampled_from([1, 2]), cuts=st.lists(st.integers(0, 150), max_size=6))
def test_evidence_does_not_depend_on_the_number_of_beats_at_a_time(leads: int, cuts: list[int]) -> None:
    beats = made_up_beats(150, seed=1, leads=leads)
    whole, whole_rows = History(leads).observe(*beats)
    history, parts, rows = History(leads), [], []
    edges = [0, *sorted(cuts), 150]
    for first, stop in itertools.pairwise(edges):
        evidence, stored = history.observe(*part_of(beats, slice(first, stop)))
        parts.append(evidence)
        rows += stored
    joined = Evidence.concatenate(parts)
    assert joined.features.tobytes() == whole.features.tobytes()
    assert joined.outline.tobytes() == whole.outline.tobytes()
    assert rows == whole_rows


@settings(deadline=None, max_examples=20)
@given(stop=st.integers(0, 140))
def test_a_restored_history_gives_the_same_evidence(stop: int) -> None:
    beats = made_up_beats(140, seed=2)
    history = History(2)
    _, rows = history.observe(*part_of(beats, slice(stop)))
    going_on, _ = history.observe(*part_of(beats, slice(stop, None)))
    snapshot_of = History(2)
    snapshot_of.observe(*part_of(beats, slice(stop)))
    for stored in (snapshot_of.snapshot(), b"".join(rows), b"".join(latest_rows(rows).values())):
        restored, _ = History.restore(2, stored).observe(*part_of(beats, slice(stop, None)))
        assert restored.features.tobytes() == going_on.features.tobytes()


@settings(deadline=None, max_examples=20)
@given(before=st.integers(0, 140), lost=st.integers(1, 140))
def test_beats_that_could_not_be_stored_do_not_change_the_history(before: int, lost: int) -> None:
    history = History(2)
    history.observe(*made_up_beats(before, seed=9)) if before else None
    history.keep()
    stood = history.snapshot()
    history.observe(*made_up_beats(lost, seed=10))
    history.forget()
    assert history.snapshot() == stood
    untouched, _ = History.restore(2, stood).observe(*made_up_beats(20, seed=11))
    again, _ = history.observe(*made_up_beats(20, seed=11))
    assert again.features.tobytes() == untouched.features.tobytes()
    stored = history.snapshot()
    history.keep()
    history.forget()
    assert history.snapshot() == stored != stood


def test_the_history_of_a_long_stream_does_not_grow() -> None:
    history = History(2)
    for seed in range(5):
        history.observe(*made_up_beats(100, seed))
    assert len(history.snapshot()) == BEATS * row_type(2).itemsize == 64 * 424
    assert all(array.base is None for array in history._memory)  # it is no view of a larger array


def test_usual_beats_are_compared_with_the_last_64_only() -> None:
    late = made_up_beats(10, seed=3)
    answers = []
    for before in (made_up_beats(70, seed=4), made_up_beats(200, seed=5)):
        history = History(2)
        history.observe(*before)
        history.observe(*made_up_beats(BEATS, seed=6))
        answers.append(history.observe(*late)[0])
    for name in ("own_qrs", "own_p", "own_qrs_2", "own_p_2", "spread", "jump"):
        assert np.array_equal(column(answers[0], name), column(answers[1], name), equal_nan=True), name


def test_a_beat_unlike_those_of_its_stream_has_a_large_distance_where_it_differs() -> None:
    windows, error, squared_error, rr = made_up_beats(100, seed=7)
    windows[80, :, 118:172:1] *= -1  # an inverted QRS complex
    windows[90, :, 60:110] = 0  # no P wave
    evidence, _ = History(2).observe(windows, error, squared_error, rr)
    usual = np.arange(40, 80)
    assert column(evidence, "own_qrs")[80] > column(evidence, "own_qrs")[usual].max() + 2
    assert column(evidence, "own_qrs_2")[80] > column(evidence, "own_qrs_2")[usual].max() + 2
    assert column(evidence, "own_p")[90] > column(evidence, "own_p")[usual].max()
    assert column(evidence, "own_qrs")[90] < column(evidence, "own_qrs")[80]


def test_an_early_beat_has_a_high_rhythm_feature() -> None:
    windows, error, squared_error, rr = made_up_beats(100, seed=8)
    rr[80] *= 0.6
    evidence, _ = History(2).observe(windows, error, squared_error, rr)
    for name in RHYTHM:
        assert column(evidence, name)[80] > column(evidence, name)[40:80].max()


def test_the_distance_from_own_beats_does_not_depend_on_the_amplitude() -> None:
    beats = made_up_beats(100, seed=9)
    halved = (beats[0] * np.float32(0.5), *beats[1:])
    usual, half = (History(2).observe(*b)[0].features[KNOWN:] for b in (beats, halved))
    assert usual == pytest.approx(half, abs=0.02)


def test_features_that_are_not_known_yet_are_nan() -> None:
    evidence, _ = History(1).observe(*made_up_beats(30, seed=10, leads=1))
    first = {  # the first interval is not known
        "log_ax": 0, "log_ax_qrs": 0, "fast": 1,
        **dict.fromkeys(("early", "spread", "jump"), 1 + LEAST_INTERVALS),
        **dict.fromkeys(("own_qrs", "own_p", "ax_over_usual", "ax_qrs_over_usual"), LEAST_BEATS),
        **dict.fromkeys(("qrs_over_usual", "p_over_usual"), KNOWN),
        **dict.fromkeys(OWN_2, 30),
    }  # fmt: skip
    assert {name: int(np.isnan(column(evidence, name)).sum()) for name in NAMES} == first
    for name, known in first.items():
        assert np.isfinite(column(evidence, name)[known:]).all()


def test_beats_without_an_rr_interval_are_skipped_in_the_rhythm() -> None:
    beats = made_up_beats(60, seed=11)
    beats[3][30] = np.nan
    evidence, _ = History(2).observe(*beats)
    assert {name for name in NAMES if np.isnan(column(evidence, name)[30])} == set(RHYTHM)
    assert np.isfinite(np.delete(evidence.features, 30, axis=0)[KNOWN:]).all()


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf, 3e38])
def test_a_window_that_is_not_finite_affects_no_other_beat(broken: float) -> None:
    beats = made_up_beats(80, seed=12)
    beats[0][40, 0, 130:150] = broken
    evidence, _ = History(2).observe(*beats)
    others = np.delete(np.arange(KNOWN, 80), 40 - KNOWN)
    assert np.isfinite(evidence.features[others]).all()


def test_distances_of_a_flat_lead_are_nan_and_not_infinite() -> None:
    beats = made_up_beats(40, seed=13)
    beats[0][:, 1] = 0
    evidence, _ = History(2).observe(*beats)
    for name in NAMES:
        assert (np.isnan if name in OWN_2 else np.isfinite)(column(evidence, name)[KNOWN:]).all(), name


def with_run(before: int, run: int, after: int, seed: int, *, leads: int = 2) -> tuple[Beats, slice]:
    """Make a run of early beats of another shape, which are badly reconstructed, within usual ones."""
    windows, error, squared_error, rr = made_up_beats(before + run + after, seed, leads)
    part = slice(before, before + run)
    windows[part, :, 118:172] *= -1
    rr[part] *= np.float32(0.55)
    error[part] *= 20
    squared_error[part] *= 20
    return (windows, error, squared_error, rr), part


def fields_of(rows: list[bytes], leads: int = 2) -> NDArray[np.void]:
    return np.frombuffer(b"".join(rows), row_type(leads))


def test_beats_of_another_shape_stay_unusual_until_as_many_are_admitted_as_the_percentile_looks_at() -> None:
    windows, *others = made_up_beats(400, seed=20)
    windows[100:, :, 118:172] *= -1
    evidence, rows = History(2).observe(windows, *others)
    own, over = column(evidence, "own_qrs"), column(evidence, "qrs_over_usual")
    last, after = 100 + FOREIGN - 1, 100 + FOREIGN
    assert FOREIGN > 2 * MOST_UNUSUAL
    assert own[last] == pytest.approx(own[110], abs=0.1)
    assert own[100:after].min() > own[40:100].max() + 5
    assert over[100:after].min() > UNUSUAL_QRS + 3
    assert own[after:].max() < own[40:100].max() + 1
    assert over[after:].max() < UNUSUAL_QRS
    unusual = [number % ADMITTED > 0 for number in range(1, FOREIGN + 1)]
    assert fields_of(rows)["unusual"][40:].tolist() == [False] * 60 + unusual + [False] * (300 - FOREIGN)


def test_early_beats_stay_early_until_the_admitted_ones_have_moved_the_usual_interval() -> None:
    windows, error, squared_error, rr = made_up_beats(400, seed=21)
    rr[:100], rr[100:] = 0.8, 0.48
    early = column(History(2).observe(windows, error, squared_error, rr)[0], "early")[100:]
    gap = np.log(0.8 / 0.48)
    run = np.arange(300)
    of_usual = gap * (1 - 1 / USUAL_INTERVALS) ** (run // ADMITTED) / LEAST_IRREGULARITY
    usual = int(np.argmax(of_usual < UNUSUAL_EARLY))
    assert usual > 100
    assert early[:29] == pytest.approx(gap / LEAST_IRREGULARITY, rel=1e-4)  # four of 32 intervals are still late
    assert early[29 : usual + 1] == pytest.approx(of_usual[29 : usual + 1], rel=1e-4)
    assert early[:usual].min() > UNUSUAL_EARLY
    assert early[usual:].max() < UNUSUAL_EARLY
    assert early[-1] < 0.1


@pytest.mark.parametrize("period", [2, 3])
@pytest.mark.parametrize("pause", [1.0, 1.2])
def test_in_bigeminy_and_trigeminy_the_premature_beats_are_early_and_no_others(period: int, pause: float) -> None:
    windows, error, squared_error, _ = made_up_beats(400, seed=22)
    rr = (0.8 + 0.016 * np.random.default_rng(22).standard_normal(400)).astype(np.float32)
    premature = np.arange(400) % period == period - 1
    rr[premature] *= np.float32(0.6)
    rr[np.roll(premature, 1)] *= np.float32(pause)
    early = column(History(2).observe(windows, error, squared_error, rr)[0], "early")
    assert np.array_equal(early[40:] > UNUSUAL_EARLY, premature[40:])


def test_in_atrial_fibrillation_few_beats_are_early() -> None:
    early = []
    for seed in range(5):
        windows, error, squared_error, _ = made_up_beats(600, seed)
        rr = np.random.default_rng(seed).uniform(0.4, 1, 600).astype(np.float32)
        early.append(column(History(2).observe(windows, error, squared_error, rr)[0], "early")[LEAST_INTERVALS:])
    share = np.mean(np.concatenate(early) > UNUSUAL_EARLY)
    assert 0 < share < 0.1
    assert max(np.mean(own > UNUSUAL_EARLY) for own in early) < 0.1


@pytest.mark.parametrize("what", ["early", "shape"])
def test_only_admitted_unusual_beats_change_the_usual_values(what: str) -> None:
    run = 5 * ADMITTED
    (windows, error, squared_error, rr), _ = with_run(100, run, 20, seed=23)
    if what == "early":
        windows[:] = made_up_beats(120 + run, seed=23)[0]
    else:
        rr[:] = made_up_beats(120 + run, seed=23)[3]
    found = fields_of(History(2).observe(windows, error, squared_error, rr)[1])
    admitted = [number % ADMITTED == 0 for number in range(1, run + 1)]
    assert found["unusual"].tolist() == [False] * 100 + [not each for each in admitted] + [False] * 20
    usual = found["usual"]
    moved = (usual[1:] != usual[:-1]).any(axis=1)[99 : 99 + run]  # by each beat of the run
    assert moved.tolist() == admitted
    assert (usual[100 + run :] != usual[99 + run : -1]).all()


def test_usual_beats_after_a_run_are_not_unusual() -> None:
    beats, part = with_run(100, 30, 100, seed=24)
    found = fields_of(History(2).observe(*beats)[1])
    assert found["unusual"][part].sum() == 30 - 30 // ADMITTED
    assert not found["unusual"][part.stop :].any()


def test_unusual_beats_hold_few_places_of_a_full_memory() -> None:
    history = History(2)
    beats, part = with_run(BEATS, 2 * BEATS, 0, seed=25)
    history.observe(*part_of(beats, slice(BEATS)))
    for number in range(1, FOREIGN + 1):
        history.observe(*part_of(beats, slice(part.start + number - 1, part.start + number)))
        held = int(fields_of([history.snapshot()])["unusual"].sum())
        assert held == min(number - number // ADMITTED, MOST_UNUSUAL), number


@pytest.mark.parametrize("period", [2, 3])
def test_ectopic_beats_in_bigeminy_or_trigeminy_from_the_start_do_not_become_usual(period: int) -> None:
    windows, error, squared_error, rr = made_up_beats(1200, seed=28)
    ectopic = np.arange(1200) % period == period - 1
    windows[ectopic, :, 118:172] *= -1
    rr[ectopic] *= np.float32(0.6)
    evidence, rows = History(2).observe(windows, error, squared_error, rr)
    own = column(evidence, "own_qrs")
    for part in (slice(100, 200), slice(1000, 1200)):
        assert own[part][ectopic[part]].min() > own[part][~ectopic[part]].max() + 5
    assert fields_of(list(latest_rows(rows).values()))["unusual"].sum() == MOST_UNUSUAL


@settings(deadline=None, max_examples=20)
@given(leads=st.sampled_from([1, 2]), stop=st.integers(0, 320), order=st.randoms(use_true_random=False))
def test_a_history_restored_after_runs_of_unusual_beats_gives_the_same_evidence(
    leads: int, stop: int, order: Any
) -> None:
    parts = [with_run(70, run, 15, seed=26 + run, leads=leads)[0] for run in (50, 5, 20)]
    beats: Any = tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    whole, whole_rows = History(leads).observe(*beats)
    assert 50 < fields_of(whole_rows, leads)["unusual"].sum() < 100
    latest = latest_rows(whole_rows[:stop])
    assert len(latest) <= min(stop, BEATS)
    assert all(fields_of([row], leads)["place"][0] == place for place, row in latest.items())
    stored = list(latest.values())
    order.shuffle(stored)  # a store gives them in any order
    for rows in (whole_rows[:stop], stored):
        evidence, after = History.restore(leads, b"".join(rows)).observe(*part_of(beats, slice(stop, None)))
        assert evidence.features.tobytes() == whole.features[stop:].tobytes()
        assert after == whole_rows[stop:]


def test_a_stored_beat_in_a_place_that_does_not_exist_is_refused() -> None:
    rows = fields_of(History(1).observe(*made_up_beats(3, seed=27, leads=1))[1], leads=1).copy()
    rows["place"][1] = BEATS
    with pytest.raises(EvidenceError, match=f"place {BEATS}; expected less than {BEATS}"):
        History.restore(1, rows.tobytes())


def test_a_third_lead_is_ignored() -> None:
    windows, *rest = made_up_beats(30, seed=14)
    three = np.concatenate([windows, windows[:, :1]], axis=1)
    assert np.array_equal(
        History(3).observe(three, *rest)[0].features, History(2).observe(windows, *rest)[0].features, equal_nan=True
    )


def test_beats_that_do_not_fit_the_stream_are_refused() -> None:
    windows, error, squared_error, rr = made_up_beats(5, seed=15)
    with pytest.raises(EvidenceError, match="2 lead"):
        History(2).observe(windows[:, :1], error, squared_error, rr)
    with pytest.raises(EvidenceError, match="4 values"):
        History(2).observe(windows, error[:4], squared_error, rr)
    with pytest.raises(EvidenceError, match="multiple of 424"):
        History.restore(2, b"\0" * 100)
    with pytest.raises(EvidenceError, match="0 leads"):
        History(0)


def test_the_compiled_reading_of_a_window_equals_numpy_bit_for_bit() -> None:
    random = np.random.default_rng(1)
    windows = np.cumsum(random.standard_normal((40, 2, LENGTH)), axis=-1).astype(np.float32) / np.float32(10)
    windows[0] = 0
    windows[1, 0], windows[2, 0, 3], windows[3, 1, 60], windows[4, 0, 60] = 1e30, np.inf, -np.inf, np.nan
    windows[5], windows[6, 1, 17], windows[7] = np.nan, np.nan, -0.0
    windows[8, 0] = 1
    windows[8, 0, 5] = np.nextafter(np.float32(1), np.float32(2))
    limited = windows.clip(-1000, 1000)
    shapes = np.ascontiguousarray(limited[..., np.concatenate([P_TICKS, QRS_TICKS])])
    for part in (slice(len(P_TICKS)), slice(len(P_TICKS), None)):
        shapes[..., part] -= shapes[..., part].mean(axis=-1, keepdims=True)
    one = np.ones(40, np.float32)
    ticks = np.ones((40, LENGTH), np.float16)
    evidence, rows = history.observe([history.History(2)], [40], [windows[:7], windows[7:]], one, [ticks], one)
    seen = np.frombuffer(b"".join(rows), row_type(2))
    assert np.array_equal(evidence.outline, scale(limited[:, 0], OUTLINE_TICKS), equal_nan=True)
    assert np.array_equal(seen["span"], limited.max(axis=-1) - limited.min(axis=-1), equal_nan=True)
    assert np.array_equal(seen["shape"], shapes.astype(np.float16), equal_nan=True)


def test_no_number_of_beats_compiles_a_comparison_kernel_again() -> None:
    history.warm_up()
    random = np.random.default_rng(0)
    for leads in (1, 2):
        for counts in ([1], [5], [1, 3], [70, 1]):
            n = sum(counts)
            given = random.standard_normal((n, leads, LENGTH)).astype(np.float32)
            one = np.ones(n, np.float32)
            ticks = np.ones((n, LENGTH), np.float16)
            for windows in (given, np.frombuffer(given.tobytes(), np.float32).reshape(given.shape), given[:, :, ::-1]):
                fresh = [history.History(leads) for _ in counts]
                history.observe(fresh, counts, [windows], one, [ticks], one)
    assert (
        signatures(kernels._compare) == signatures(kernels.look) == 1
    )  # a stream must not wait seconds for a compiler
