"""Replay of records through the whole pipeline: open them, configure, and summarise the store."""

from __future__ import annotations

import math
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from ecgmon.models.windows import PREFERRED_LEADS
from ecgmon.monitor.config.schema import SourceSettings
from ecgmon.monitor.core.status import Status
from ecgmon.monitor.process.session import Played
from ecgmon.monitor.store import Reader
from ecgmon.pipelines.sources.errors import SourceError
from ecgmon.pipelines.sources.finding import resolve_each
from ecgmon.pipelines.sources.record import open_source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ecgmon.monitor.config.schema import Config
    from ecgmon.monitor.store import StoredAlert
    from ecgmon.pipelines.sources.record import RecordSource


@dataclass(frozen=True, slots=True)
class Records:
    """Opened records to replay.

    Attributes
    ----------
    settings : list of SourceSettings
        As in a configuration, one per record.
    sources : list of RecordSource
        In the same order.
    notes : list of str
        Notes for the user about unusual records.
    failed : dict of str to str
        Reasons why records cannot be opened, by name.
    """

    settings: list[SourceSettings] = field(default_factory=list)
    sources: list[RecordSource] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> dict[str, float | None]:
        """Length of each stream in s; None if it has no end."""
        return {source.stream: None if source.length is None else source.length / source.fs for source in self.sources}


def open_records(
    names: Sequence[str],
    *,
    speed: float = 0.0,
    leads: tuple[str, ...] = (),
    start: float = 0.0,
    stop: float = 0.0,
    loop: int = 1,
) -> Records:
    """Open records by path, folder or name; ``failed`` has those that cannot be opened.

    Parameters
    ----------
    names : sequence of str
    speed : float
        Multiple of real time; 0 is as fast as possible.
    leads : tuple of str
        Names or numbers of the leads to read; empty: all.
    start, stop : float
        Part to read, in s of the record; a ``stop`` of 0 is its end.
    loop : int
        How often each record is played.
    """
    refs, errors = resolve_each(names)
    found = Records(failed={name: str(error) for name, error in errors.items()})
    for ref in refs:
        try:
            source = open_source(ref, leads=leads or None, start=start, stop=stop or None, loop=loop)
        except SourceError as error:
            found.failed[ref.stream] = str(error)
            continue
        found.notes.extend(f"{ref.stream}: {note}" for note in source.notes)
        if not any(lead in PREFERRED_LEADS for lead in source.leads):
            found.notes.append(f"{ref.stream}: no lead MLII or II, so lead {source.leads[0]} is scored in its place")
        found.sources.append(source)
        found.settings.append(
            SourceSettings(
                record="toy" if ref.path is None else str(ref.path.absolute()),
                name=ref.stream,
                speed=speed,
                leads=leads,
                start=start,
                stop=stop,
                loop=loop,
            )
        )
    return found


class Folders(NamedTuple):
    """Folders of a replay, for its sockets and its store."""

    runtime: Path
    state: Path


@contextmanager
def folders(state: str | None) -> Iterator[Folders]:
    """Create the folders of a replay for the duration of a ``with`` block.

    Parameters
    ----------
    state : str or None
        Folder of the store, which is kept; None: a temporary folder.
    """
    with ExitStack() as made:

        def temporary(prefix: str) -> Path:  # short, because the length of a socket's path is limited
            return Path(made.enter_context(TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)))

        runtime = temporary("ecgmon-run-")
        yield Folders(runtime, temporary("ecgmon-state-") if state is None else Path(state).absolute())


def configured(config: Config, records: Records, places: Folders, *, quiet: bool) -> Config:
    """Put records and folders into a configuration.

    Parameters
    ----------
    config : Config
    records : Records
    places : Folders
    quiet : bool
        Whether processes log errors only: the live view shows the alerts, and other lines would hide them.
    """
    replace = msgspec.structs.replace
    return replace(
        config,
        runtime=replace(config.runtime, dir=str(places.runtime)),
        store=replace(config.store, path=str(places.state)),
        source=tuple(records.settings),
        log=replace(config.log, level="error", format="console") if quiet else config.log,
    )


@dataclass(frozen=True, slots=True)
class Summary:
    """The results of a replay.

    Attributes
    ----------
    beats, alerts_of : dict of str to int
        Number of beats and of alerts in the store, by stream.
    alerts : list of StoredAlert
        Ordered by time.
    played : Played
        With the monitor's last status.
    failed : dict of str to str
        Reasons why records could not be read, or not to their end, by name.
    """

    beats: dict[str, int]
    alerts_of: dict[str, int]
    alerts: list[StoredAlert]
    played: Played
    failed: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints; unknown values are None."""
        status = self.played.status
        return {
            "streams": {
                stream: {"beats": beats, "alerts": self.alerts_of[stream]} for stream, beats in self.beats.items()
            },
            "beats": {
                "segmented": status.segmented,
                "scored": status.scored,
                "stored": status.stored,
                "redelivered": status.redelivered,
                "dropped": status.dropped,
            },
            "seconds": round(status.busy_seconds, 6),
            "beats_per_second": round(status.stored / status.busy_seconds, 3) if status.busy_seconds else 0.0,
            "latency_seconds": {"p50": _known(status.latency_p50), "p99": _known(status.latency_p99)},
            "failed": self.failed,
            "interrupted": self.played.interrupted,
        }


def nothing_played(records: Records) -> Summary:
    """Return the summary of a replay if no record can be opened."""
    return Summary({}, {}, [], Played(Status(), interrupted=False), records.failed)


def summarise(state: Path, played: Played, records: Records) -> Summary:
    """Read the results of a replay from its store.

    Raises
    ------
    ecgmon.monitor.store.StoreError
        If the store cannot be read.
    """
    wanted = {source.stream for source in records.sources}
    with Reader(state) as reader:
        streams = [stream for stream in reader.streams() if stream.name in wanted]
        alerts = [found for found in reader.alerts() if found.stream in wanted]
    alerts.sort(key=lambda found: (found.alert.start, found.stream))
    return Summary(
        beats={stream.name: stream.beats for stream in streams},
        alerts_of={stream.name: stream.alerts for stream in streams},
        alerts=alerts,
        played=played,
        failed={**records.failed, **played.status.troubles},
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
