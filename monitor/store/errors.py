"""Errors of the store."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class StoreError(Exception):
    """The store cannot be opened, read or written; the message says why and what to do."""

    __module__ = "ecgmon.errors"


class StreamChangedError(StoreError):
    """A stream has another sampling frequency or other leads than those stored for it."""


@contextmanager
def explained(path: Path, operation: str) -> Iterator[None]:
    """Turn SQLite's errors into a :class:`StoreError` that names the operation."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "") or ""
        advice = {
            "SQLITE_FULL": "the disk is full; free some space, no stored data is lost",
            "SQLITE_READONLY": "it is read-only; check its owner, mode and mount",
            "SQLITE_CANTOPEN": "check that the folder exists and is accessible",
            "SQLITE_BUSY": "another program holds it locked",
            "SQLITE_NOTADB": "it is not an SQLite file; move it away to start with an empty store",
            "SQLITE_CORRUPT": "it is damaged; move it away, or restore a backup",
        }
        hint = next((text for key, text in advice.items() if name.startswith(key)), str(error))
        raise StoreError(f"cannot {operation} the store {path}: {hint}") from error
