"""A copy of the store taken while it is written is whole, and the daemon goes on from it."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from ecgmon.monitor.store import Reader
from tests.e2e.processes import Daemon, RunEcgmon, stored

if TYPE_CHECKING:
    from pathlib import Path


def test_a_backup_under_load_restores_and_the_stream_goes_on_to_the_same_end(
    tmp_path: Path, runtime: Path, ecgmon: RunEcgmon
) -> None:
    folder = tmp_path / "first"
    folder.mkdir()
    source = [{"record": "toy", "speed": 30}]
    first = Daemon(folder, runtime, source)
    first.wait(lambda status: status.streams and status.streams["toy"].beats > 60, "some beats")
    copy = tmp_path / "copy.sqlite"
    done = ecgmon("backup", "--state", first.state, copy)
    assert done.returncode == 0, done.stderr
    assert copy.stat().st_mode & 0o777 == 0o600
    again = ecgmon("backup", "--state", first.state, copy)
    assert again.returncode == 1
    assert "exists" in again.stderr
    first.wait(lambda status: status.streams["toy"].ended, "the end")
    assert first.stop() == 0

    restored = tmp_path / "second"
    (restored / "state").mkdir(mode=0o700, parents=True)
    shutil.copy(copy, restored / "state" / "ecgmon.sqlite")
    with Reader(restored / "state") as reader, Reader(first.state) as whole:
        part, all_ = reader.beats("toy"), whole.beats("toy")
        assert 60 <= len(part) < len(all_)
        for name in ("seq", "sample", "score"):
            assert np.array_equal(part[name], all_[name][: len(part)], equal_nan=True)
    second = Daemon(restored, runtime, [{"record": "toy", "speed": 0}])
    second.wait(lambda status: status.streams and status.streams["toy"].ended, "the end")
    assert second.stop() == 0
    assert stored(second.state) == stored(first.state)


def test_a_backup_that_can_not_be_made_says_why_and_leaves_nothing(tmp_path: Path, ecgmon: RunEcgmon) -> None:
    done = ecgmon("backup", "--state", tmp_path, tmp_path / "copy")
    assert done.returncode == 1
    assert "there is no store" in done.stderr
    assert not (tmp_path / "copy").exists()
    with closing(sqlite3.connect(tmp_path / "ecgmon.sqlite")) as db:
        db.execute("PRAGMA user_version = 99")
    done = ecgmon("backup", "--state", tmp_path, tmp_path / "none" / "copy")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
