"""A copy of the store made while the daemon writes it is complete, and a daemon can continue from it."""

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


def test_a_backup_under_load_can_be_restored_and_the_stream_ends_the_same(
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


def test_a_failed_backup_reports_the_reason_and_leaves_no_file(tmp_path: Path, ecgmon: RunEcgmon) -> None:
    done = ecgmon("backup", "--state", tmp_path, tmp_path / "copy")
    assert done.returncode == 1
    assert "there is no store" in done.stderr
    assert not (tmp_path / "copy").exists()
    with closing(sqlite3.connect(tmp_path / "ecgmon.sqlite")) as db:
        db.execute("PRAGMA user_version = 99")
    done = ecgmon("backup", "--state", tmp_path, tmp_path / "none" / "copy")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
