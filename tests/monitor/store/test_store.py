"""Committed data are stored once and completely, and other users cannot read them."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ecgmon.models.score.history import latest_rows
from ecgmon.models.windows import LENGTH
from ecgmon.monitor.config.schema import AlertSettings
from ecgmon.monitor.core.alerts import Alert, AlertKind, Priority
from ecgmon.monitor.core.commit import Entry, StoredBeat, StreamState
from ecgmon.monitor.core.exchange import Lot
from ecgmon.monitor.core.outcomes import StreamRules, observe
from ecgmon.monitor.store import FILE, VERSION, Reader, Store, StoreError
from ecgmon.monitor.store.schema import MIGRATIONS
from ecgmon.pipelines.items import ITEM, Items, Kind, Quality

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAN = float("nan")


def rows(first: int, count: int, *, score: float = 0.5) -> list[StoredBeat]:
    return [StoredBeat(seq, 100 * seq, 0.8, NAN, 0, 0, 0.01, score) for seq in range(first, first + count)]


def alert(number: int, *, end: float | None = None) -> Alert:
    return Alert(
        number=number,
        kind=AlertKind.ASYSTOLE,
        priority=Priority.HIGH,
        start=1.0,
        raised=5.0,
        end=end,
        beats=(1, 2),
        message="m",
    )


def entry(state: StreamState, count: int, **more: Any) -> Entry:
    after = replace(state, position=state.position + count, beats=state.beats + count, rules=b"r")
    return Entry(after, rows(state.beats, count), **more)


def lot(position: int) -> Lot:
    """Make a lot of one beat."""
    items = Items(
        np.array([(Kind.BEAT, Quality.USABLE, 0, 5, 500, 580, 1.0, 1.0)], ITEM), np.ones((1, 1, LENGTH), np.float32)
    )
    made = Lot("a", position, items, np.zeros(1), 0.0)
    made.ax[:], made.unscored = 0.25, 0
    return made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "state") as store:
        yield store


@pytest.fixture
def model(store: Store) -> int:
    return store.use_model("f" * 64, "test")


def test_beats_are_read_as_they_were_stored(store: Store, model: int) -> None:
    state = store.open_stream("a", 360.0, ["MLII"], 1)
    store.write([entry(state, 3)], model, 10)
    with Reader(store.path.parent) as reader:
        beats = reader.beats("a")
        (stream,) = reader.streams()
    assert beats["seq"].tolist() == [0, 1, 2]
    assert beats["seconds"].tolist() == [0.0, 100 / 360, 200 / 360]
    assert np.isnan(beats["rr_ratio"]).all()
    assert (stream.name, stream.beats, stream.position, stream.leads) == ("a", 3, 3, ("MLII",))


def test_a_part_of_the_beats_has_the_same_rr_after_and_rate_as_all_of_them(store: Store, model: int) -> None:
    state = store.open_stream("a", 100.0, ["MLII"], 1)  # rows() puts beats 1 s apart
    beats = [
        StoredBeat(seq, 100 * seq, 1.0 if seq else NAN, 1.0 if seq > 4 else NAN, 0, 0, 0.01, 0.5) for seq in range(8)
    ]
    store.write([Entry(replace(state, position=8, beats=8), beats)], model, 10)
    with Reader(store.path.parent) as reader:
        whole, part = reader.beats("a"), reader.beats("a", first=5, most=2)
    assert whole["rr_after"].tolist() == pytest.approx([1.0] * 7 + [NAN], nan_ok=True)
    assert whole["rate"].tolist() == pytest.approx([NAN] * 5 + [60.0] * 3, nan_ok=True)
    assert part.tobytes() == whole[5:7].tobytes()


def test_a_stream_continues_from_its_stored_state(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        model = store.use_model("f", "m")
        state = store.open_stream("a", 360.0, ["MLII"], 1)
        store.write([replace(entry(state, 2), runs=[(0, 5, 0), (5, 1, 1)])], model, 1)
    with Store(tmp_path) as store:
        again = store.open_stream("a", 360.0, ["MLII"], 2)
        assert (again.position, again.beats, again.rules, again.run) == (2, 2, b"r", (5, 1, 1))
        assert store.use_model("f", "m") == model


def test_a_commit_is_stored_completely_or_not_at_all(store: Store, model: int) -> None:
    a, b = (store.open_stream(name, 360.0, ["MLII"], 1) for name in "ab")
    store.write([entry(b, 1)], model, 1)
    twice = entry(b, 1)  # its seq 0 is already stored
    with pytest.raises(StoreError):
        store.write([entry(a, 2), twice], model, 1)
    with Reader(store.path.parent) as reader:
        assert [stream.beats for stream in reader.streams()] == [0, 1]
        assert len(reader.beats("a")) == 0
    store.write([entry(a, 2)], model, 1)  # the store can still be written


def test_raising_and_clearing_an_alert_are_two_changes_of_one_row(store: Store, model: int) -> None:
    state = store.open_stream("a", 360.0, ["MLII"], 1)
    store.write([entry(state, 1, alerts=[alert(0)])], model, 1)
    with Reader(store.path.parent) as reader:
        (raised,) = reader.alerts()
        assert raised.alert == alert(0)
        store.write([Entry(state, [], alerts=[alert(0, end=9.0)])], model, 1)
        (cleared,) = reader.alerts(since=raised.change)
        assert cleared.alert == alert(0, end=9.0)
        assert len(reader.alerts()) == 1


def test_details_and_quality_are_read_as_they_were_stored(store: Store, model: int) -> None:
    state = store.open_stream("a", 360.0, ["MLII"], 1)
    window = np.arange(LENGTH, dtype=np.float32)[None]
    ticks = np.linspace(0, 1, LENGTH).astype(np.float16)
    store.write([entry(state, 1, details=[(0, window, ticks)], runs=[(0, 2, 0)])], model, 1)
    store.write([Entry(state, [], runs=[(0, 4, 0), (4, 1, 3)])], model, 1)
    with Reader(store.path.parent) as reader:
        back = reader.detail("a", 0)
        assert back is not None
        assert (back[0] == window).all()
        assert (back[1] == ticks).all()
        assert reader.detail("a", 1) is None
        assert reader.quality("a") == [(0, 4, Quality.USABLE), (4, 1, Quality.FLAT)]


def test_other_users_cannot_read_the_store(store: Store) -> None:
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700
    for extra in store.path.parent.iterdir():
        assert stat.S_IMODE(extra.stat().st_mode) & 0o077 == 0, extra


def test_two_monitors_cannot_share_a_folder(store: Store) -> None:
    code = f"from pathlib import Path; from ecgmon.monitor.store import Store; Store(Path({str(store.path.parent)!r}))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "in use by another monitor" in other.stderr


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path):
        pass
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.close()
    with pytest.raises(StoreError, match=f"schema version {VERSION + 1}"):
        Store(tmp_path)
    with pytest.raises(StoreError, match=f"schema version {VERSION + 1}"):
        Reader(tmp_path)


@pytest.mark.parametrize("version", range(VERSION))
def test_a_store_of_every_older_version_is_upgraded(tmp_path: Path, version: int) -> None:
    with sqlite3.connect(tmp_path / FILE) as db:
        for script in MIGRATIONS[:version]:
            db.executescript(script)
        db.execute(f"PRAGMA user_version = {version}")
    db.close()
    with Store(tmp_path) as store:
        store.open_stream("a", 360.0, ["MLII"], 1)
    with Reader(tmp_path) as reader:
        assert [stream.name for stream in reader.streams()] == ["a"]


def test_a_stream_of_version_2_continues_and_learns_its_beats_again(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE) as db:
        for script in MIGRATIONS[:2]:
            db.executescript(script)
        db.execute("INSERT INTO models VALUES (1, 'f', 'm')")
        db.execute("INSERT INTO streams VALUES (1, 'a', 100, '[\"MLII\"]', 7, 5, 4.5, 0, x'72', 1, 1)")
        db.execute("INSERT INTO beats VALUES (1, 4, 400, 1, 1, 0, 0, 0.01, 0.5, 1, 1)")
        db.executemany("INSERT INTO recent VALUES (1, ?, ?, ?)", [(seq, seq, bytes(114)) for seq in range(5)])
        db.execute("PRAGMA user_version = 2")
    db.close()
    with Store(tmp_path) as store:
        state = store.open_stream("a", 100.0, ["MLII"], 2)
        assert (state.position, state.beats, state.seconds, state.rules) == (7, 5, 4.5, b"r")
        assert store.remembered(state) == []
        rows = observe([(StreamRules(replace(state, rules=b""), AlertSettings()), [lot(state.position)])]).remembered
        store.write([entry(state, 1, remembered=latest_rows(rows))], store.use_model("f", "m"), 2)
        assert store.remembered(state) == rows
    with Reader(tmp_path) as reader:
        assert reader.beats("a")["seq"].tolist() == [4, 5]
    with sqlite3.connect(tmp_path / FILE) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    db.close()
    assert {name for name in ("recent", "remembered") if name in tables} == {"remembered"}


def test_a_later_beat_replaces_the_one_in_its_place(store: Store, model: int) -> None:
    a, b = (store.open_stream(name, 360.0, ["MLII"], 1) for name in "ab")
    first = entry(a, 2, remembered={0: b"0", 1: b"1"})
    store.write([first, entry(b, 1, remembered={1: b"of b"})], model, 1)
    store.write([entry(first.state, 2, remembered={1: b"3", 63: b"4"})], model, 1)
    assert sorted(store.remembered(a)) == [b"0", b"3", b"4"]
    assert store.remembered(b) == [b"of b"]


@pytest.mark.parametrize("damage", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_store_is_refused_and_kept(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / FILE).write_bytes(damage)
    with pytest.raises(StoreError, match="store"):
        Store(tmp_path)
    assert (tmp_path / FILE).read_bytes() == damage


def test_a_link_planted_for_the_store_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    state = tmp_path / "state"
    state.mkdir()
    (state / FILE).symlink_to(victim)
    with pytest.raises(StoreError, match="cannot write"):
        Store(state)
    assert victim.read_text() == "mine"


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot use the state folder"):
        Store(tmp_path / "file" / "state")


def test_a_stream_cannot_change_its_sampling_rate_or_leads(store: Store) -> None:
    store.open_stream("a", 360.0, ["MLII"], 1)
    with pytest.raises(StoreError, match="stored with 360 Hz, leads MLII"):
        store.open_stream("a", 250.0, ["MLII"], 1)


def test_pruning_deletes_old_data_and_keeps_the_numbering(store: Store, model: int) -> None:
    state = store.open_stream("a", 360.0, ["MLII"], 1)
    first = entry(state, 3, alerts=[alert(0), alert(0, end=2.0), alert(1)])
    store.write([first], model, 100)
    store.write([entry(first.state, 2)], model, 200)
    assert store.prune(150) == 3
    assert store.prune(150) == 0
    with Reader(store.path.parent) as reader:
        assert reader.beats("a")["seq"].tolist() == [3, 4]
        assert [found.alert.number for found in reader.alerts()] == [1]  # it is still active
        assert reader.streams()[0].beats == 5


def test_a_missing_store_is_an_error_with_a_message(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store in"):
        Reader(tmp_path)
