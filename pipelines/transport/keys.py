"""CURVE keys: generate them, read them from private files, and set them on sockets.

A key file holds one secret key of 40 characters (ZeroMQ's Z85 encoding); the public key is computed
from it.  No secret appears in a representation, a log or an error message.
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
"""Name of the systemd credential that is used if no key file is configured."""


class KeyFileError(Exception):
    """A key cannot be read, generated or decoded; the message never contains the contents of the file."""


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
    """The keys that a peer needs to connect to a monitor over tcp.

    Attributes
    ----------
    own : KeyPair
    monitor : bytes
        The monitor's public key, which identifies it.
    """

    own: KeyPair
    monitor: bytes

    def secure(self, socket: zmq.Socket[bytes]) -> None:
        """Make a socket that is not connected yet use CURVE only."""
        socket.curve_publickey = self.own.public
        socket.curve_secretkey = self.own.secret
        socket.curve_serverkey = self.monitor


def generate(path: Path) -> bytes:
    """Generate a key pair, write its secret to a new file of mode 0600, and return the public key.

    Raises
    ------
    KeyFileError
        If the file exists (no key is overwritten) or cannot be written.
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
        If the file cannot be read, is readable by others, or holds no key.
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
    """Read the configured key file, or the systemd credential if none is configured.

    Raises
    ------
    KeyFileError
        If there is neither, or as in :func:`read`.
    """
    if configured:
        return read(Path(configured))
    folder = environ.get("CREDENTIALS_DIRECTORY", "")
    if folder and (credential := Path(folder) / CREDENTIAL).exists():
        return read(credential)
    raise KeyFileError(
        "tcp needs a key: make one with `ecgmon keygen FILE` and name it in [network] key_file, "
        f"or pass it as the systemd credential {CREDENTIAL}"
    )


def checked(key: bytes) -> bytes:
    """Check the form of a secret or public key, and return it.

    Raises
    ------
    KeyFileError
        If it does not have 40 characters of Z85.
    """
    valid = len(key) == LENGTH
    if valid:
        try:
            z85.decode(key)
        except (KeyError, struct.error):  # a character outside Z85, or five characters with too large a value
            valid = False
    if not valid:
        raise KeyFileError(f"this is not a key; a key has {LENGTH} characters of Z85")
    return key
