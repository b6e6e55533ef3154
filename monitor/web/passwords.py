"""The password file of the metrics' HTTP server, which holds a salted hash of the password.

The file holds one line, ``scrypt$N$r$p$SALT$HASH``: the cost parameters of RFC 7914 as decimal numbers, salt
and hash in hexadecimal.  The hash is scrypt of the password in UTF-8.  `ecgmon password --out FILE` writes it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ecgmon.pipelines.transport import secret_files
from ecgmon.pipelines.transport.secret_files import SecretFileError

if TYPE_CHECKING:
    from pathlib import Path

COST: Final = (2**14, 8, 1)
"""N, r and p of scrypt: those of OWASP's cheat sheet for 16 MiB, but with a smaller p.  A check takes about
0.1 s, so one check per second leaves the daemon enough of its processor."""

MIN_CHARACTERS: Final = 8
"""Minimum length of a password in characters."""

MAX_BYTES: Final = 1024
"""Maximum length of a password in bytes; further bytes are not hashed."""

_SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32
_MAX_MEMORY: Final = 64 * 2**20  # bytes for a check; a file that asks for more is refused
_MAX_P: Final = 4  # largest p; the time of a check is proportional to it


class PasswordError(Exception):
    """A password or its file cannot be used; the message never contains a password or a hash."""


@dataclass(frozen=True, slots=True)
class Hashed:
    """The hash of a password.

    Attributes
    ----------
    n, r, p : int
        Cost parameters of scrypt.
    salt, digest : bytes
    """

    n: int
    r: int
    p: int
    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)

    @classmethod
    def of(cls, password: str) -> Hashed:
        """Hash a password with a new salt.

        Raises
        ------
        PasswordError
            If it is too short or too long, or has characters that are not printable.
        """
        if (
            len(password) < MIN_CHARACTERS
            or len(password.encode("utf-8", "replace")) > MAX_BYTES
            or not password.isprintable()
        ):
            raise PasswordError(
                f"expected a password of {MIN_CHARACTERS} to {MAX_BYTES} printable characters, in one line"
            )
        salt = secrets.token_bytes(_SALT_BYTES)
        return cls(*COST, salt, _scrypt(password.encode(), *COST, salt))

    def matches(self, password: bytes) -> bool:
        """Return whether this is the password; the time does not depend on how similar it is."""
        return hmac.compare_digest(self.digest, _scrypt(password[:MAX_BYTES], self.n, self.r, self.p, self.salt))

    def __str__(self) -> str:
        return f"scrypt${self.n}${self.r}${self.p}${self.salt.hex()}${self.digest.hex()}"


def _scrypt(password: bytes, n: int, r: int, p: int, salt: bytes) -> bytes:
    return hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, dklen=_HASH_BYTES, maxmem=_MAX_MEMORY + 2**20)


def write(path: Path, password: str) -> None:
    """Write the hash of a password to a new file of mode 0600.

    Raises
    ------
    PasswordError
        If the password is not allowed, or the file exists or cannot be written.
    """
    line = f"{Hashed.of(password)}\n".encode()
    try:
        secret_files.write(path, line, "password file")
    except SecretFileError as error:
        raise PasswordError(str(error)) from error


def read(path: Path) -> Hashed:
    """Read a hash that :func:`write` wrote.

    Raises
    ------
    PasswordError
        If it cannot be read, other users can read it, or it holds no hash.
    """
    try:
        text = secret_files.read(path, "password file").decode("ascii").strip()
        name, n, r, p, salt, digest = text.split("$")
        hashed = Hashed(int(n), int(r), int(p), bytes.fromhex(salt), bytes.fromhex(digest))
    except SecretFileError as error:
        raise PasswordError(str(error)) from error
    except ValueError:  # from any line above; its message could show a part of the file
        raise _no_hash(path) from None
    bounded = 128 * hashed.n * hashed.r <= _MAX_MEMORY and 1 <= hashed.p <= _MAX_P
    strong = hashed.n >= COST[0] and hashed.r >= COST[1] and not hashed.n & (hashed.n - 1)
    if (
        name != "scrypt"
        or not (bounded and strong)
        or len(hashed.salt) < _SALT_BYTES
        or len(hashed.digest) != _HASH_BYTES
    ):
        raise _no_hash(path)
    return hashed


def _no_hash(path: Path) -> PasswordError:
    return PasswordError(f"{path} holds no hash of a password; `ecgmon password --out FILE` makes one")
