"""Writing the store: one transaction per commit.

The store is the authority: a producer may forget an item as soon as :meth:`Store.write` has returned.  One process
writes and holds a lock on the folder; any number of processes may read meanwhile.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import sqlite3
from itertools import chain
from typing import TYPE_CHECKING, Final, Self

from ecgmon.monitor.core.commit import Entry, StreamState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ecgmon.monitor.core.alerts import Alert


from ecgmon.monitor.store.errors import StoreError, StreamChangedError, explained
from ecgmon.monitor.store.schema import FILE, MIGRATIONS, VERSION

_ROWS: Final = 64  # beats in a statement: two thirds of the time of one statement per beat
_INSERT_BEAT: Final = "INSERT INTO beats VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_BEATS: Final = _INSERT_BEAT + ", (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)" * (_ROWS - 1)
_PRUNE_MOST: Final = 10_000  # most rows of a stream that one call of prune deletes, to keep commits short


class Store:
    """The only writer of a state folder.

    Parameters
    ----------
    folder : Path
        Created with mode 0700 if it does not exist.

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
            with explained(self.path, "open"):
                self._db = self._open()
        except BaseException:
            os.close(self._lock)
            raise
        self._change = int(self._db.execute("SELECT coalesce(max(change), 0) FROM alerts").fetchone()[0])

    def _open(self) -> sqlite3.Connection:
        # created before SQLite opens it, so that it never has another mode
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
                raise StoreError(  # noqa: TRY301 - the connection is closed below
                    f"the store {self.path} has schema version {found}; this ecgmon supports up to {VERSION}: use a newer one"
                )
            for version in range(found, VERSION):
                db.executescript(f"BEGIN; {MIGRATIONS[version]}; PRAGMA user_version = {version + 1}; COMMIT")
        except BaseException:
            db.close()
            raise
        return db

    def close(self) -> None:
        """Close the file and unlock the folder."""
        self._db.close()
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def use_model(self, fingerprint: str, name: str) -> int:
        """Add a model if it is new; return the number by which beats refer to it."""
        with explained(self.path, "write"):
            self._db.execute(
                "INSERT INTO models (fingerprint, name) VALUES (?, ?) ON CONFLICT DO NOTHING", (fingerprint, name)
            )
            row = self._db.execute("SELECT id FROM models WHERE fingerprint = ?", (fingerprint,)).fetchone()
        return int(row[0])

    def open_stream(self, name: str, fs: float, leads: Sequence[str], now: int) -> StreamState:
        """Find a stream, or add it.

        Raises
        ------
        StreamChangedError
            If it is stored with another sampling frequency or other leads: the meaning of its sample
            indices would change.
        """
        with explained(self.path, "write"):
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
                f"stream {name} is stored with {state.fs:g} Hz, leads {', '.join(state.leads)}; now it has"
                f" {fs:g} Hz, {', '.join(leads)}: give it another id or use another state folder"
            )
        return state

    def remembered(self, stream: StreamState) -> list[bytes]:
        """Read the beats that a stream remembers, in any order."""
        with explained(self.path, "read"):
            rows = self._db.execute("SELECT beat FROM remembered WHERE stream = ?", (stream.id,)).fetchall()
        return [row[0] for row in rows]

    def write(self, entries: Iterable[Entry], model: int, now: int) -> None:
        """Commit entries of any number of streams in one transaction: all are safe on disk, or none.

        Parameters
        ----------
        entries : iterable of Entry
        model : int
            From :meth:`use_model`.
        now : int
            Seconds since 1970, stored with beats and alerts for retention.

        Raises
        ------
        StoreError
            If the entries could not be written; the store is unchanged, and the call may be repeated.
        """
        entries = list(entries)
        alerts = [(entry.state.id, alert) for entry in entries for alert in entry.alerts]
        with explained(self.path, "write"):
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
        """Write the entries table by table, the rows of all streams together: this takes a third of the time."""
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
        many(
            "INSERT OR REPLACE INTO remembered VALUES (?, ?, ?)",
            [(entry.state.id, place, beat) for entry in entries for place, beat in entry.remembered.items()],
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
        """Copy the commits from the write-ahead log to the file, and empty the log."""
        with explained(self.path, "write"):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def prune(self, before: int) -> int:
        """Delete beats, details and ended alerts stored before a time; return the number of beats deleted.

        One call deletes a limited number of rows of a stream, so that a commit never waits long; repeat the call.
        """
        deleted = 0
        with explained(self.path, "write"):
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
