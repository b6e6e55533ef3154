"""Reading the store, also while a monitor writes it."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from ecgmon.models.windows import LENGTH
from ecgmon.monitor.core.alerts import Alert, AlertKind, Priority
from ecgmon.pipelines.items import Quality
from ecgmon.pipelines.segmentation.rhythm import RHYTHM, around

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

from ecgmon.monitor.store.errors import StoreError, explained
from ecgmon.monitor.store.schema import FILE, VERSION

_BACKUP_PAGES: Final = 4096  # copied at a time: 16 MB


@dataclass(frozen=True, slots=True)
class StoredStream:
    """A stream, as stored."""

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
    """An alert, as stored; ``change`` increases whenever any alert is raised or cleared."""

    stream: str
    alert: Alert
    change: int


class Reader:
    """Reads a store, with or without a monitor that writes it.

    Raises
    ------
    StoreError
        If there is no store in the folder, or it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        if not self.path.is_file():
            raise StoreError(f"there is no store in {folder}; name the state folder with --state")
        with explained(self.path, "read"):
            self._db = sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True, timeout=5.0)
            version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if version != VERSION:
            raise StoreError(
                f"the store {self.path} has schema version {version}, expected {VERSION};"
                " a monitor of this version upgrades it when it starts"
            )

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rows(self, sql: str, *values: object) -> list[Any]:
        with explained(self.path, "read"), closing(self._db.execute(sql, values)) as cursor:
            return cursor.fetchall()

    def backup(self, file: Path, progress: Callable[[float], None] = lambda _: None) -> int:
        """Copy the store to a new file of mode 0600; a monitor may write the store meanwhile.

        Parameters
        ----------
        file : Path
            Must not exist.
        progress : callable
            Called with the share that is done, from 0 to 1.

        Returns
        -------
        int
            Beats in the copy.

        Raises
        ------
        StoreError
            If the file cannot be written, or the copy is damaged; a failed copy is removed.
        """
        try:
            os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise StoreError(f"cannot write the backup {file}: {error.strerror}") from error
        try:
            with explained(file, "write the backup of"), closing(sqlite3.connect(file)) as copy:
                self._db.backup(
                    copy, pages=_BACKUP_PAGES, progress=lambda _, left, of: progress(1 - left / of if of else 1.0)
                )
                copy.execute("PRAGMA journal_mode = DELETE")  # a single file without a write-ahead log
                found = copy.execute("PRAGMA quick_check").fetchone()[0]
                if found != "ok":
                    raise StoreError(f"the backup {file} is damaged: {found}")  # noqa: TRY301 - it is removed below
                return int(copy.execute("SELECT coalesce(sum(beats), 0) FROM streams").fetchone()[0])
        except BaseException:
            file.unlink(missing_ok=True)
            raise

    def streams(self) -> list[StoredStream]:
        """List all streams, sorted by name."""
        rows = self._rows(
            "SELECT name, fs, leads, position, beats, seconds, ended, updated,"
            " (SELECT count(*) FROM alerts WHERE stream = streams.id),"
            " (SELECT count(*) FROM alerts WHERE stream = streams.id AND ended IS NULL)"
            " FROM streams ORDER BY name"
        )
        return [StoredStream(r[0], r[1], tuple(json.loads(r[2])), r[3], r[4], r[5], bool(r[6]), *r[7:]) for r in rows]

    def alerts(self, *, since: int = 0, stream: str | None = None) -> list[StoredAlert]:
        """List the alerts raised or cleared after change number ``since``, in the order of their changes."""
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
        """Read the beats of a stream from seq ``first`` on, at most ``most`` unless that is negative.

        Returns
        -------
        structured ndarray, shape (n,)
            Fields seq, sample, seconds (of the R peak in stream time), rr (s), rr_ratio, rr_after (s),
            rr_after_ratio, rate (beats/min), quality, flags, error (A(x)), score; NaN for an unknown
            value.  The three after ``rr_ratio`` are not stored; they are computed from the neighbouring beats
            (:mod:`ecgmon.pipelines.segmentation.rhythm`); the newest beat of a stream has no ``rr_after`` yet.
        """
        rows = self._rows(
            "SELECT seq, sample, sample / fs, rr, rr_ratio, quality, flags, error, score"
            " FROM beats JOIN streams ON streams.id = beats.stream"
            " WHERE name = ? AND seq >= ? ORDER BY seq LIMIT ?",
            stream, first, most + 1 if most >= 0 else most,  # one more beat, for the last one's rr_after
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
        """Read a beat's window (leads, 320) in mV and squared difference per tick (320,); None if not kept."""
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
        """List the runs (first second, seconds, quality) of a stream's signal quality, in order."""
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
