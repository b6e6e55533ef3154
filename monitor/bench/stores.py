"""``ecgmon bench store``: time to write beats, their size on disk, and time of queries to a large store."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ecgmon.models.features import BEATS
from ecgmon.monitor.bench.stages import disk_bytes_per_second
from ecgmon.monitor.core.alerts import Alert, AlertKind, Priority
from ecgmon.monitor.core.commit import Entry, StoredBeat, StreamState
from ecgmon.monitor.store import FILE, Reader, Store

if TYPE_CHECKING:
    from collections.abc import Callable

_BEATS: Final = 100_000
_STREAMS: Final = 100
_COMMITS: Final = (10, 100, 1000, 10_000)  # beats in a commit
_LARGE_STREAMS: Final = 1000
_ALERT_EVERY: Final = 1000  # beats
_COPIED: Final = 1_000_000  # rows of a statement that fills the large store
_LAST_HOUR_BEATS: Final = 4500
_REPEATS: Final = 5


def _rows(first: int, count: int) -> list[StoredBeat]:
    random = np.random.default_rng(first)
    rr = random.normal(0.8, 0.05, count)
    error, score = random.gamma(2, 0.005, count), random.exponential(0.43, count)
    return [
        StoredBeat(first + k, (first + k) * 288, float(np.float32(rr[k])), 1.0, 0, 0, float(np.float32(error[k])),
         float(np.float32(score[k])))
        for k in range(count)
    ]  # fmt: skip


def store(
    *, large: int = 0, folder: Path | None = None, progress: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Measure the store.

    Parameters
    ----------
    large : int
        Beats in the store for queries; 0: no queries.  It takes about 90 bytes per beat on disk.
    folder : Path, optional
        Where the store is created; its disk is the one that is measured.

    Returns
    -------
    dict
        ``commits``: by beats in a commit, microseconds per beat and beats per second, synced; ``reference``: the same
        bytes written to a plain file and synced; ``bytes_per_million_beats``; ``queries``: seconds by query.
    """
    from ecgmon.models.inference.benchmark import Spread, machine

    commits: dict[str, Any] = {}
    size = 0.0
    for beats in _COMMITS:
        progress(f"commits of {beats} beats")
        speeds = []
        for _ in range(3):
            speed, size = _commits(beats, folder)
            speeds.append(speed)
        spread = Spread(tuple(speeds))
        commits[str(beats)] = {
            "beats_per_second": spread.as_dict(), "microseconds_per_beat": 1e6 / spread.median,
            "milliseconds_per_commit": 1e3 * beats / spread.median,
        }  # fmt: skip
    plain = disk_bytes_per_second(folder)
    found = {
        "commits": commits,
        "reference": {"plain_file_bytes_per_second": plain, "plain_file_beats_per_second": plain / size},
        "bytes_per_million_beats": 1e6 * size,
        "machine": machine(),
    }
    if large:
        found["queries"] = _queries(large, folder, progress)
    return found


def _commits(beats: int, folder: Path | None) -> tuple[float, float]:
    """Write beats of many streams in commits; return beats per second, and bytes per beat on disk."""
    with tempfile.TemporaryDirectory(prefix="ecgmon-bench-", dir=folder) as name, Store(Path(name)) as written:
        model = written.use_model("0" * 64, "bench")
        states = [written.open_stream(f"s{k}", 360.0, ("MLII", "V1"), 0) for k in range(_STREAMS)]
        of_each = max(1, beats // _STREAMS)
        together = min(_STREAMS, beats)
        total, commits = 0, max(5, min(200, _BEATS // beats))
        entries: list[list[Entry]] = []
        at = [0] * _STREAMS
        for number in range(commits):
            one = []
            for k in range(together):
                stream = (number * together + k) % _STREAMS
                state, first = states[stream], at[stream]
                at[stream] += of_each
                after = replace(state, position=at[stream], beats=at[stream], rules=bytes(200))
                one.append(
                    Entry(
                        after, _rows(first, of_each), remembered=dict.fromkeys(range(min(of_each, BEATS)), bytes(424))
                    )
                )
            entries.append(one)
            total += together * of_each
        began = time.perf_counter()
        for one in entries:
            written.write(one, model, 0)
        spent = time.perf_counter() - began
        written.checkpoint()
        return total / spent, (Path(name) / FILE).stat().st_size / total


def _queries(large: int, folder: Path | None, progress: Callable[[str], None]) -> dict[str, Any]:
    """Fill a store, and measure queries to it."""
    with tempfile.TemporaryDirectory(prefix="ecgmon-bench-", dir=folder) as name:
        with Store(Path(name)) as written:
            model = written.use_model("0" * 64, "bench")
            states = [written.open_stream(f"s{k}", 360.0, ("MLII", "V1"), 0) for k in range(_LARGE_STREAMS)]
            of_each = large // _LARGE_STREAMS
            _alerts(written, states, of_each, model)
        _fill(Path(name) / FILE, of_each, model, progress)
        size = (Path(name) / FILE).stat().st_size
        progress("queries")
        last = f"s{_LARGE_STREAMS - 1}"
        with Reader(Path(name)) as reader:
            queries: dict[str, Callable[[], object]] = {
                "status": reader.streams,
                "alerts": reader.alerts,
                "alerts of a stream": lambda: reader.alerts(stream=last),
                "alerts since the last hundred changes": lambda: reader.alerts(
                    since=_LARGE_STREAMS * max(1, of_each // _ALERT_EVERY) - 100
                ),
                "a stream's last hour": lambda: reader.beats(last, first=of_each - _LAST_HOUR_BEATS),
                "one beat": lambda: reader.beats(last, first=of_each // 2, most=1),
            }
            seconds = {}
            for query, ask in queries.items():
                times = []
                for _ in range(_REPEATS):
                    began = time.perf_counter()
                    ask()
                    times.append(time.perf_counter() - began)
                seconds[query] = {"first": times[0], "median": float(np.median(times)), "max": max(times)}
    return {"beats": of_each * _LARGE_STREAMS, "streams": _LARGE_STREAMS, "bytes": size, "seconds": seconds}


def _alerts(written: Store, states: list[StreamState], of_each: int, model: int) -> None:
    """Write the alerts of that many beats, and the state of the streams."""
    for state in states:
        raised = [
            Alert(
                number=number, kind=AlertKind.ANOMALOUS_EPISODE, priority=Priority.MEDIUM, start=number * 800.0,
                raised=number * 800.0 + 8, end=number * 800.0 + 30, beats=(1, 2, 3), message="3 of the last 10 beats",
            )
            for number in range(max(1, of_each // _ALERT_EVERY))
        ]  # fmt: skip
        after = replace(state, position=of_each, beats=of_each, seconds=of_each * 0.8, rules=bytes(200))
        written.write([Entry(after, [], alerts=raised)], model, 0)


def _fill(path: Path, of_each: int, model: int, progress: Callable[[str], None]) -> None:
    """Insert beats directly, about a million per transaction; every stream has the same, which no query depends on."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("PRAGMA synchronous = OFF")  # the store is temporary: it need not be durable
        db.execute("PRAGMA cache_size = -262144")
        together = max(1, _COPIED // max(of_each, 1))
        for first in range(0, _LARGE_STREAMS, together):
            db.execute("BEGIN")
            for stream in range(first + 1, min(first + together, _LARGE_STREAMS) + 1):
                db.execute(
                    "WITH RECURSIVE n(k) AS (SELECT 0 UNION ALL SELECT k + 1 FROM n WHERE k + 1 < ?)"
                    " INSERT INTO beats SELECT ?, k, k * 288, 0.8 + (k % 97) * 1e-3, 1.01, 0, 0, 0.0123 + k * 1e-9,"
                    " 0.43 + (k % 89) * 1e-2, ?, 1700000000 + k FROM n",
                    (of_each, stream, model),
                )
            db.execute("COMMIT")
            progress(f"{min(first + together, _LARGE_STREAMS) * of_each} beats written")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        db.close()
