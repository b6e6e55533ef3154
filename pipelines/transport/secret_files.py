"""Files that hold a secret: written for the owner only, and read only if no other user can read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

_MOST: Final = 4096
"""Most bytes that are read from a file."""


class SecretFileError(Exception):
    """A file cannot be used for a secret; the message never contains its contents."""


def write(path: Path, secret: bytes, what: str) -> None:
    """Write a secret to a new file of mode 0600; it is synced to disk before this returns.

    Parameters
    ----------
    path : Path
    secret : bytes
    what : str
        What to call the file in messages.

    Raises
    ------
    SecretFileError
        If the file exists (no secret is overwritten) or cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
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
        The mode of a systemd credential is not checked: its folder is private, and its access list looks like group access.
    what : str
        What to call the file in messages.

    Returns
    -------
    bytes
        At most 4096 bytes.

    Raises
    ------
    SecretFileError
        If it cannot be read, is not a regular file, belongs to another user, or is readable by group or others.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # do not wait for a named pipe
    except OSError as error:
        raise SecretFileError(f"cannot read the {what} {path}: {error.strerror}") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise SecretFileError(f"the {what} {path} is not a regular file")
        credentials = os.environ.get("CREDENTIALS_DIRECTORY")
        if credentials and path.parent == Path(credentials):
            return os.read(descriptor, _MOST)
        if found.st_uid not in (os.geteuid(), 0):
            raise SecretFileError(f"the {what} {path} belongs to user {found.st_uid}, not to {os.geteuid()} or root")
        if found.st_mode & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            raise SecretFileError(f"the {what} {path} has mode {mode:04o}; others may read it: chmod 0600")
        return os.read(descriptor, _MOST)
    finally:
        os.close(descriptor)
