"""Signal files: the samples equal those of wfdb bit for bit, and bugs are not reported as damaged files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import wfdb

from ecgmon.pipelines.sources import signal_files
from ecgmon.pipelines.sources.annotations import read_annotations
from ecgmon.pipelines.sources.errors import AnnotationError, HeaderError, SignalFileError, SignalFormatError
from ecgmon.pipelines.sources.finding import RecordRef
from ecgmon.pipelines.sources.wfdb_record import open_record

if TYPE_CHECKING:
    from pathlib import Path

    from ecgmon.pipelines.sources.interfaces import Record

pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")  # pandas warns about wfdb

N = 1000
BYTES = {"16": 2, "61": 2, "160": 2, "212": 1.5, "310": 4 / 3, "311": 4 / 3}


def write(folder: Path, *files: tuple[str, list[str]], n: int = N) -> RecordRef:
    """Write a record of random bytes: for each file its format, with suffixes, and its leads."""
    rng = np.random.default_rng(1)
    lines = []
    for number, (form, leads) in enumerate(files):
        fmt = form.split("x")[0].split(":")[0].split("+")[0]
        data = bytearray(rng.bytes(16 + int(BYTES[fmt] * n * 2 * (len(leads) + 1))))
        data[16 : 16 + 4] = b"\x00\x80\x00\x80"  # a missing sample in format 16, and one or two in others
        (folder / f"{number}.dat").write_bytes(data)
        lines += [
            f"{number}.dat {lead.partition(' ')[2] or form} 183.5(7)/uV 12 0 0 0 0 {lead.split()[0]}" for lead in leads
        ]
    (folder / "r.hea").write_text("\n".join([f"r {len(lines)} 360 {n}", *lines]) + "\n")
    return RecordRef("r", folder / "r")


def by_wfdb(ref: RecordRef, record: Record, start: int, stop: int) -> np.ndarray:
    names = wfdb.rdheader(str(ref.path)).sig_name
    channels = [names.index(lead) for lead in record.leads]
    read = wfdb.rdrecord(str(ref.path), sampfrom=start, sampto=stop, channels=channels)
    return (read.p_signal * 1e-3).astype(np.float32)


CASES = {
    "words": [("16", ["a", "b", "c"])],
    "words, high byte first": [("61", ["a", "b"])],
    "words from 0 on": [("160", ["a", "b"])],
    "pairs": [("212", ["a", "b", "c"])],
    "behind a preamble": [("16+6", ["a", "b"]), ("212+5", ["c"])],
    "several files": [("16", ["a", "b"]), ("212", ["c"]), ("160", ["d", "e"]), ("61", ["f"])],
    "triples": [("310", ["a", "b"])],
    "triples, the other way": [("311", ["a", "b"])],
    "one lead faster": [("16", ["a", "b 16x3", "c"])],
    "one lead of pairs faster": [("212", ["a", "b 212x2", "c"])],
    "one lead behind": [("212", ["a", "b 212:7"])],
}


@pytest.mark.parametrize("case", CASES)
def test_any_part_of_any_leads_equals_the_samples_of_wfdb(tmp_path: Path, case: str) -> None:
    ref = write(tmp_path, *CASES[case])
    names = wfdb.rdheader(str(ref.path)).sig_name
    if "faster" in case:
        names.remove("b")  # wfdb returns means of its samples
    for leads in (names, names[::-1], names[:1], names[-1:], names[::2], names[1::2][::-1] or names):
        record = open_record(ref, leads=leads)
        assert list(record.leads) == leads
        for start, stop in [(0, N), (1, N), (0, N - 9), (7, 8), (8, 9), (501, 733)]:
            np.testing.assert_array_equal(record.read(start, stop), by_wfdb(ref, record, start, stop))


@pytest.mark.parametrize("case", ["words", "pairs", "several files"])
def test_records_of_the_usual_formats_are_read_without_reading_their_header_again(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = write(tmp_path, *CASES[case])
    record = open_record(ref)
    expected = by_wfdb(ref, record, 100, 200)
    (tmp_path / "r.hea").unlink()
    monkeypatch.delattr(wfdb, "rdrecord")
    np.testing.assert_array_equal(record.read(100, 200), expected)


def test_missing_samples_of_format_16_are_nan(tmp_path: Path) -> None:
    assert np.isnan(open_record(write(tmp_path, ("16+16", ["a", "b"]))).read(0, N)[0]).tolist() == [True, True]


@pytest.mark.parametrize("fmt", ["16", "212", "310"])
def test_a_file_truncated_or_deleted_while_open_is_an_error_of_the_record(tmp_path: Path, fmt: str) -> None:
    record = open_record(write(tmp_path, (fmt, ["a", "b"])))
    (tmp_path / "0.dat").write_bytes(b"\0" * 100)
    with pytest.raises(SignalFileError, match=r"r: samples 10 to 900 cannot be read"):
        record.read(10, 900)
    (tmp_path / "0.dat").unlink()
    with pytest.raises(SignalFileError, match="No such file"):
        record.read(10, 900)


@pytest.mark.parametrize("bug", [TypeError, KeyError, IndexError, AttributeError, ValueError])
def test_a_bug_in_reading_is_not_reported_as_a_damaged_file(
    tmp_path: Path, bug: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = open_record(write(tmp_path, ("16", ["a"])))

    def broken(*_: object) -> None:
        raise bug("in our own code")

    monkeypatch.setattr(signal_files.WordFile, "read", broken)
    with pytest.raises(bug, match="in our own code"):
        record.read(0, 10)


@pytest.mark.parametrize("bug", [TypeError, KeyError, AttributeError])
def test_a_bug_in_calling_wfdb_is_not_reported_as_a_damaged_file(
    tmp_path: Path, bug: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = write(tmp_path, ("310", ["a"]))
    record = open_record(ref)

    def broken(*_: object, **__: object) -> None:
        raise bug("in a call")

    for name, call in {
        "rdrecord": lambda: record.read(0, 10),
        "rdheader": lambda: open_record(ref),
        "rdann": lambda: read_annotations(ref),
    }.items():
        (tmp_path / "r.atr").write_bytes(bytes([100, 1 << 2, 0, 0]))
        with monkeypatch.context() as patch:
            patch.setattr(wfdb, name, broken)
            with pytest.raises(bug, match="in a call"):
                call()


@pytest.mark.parametrize(
    ("line", "error", "why"),
    [
        ("0.dat 16x0", HeaderError, "says 0 samples in a frame.*expected 1 to 1000"),
        ("0.dat 516x99999999999", HeaderError, "says 99999999999 samples in a frame"),
        ("0.dat 516:99999999999", HeaderError, "says 99999999999 frames of skew"),
        ("0.dat 516+99999999999999999999", HeaderError, r"says 99999999999999999999 bytes of offset"),
        ("0.dat 16 200(99999999999999999999)/uV", HeaderError, "says 99999999999999999999 as a baseline"),
        (". 16", SignalFileError, r"signal file '\.' is not in"),
        ("0.dat 212", SignalFormatError, "several formats, 16 and 212"),
    ],
)
def test_the_error_names_an_impossible_value_in_the_header(
    tmp_path: Path, line: str, error: type[Exception], why: str
) -> None:
    ref = write(tmp_path, ("16", ["a", "b"]))
    header = tmp_path / "r.hea"
    text = header.read_text().splitlines()
    header.write_text("\n".join([*text[:2], f"{line} 12 0 0 0 0 b"]) + "\n")
    with pytest.raises(error, match=why):
        open_record(ref)


def test_segments_with_fewer_signals_or_no_length_are_refused(tmp_path: Path) -> None:
    write(tmp_path, ("16", ["a", "b"]))
    (tmp_path / "r.hea").rename(tmp_path / "two.hea")
    write(tmp_path, ("16", ["a"]))
    (tmp_path / "r.hea").rename(tmp_path / "one.hea")
    (tmp_path / "r.hea").write_text(f"r/2 2 360 {2 * N}\ntwo {N}\none {N}\n")
    ref = RecordRef("r", tmp_path / "r")
    with pytest.raises(HeaderError, match="first segment has 2 signals, another 1"):
        open_record(ref)
    two = (tmp_path / "two.hea").read_text()
    (tmp_path / "one.hea").write_text(two.replace(f" 360 {N}", " 360"))
    with pytest.raises(HeaderError, match=f"segment one: its header does not give the number of samples; write {N}"):
        open_record(ref)


def test_a_layout_in_an_unknown_format_is_refused(tmp_path: Path) -> None:
    write(tmp_path, ("16", ["a"]))
    (tmp_path / "r.hea").rename(tmp_path / "one.hea")
    (tmp_path / "layout.hea").write_text("layout 1 360 0\n~ 1 183.5(7)/uV 12 0 0 0 0 a\n")
    (tmp_path / "r.hea").write_text(f"r/2 1 360 {N}\nlayout 0\none {N}\n")
    with pytest.raises(SignalFormatError, match="unknown format '1'"):
        open_record(RecordRef("r", tmp_path / "r"))


# Annotation files


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (bytes([100, 1 << 2, 0]), "has 3 bytes, expected an even number"),
        (bytes([0, 59 << 2, 0, 0]), "has 4 bytes and ends inside an annotation"),
        (bytes([100, 1 << 2, 9, 63 << 2, 65, 65]), "has 6 bytes and ends inside an annotation"),
        (bytes([100, 1 << 2, 1, 63 << 2, 65, 0, 1, 63 << 2, 66, 0, 0, 0]), "second note for one annotation, at byte 6"),
    ],
)
def test_the_error_names_the_place_of_damage_in_annotations(tmp_path: Path, data: bytes, why: str) -> None:
    ref = write(tmp_path, ("16", ["a"]))
    (tmp_path / "r.atr").write_bytes(data)
    with pytest.raises(AnnotationError, match=why):
        read_annotations(ref)


@pytest.mark.parametrize("entry", ["no number", "43"])
def test_an_invalid_definition_is_an_error_of_the_file(tmp_path: Path, entry: str) -> None:
    ref = write(tmp_path, ("16", ["a"]))
    notes = ["## annotation type definitions", entry, "## end of definitions"]
    words = b"".join(
        bytes([0, 22 << 2, len(note), 63 << 2]) + note.encode() + b"\0" * (len(note) % 2) for note in notes
    )
    (tmp_path / "r.atr").write_bytes(words + bytes([100, 1 << 2, 0, 0]))
    with pytest.raises(AnnotationError, match=r"r\.atr cannot be read"):
        read_annotations(ref)


def test_skips_extra_fields_and_notes_are_read_as_wfdb_reads_them(tmp_path: Path) -> None:
    ref = write(tmp_path, ("16", ["a"]))
    rng = np.random.default_rng(5)
    samples = np.sort(rng.choice(N, 60, replace=False))
    notes = ["", "(AFIB", "odd", "\u00e9"] * 15
    wfdb.wrann(
        "r", "atr", samples, symbol=list("NV+~" * 15), aux_note=notes, fs=360, write_dir=str(tmp_path),
        subtype=rng.integers(-3, 4, 60), chan=rng.integers(0, 3, 60), num=rng.integers(0, 9, 60),
    )  # fmt: skip
    read = read_annotations(ref)
    assert read.sample.tolist() == samples.tolist()
    assert "".join(read.symbol) == "NV+~" * 15
    assert list(read.note) == notes


def test_the_installed_wfdb_is_a_version_whose_exceptions_were_tested() -> None:
    import tomllib
    from importlib.metadata import version
    from pathlib import Path

    from packaging.requirements import Requirement

    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    (wfdb_range,) = (r.specifier for r in map(Requirement, project["dependencies"]) if r.name == "wfdb")
    assert version("wfdb") in wfdb_range
    assert "4.4" not in wfdb_range  # run python -m tests.fuzz --target records before another version is allowed
