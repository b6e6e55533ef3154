"""Files that hold a secret: made for us alone, and read only if nobody else can read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

_MOST: Final = 4096
"""Bytes of a file that are looked at."""


class SecretFileError(Exception):
    """A file cannot be used for a secret; the message never says what is in it."""


def write(path: Path, secret: bytes, what: str) -> None:
    """Write a secret to a new file of mode 0600, safe on disk when this returns.

    Parameters
    ----------
    path : Path
    secret : bytes
    what : str
        What to call the file in messages.

    Raises
    ------
    SecretFileError
        If the file exists, so that no secret is lost, or cannot be written.
    """
    try:
        made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(made, "wb") as file:
            file.write(secret)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise SecretFileError(f"{path} exists and is never overwritten: choose another name or move it away") from None
    except OSError as error:
        raise SecretFileError(f"cannot write the {what} {path}: {error.strerror}") from error


def read(path: Path, what: str) -> bytes:
    """Read a secret.

    Parameters
    ----------
    path : Path
        A systemd credential need not have the mode: its folder is ours alone, and an access list shows as one.
    what : str
        What to call the file in messages.

    Returns
    -------
    bytes
        At most 4096.

    Raises
    ------
    SecretFileError
        If it cannot be read, is not a regular file, belongs to somebody else, or is open to group or others.
    """
    try:
        opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # would else wait for a named pipe
    except OSError as error:
        raise SecretFileError(f"cannot read the {what} {path}: {error.strerror}") from error
    try:
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode):
            raise SecretFileError(f"the {what} {path} is not a regular file")
        credentials = os.environ.get("CREDENTIALS_DIRECTORY")
        if credentials and path.parent == Path(credentials):
            return os.read(opened, _MOST)
        if found.st_uid not in (os.geteuid(), 0):
            raise SecretFileError(f"the {what} {path} belongs to user {found.st_uid}, not to {os.geteuid()} or root")
        if found.st_mode & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            raise SecretFileError(f"the {what} {path} has mode {mode:04o}; others may read it: chmod 0600")
        return os.read(opened, _MOST)
    finally:
        os.close(opened)
