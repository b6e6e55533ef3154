"""The client list decides which client may do what; an invalid list is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from ecgmon.monitor.process.authenticator import Authenticator, Client, read_clients
from ecgmon.pipelines.transport.keys import KeyFileError, KeyPair

if TYPE_CHECKING:
    from pathlib import Path


def pair() -> KeyPair:
    return KeyPair(*zmq.curve_keypair())


def client_list(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_names_roles_keys_and_streams_are_read(tmp_path: Path) -> None:
    one, two = pair().public.decode(), pair().public.decode()
    path = client_list(
        tmp_path / "clients", "# our wards", "", f"ward3 producer {one} ward3/* icu-1", f"gpu worker {two}"
    )
    assert read_clients(path) == {one: Client("ward3", "producer", ("ward3/*", "icu-1")), two: Client("gpu", "worker")}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ward3 producer", "expected a name"),
        ("ward3 nurse KEY ward3/*", "is not a role"),
        ("ward3 producer KEY", "needs patterns"),
        ("gpu worker KEY *", "needs patterns"),
        ("gpu worker tooshort", "40 characters"),
    ],
)
def test_the_error_names_an_invalid_line(tmp_path: Path, line: str, message: str) -> None:
    path = client_list(tmp_path / "clients", "# first", line.replace("KEY", pair().public.decode()))
    with pytest.raises(KeyFileError, match=rf"clients:2: .*{message}"):
        read_clients(path)


def test_a_key_has_one_owner(tmp_path: Path) -> None:
    key = pair().public.decode()
    path = client_list(tmp_path / "clients", f"a worker {key}", f"b producer {key} *")
    with pytest.raises(KeyFileError, match=r"clients:2: this key already belongs to a"):
        read_clients(path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"#" * (2**20 + 1)])
def test_an_unreadable_list_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "clients"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(KeyFileError, match="clients"):
        read_clients(path)


@given(ward=st.integers(0, 99), bed=st.integers(0, 99))
def test_a_producer_may_write_only_streams_that_match_its_patterns(ward: int, bed: int) -> None:
    client = Client("ward7", "producer", ("ward7/*", "hall"))
    assert client.may_write(f"ward{ward}/{bed}") == (ward == 7)
    assert client.may_write("hall")
    assert not client.may_write(f"hall{bed}")
    assert not Client("gpu", "worker").may_write(f"ward{ward}/{bed}")


def test_a_changed_list_is_read_again_and_an_invalid_one_is_ignored(tmp_path: Path) -> None:
    one, two = pair().public.decode(), pair().public.decode()
    path = client_list(tmp_path / "clients", f"a worker {one}")
    authenticator = Authenticator(pair(), path, refused=lambda _: None)
    assert authenticator.allows("worker", one)
    assert not authenticator.allows("producer", one)
    client_list(path, f"a worker {one}", f"b producer {two} *")
    authenticator.refresh()
    assert authenticator.allows("producer", two)
    client_list(path, "nonsense")
    authenticator.refresh()
    assert authenticator.allows("producer", two)
    replacement = client_list(tmp_path / "new", f"a worker {one}")
    replacement.replace(path)
    authenticator.refresh()
    assert not authenticator.allows("producer", two)
    path.unlink()
    authenticator.refresh()
    assert authenticator.allows("worker", one)
