"""The password of the metrics is in no file, argument or message; its hash is in a private file."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ecgmon.monitor.web import passwords
from ecgmon.monitor.web.passwords import Hashed, PasswordError

if TYPE_CHECKING:
    from pathlib import Path

PASSWORD = "correct horse €"


def test_a_hash_matches_only_its_password(tmp_path: Path) -> None:
    passwords.write(tmp_path / "file", PASSWORD)
    hashed = passwords.read(tmp_path / "file")
    assert hashed.matches(PASSWORD.encode())
    assert not hashed.matches(b"")
    assert not hashed.matches(PASSWORD.encode()[:-1])
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_two_hashes_of_a_password_differ_and_their_repr_hides_them() -> None:
    one, other = Hashed.of(PASSWORD), Hashed.of(PASSWORD)
    assert str(one) != str(other)
    assert one.salt != other.salt
    assert one.digest.hex() not in repr(one)
    assert one.salt.hex() not in repr(one)


def test_a_password_file_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("important")
    with pytest.raises(PasswordError, match="exists"):
        passwords.write(tmp_path / "file", PASSWORD)
    assert (tmp_path / "file").read_text() == "important"


@pytest.mark.parametrize(
    "password", ["", "short", "x" * 2000, "two\nlines of it", "tab\tin it all", "\ud800 half a pair"]
)
def test_an_invalid_password_is_not_hashed(password: str) -> None:
    with pytest.raises(PasswordError, match="expected a password"):
        Hashed.of(password)


SALT, HASH = "00" * 16, "11" * 32


@pytest.mark.parametrize(
    "text",
    [
        "",
        "correct horse",
        f"md5$16384$8$1${SALT}${HASH}",
        f"scrypt$16384$8$1${SALT}",
        f"scrypt$16384$8$1$zz${HASH}",
        f"scrypt$16384$8$1$00${HASH}",
        f"scrypt$16384$8$1${SALT}$11",
        f"scrypt$2$8$1${SALT}${HASH}",  # a cost that makes guesses cheap
        f"scrypt$16385$8$1${SALT}${HASH}",
        f"scrypt$1073741824$8$1${SALT}${HASH}",  # a cost of a terabyte of memory
        f"scrypt$16384$8$1000000${SALT}${HASH}",  # a cost of a day
        f"scrypt$-16384$-8$1${SALT}${HASH}",
        f"scrypt${'9' * 5000}$8$1${SALT}${HASH}",
        "\udcff",
    ],
)
def test_a_file_without_a_hash_is_refused_and_its_content_not_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    path.chmod(0o600)
    with pytest.raises(PasswordError, match="holds no hash") as caught:
        passwords.read(path)
    assert "horse" not in str(caught.value)
    assert caught.value.__cause__ is None


def command(path: Path, given: bytes, *more: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "ecgmon", "password", "--out", str(path), *more],
        input=given, capture_output=True, check=False, timeout=60,
    )  # fmt: skip


def test_the_command_reads_the_password_from_standard_input_and_prints_nothing(tmp_path: Path) -> None:
    done = command(tmp_path / "file", f"{PASSWORD}\n".encode())
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert passwords.read(tmp_path / "file").matches(PASSWORD.encode())


@pytest.mark.parametrize("given", [b"", b"\n", b"\xff\xfe secret\n", b"secret" * 1000])
def test_the_command_refuses_an_invalid_password_without_printing_it(tmp_path: Path, given: bytes) -> None:
    done = command(tmp_path / "file", given)
    assert done.returncode == 1
    assert b"password" in done.stderr
    assert b"secret" not in done.stderr
    assert not os.path.lexists(tmp_path / "file")


def test_the_command_takes_no_password_as_an_argument(tmp_path: Path) -> None:
    assert command(tmp_path / "file", b"", "correct horse").returncode == 2
