"""The evidence of a beat depends only on its stream, not on batches, restarts or the time that it has run."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ecgmon.models.features import BEATS, LEAST_BEATS, NAMES, OUTLINE, OUTLINE_TICKS, P_TICKS, QRS_TICKS
from ecgmon.models.kernels import history as kernels
from ecgmon.models.score import history
from ecgmon.models.score.evidence import Evidence, EvidenceError
from ecgmon.models.score.history import History, row_type
from ecgmon.models.windows import LENGTH, scale

TICKS = np.arange(-140, 180)


Beats = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


def made_up_beats(n: int, seed: int, leads: int = 2) -> Beats:
    """Make beats of one stream: windows in mV, A(x), squared error per tick, RR, rr_ratio."""
    random = np.random.default_rng(seed)
    rr = (0.8 + 0.04 * random.standard_normal(n)).astype(np.float32)
    rr_ratio = (rr / 0.8).astype(np.float32)
    rr[0], rr_ratio[: min(n, 5)] = np.nan, np.nan
    p = 0.1 * np.exp(-0.5 * ((TICKS + 60) / 8) ** 2)
    qrs = np.exp(-0.5 * (TICKS / 6) ** 2)
    windows = np.stack([p + qrs, p - 0.5 * qrs][:leads])
    windows = windows + 0.02 * random.standard_normal((n, leads, 320))
    squared_error = (0.01 * random.random((n, 320))).astype(np.float32)
    return windows.astype(np.float32), squared_error.mean(axis=1), squared_error, rr, rr_ratio


def part_of(
    beats: Beats,
    part: slice,
) -> Beats:
    windows, error, ticks, rr, rr_ratio = (array[part] for array in beats)
    return windows, error, ticks, rr, rr_ratio


def signatures(kernel: Any) -> int:
    """Return for how many types of arguments a kernel was compiled."""
    return len(kernel.signatures)


def column(evidence: Evidence, name: str) -> NDArray[np.float32]:
    return evidence.features[:, NAMES.index(name)]


def test_the_evidence_has_a_column_for_every_name() -> None:
    evidence, rows = History(2).observe(*made_up_beats(20, seed=0))
    assert evidence.features.shape == (20, len(NAMES))
    assert evidence.outline.shape == (20, OUTLINE)
    assert evidence.features.dtype == evidence.outline.dtype == np.float32
    assert len(rows) == len(evidence) == 20
    assert np.isfinite(evidence.features[LEAST_BEATS:]).all()


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
    for stored in (snapshot_of.snapshot(), b"".join(rows), b"".join(rows[-BEATS:])):
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
    assert len(history.snapshot()) == BEATS * row_type(2).itemsize == 64 * 224
    assert all(array.base is None for array in history._memory)  # it is no view of a larger array


def test_only_the_last_64_beats_are_remembered() -> None:
    late = made_up_beats(10, seed=3)
    answers = []
    for before in (made_up_beats(70, seed=4), made_up_beats(200, seed=5)):
        history = History(2)
        history.observe(*before)
        history.observe(*made_up_beats(BEATS, seed=6))
        answers.append(history.observe(*late)[0].features)
    assert np.array_equal(answers[0], answers[1], equal_nan=True)


def test_a_beat_unlike_those_of_its_stream_has_a_large_distance_where_it_differs() -> None:
    windows, error, squared_error, rr, rr_ratio = made_up_beats(100, seed=7)
    windows[80, :, 118:172:1] *= -1  # an inverted QRS complex
    windows[90, :, 60:110] = 0  # no P wave
    evidence, _ = History(2).observe(windows, error, squared_error, rr, rr_ratio)
    usual = np.arange(40, 80)
    assert column(evidence, "own_qrs")[80] > column(evidence, "own_qrs")[usual].max() + 2
    assert column(evidence, "own_qrs_2")[80] > column(evidence, "own_qrs_2")[usual].max() + 2
    assert column(evidence, "own_p")[90] > column(evidence, "own_p")[usual].max()
    assert column(evidence, "own_qrs")[90] < column(evidence, "own_qrs")[80]


def test_an_early_beat_has_a_high_rhythm_feature() -> None:
    windows, error, squared_error, rr, rr_ratio = made_up_beats(100, seed=8)
    rr[80] *= 0.6
    rr_ratio[80] *= 0.6
    evidence, _ = History(2).observe(windows, error, squared_error, rr, rr_ratio)
    for name in ("early", "fast", "late_run", "spread", "jump"):
        assert column(evidence, name)[80] > column(evidence, name)[40:80].max()


def test_the_distance_from_own_beats_does_not_depend_on_the_amplitude() -> None:
    beats = made_up_beats(100, seed=9)
    halved = (beats[0] * np.float32(0.5), *beats[1:])
    usual, half = (History(2).observe(*b)[0].features[LEAST_BEATS:, 7:] for b in (beats, halved))
    assert usual == pytest.approx(half, abs=0.02)


def test_features_that_are_not_known_yet_are_nan() -> None:
    evidence, _ = History(1).observe(*made_up_beats(30, seed=10, leads=1))
    assert np.isnan(column(evidence, "own_qrs")[:LEAST_BEATS]).all()
    assert np.isfinite(column(evidence, "own_qrs")[LEAST_BEATS:]).all()
    assert np.isnan(column(evidence, "late_run")[:5]).all()
    assert np.isnan(column(evidence, "own_qrs_2")).all()
    assert np.isfinite(column(evidence, "log_ax")).all()


def test_beats_without_an_rr_interval_are_skipped_in_the_rhythm() -> None:
    beats = made_up_beats(60, seed=11)
    beats[3][30], beats[4][30:35] = np.nan, np.nan
    evidence, _ = History(2).observe(*beats)
    assert np.isnan(evidence.features[30, 2:7]).all()
    assert np.isfinite(evidence.features[30, 7:]).all()
    assert np.isfinite(column(evidence, "spread")[31:]).all()


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf, 3e38])
def test_a_window_that_is_not_finite_affects_no_other_beat(broken: float) -> None:
    beats = made_up_beats(80, seed=12)
    beats[0][40, 0, 130:150] = broken
    evidence, _ = History(2).observe(*beats)
    others = np.delete(np.arange(LEAST_BEATS, 80), 40 - LEAST_BEATS)
    assert np.isfinite(evidence.features[others]).all()


def test_distances_of_a_flat_lead_are_nan_and_not_infinite() -> None:
    beats = made_up_beats(40, seed=13)
    beats[0][:, 1] = 0
    evidence, _ = History(2).observe(*beats)
    assert np.isnan(evidence.features[:, 9:]).all()
    assert np.isfinite(evidence.features[LEAST_BEATS:, :9]).all()


def test_a_third_lead_is_ignored() -> None:
    windows, *rest = made_up_beats(30, seed=14)
    three = np.concatenate([windows, windows[:, :1]], axis=1)
    assert np.array_equal(
        History(3).observe(three, *rest)[0].features, History(2).observe(windows, *rest)[0].features, equal_nan=True
    )


def test_beats_that_do_not_fit_the_stream_are_refused() -> None:
    windows, error, squared_error, rr, rr_ratio = made_up_beats(5, seed=15)
    with pytest.raises(EvidenceError, match="2 lead"):
        History(2).observe(windows[:, :1], error, squared_error, rr, rr_ratio)
    with pytest.raises(EvidenceError, match="4 values"):
        History(2).observe(windows, error[:4], squared_error, rr, rr_ratio)
    with pytest.raises(EvidenceError, match="multiple of 224"):
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
    evidence, rows = history.observe([history.History(2)], [40], [windows[:7], windows[7:]], one, [ticks], one, one)
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
                history.observe(fresh, counts, [windows], one, [ticks], one, one)
    assert (
        signatures(kernels._compare) == signatures(kernels.look) == 1
    )  # a stream must not wait seconds for a compiler
