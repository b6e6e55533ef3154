"""The short form of `make torture`, and tests that it finds faults."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from ecgmon.monitor.core.commit import Entry, StoredBeat
from ecgmon.monitor.store import FILE, Store
from tests.e2e.processes import wait_for
from tests.torture.contents import compare, contents, half_written, left_behind, numbered
from tests.torture.faults import VICTIMS, faults, is_long
from tests.torture.run import torture
from tests.torture.streams import TOY

KILLS = 12


def test_no_row_is_lost_duplicated_or_changed_while_roles_are_killed_and_frozen() -> None:
    report = torture(TOY, kills=KILLS, seed=4, pause=0.3)
    assert report.problems == []
    assert (report.lost, report.duplicate, report.differing) == (0, 0, 0)
    assert report.kills.total() >= KILLS
    assert set(report.kills) == {"monitor", "producer", "worker"}
    assert report.freezes.total() > 0
    assert report.ok


def test_a_seed_repeats_every_fault_and_all_kinds_of_faults_occur() -> None:
    drawn = list(islice(faults(np.random.default_rng(5), 1.0), 2000))
    assert drawn == list(islice(faults(np.random.default_rng(5), 1.0), 2000))
    assert drawn != list(islice(faults(np.random.default_rng(6), 1.0), 2000))
    assert {(f.victim, f.kill, f.moment) for f in drawn} == {
        (victim, kill, moment) for victim in VICTIMS for kill in (True, False) for moment in ("any", "commit", "start")
    }
    assert {is_long(f.frozen) for f in drawn} == {True, False}


@pytest.fixture
def small_store(tmp_path: Path) -> Path:
    """A store with ten beats of one stream, each with its window."""
    with Store(tmp_path / "state") as store:
        model = store.use_model("f" * 64, "made up")
        state = store.open_stream("one", 360.0, ["MLII"], 0)
        state.position = state.beats = 10
        window, ticks = np.ones((1, 320), np.float32), np.ones(320, np.float16)
        beats = [StoredBeat(seq, 300 * seq, 0.8, 1.0, 0, 0, 0.1 * seq, 1.0) for seq in range(10)]
        store.write([Entry(state, beats, [(seq, window, ticks) for seq in range(10)])], model, 0)
    return tmp_path / "state"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("DELETE FROM beats WHERE seq = 4", (1, 0, 0)),
        ("INSERT INTO beats SELECT stream, 10, 9999, rr, 1, 0, 0, 0, 0, model, 0 FROM beats WHERE seq = 9", (0, 1, 0)),
        (
            "INSERT INTO beats SELECT stream, 10, sample, rr, 1, 0, 0, 0, 0, model, 0 FROM beats WHERE seq = 9",
            (0, 1, 0),
        ),
        ("UPDATE beats SET sample = 300 WHERE seq = 2", (0, 1, 1)),
        ("UPDATE beats SET score = score + 1e-12 WHERE seq = 2", (0, 0, 1)),
        ("UPDATE details SET window = zeroblob(1280) WHERE seq = 2", (0, 0, 1)),
        ("DELETE FROM details WHERE seq = 2", (0, 0, 1)),
        ("INSERT INTO alerts VALUES (1, 0, 'noisy', 'low', 0, 0, NULL, '[]', '', 1, 0)", (0, 0, 1)),
        ("INSERT INTO quality VALUES (1, 0, 5, 0)", (0, 0, 1)),
        ("UPDATE streams SET position = 11", (0, 0, 1)),
        ("UPDATE beats SET stored = 77", (0, 0, 0)),
    ],
)
def test_one_missing_extra_or_changed_row_is_found(
    small_store: Path, change: str, expected: tuple[int, int, int]
) -> None:
    before = contents(small_store)
    with closing(sqlite3.connect(small_store / FILE)) as db, db:
        db.execute(change)
    after = contents(small_store)
    found = compare(after, before)
    assert (found.lost, found.duplicate, found.differing) == expected
    assert bool(found) == any(expected)
    assert bool(numbered(after)) == (" beats SELECT" in change or "DELETE FROM beats" in change)


def test_a_half_written_commit_is_recognised_and_not_read(small_store: Path) -> None:
    with closing(sqlite3.connect(small_store / FILE, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA cache_size = 5")  # pages: a transaction spills into the log before it is committed
        before = contents(small_store)
        db.execute("BEGIN")
        for seq in range(10, 60):
            db.execute("INSERT INTO details VALUES (1, ?, zeroblob(3000), x'')", (seq,))
        assert half_written(small_store)
        assert left_behind(small_store) == before
        db.execute("COMMIT")
        assert not half_written(small_store)
        assert len(left_behind(small_store)["details"]) == 60


def children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[1]) == parent and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def test_ctrl_c_ends_the_torture_test_and_all_its_processes() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.torture", "--kills", "1000"],
        cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        started = wait_for(lambda: len(pids := children(process.pid)) == len(VICTIMS) and pids, "the roles")
        os.kill(started[0], signal.SIGSTOP)  # a frozen process must end as well
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]
