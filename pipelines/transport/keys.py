"""CURVE keys: making them, reading them from files that nobody else can read, and handing them to sockets.

A key pair is one secret of 40 characters (Z85, as ZeroMQ writes it) in a file of its own; the public
half is computed from it.  No secret appears in a representation, a log or an error message.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import zmq
from zmq.utils import z85

from ecgmon.pipelines.transport import secret_files
from ecgmon.pipelines.transport.secret_files import SecretFileError

if TYPE_CHECKING:
    from collections.abc import Mapping

LENGTH: Final = 40
"""Characters of a key, secret or public."""

CREDENTIAL: Final = "ecgmon.key"
"""Name of the systemd credential that is taken where no key file is configured."""


class KeyFileError(Exception):
    """A key cannot be read, made or understood; the message never says what was in the file."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A CURVE key pair.

    Attributes
    ----------
    public, secret : bytes
        40 characters each.
    """

    public: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ConnectionKeys:
    """What a peer needs to speak with a monitor over tcp.

    Attributes
    ----------
    own : KeyPair
    monitor : bytes
        The monitor's public key, by which it is known.
    """

    own: KeyPair
    monitor: bytes

    def secure(self, socket: zmq.Socket[bytes]) -> None:
        """Have a socket that is not connected yet speak CURVE only."""
        socket.curve_publickey = self.own.public
        socket.curve_secretkey = self.own.secret
        socket.curve_serverkey = self.monitor


def generate(path: Path) -> bytes:
    """Make a key pair, write its secret to a new file of mode 0600, and return the public key.

    Raises
    ------
    KeyFileError
        If the file exists, so that no key is lost, or cannot be written.
    """
    public, secret = zmq.curve_keypair()
    try:
        secret_files.write(path, secret + b"\n", "key file")
    except SecretFileError as error:
        raise KeyFileError(str(error)) from error
    return public


def read(path: Path) -> KeyPair:
    """Read a key pair from the file of its secret.

    Raises
    ------
    KeyFileError
        If it cannot be read, others could read it, or it holds no key.
    """
    try:
        secret = secret_files.read(path, "key file").strip()
    except SecretFileError as error:
        raise KeyFileError(str(error)) from error
    try:
        return KeyPair(zmq.curve_public(checked(secret)), secret)
    except (KeyFileError, zmq.ZMQError):
        raise KeyFileError(f"{path} holds no key; `ecgmon keygen` makes one") from None


def find(configured: str, environ: Mapping[str, str]) -> KeyPair:
    """Read the key pair that a configuration names, or the systemd credential where it names none.

    Raises
    ------
    KeyFileError
        If there is neither, or as :func:`read`.
    """
    if configured:
        return read(Path(configured))
    folder = environ.get("CREDENTIALS_DIRECTORY", "")
    if folder and (credential := Path(folder) / CREDENTIAL).exists():
        return read(credential)
    raise KeyFileError(
        "tcp needs a key: make one with `ecgmon keygen FILE` and name it in [network] key_file, "
        f"or hand it over as the systemd credential {CREDENTIAL}"
    )


def checked(key: bytes) -> bytes:
    """Return a key, secret or public, if it looks like one.

    Raises
    ------
    KeyFileError
        If it has not 40 characters, or others than Z85's.
    """
    valid = len(key) == LENGTH
    if valid:
        try:
            z85.decode(key)
        except (KeyError, struct.error):  # a character that is none of Z85's, or five that stand for too large a number
            valid = False
    if not valid:
        raise KeyFileError(f"a key has {LENGTH} characters of Z85; this has not")
    return key
