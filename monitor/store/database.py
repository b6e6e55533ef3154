"""The store: every scored beat and every alert, in SQLite.

What is in here is what happened; a producer may forget an item as soon as :meth:`Store.write` has
returned.  One process writes (it holds a lock on the folder), any number read meanwhile.  The schema
is documented in docs/store.md; :data:`MIGRATIONS` brings an older file up to date.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from ecgmon.models.score.evidence import BEATS
from ecgmon.models.windows import LENGTH
from ecgmon.monitor.core.alerts import Alert, AlertKind, Priority
from ecgmon.monitor.core.commit import Entry, StreamState
from ecgmon.pipelines.items import Quality
from ecgmon.pipelines.segmentation.rhythm import RHYTHM, around

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

FILE: Final = "ecgmon.sqlite"
"""Name of the store's file in the state folder."""

MIGRATIONS: Final = (
    # 0 -> 1: the first schema
    """
    CREATE TABLE models (
        id INTEGER PRIMARY KEY,
        fingerprint TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL
    ) STRICT;
    CREATE TABLE streams (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        fs REAL NOT NULL,
        leads TEXT NOT NULL,
        position INTEGER NOT NULL,
        beats INTEGER NOT NULL,
        seconds REAL NOT NULL,
        ended INTEGER NOT NULL,
        rules BLOB NOT NULL,
        created INTEGER NOT NULL,
        updated INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE beats (
        stream INTEGER NOT NULL REFERENCES streams,
        seq INTEGER NOT NULL,
        sample INTEGER NOT NULL,
        rr REAL,
        rr_ratio REAL,
        quality INTEGER NOT NULL,
        flags INTEGER NOT NULL,
        error REAL,
        score REAL,
        model INTEGER NOT NULL REFERENCES models,
        stored INTEGER NOT NULL,
        PRIMARY KEY (stream, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE details (
        stream INTEGER NOT NULL REFERENCES streams,
        seq INTEGER NOT NULL,
        window BLOB NOT NULL,
        ticks BLOB NOT NULL,
        PRIMARY KEY (stream, seq)
    ) STRICT;
    CREATE TABLE alerts (
        stream INTEGER NOT NULL REFERENCES streams,
        number INTEGER NOT NULL,
        kind TEXT NOT NULL,
        priority TEXT NOT NULL,
        started REAL NOT NULL,
        raised REAL NOT NULL,
        ended REAL,
        beats TEXT NOT NULL,
        message TEXT NOT NULL,
        change INTEGER NOT NULL,
        stored INTEGER NOT NULL,
        PRIMARY KEY (stream, number)
    ) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX alerts_by_change ON alerts (change);
    CREATE INDEX alerts_active ON alerts (stream) WHERE ended IS NULL;
    CREATE TABLE quality (
        stream INTEGER NOT NULL REFERENCES streams,
        second INTEGER NOT NULL,
        seconds INTEGER NOT NULL,
        quality INTEGER NOT NULL,
        PRIMARY KEY (stream, second)
    ) STRICT, WITHOUT ROWID;
    """,
    # 1 -> 2: what a stream's next beats are compared with; the streams of an older file begin without
    """
    CREATE TABLE recent (
        stream INTEGER NOT NULL REFERENCES streams,
        slot INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        beat BLOB NOT NULL,
        PRIMARY KEY (stream, slot)
    ) STRICT, WITHOUT ROWID;
    """,
)

VERSION: Final = len(MIGRATIONS)
"""Version of the schema that this program writes."""

_ROWS: Final = 64  # beats in a statement, which takes two thirds of the time that as many statements take
_INSERT_BEAT: Final = "INSERT INTO beats VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_BEATS: Final = _INSERT_BEAT + ", (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)" * (_ROWS - 1)
_BACKUP_PAGES: Final = 4096  # copied at a time: 16 MB
_PRUNE_MOST: Final = 10_000  # rows of a stream that one pass of pruning deletes, to keep commits short


class StoreError(Exception):
    """The store cannot be opened, read or written; the message says which and what to do."""


class StreamChangedError(StoreError):
    """A stream comes with another sampling frequency or other leads than it is stored with."""


@contextmanager
def _explained(path: Path, doing: str) -> Iterator[None]:
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


class Store:
    """The one writer of a state folder.

    Parameters
    ----------
    folder : Path
        Made, with mode 0700, if it does not exist.

    Raises
    ------
    StoreError
        If another process writes there, or the file is damaged, unwritable or of a newer version.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StoreError(
                f"cannot use the state folder {folder}: {error.strerror}; name another with [store] path or --state"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            if error.errno != errno.EWOULDBLOCK:
                raise StoreError(f"cannot lock the state folder {folder}: {error.strerror}") from error
            raise StoreError(
                f"the state folder {folder} is in use by another monitor; stop it or name another folder"
            ) from None
        try:
            with _explained(self.path, "open"):
                self._db = self._open()
        except BaseException:
            os.close(self._lock)
            raise
        self._change = int(self._db.execute("SELECT coalesce(max(change), 0) FROM alerts").fetchone()[0])

    def _open(self) -> sqlite3.Connection:
        # made by hand before SQLite sees it, so that it never exists with another mode
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            self.path.chmod(0o600)
        except OSError as error:
            raise StoreError(f"cannot write the store {self.path}: {error.strerror}") from error
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=1.0)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")  # in WAL mode NORMAL may lose the last commits when the power fails
            db.execute("PRAGMA foreign_keys = ON")
            found = int(db.execute("PRAGMA user_version").fetchone()[0])
            if found > VERSION:
                raise StoreError(  # noqa: TRY301 - the connection is closed below, whatever goes wrong
                    f"the store {self.path} has schema version {found}; this ecgmon knows up to {VERSION}: use a newer one"
                )
            for version in range(found, VERSION):
                db.executescript(f"BEGIN; {MIGRATIONS[version]}; PRAGMA user_version = {version + 1}; COMMIT")
        except BaseException:
            db.close()
            raise
        return db

    def close(self) -> None:
        """Close the file and give the folder free."""
        self._db.close()
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def use_model(self, fingerprint: str, name: str) -> int:
        """Enter a model if need be; returns the number under which beats refer to it."""
        with _explained(self.path, "write"):
            self._db.execute(
                "INSERT INTO models (fingerprint, name) VALUES (?, ?) ON CONFLICT DO NOTHING", (fingerprint, name)
            )
            row = self._db.execute("SELECT id FROM models WHERE fingerprint = ?", (fingerprint,)).fetchone()
        return int(row[0])

    def open_stream(self, name: str, fs: float, leads: Sequence[str], now: int) -> StreamState:
        """Find a stream, or enter it.

        Raises
        ------
        StreamChangedError
            If it is there with another sampling frequency or other leads: its sample indices would
            mean something else from here on.
        """
        with _explained(self.path, "write"):
            self._db.execute(
                "INSERT INTO streams (name, fs, leads, position, beats, seconds, ended, rules, created, updated)"
                " VALUES (?, ?, ?, 0, 0, 0, 0, x'', ?, ?) ON CONFLICT DO NOTHING",
                (name, fs, json.dumps(list(leads)), now, now),
            )
            row = self._db.execute(
                "SELECT id, fs, leads, position, beats, seconds, ended, rules FROM streams WHERE name = ?", (name,)
            ).fetchone()
            run = self._db.execute(
                "SELECT second, seconds, quality FROM quality WHERE stream = ? ORDER BY second DESC LIMIT 1", (row[0],)
            ).fetchone()
        state = StreamState(
            row[0], name, row[1], tuple(json.loads(row[2])), row[3], row[4], row[5], bool(row[6]), row[7], run
        )
        if not state.same(fs, leads):
            raise StreamChangedError(
                f"stream {name} is stored with {state.fs:g} Hz, leads {', '.join(state.leads)}; now it comes with"
                f" {fs:g} Hz, {', '.join(leads)}: give it another id or use another state folder"
            )
        return state

    def recent(self, stream: StreamState) -> list[bytes]:
        """Look up what is remembered of a stream's last beats, oldest first."""
        with _explained(self.path, "read"):
            rows = self._db.execute("SELECT beat FROM recent WHERE stream = ? ORDER BY seq", (stream.id,)).fetchall()
        return [row[0] for row in rows]

    def write(self, entries: Iterable[Entry], model: int, now: int) -> None:
        """Commit entries of any number of streams together: all of it is safe on disk, or none is there.

        Parameters
        ----------
        entries : iterable of Entry
        model : int
            From :meth:`use_model`.
        now : int
            Seconds since 1970, kept with beats and alerts for retention.

        Raises
        ------
        StoreError
            If it could not be written; the store is as before and may be tried again.
        """
        entries = list(entries)
        alerts = [(entry.state.id, alert) for entry in entries for alert in entry.alerts]
        with _explained(self.path, "write"):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._write(entries, model, now)
                self._write_alerts(alerts, now)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        self._change += len(alerts)

    def _write(self, entries: Sequence[Entry], model: int, now: int) -> None:
        """Write what every entry has; the rows of all streams go into a table together, which takes a third of the time."""
        many = self._db.executemany
        beats = [(entry.state.id, *beat, model, now) for entry in entries for beat in entry.beats]
        whole = len(beats) - len(beats) % _ROWS
        for first in range(0, whole, _ROWS):
            self._db.execute(_INSERT_BEATS, list(chain.from_iterable(beats[first : first + _ROWS])))
        many(_INSERT_BEAT, beats[whole:])
        many(
            "INSERT INTO details VALUES (?, ?, ?, ?)",
            [
                (entry.state.id, seq, window.tobytes(), ticks.tobytes())
                for entry in entries
                for seq, window, ticks in entry.details
            ],
        )
        many(  # a ring of slots: the oldest is written over
            "INSERT OR REPLACE INTO recent VALUES (?, ?, ?, ?)",
            [
                (entry.state.id, seq % BEATS, seq, beat)
                for entry in entries
                for seq, beat in enumerate(entry.recent, entry.state.beats - len(entry.recent))
            ],
        )
        many(
            "INSERT INTO quality VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET seconds = excluded.seconds",
            [(entry.state.id, *run) for entry in entries for run in entry.runs],
        )
        many(
            "UPDATE streams SET position = ?, beats = ?, seconds = ?, ended = ?, rules = ?, updated = ? WHERE id = ?",
            [
                (state.position, state.beats, state.seconds, state.ended, state.rules, now, state.id)
                for state in (entry.state for entry in entries)
            ],
        )

    def _write_alerts(self, alerts: Sequence[tuple[int, Alert]], now: int) -> None:
        self._db.executemany(
            "INSERT INTO alerts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (stream, number)"
            " DO UPDATE SET ended = excluded.ended, change = excluded.change",
            [
                (
                    stream, alert.number, alert.kind.value, alert.priority.value, alert.start, alert.raised,
                    alert.end, json.dumps(list(alert.beats)), alert.message, change, now,
                )
                for change, (stream, alert) in enumerate(alerts, self._change + 1)
            ],
        )  # fmt: skip

    def checkpoint(self) -> None:
        """Bring what has been committed from the write-ahead log into the file itself, and empty the log."""
        with _explained(self.path, "write"):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def prune(self, before: int) -> int:
        """Delete beats, details and ended alerts stored before a time; returns the beats deleted.

        At most some thousands of a stream at once, so that a commit never waits long; call it again.
        """
        deleted = 0
        with _explained(self.path, "write"):
            for (stream,) in self._db.execute("SELECT id FROM streams").fetchall():
                rows = self._db.execute(
                    "SELECT seq, stored FROM beats WHERE stream = ? ORDER BY seq LIMIT ?", (stream, _PRUNE_MOST)
                ).fetchall()
                old = [seq for seq, stored in rows if stored < before]
                if not old:
                    continue
                self._db.execute("BEGIN IMMEDIATE")
                self._db.execute("DELETE FROM beats WHERE stream = ? AND seq <= ?", (stream, old[-1]))
                self._db.execute("DELETE FROM details WHERE stream = ? AND seq <= ?", (stream, old[-1]))
                self._db.execute(
                    "DELETE FROM alerts WHERE stream = ? AND ended IS NOT NULL AND stored < ?", (stream, before)
                )
                self._db.execute("COMMIT")
                deleted += len(old)
        return deleted


# ---- reading


@dataclass(frozen=True, slots=True)
class StoredStream:
    """A stream as the store has it."""

    name: str
    fs: float
    leads: tuple[str, ...]
    position: int
    beats: int
    seconds: float
    ended: bool
    updated: int
    alerts: int
    active: int


@dataclass(frozen=True, slots=True)
class StoredAlert:
    """An alert as the store has it; ``change`` grows with every raising and clearing of any alert."""

    stream: str
    alert: Alert
    change: int


class Reader:
    """Reads a store, also while a monitor writes it or after it has gone.

    Raises
    ------
    StoreError
        If there is no store in the folder, or it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        if not self.path.is_file():
            raise StoreError(f"there is no store in {folder}; name the state folder with --state")
        with _explained(self.path, "read"):
            self._db = sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True, timeout=5.0)
            version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if version != VERSION:
            raise StoreError(
                f"the store {self.path} has schema version {version}, expected {VERSION};"
                " a monitor of this version brings it up to date when it starts"
            )

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rows(self, sql: str, *values: object) -> list[Any]:
        with _explained(self.path, "read"), closing(self._db.execute(sql, values)) as cursor:
            return cursor.fetchall()

    def backup(self, file: Path, progress: Callable[[float], None] = lambda _: None) -> int:
        """Copy the store as it is now to a new file of mode 0600, while a monitor may go on writing it.

        Parameters
        ----------
        file : Path
            Must not exist.
        progress : callable
            Gets the share that is done.

        Returns
        -------
        int
            Beats in the copy.

        Raises
        ------
        StoreError
            If the file cannot be written, or the copy is not sound; then there is none.
        """
        try:
            os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise StoreError(f"cannot write the backup {file}: {error.strerror}") from error
        try:
            with _explained(file, "write the backup of"), closing(sqlite3.connect(file)) as copy:
                self._db.backup(
                    copy, pages=_BACKUP_PAGES, progress=lambda _, left, of: progress(1 - left / of if of else 1.0)
                )
                copy.execute("PRAGMA journal_mode = DELETE")  # one file, whole
                found = copy.execute("PRAGMA quick_check").fetchone()[0]
                if found != "ok":
                    raise StoreError(f"the backup {file} is not sound: {found}")  # noqa: TRY301 - it is removed below
                return int(copy.execute("SELECT coalesce(sum(beats), 0) FROM streams").fetchone()[0])
        except BaseException:
            file.unlink(missing_ok=True)
            raise

    def streams(self) -> list[StoredStream]:
        """All streams, by name."""
        rows = self._rows(
            "SELECT name, fs, leads, position, beats, seconds, ended, updated,"
            " (SELECT count(*) FROM alerts WHERE stream = streams.id),"
            " (SELECT count(*) FROM alerts WHERE stream = streams.id AND ended IS NULL)"
            " FROM streams ORDER BY name"
        )
        return [StoredStream(r[0], r[1], tuple(json.loads(r[2])), r[3], r[4], r[5], bool(r[6]), *r[7:]) for r in rows]

    def alerts(self, *, since: int = 0, stream: str | None = None) -> list[StoredAlert]:
        """Alerts that were raised or cleared after change number ``since``, in that order."""
        rows = self._rows(
            "SELECT name, number, kind, priority, started, raised, alerts.ended, alerts.beats, message, change"
            " FROM alerts JOIN streams ON streams.id = alerts.stream"
            " WHERE change > ? AND (? IS NULL OR name = ?) ORDER BY change",
            since, stream, stream,
        )  # fmt: skip
        return [
            StoredAlert(
                r[0],
                Alert(
                    number=r[1], kind=AlertKind(r[2]), priority=Priority(r[3]), start=r[4], raised=r[5], end=r[6],
                    beats=tuple(json.loads(r[7])), message=r[8],
                ),
                r[9],
            )
            for r in rows
        ]  # fmt: skip

    def beats(self, stream: str, *, first: int = 0, most: int = -1) -> NDArray[np.void]:
        """Beats of a stream from seq ``first`` on, at most ``most`` if that is not negative.

        Returns
        -------
        structured ndarray, shape (n,)
            Fields seq, sample, seconds (of the R peak in stream time), rr (s), rr_ratio, rr_after (s),
            rr_after_ratio, rate (beats/min), quality, flags, error (A(x)), score; NaN where a value is not
            known.  The three after ``rr_ratio`` are not stored but follow from the beats around
            (:mod:`ecgmon.pipelines.segmentation.rhythm`); the newest beat of a stream has no ``rr_after`` yet.
        """
        rows = self._rows(
            "SELECT seq, sample, sample / fs, rr, rr_ratio, quality, flags, error, score"
            " FROM beats JOIN streams ON streams.id = beats.stream"
            " WHERE name = ? AND seq >= ? ORDER BY seq LIMIT ?",
            stream, first, most + 1 if most >= 0 else most,  # one more knows the last one's rr_after
        )  # fmt: skip
        known = np.array([tuple(np.nan if v is None else v for v in row) for row in rows], dtype=_STORED_BEAT)
        beats = np.empty(len(known), BEAT)
        for name in _STORED_BEAT.names or ():
            beats[name] = known[name]
        rhythm = around(known["seconds"], known["rr"], known["rr_ratio"])
        for name in RHYTHM.names or ():
            beats[name] = rhythm[name]
        return beats[:most] if most >= 0 else beats

    def detail(self, stream: str, seq: int) -> tuple[NDArray[np.float32], NDArray[np.float16]] | None:
        """Window (leads, 320) in mV and squared difference per tick (320,) of a beat, if they were kept."""
        rows = self._rows(
            "SELECT window, ticks FROM details JOIN streams ON streams.id = stream WHERE name = ? AND seq = ?",
            stream, seq,
        )  # fmt: skip
        if not rows:
            return None
        return (
            np.frombuffer(rows[0][0], "<f4").reshape(-1, LENGTH),
            np.frombuffer(rows[0][1], "<f2"),
        )

    def quality(self, stream: str) -> list[tuple[int, int, Quality]]:
        """Stretches (first second, seconds, quality) of a stream, in order."""
        rows = self._rows(
            "SELECT second, quality.seconds, quality FROM quality JOIN streams ON streams.id = stream"
            " WHERE name = ? ORDER BY second",
            stream,
        )
        return [(second, seconds, Quality(quality)) for second, seconds, quality in rows]


_STORED_BEAT: Final = np.dtype(
    [
        ("seq", "i8"), ("sample", "i8"), ("seconds", "f8"), ("rr", "f8"), ("rr_ratio", "f8"),
        ("quality", "u1"), ("flags", "u2"), ("error", "f8"), ("score", "f8"),
    ]
)  # fmt: skip

BEAT: Final = np.dtype(
    [
        ("seq", "i8"), ("sample", "i8"), ("seconds", "f8"), ("rr", "f8"), ("rr_ratio", "f8"),
        ("rr_after", "f8"), ("rr_after_ratio", "f8"), ("rate", "f8"),
        ("quality", "u1"), ("flags", "u2"), ("error", "f8"), ("score", "f8"),
    ]
)  # fmt: skip
"""A row of :meth:`Reader.beats`."""
