"""Keys are never overwritten, are read only from files that no other user can read, and are never shown."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest
import zmq

from ecgmon.pipelines.transport import keys
from ecgmon.pipelines.transport.keys import KeyFileError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, bytes]:
    path = tmp_path / "own.key"
    return path, keys.generate(path)


def test_a_new_key_can_be_read_only_by_its_owner(made: tuple[Path, bytes]) -> None:
    path, public = made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    pair = keys.read(path)
    assert pair.public == public == zmq.curve_public(pair.secret)


def test_a_wide_umask_does_not_widen_the_mode_of_a_key(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        keys.generate(tmp_path / "own.key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "own.key").stat().st_mode) == 0o600


def test_an_existing_key_is_not_overwritten(made: tuple[Path, bytes]) -> None:
    path, public = made
    with pytest.raises(KeyFileError, match="never overwritten"):
        keys.generate(path)
    assert keys.read(path).public == public


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o601])
def test_a_key_that_others_could_read_or_change_is_refused(made: tuple[Path, bytes], mode: int) -> None:
    path, _ = made
    path.chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 0600"):
        keys.read(path)


def test_no_key_is_written_through_a_planted_link(tmp_path: Path) -> None:
    (tmp_path / "planted").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyFileError):
        keys.generate(tmp_path / "planted")
    assert not (tmp_path / "elsewhere").exists()


def test_a_pipe_in_place_of_a_key_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(KeyFileError, match="not a regular file"):
            keys.read(path)


@pytest.mark.parametrize("content", [b"", b"secret words of mine", b"x" * 39, b"x" * 41, b"\xff" * 40, b'"' * 40])
def test_a_file_without_a_key_is_refused_and_its_content_is_not_shown(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "own.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="holds no key") as raised:
        keys.read(path)
    assert "words" not in str(raised.value)


def test_repr_and_str_do_not_contain_the_secret(made: tuple[Path, bytes]) -> None:
    pair = keys.read(made[0])
    line = keys.ConnectionKeys(pair, pair.public)
    for text in (repr(pair), str(pair), repr(line)):
        assert pair.secret.decode() not in text


def test_the_systemd_credential_is_used_if_no_file_is_named(
    made: tuple[Path, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, public = made
    folder = tmp_path / "credentials"
    folder.mkdir()
    path.rename(folder / keys.CREDENTIAL)
    (folder / keys.CREDENTIAL).chmod(0o440)  # the mode that an access control list shows
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    assert keys.find("", os.environ).public == public
    assert keys.find(str(folder / keys.CREDENTIAL), {}).public == public
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    with pytest.raises(KeyFileError, match="chmod 0600"):
        keys.read(folder / keys.CREDENTIAL)
    with pytest.raises(KeyFileError, match="ecgmon keygen"):
        keys.find("", {})
