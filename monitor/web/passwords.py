"""The password of the metrics' HTTP server: a file with its salted hash, never the password itself.

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
"""N, r and p of scrypt, as OWASP's cheat sheet has them for 16 MiB but for p: a check takes some 0.1 s, so
that whoever may try once a second does not cost the daemon its processor."""

LEAST: Final = 8
"""Fewest characters of a password."""

MOST: Final = 1024
"""Most bytes of a password; more is not hashed."""

_SALT: Final = 16  # bytes
_HASH: Final = 32  # bytes
_MOST_MEMORY: Final = 64 * 2**20  # bytes that a check may take, whatever the file says
_MOST_ROUNDS: Final = 4  # p: times as long


class PasswordError(Exception):
    """A password or its file cannot be used; the message never says what is in them."""


@dataclass(frozen=True, slots=True)
class Hashed:
    """A password, hashed.

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
            If it is too short, too long, or could not be typed in one line.
        """
        if len(password) < LEAST or len(password.encode("utf-8", "replace")) > MOST or not password.isprintable():
            raise PasswordError(f"expected a password of {LEAST} to {MOST} printable characters, in one line")
        salt = secrets.token_bytes(_SALT)
        return cls(*COST, salt, _scrypt(password.encode(), *COST, salt))

    def matches(self, password: bytes) -> bool:
        """Tell whether this is the password, in a time that says nothing about how near it comes."""
        return hmac.compare_digest(self.digest, _scrypt(password[:MOST], self.n, self.r, self.p, self.salt))

    def __str__(self) -> str:
        return f"scrypt${self.n}${self.r}${self.p}${self.salt.hex()}${self.digest.hex()}"


def _scrypt(password: bytes, n: int, r: int, p: int, salt: bytes) -> bytes:
    return hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, dklen=_HASH, maxmem=_MOST_MEMORY + 2**20)


def write(path: Path, password: str) -> None:
    """Write the hash of a password to a new file of mode 0600.

    Raises
    ------
    PasswordError
        If the password cannot be one, or the file exists or cannot be written.
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
        If it cannot be read, others could read it, or it holds no hash.
    """
    try:
        text = secret_files.read(path, "password file").decode("ascii").strip()
        name, n, r, p, salt, digest = text.split("$")
        hashed = Hashed(int(n), int(r), int(p), bytes.fromhex(salt), bytes.fromhex(digest))
    except SecretFileError as error:
        raise PasswordError(str(error)) from error
    except ValueError:  # of any of these; none of their messages may be shown
        raise _no_hash(path) from None
    bounded = 128 * hashed.n * hashed.r <= _MOST_MEMORY and 1 <= hashed.p <= _MOST_ROUNDS
    strong = hashed.n >= COST[0] and hashed.r >= COST[1] and not hashed.n & (hashed.n - 1)
    if name != "scrypt" or not (bounded and strong) or len(hashed.salt) < _SALT or len(hashed.digest) != _HASH:
        raise _no_hash(path)
    return hashed


def _no_hash(path: Path) -> PasswordError:
    return PasswordError(f"{path} holds no hash of a password; `ecgmon password --out FILE` makes one")
