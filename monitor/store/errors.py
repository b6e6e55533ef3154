"""What can be wrong with a store."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class StoreError(Exception):
    """The store cannot be opened, read or written; the message says which and what to do."""

    __module__ = "ecgmon.errors"


class StreamChangedError(StoreError):
    """A stream comes with another sampling frequency or other leads than it is stored with."""


@contextmanager
def explained(path: Path, doing: str) -> Iterator[None]:
    """Turn SQLite's errors into a :class:`StoreError` that says what was being done."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "") or ""
        advice = {
            "SQLITE_FULL": "the disk is full; make room, nothing stored is lost",
            "SQLITE_READONLY": "it cannot be written; check its owner, mode and mount",
            "SQLITE_CANTOPEN": "check that the folder exists and may be entered",
            "SQLITE_BUSY": "another program holds it locked",
            "SQLITE_NOTADB": "it is not an SQLite file; move it away to start anew",
            "SQLITE_CORRUPT": "it is damaged; move it away, or restore a backup",
        }
        hint = next((text for key, text in advice.items() if name.startswith(key)), str(error))
        raise StoreError(f"cannot {doing} the store {path}: {hint}") from error
