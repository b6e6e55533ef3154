"""Finding records: the names that users type, and the stream ids made from them."""

from __future__ import annotations

import functools
import http.server
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecgmon.pipelines.limits import MAX_STREAM_ID
from ecgmon.pipelines.sources.errors import (
    DownloadError,
    DuplicateStreamError,
    RecordNotFoundError,
    SourceError,
    UnsafeNameError,
)
from ecgmon.pipelines.sources.finding import _STREAM, RecordRef, download, resolve, resolve_each

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


HEADER = "{name} 1 360 720\n{name}.dat 16 200 16 0 0 0 0 MLII\n"


def put(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.hea").write_text(HEADER.format(name=name))
        (folder / f"{name}.dat").write_bytes(b"\0" * 1440)
    return folder


@pytest.fixture
def nothing_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Simulate a machine without MIT-BIH, cache and network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("ECGMON_MITDB", raising=False)
    monkeypatch.setattr("ecgmon.pipelines.sources.finding._CHECKOUT", tmp_path / "checkout")
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")  # the discard port, where no server listens
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.mark.parametrize("suffix", ["", ".hea", ".dat"])
def test_a_record_is_found_by_its_path_with_or_without_suffix(tmp_path: Path, suffix: str) -> None:
    put(tmp_path, "100")
    assert resolve([str(tmp_path / "100") + suffix]) == [RecordRef("100", tmp_path / "100")]


def test_a_relative_path_through_the_parent_folder_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "data", "100")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert [ref.stream for ref in resolve(["../data/100"])] == ["100"]


def test_a_folder_gives_all_its_records_sorted(tmp_path: Path) -> None:
    put(tmp_path, "b", "a", "c")
    assert [ref.stream for ref in resolve([str(tmp_path)])] == ["a", "b", "c"]


def test_a_folder_with_a_list_gives_the_records_of_the_list_in_its_order(tmp_path: Path) -> None:
    put(tmp_path, "b", "a", "c")
    (tmp_path / "RECORDS").write_text("c\na\n")
    assert [ref.stream for ref in resolve([str(tmp_path)])] == ["c", "a"]


@pytest.mark.parametrize("entry", ["../../etc/passwd", "/etc/passwd", "a\x1bb"])
def test_a_list_of_records_cannot_name_files_outside_its_folder(tmp_path: Path, entry: str) -> None:
    (tmp_path / "RECORDS").write_text(f"{entry}\n")
    with pytest.raises(UnsafeNameError, match="only records inside"):
        resolve([str(tmp_path)])


def test_an_empty_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RecordNotFoundError, match="no records in this folder"):
        resolve([str(tmp_path)])


@pytest.mark.parametrize("name", ["208", "mitdb/208"])
def test_a_record_of_mit_bih_is_found_in_the_folder_from_the_environment(
    nothing_around: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = put(nothing_around / "elsewhere", "208")
    monkeypatch.setenv("ECGMON_MITDB", str(folder))
    assert resolve([name]) == [RecordRef("208", folder / "208")]


@pytest.mark.parametrize("place", ["shared/mitdb", "cache/ecgmon/mitdb"])
def test_without_the_environment_the_shared_folder_and_the_cache_are_searched(nothing_around: Path, place: str) -> None:
    folder = put(nothing_around / place, "208")
    assert [ref.path and ref.path.resolve() for ref in resolve(["208"])] == [(folder / "208").resolve()]


def test_a_record_missing_from_the_named_folder_is_not_searched_elsewhere(
    nothing_around: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(nothing_around / "shared" / "mitdb", "208")
    monkeypatch.setenv("ECGMON_MITDB", str(put(nothing_around / "named", "100")))
    with pytest.raises(RecordNotFoundError, match=r"mitdb/208: not in .*named.*ECGMON_MITDB"):
        resolve(["208"])


@pytest.mark.parametrize("name", ["toy", "builtin"])
def test_the_built_in_record_needs_no_file(name: str) -> None:
    assert resolve([name]) == [RecordRef("toy", None)]


def test_two_records_of_one_name_are_distinguished_by_their_folders(tmp_path: Path) -> None:
    put(tmp_path / "one", "100", "101")
    put(tmp_path / "two", "100")
    refs = resolve([str(tmp_path / "one"), str(tmp_path / "two" / "100")])
    assert [ref.stream for ref in refs] == ["one/100", "101", "two/100"]
    assert [ref.name for ref in refs] == ["100", "101", "100"]


def test_two_records_that_would_be_one_stream_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "a" / "x", "100")
    put(tmp_path / "b" / "x", "100")
    with pytest.raises(DuplicateStreamError, match="already the stream 'x/100'"):
        resolve([str(tmp_path / "a" / "x" / "100"), str(tmp_path / "b" / "x" / "100")])


def test_a_record_named_twice_is_kept_once_and_refused_once(tmp_path: Path) -> None:
    name = str(put(tmp_path, "100") / "100")
    refs, errors = resolve_each([name, f"{name}.hea"])
    assert [ref.stream for ref in refs] == ["100"]
    assert [type(error) for error in errors.values()] == [DuplicateStreamError]


def test_one_wrong_name_does_not_affect_the_others(tmp_path: Path) -> None:
    good = str(put(tmp_path, "100") / "100")
    refs, errors = resolve_each([str(tmp_path / "no such"), good, "a\nb"])
    assert [ref.stream for ref in refs] == ["100"]
    assert [type(error) for error in errors.values()] == [RecordNotFoundError, UnsafeNameError]


@pytest.mark.parametrize("name", ["../../208", "mitdb/../208", "..\\208", "mitdb/../../etc/passwd"])
def test_a_database_name_cannot_lead_outside_the_cache(nothing_around: Path, name: str) -> None:
    with pytest.raises((UnsafeNameError, RecordNotFoundError)):
        resolve([name])
    assert not (nothing_around / "cache").exists()


@pytest.mark.parametrize("name", ["", " ", "208\n", "\x1b[2J208", "208\0"])
def test_a_name_with_control_characters_never_reaches_a_terminal(name: str) -> None:
    with pytest.raises(UnsafeNameError) as caught:
        resolve([name])
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["a b", "ä", "x" * (MAX_STREAM_ID + 1), ".hidden"])
def test_a_record_whose_name_cannot_be_a_stream_id_is_refused(tmp_path: Path, name: str) -> None:
    put(tmp_path, name)
    with pytest.raises(UnsafeNameError, match="rename the record"):
        resolve([str(tmp_path / name)])


@pytest.mark.usefixtures("nothing_around")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(names=st.lists(st.text(max_size=80), max_size=4))
def test_any_text_is_a_record_or_a_source_error(names: list[str]) -> None:
    refs, errors = resolve_each(
        [name for name in names if not name.isalnum()]
    )  # names of letters and digits would be looked up on the network
    assert all(_STREAM.fullmatch(ref.stream) for ref in refs)
    assert all(isinstance(error, SourceError) for error in errors.values())


def test_without_a_network_the_error_says_what_to_do(nothing_around: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DownloadError, match=r"mitdb/208 is not on this machine .* ECGMON_MITDB"):
        resolve(["208"])
    assert capsys.readouterr().out == ""
    assert list((nothing_around / "cache" / "ecgmon" / "mitdb").iterdir()) == []


@pytest.fixture
def physionet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run a server on loopback with the layout of PhysioNet; return the folder of its mitdb, version 1.0.0."""
    import wfdb.io.download

    site = tmp_path / "site"
    (site / "content" / "mitdb" / "1.0.0").mkdir(parents=True)
    (site / "content" / "mitdb" / "index.html").write_text("<strong>Version: 1.0.0</strong>\n")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(wfdb.io.download, "PN_CONTENT_URL", f"{address}/content/")
    monkeypatch.setattr(wfdb.io.download.config, "db_index_url", f"{address}/files/")
    yield put(site / "files" / "mitdb" / "1.0.0", "208")
    server.shutdown()
    server.server_close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # wfdb does not close its connections
def test_a_complete_record_is_downloaded_into_the_cache(
    tmp_path: Path, physionet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stem = download("mitdb", "208", tmp_path / "cache" / "mitdb")
    assert stem.with_name("208.dat").read_bytes() == (physionet / "208.dat").read_bytes()
    assert sorted(path.name for path in stem.parent.iterdir()) == ["208.dat", "208.hea"]
    assert capsys.readouterr().out == ""  # standard output is for --json only


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_an_interrupted_download_leaves_no_file(tmp_path: Path, physionet: Path) -> None:
    (physionet / "208.dat").unlink()
    with pytest.raises(DownloadError):
        download("mitdb", "208", tmp_path / "cache" / "mitdb")
    assert list((tmp_path / "cache" / "mitdb").iterdir()) == []


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(
    ("header", "why"),
    [
        ("not a header", "is not a WFDB header"),
        ("208/1 1 360 720\n208_a 720\n", "several segments"),
        (f"208 1 360 720\n208.dat 16+{10**19} 200 16 0 0 0 0 MLII\n", f"{10**19} bytes of offset"),
    ],
)
def test_a_downloaded_header_that_cannot_be_used_is_reported_and_deleted(
    tmp_path: Path, physionet: Path, header: str, why: str
) -> None:
    (physionet / "208.hea").write_text(header)
    with pytest.raises(DownloadError, match=why):
        download("mitdb", "208", tmp_path / "cache" / "mitdb")
    assert list((tmp_path / "cache" / "mitdb").iterdir()) == []


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.usefixtures("physionet")
def test_a_server_that_is_not_physionet_is_reported(tmp_path: Path) -> None:
    (tmp_path / "site" / "content" / "mitdb" / "index.html").write_text("<h1>It works!</h1>")
    with pytest.raises(DownloadError, match="the page of mitdb has no version"):
        download("mitdb", "208", tmp_path / "cache" / "mitdb")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.usefixtures("physionet")
def test_a_bug_in_a_download_is_not_reported_as_a_network_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise TypeError("a bug")

    monkeypatch.setattr("ecgmon.pipelines.sources.finding._signal_files", broken)
    with pytest.raises(TypeError, match="a bug"):
        download("mitdb", "208", tmp_path / "cache" / "mitdb")


def test_a_missing_home_folder_is_an_error_of_the_record() -> None:
    with pytest.raises(RecordNotFoundError, match="cannot be looked up"):
        resolve(["~nobody-of-this-name/100"])
