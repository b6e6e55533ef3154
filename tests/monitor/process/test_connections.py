"""Sockets are bound only in a runtime folder that no other user can enter."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import zmq

from ecgmon.monitor.process import connections as endpoints
from ecgmon.monitor.process.connections import EndpointError
from ecgmon.monitor.store import FILE, Store, StoreError

if TYPE_CHECKING:
    from pathlib import Path


def test_folders_and_files_are_private_with_any_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        lock = endpoints.claim(tmp_path / "run" / "ecgmon")
        store = Store(tmp_path / "state")
    finally:
        os.umask(before)
    with store:
        for path, mode in (
            (tmp_path / "run" / "ecgmon", 0o700),
            (tmp_path / "run" / "ecgmon" / "lock", 0o600),
            (tmp_path / "state", 0o700),
            (tmp_path / "state" / FILE, 0o600),
        ):
            assert stat.S_IMODE(path.stat().st_mode) == mode, path
    os.close(lock)


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777])
def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(EndpointError, match="others may enter"):
        endpoints.claim(folder)


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EndpointError, match="not a folder"):
        endpoints.claim(tmp_path / "run")
    mine = tmp_path / "mine"
    mine.mkdir(mode=0o700)
    target = tmp_path / "target"
    target.write_text("precious")
    (mine / "lock").symlink_to(target)
    with pytest.raises(EndpointError):
        endpoints.claim(mine)
    assert target.read_text() == "precious"


@pytest.mark.parametrize("name", ["lock", FILE])
def test_a_link_planted_in_the_state_folder_is_not_followed(tmp_path: Path, name: str) -> None:
    state, target = tmp_path / "state", tmp_path / "target"
    state.mkdir(mode=0o700)
    target.write_text("precious")
    (state / name).symlink_to(target)
    with pytest.raises(StoreError):
        Store(state)
    assert target.read_text() == "precious"


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(EndpointError, match="belongs to user"):
        endpoints.claim(tmp_path / "run")


def test_a_second_monitor_cannot_take_the_endpoint_of_a_running_one(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    lock = endpoints.claim(folder)
    code = (
        f"from pathlib import Path; from ecgmon.monitor.process.connections import claim; claim(Path({str(folder)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "another monitor serves" in done.stderr
    os.close(lock)
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_without_the_lock_a_second_bind_would_take_the_endpoint_over(tmp_path: Path) -> None:
    """The reason for the lock; if ZeroMQ changes this, the lock may be removed."""
    address = f"ipc://{tmp_path}/s"
    with zmq.Context() as context, context.socket(zmq.REP) as first, context.socket(zmq.REP) as second:
        first.bind(address)
        second.bind(address)
        with context.socket(zmq.REQ) as client:
            client.linger = 0
            client.connect(address)
            client.send(b"who?")
            assert second.poll(5000)
            assert not first.poll(0)


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match=r"\[runtime\] dir"):
        endpoints.endpoint(tmp_path / ("x" * 120), "producers")
