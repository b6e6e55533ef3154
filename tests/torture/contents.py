"""Reads the rows of a store with SQLite, not with our own reader, and compares two stores."""

from __future__ import annotations

import shutil
import sqlite3
import struct
import tempfile
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ecgmon.monitor.store import FILE, VERSION

Key = tuple[Any, ...]
Rows = dict[Key, tuple[Any, ...]]

# Without ids, time stamps and `change`, which numbers the alerts of all streams in the order of their commits.
# The number is how many of the first columns identify a row.
_TABLES: Final = {
    "streams": (1, "SELECT name, fs, leads, position, beats, seconds, ended, rules FROM streams s"),
    "beats": (
        2,
        """SELECT s.name, seq, sample, rr, rr_ratio, quality, flags, error, score, m.fingerprint FROM beats b
        JOIN streams s ON s.id = b.stream JOIN models m ON m.id = b.model""",
    ),
    "details": (2, "SELECT s.name, seq, window, ticks FROM details d JOIN streams s ON s.id = d.stream"),
    "alerts": (
        2,
        """SELECT s.name, number, kind, priority, started, raised, a.ended, a.beats, message FROM alerts a
        JOIN streams s ON s.id = a.stream""",
    ),
    "quality": (2, "SELECT s.name, second, q.seconds, quality FROM quality q JOIN streams s ON s.id = q.stream"),
    "remembered": (2, "SELECT s.name, place, beat FROM remembered r JOIN streams s ON s.id = r.stream"),
}

_WAL_HEADER: Final = 32  # bytes, from https://www.sqlite.org/fileformat.html#the_write_ahead_log
_FRAME_HEADER: Final = 24


def contents(state: Path) -> dict[str, Rows]:
    """Read every row, without the columns that depend on the run.

    Returns
    -------
    dict of str to dict
        By table: the other columns of each row, by the columns that identify it, the stream's name first.

    Raises
    ------
    sqlite3.Error
        If the file cannot be read, or its own check finds it damaged.
    """
    tables: dict[str, Rows] = {}
    with closing(sqlite3.connect(f"{(state / FILE).resolve().as_uri()}?mode=ro", uri=True, timeout=5.0)) as db:
        (sound,) = db.execute("PRAGMA integrity_check").fetchone()
        if sound != "ok":
            raise sqlite3.DatabaseError(f"{state / FILE} is damaged: {sound}")
        for table, (named, sql) in _TABLES.items():
            tables[table] = {row[:named]: row[named:] for row in db.execute(sql)}
    return tables


@dataclass(slots=True)
class Difference:
    """How a store differs from the one that it should equal.

    Attributes
    ----------
    lost : int
        Missing beats.
    duplicate : int
        Extra beats, and beats whose R peak is stored twice.
    differing : int
        Rows of any table with other values, and missing or extra rows of the tables other than ``beats``.
    examples : list of str
        The first of each kind, in words.
    """

    lost: int = 0
    duplicate: int = 0
    differing: int = 0
    examples: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether the stores differ."""
        return bool(self.lost or self.duplicate or self.differing)


def compare(got: dict[str, Rows], expected: dict[str, Rows]) -> Difference:
    """Compare two stores, row for row."""
    found = Difference()
    for table in _TABLES:
        mine, theirs = got[table], expected[table]
        missing, extra = theirs.keys() - mine.keys(), mine.keys() - theirs.keys()
        changed = {key for key in mine.keys() & theirs.keys() if mine[key] != theirs[key]}
        if table == "beats":
            found.lost += len(missing)
            found.duplicate += len(extra)
            peaks = Counter((key[0], row[0]) for key, row in mine.items())
            again = sum(times - 1 for times in peaks.values())
            found.duplicate += max(0, again - len(extra))  # an extra beat at a known R peak counts once
        else:
            found.differing += len(missing) + len(extra)
        found.differing += len(changed)
        for what, keys in (("missing", missing), ("too many", extra), ("other values", changed)):
            if keys:
                found.examples.append(f"{table}: {what}: {len(keys)}, the first {min(keys)}")
    return found


def numbered(got: dict[str, Rows]) -> list[str]:
    """Report streams whose beats are not numbered 0..n-1, each once, where n is the stream's own count."""
    seqs: dict[str, list[int]] = {name: [] for (name,) in got["streams"]}
    for name, seq in got["beats"]:
        seqs[name].append(seq)
    return [
        f"{name}: its {len(seqs[name])} beats are not numbered 0 to {row[3] - 1}"
        for (name,), row in got["streams"].items()
        if sorted(seqs[name]) != list(range(row[3]))
    ]


def left_behind(state: Path) -> dict[str, Rows]:
    """Read a copy of the store of a killed monitor: the next monitor must recover the file itself."""
    with tempfile.TemporaryDirectory() as folder:
        for name in (FILE, f"{FILE}-wal"):
            if (state / name).exists():
                shutil.copyfile(state / name, Path(folder) / name)
        with closing(sqlite3.connect(Path(folder) / FILE)) as db:
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()  # recovers the copy
            if db.execute("PRAGMA user_version").fetchone()[0] < VERSION:
                return {table: {} for table in _TABLES}  # killed before the schema was created
        return contents(Path(folder))


def half_written(state: Path) -> bool:
    """Whether the log ends with frames of a commit that the killed monitor did not complete."""
    try:
        log = (state / f"{FILE}-wal").read_bytes()
    except FileNotFoundError:
        return False
    if len(log) < _WAL_HEADER:
        return False
    page, salts = struct.unpack_from(">I", log, 8)[0], log[16:24]
    step, at, committed = _FRAME_HEADER + page, _WAL_HEADER, True
    while at + step <= len(log) and log[at + 8 : at + 16] == salts:  # older frames have other salts
        committed = struct.unpack_from(">I", log, at + 4)[0] != 0
        at += step
    return not committed
