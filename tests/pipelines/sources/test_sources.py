"""Sources: the samples of a record as a stream, and errors for invalid records."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecgmon.pipelines.limits import FS_RANGE
from ecgmon.pipelines.sources.annotations import read_annotations
from ecgmon.pipelines.sources.errors import (
    AnnotationError,
    GainError,
    HeaderError,
    LeadError,
    RangeError,
    RecordNotFoundError,
    RecordTooShortError,
    RecordTruncatedError,
    SamplingRateError,
    SignalFileError,
    SignalFormatError,
    SourceError,
)
from ecgmon.pipelines.sources.finding import RecordRef, resolve
from ecgmon.pipelines.sources.memory_record import MemoryRecord
from ecgmon.pipelines.sources.record import BLOCK_SECONDS, RecordSource, open_source, parse_time
from ecgmon.pipelines.sources.wfdb_record import open_record

if TYPE_CHECKING:
    from pathlib import Path

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "The inplace keyword")  # pandas warns about wfdb
    import wfdb


N = 3600  # ten seconds at 360 Hz


def digital(n: int = N, leads: int = 2) -> np.ndarray:
    """Make ADC steps that differ from sample to sample, so that a lost sample is noticed."""
    return np.random.default_rng(1).integers(-400, 400, (n, leads))


def signals(n: int = N) -> np.ndarray:
    """Make the same in mV, at 200 steps per mV."""
    return (digital(n) / 200).astype(np.float32)


def write(
    folder: Path, name: str = "100", *, fs: float = 360, fmt: str = "16", n: int = N, steps: np.ndarray | None = None
) -> RecordRef:
    wfdb.wrsamp(
        name,
        fs,
        ["mV"] * 2,
        ["MLII", "V1"],
        d_signal=digital(n) if steps is None else steps,
        fmt=[fmt] * 2,
        adc_gain=[200.0] * 2,
        baseline=[0] * 2,
        write_dir=str(folder),
    )
    return RecordRef(name, folder / name)


def edit(ref: RecordRef, old: str, new: str) -> RecordRef:
    assert ref.path is not None
    header = ref.path.with_suffix(".hea")
    text = header.read_text()
    assert old in text
    header.write_text(text.replace(old, new))
    return ref


def gather(source: RecordSource, seconds: float = 0.25) -> np.ndarray:
    return np.concatenate(list(source.chunks(seconds)))


# Streams


@pytest.mark.parametrize("fmt", ["16", "24", "32", "80", "160", "212", "310", "311", "61", "516"])
def test_every_sample_of_every_format_arrives_in_millivolts(tmp_path: Path, fmt: str) -> None:
    steps = digital() // 4 if fmt == "80" else digital()  # eight bits have a smaller range
    if fmt in {"61", "160", "310", "311"}:  # wfdb reads these formats but does not write them
        write_by_hand(tmp_path, fmt, steps)
    else:
        write(tmp_path, fmt=fmt, steps=steps)
    source = open_source(RecordRef("100", tmp_path / "100"))
    assert (source.fs, source.leads, source.length) == (360, ("MLII", "V1"), N)
    streamed = gather(source)
    assert streamed.dtype == np.float32
    np.testing.assert_array_equal(streamed, (steps / 200).astype(np.float32))


@pytest.mark.parametrize("signals", [1, 2, 3])
@pytest.mark.parametrize("offset", [0, 5])
def test_any_part_of_format_212_equals_the_samples_of_wfdb(tmp_path: Path, signals: int, offset: int) -> None:
    rng = np.random.default_rng(signals)
    n = 999  # odd, so that the last pair of an odd number of signals is cut off after its first sample
    size = -(-n * signals * 3 // 2)
    (tmp_path / "100.dat").write_bytes(rng.bytes(offset + size))
    line = f"100.dat 212+{offset} 183.5(7)/uV 12 0 0 0 0" if offset else "100.dat 212 183.5(7)/uV 12 0 0 0 0"
    (tmp_path / "100.hea").write_text("\n".join([f"100 {signals} 360 {n}", *(f"{line} V{k}" for k in range(signals))]))
    for leads in ([0], [signals - 1], list(range(signals))[::-1]):
        record = open_record(RecordRef("100", tmp_path / "100"), leads=[str(lead) for lead in leads])
        for start, stop in [(0, n), (1, n), (0, n - 1), (7, 8), (8, 9), (501, 733)]:
            read = wfdb.rdrecord(str(tmp_path / "100"), sampfrom=start, sampto=stop, channels=sorted(leads))
            expected = read.p_signal[:, [sorted(leads).index(lead) for lead in leads]] * 1e-3
            np.testing.assert_array_equal(record.read(start, stop), expected.astype(np.float32))


def write_by_hand(folder: Path, fmt: str, steps: np.ndarray) -> None:
    flat = steps.reshape(-1)
    if fmt == "61":
        data = flat.astype(">i2").tobytes()
    elif fmt == "160":
        data = (flat + 32768).astype("<u2").tobytes()
    else:
        a, b, c = (flat[k::3].astype(np.int64) & 0x3FF for k in range(3))
        if fmt == "310":
            low = (a << 1) | ((c & 0x1F) << 11)
            high = (b << 1) | ((c >> 5) << 11)
            words = low | (high << 16)
        else:
            words = a | (b << 10) | (c << 20)
        data = words.astype("<u4").tobytes()
    (folder / "100.dat").write_bytes(data)
    line = f"100.dat {fmt} 200(0)/mV 12 0 0 0 0"
    (folder / "100.hea").write_text(f"100 2 360 {len(steps)}\n{line} MLII\n{line} V1\n")


@pytest.mark.parametrize(("unit", "factor"), [("V", 1e3), ("mV", 1.0), ("uV", 1e-3), ("", 1.0)])
def test_volts_and_microvolts_become_millivolts(tmp_path: Path, unit: str, factor: float) -> None:
    gain = 200 * factor
    ref = edit(write(tmp_path), "200.0(0)/mV", f"{gain:g}(0)/{unit}" if unit else f"{gain:g}(0)")
    np.testing.assert_allclose(gather(open_source(ref)), signals(), rtol=1e-6)


def test_only_missing_samples_are_nan(tmp_path: Path) -> None:
    steps = digital()
    steps[100:200, 0] = -32768  # format 16's mark for a missing sample
    streamed = gather(open_source(write(tmp_path, steps=steps)))
    np.testing.assert_array_equal(np.isnan(streamed), steps == -32768)


def test_a_record_with_several_samples_a_frame_is_read_at_its_frame_rate(tmp_path: Path) -> None:
    fast = digital(2 * N, 1).reshape(N, 2)
    slow = np.arange(N) % 100
    np.column_stack([fast, slow]).astype("<i2").tofile(tmp_path / "100.dat")
    (tmp_path / "100.hea").write_text(
        f"100 2 360 {N}\n100.dat 16x2 200(0)/mV 16 0 0 0 0 MLII\n100.dat 16 200(0)/mV 16 0 0 0 0 V1\n"
    )
    streamed = gather(open_source(RecordRef("100", tmp_path / "100")))
    expected = np.column_stack([fast.mean(axis=1), slow]) / 200
    np.testing.assert_allclose(streamed, expected, atol=0.51 / 200)  # wfdb rounds means to whole steps


def test_skewed_signals_are_aligned_in_whole_and_truncated_records(tmp_path: Path) -> None:
    ref = write(tmp_path, steps=np.column_stack([digital()[:, 0], np.roll(digital()[:, 1], 5)]))
    header = tmp_path / "100.hea"
    first, lead_1, lead_2, *rest = header.read_text().splitlines()
    header.write_text("\n".join([first, lead_1, lead_2.replace("100.dat 16 ", "100.dat 16:5 "), *rest]) + "\n")
    expected = signals()
    expected[-5:, 1] = np.nan  # these samples were moved to the start, which the skew skips
    np.testing.assert_array_equal(gather(open_source(ref)), expected)
    file = tmp_path / "100.dat"
    file.write_bytes(file.read_bytes()[: 1000 * 4])
    got: list[np.ndarray] = []
    with pytest.raises(RecordTruncatedError):
        got.extend(open_source(ref).chunks())
    np.testing.assert_array_equal(np.concatenate(got), signals()[:995])


def segments(folder: Path) -> RecordRef:
    for part in ("one", "two"):
        write(folder, part)
    (folder / "multi.hea").write_text(f"multi/2 2 360 {2 * N}\none {N}\ntwo {N}\n")
    return RecordRef("multi", folder / "multi")


def test_segments_are_streamed_as_one_record(tmp_path: Path) -> None:
    np.testing.assert_array_equal(gather(open_source(segments(tmp_path))), np.concatenate([signals(), signals()]))


def test_a_record_with_leads_that_come_and_go_has_nan_where_a_lead_is_missing(tmp_path: Path) -> None:
    write(tmp_path, "one")
    edit(write(tmp_path, "two"), " MLII", " V5")
    leads = "".join(f"~ 0 200(0)/mV 16 0 0 0 0 {lead}\n" for lead in ("V5", "MLII", "V1"))
    (tmp_path / "layout.hea").write_text(f"layout 3 360 0\n{leads}")
    (tmp_path / "multi.hea").write_text(f"multi/4 3 360 {2 * N + 720}\nlayout 0\none {N}\n~ 720\ntwo {N}\n")
    source = open_source(RecordRef("multi", tmp_path / "multi"))
    expected = np.full((2 * N + 720, 3), np.nan, np.float32)
    expected[:N, [1, 2]] = signals()
    expected[N + 720 :, [0, 2]] = signals()
    assert source.leads == ("V5", "MLII", "V1")
    np.testing.assert_array_equal(gather(source), expected)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(seconds=st.floats(0, 30), part=st.integers(400, 5000), loop=st.integers(1, 3), data=st.data())
def test_no_chunk_size_or_resumption_loses_or_repeats_a_sample(
    seconds: float, part: int, loop: int, data: st.DataObject
) -> None:
    samples = np.arange(2 * 5000, dtype=np.float32).reshape(-1, 2)
    source = RecordSource("s", MemoryRecord("s", 360, ("a", "b"), samples), 0, part, loop)
    whole = np.tile(samples[:part], (loop, 1))
    np.testing.assert_array_equal(gather(source, seconds), whole)
    position = data.draw(st.integers(0, len(whole) - 1))
    np.testing.assert_array_equal(gather(source.at(position), seconds), whole[position:])


def test_a_stream_resumed_at_its_end_gives_no_samples(tmp_path: Path) -> None:
    assert list(open_source(write(tmp_path)).at(N).chunks()) == []


def test_a_stream_cannot_be_resumed_beyond_its_end(tmp_path: Path) -> None:
    with pytest.raises(RangeError, match="has 0 to 3600"):
        open_source(write(tmp_path)).at(N + 1)


def test_an_endless_stream_has_no_length_and_continues(tmp_path: Path) -> None:
    source = open_source(write(tmp_path), loop=0)
    assert source.length is None
    chunks = source.at(1_000_000 * N + 7).chunks(1.0)
    np.testing.assert_allclose(next(chunks), signals()[7:367])


def test_a_long_record_is_never_in_memory_as_a_whole() -> None:
    class Watched:
        name, fs, leads, notes, truncated = "s", 360.0, ("a",), (), None
        length = 24 * 3600 * 360
        largest = 0

        def block(self, start: int, stop: int) -> np.ndarray:
            self.largest = max(self.largest, stop - start)
            return np.zeros((stop - start, 1), np.float32)

    record: Any = Watched()
    assert sum(len(chunk) for chunk in RecordSource("s", record, 0, record.length).chunks(10.0)) == record.length
    assert record.largest <= BLOCK_SECONDS * record.fs


def test_start_and_stop_select_a_part_in_seconds(tmp_path: Path) -> None:
    source = open_source(write(tmp_path), start=2, stop=5.5)
    assert source.length == 1260
    np.testing.assert_array_equal(gather(source), signals()[720:1980])
    np.testing.assert_allclose(source.read(-5, 3), signals()[720:723])
    assert source.read(5000, 6000).shape == (0, 2)


@pytest.mark.parametrize(("start", "stop"), [(10, None), (11, 12), (5, 5), (5, 4), (-1, None), (float("nan"), None)])
def test_a_part_that_is_not_in_the_record_is_refused(tmp_path: Path, start: float, stop: float | None) -> None:
    with pytest.raises(RangeError, match="the record has 0 to 10"):
        open_source(write(tmp_path), start=start, stop=stop)


@pytest.mark.parametrize("leads", [["V1"], ["1"], ["V1", "MLII"], ["1", "0"]])
def test_leads_are_selected_by_name_or_number_in_the_requested_order(tmp_path: Path, leads: list[str]) -> None:
    source = open_source(write(tmp_path), leads=leads)
    columns = [1, 0][: len(leads)]
    assert source.leads == tuple(np.array(["MLII", "V1"])[columns])
    np.testing.assert_allclose(gather(source), signals()[:, columns])


@pytest.mark.parametrize("leads", [["V9"], ["2"], [], ["V1", "1"]])
def test_the_error_for_an_unknown_lead_lists_the_leads_of_the_record(tmp_path: Path, leads: list[str]) -> None:
    with pytest.raises(LeadError):
        open_source(write(tmp_path), leads=leads)


def test_the_built_in_record_is_five_minutes_of_208(mitdb: Path) -> None:
    toy = gather(open_source(RecordRef("toy", None)), 10)
    record = open_source(RecordRef("208", mitdb / "208"), leads=["MLII"])
    np.testing.assert_allclose(toy, record.read(422_820, 422_820 + 300 * 360), atol=1e-5)


def test_the_stream_of_an_mit_bih_record_equals_the_samples_of_wfdb(mitdb: Path) -> None:
    source = open_source(resolve(["mitdb/114"], mitdb=mitdb)[0])
    assert source.leads == ("V5", "MLII")
    np.testing.assert_array_equal(gather(source), wfdb.rdrecord(str(mitdb / "114")).p_signal.astype(np.float32))


# Invalid records


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordNotFoundError, match=r"100: there is no header .*100\.hea"):
        open_source(RecordRef("100", tmp_path / "100"))


def test_a_missing_signal_file_is_named(tmp_path: Path) -> None:
    ref = write(tmp_path)
    (tmp_path / "100.dat").unlink()
    with pytest.raises(SignalFileError, match=r"100: signal file '100\.dat' is not in"):
        open_source(ref)


@pytest.mark.parametrize("fmt", ["16", "212"])
def test_a_truncated_record_gives_all_its_whole_samples_before_the_error(tmp_path: Path, fmt: str) -> None:
    ref = write(tmp_path, fmt=fmt)
    file = tmp_path / "100.dat"
    file.write_bytes(file.read_bytes()[: -len(file.read_bytes()) // 2 - 1])  # in the middle of a sample
    source = open_source(ref)
    got: list[np.ndarray] = []
    with pytest.raises(RecordTruncatedError, match=f"promises {N} samples, but the signal files hold {N // 2 - 1}"):
        got.extend(source.chunks())
    np.testing.assert_allclose(np.concatenate(got), signals()[: N // 2 - 1])
    assert len(gather(open_source(ref, stop=4))) == 1440  # the part before the damage can be read


def test_a_truncated_segment_ends_the_record(tmp_path: Path) -> None:
    ref = segments(tmp_path)
    file = tmp_path / "two.dat"
    file.write_bytes(file.read_bytes()[:400])
    got: list[np.ndarray] = []
    with pytest.raises(RecordTruncatedError):
        got.extend(open_source(ref).chunks())
    assert sum(map(len, got)) == N + 100


def test_samples_beyond_the_length_in_the_header_are_noted(tmp_path: Path) -> None:
    source = open_source(edit(write(tmp_path), f"360 {N}", "360 1800"))
    assert source.notes == ("the header says 1800 samples, the signal file holds 3600; the rest is not read",)
    assert source.length == 1800


def test_a_header_without_a_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HeaderError, match="fourth field"):
        open_source(edit(write(tmp_path), f"360 {N}", "360"))


@pytest.mark.parametrize(("fmt", "message"), [("999", "unknown format '999'"), ("8", "format 8.*convert it")])
def test_a_format_that_cannot_be_streamed_is_refused(tmp_path: Path, fmt: str, message: str) -> None:
    with pytest.raises(SignalFormatError, match=message):
        open_source(edit(write(tmp_path), "100.dat 16", f"100.dat {fmt}"))


@pytest.mark.parametrize("gain", ["0", "0.0", "-200", "1e-9", "1e300", "0.5"])
def test_an_impossible_gain_is_refused(tmp_path: Path, gain: str) -> None:
    with pytest.raises(
        GainError, match=r"100: no usable lead: lead 'MLII' has a gain of .* expected 1 to 1e\+09 per mV"
    ):
        open_source(edit(write(tmp_path), "200.0(0)", f"{gain}(0)"))


def spoil_first_lead(ref: RecordRef, old: str, new: str) -> RecordRef:
    assert ref.path is not None
    header = ref.path.with_suffix(".hea")
    header.write_text(header.read_text().replace(old, new, 1))
    return ref


@pytest.mark.parametrize(("old", "new", "why"), [("200.0(0)/mV", "0(0)/mV", "gain"), ("/mV", "/mmHg", "mmHg")])
def test_one_unusable_lead_is_noted_and_the_other_is_streamed(tmp_path: Path, old: str, new: str, why: str) -> None:
    source = open_source(spoil_first_lead(write(tmp_path), old, new))
    assert source.leads == ("V1",)
    assert len(source.notes) == 1
    assert why in source.notes[0]
    np.testing.assert_allclose(gather(source), signals()[:, 1:])


@pytest.mark.parametrize(("wanted", "why"), [("MLII", "'MLII' is in 'mmHg'"), ("V9", "there is no lead 'V9'")])
def test_one_requested_lead_that_is_unusable_is_noted_and_the_other_is_streamed(
    tmp_path: Path, wanted: str, why: str
) -> None:
    record = spoil_first_lead(write(tmp_path), "/mV", "/mmHg")
    source = open_source(record, leads=[wanted, "V1"])
    assert source.leads == ("V1",)
    assert why in source.notes[0]
    with pytest.raises(LeadError, match=why):
        open_source(record, leads=[wanted])


def test_a_record_without_any_voltage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LeadError, match=r"no usable lead: lead 'MLII' is in 'mmHg'.*; lead 'V1' is in 'mmHg'"):
        open_source(edit(write(tmp_path), "/mV", "/mmHg"))


@pytest.mark.parametrize("fs", ["99.9", "1000.5", "0", "1e9"])
def test_a_sampling_rate_that_cannot_be_resampled_is_refused(tmp_path: Path, fs: str) -> None:
    with pytest.raises(SamplingRateError if fs != "1e9" else SourceError, match="100"):
        open_source(edit(write(tmp_path), "100 2 360", f"100 2 {fs}"))


@pytest.mark.parametrize("fs", FS_RANGE)
def test_the_limits_of_the_sampling_rate_are_allowed(tmp_path: Path, fs: float) -> None:
    assert open_source(write(tmp_path, fs=fs)).fs == fs


def test_a_record_shorter_than_a_window_is_refused(tmp_path: Path) -> None:
    assert open_source(write(tmp_path, "long", n=320)).length == 320
    with pytest.raises(RecordTooShortError, match=r"319 samples .* one window needs 0\.89 s"):
        open_source(write(tmp_path, "short", n=319))
    with pytest.raises(RecordTooShortError, match=r"0\.50 s from 3 s on is too short"):
        open_source(write(tmp_path), start=3, stop=3.5)


@pytest.mark.parametrize(
    "text",
    [
        "", "\n", "#", "100", "100 2", "100 -2 360 10", "100 2 360 3600", "100 0 360 3600\n", "100 x 360 3600",
        "100/2 2 360 3600\n", "100/1 2 360 3600\nmissing 3600\n", "100/1 2 360 3600\n100 3600\n", "100/0 2 360 3600\n",
        "100/1 2 360 3600\n~ 3600\n", "100 2 360 3600 25:99:99\n", "100 2 360 3600\n100.dat\n", "\0\0\0\0",
        "100 2 360 3600\n100.dat 16 200(0)/mV\n100.dat 16 200(0)/mV\n100.dat 16 200(0)/mV\n",
        "100 1 360 3600\n../100.dat 16 200(0)/mV\n", "100 1 360 3600\n/dev/zero 16 200(0)/mV\n", "100 1 360 3600\n- 16 200\n",
        "100 1 360 99999999999999999999\n100.dat 16x99999999999 200(0)/mV\n",
    ],
)  # fmt: skip
def test_an_invalid_header_is_a_source_error(tmp_path: Path, text: str) -> None:
    ref = write(tmp_path)
    (tmp_path / "100.hea").write_text(text)
    with pytest.raises(SourceError, match="100"):
        open_source(ref)


def test_a_header_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    ref = write(tmp_path)
    with (tmp_path / "100.hea").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(HeaderError, match="1099511627776 bytes"):
        open_source(ref)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(
    damage=st.lists(
        st.tuples(
            st.floats(0, 1, exclude_max=True),
            st.integers(0, 3),
            st.binary(max_size=3) | st.from_regex(rb"[0-9/() .-]{1,3}", fullmatch=True),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_a_damaged_header_is_an_error_or_a_record_that_can_be_read(
    tmp_path: Path, damage: list[tuple[float, int, bytes]]
) -> None:
    ref = write(tmp_path)
    text = bytearray((tmp_path / "100.hea").read_bytes())
    for where, length, new in damage:
        at = int(where * len(text))
        text[at : at + length] = new
    (tmp_path / "100.hea").write_bytes(text)
    with contextlib.suppress(SourceError):
        source = open_source(ref)
        assert gather(source, 1.0).shape == (source.length, len(source.leads))


# Annotations


def test_annotations_are_read_with_their_notes(mitdb: Path) -> None:
    annotations = read_annotations(RecordRef("208", mitdb / "208"))
    assert len(annotations.sample) == len(annotations.symbol) == len(annotations.note) == 3040
    assert annotations.note[0] == "(N"


def annotate(folder: Path, last: int, fs: float) -> None:
    wfdb.wrann("100", "atr", np.array([100, last]), ["N", "V"], fs=fs, write_dir=str(folder))


@pytest.mark.parametrize(
    ("last", "fs", "message"),
    [
        (N, 360, "annotation at sample 3600, but the record has 3600"),
        (N - 1, 250, "for 250 Hz, but the record has 360"),
    ],
)
def test_annotations_of_another_record_are_refused(tmp_path: Path, last: int, fs: float, message: str) -> None:
    ref = write(tmp_path)
    annotate(tmp_path, last, fs)
    with pytest.raises(AnnotationError, match=message):
        read_annotations(ref)


def test_annotations_up_to_the_last_sample_are_taken(tmp_path: Path) -> None:
    ref = write(tmp_path)
    annotate(tmp_path, N - 1, 360)
    assert read_annotations(ref).sample.tolist() == [100, N - 1]


@pytest.mark.parametrize("content", [None, b"", b"\x01", b"not an annotation file", bytes(range(256))])
def test_annotations_that_cannot_be_read_are_an_error(tmp_path: Path, content: bytes | None) -> None:
    ref = write(tmp_path)
    if content is not None:
        (tmp_path / "100.atr").write_bytes(content)
    with pytest.raises(AnnotationError, match=r"100: annotation file 100\.atr"):
        read_annotations(ref)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(content=st.binary(min_size=1, max_size=60))
def test_any_bytes_are_annotations_of_the_record_or_a_source_error(tmp_path: Path, content: bytes) -> None:
    ref = RecordRef("100", tmp_path / "100")
    if not (tmp_path / "100.hea").exists():
        write(tmp_path)
    (tmp_path / "100.atr").write_bytes(content)
    with contextlib.suppress(AnnotationError):
        annotations = read_annotations(ref)
        assert len(annotations.sample) == len(annotations.symbol) == len(annotations.note)
        assert all(0 <= sample < N for sample in annotations.sample)


# Times


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1:30", 90), ("0:01:30", 90), ("1:30.5", 90.5), ("75:00", 4500), ("90.", 90), ("24:00:00", 86400)],
)
def test_a_time_is_read_in_every_allowed_form(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "1:60", "1:60:00", "1:2:3:4", "a", "1e3", "nan", "inf", ":30", "1:"])
def test_the_error_for_an_invalid_time_lists_the_allowed_forms(text: str) -> None:
    with pytest.raises(RangeError, match=r"expected seconds|under 60"):
        parse_time(text)


def test_a_source_does_not_change_when_another_is_made_from_it(tmp_path: Path) -> None:
    source = open_source(write(tmp_path))
    assert source.at(10) == replace(source, position=10)
    assert source.position == 0


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "notes",
    [
        ["## and no definition"],
        ["## time resolution: 360", "## time resolution: 360"],
        ["## end of definitions"],
        ["## annotation type definitions", "43 x something", "## end of definitions", "## more"],
    ],
)
def test_annotations_with_an_invalid_definition_are_refused_and_do_not_hang(tmp_path: Path, notes: list[str]) -> None:
    ref = write(tmp_path)
    write_notes(tmp_path / "100.atr", notes)
    with pytest.raises(AnnotationError, match="starts like a definition but is not one"):
        read_annotations(ref)


def test_annotations_with_complete_definitions_are_read(tmp_path: Path) -> None:
    ref = write(tmp_path)
    notes = ["## time resolution: 360", "## annotation type definitions", "43 x something", "## end of definitions"]
    write_notes(tmp_path / "100.atr", notes)
    assert read_annotations(ref).sample.tolist() == [100]


def write_notes(path: Path, notes: list[str]) -> None:
    """Write an annotation file by hand: notes at sample 0, in the form of definitions, and a beat at sample 100."""
    out = b""
    for note in notes:
        text = note.encode()
        out += bytes([0, 22 << 2, len(text), 63 << 2]) + text + b"\0" * (len(text) % 2)
    path.write_bytes(out + bytes([100, 1 << 2, 0, 0]))


def test_a_file_name_that_is_too_long_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SignalFileError, match="is not in"):
        open_source(edit(write(tmp_path), "100.dat", "1" * 5000))


@pytest.mark.parametrize("digits", [17, 400])
def test_an_impossible_number_of_samples_is_an_invalid_header(tmp_path: Path, digits: int) -> None:
    with pytest.raises(HeaderError, match="expected 0 to"):
        open_source(edit(write(tmp_path), f" {N}", " " + "9" * digits))
