"""The torture test: a reference run, then rounds of the same records under faults, until there were enough kills."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from ecgmon.monitor.config.schema import (
    AlertSettings,
    Config,
    DeliverySettings,
    ExporterSettings,
    ProducerSettings,
    RuntimeSettings,
    SourceSettings,
    StoreSettings,
    WorkerSettings,
)
from ecgmon.monitor.store import FILE
from tests.torture.contents import Rows, compare, contents, half_written, left_behind, numbered
from tests.torture.faults import DEAD_AFTER, LEASE, VICTIMS, Fault, faults, is_long
from tests.torture.roles import FailedError, Process, Roles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ecgmon.monitor.core.status import Status

_CALM_SECONDS: Final = 120.0  # longest time of a run without faults
_AIM_SECONDS: Final = 8.0  # longest wait for a commit at which a fault is aimed
_TICK_SECONDS: Final = 0.005
_AIMING_TICK_SECONDS: Final = 0.0003
_ASK_EVERY_SECONDS: Final = 0.2
_MOST_PER_ROUND: Final = 25  # kills in a round; then it finishes without faults
_EXAMPLES: Final = 20  # problems that are kept as text

# Few items in transit, in small batches, give many commits in a round, each long enough to be hit.
_DELIVERY: Final = DeliverySettings(
    window_items=512, batch_beats=16, lease_seconds=LEASE, heartbeat_seconds=0.2, dead_after_seconds=DEAD_AFTER
)


@dataclass(slots=True)
class Report:
    """The result of a torture test.

    Attributes
    ----------
    kills, freezes : Counter
        By role.
    starting : int
        Kills of a role that had not joined yet.
    committing : int
        Kills within 30 ms after the first sign of a commit.
    half_written : int
        Kills of the monitor that left an incomplete commit in the store's log.
    long : int
        Freezes longer than every time-out.
    redelivered : int
        Beats sent again, as far as the monitors reported them before they were killed.
    problems : list of str
        Everything that was wrong, as text.
    """

    seed: int
    streams: int = 0
    beats: int = 0
    rounds: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    freezes: Counter[str] = field(default_factory=Counter)
    starting: int = 0
    committing: int = 0
    half_written: int = 0
    long: int = 0
    redelivered: int = 0
    lost: int = 0
    duplicate: int = 0
    differing: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing was lost, duplicated or changed, and there were no other problems."""
        return not (self.lost or self.duplicate or self.differing or self.problems)

    def rows(self) -> dict[str, str | int | float]:
        """Return names and values, in the order of the report."""
        roles = sorted({name.partition(" ")[0] for name in VICTIMS})
        return {
            "kills": self.kills.total(),
            **{f"kills of a {role}": self.kills[role] for role in roles},
            "kills during start-up": self.starting,
            "kills at a commit": self.committing,
            "commits left half written": self.half_written,
            "freezes": self.freezes.total(),
            **{f"freezes of a {role}": self.freezes[role] for role in roles},
            "freezes longer than lease and dead_after": self.long,
            "rounds": self.rounds,
            "streams in a round": self.streams,
            "beats in a round": self.beats,
            "beats stored": self.beats * self.rounds,
            "beats redelivered (at least)": self.redelivered,
            "beats lost": self.lost,
            "beats duplicate": self.duplicate,
            "rows differing": self.differing,
            "other problems": len(self.problems),
            "seconds": round(self.seconds, 1),
        }

    def note(self, problem: str) -> None:
        """Add a problem, up to a limit."""
        if len(self.problems) < _EXAMPLES:
            self.problems.append(problem)


def torture(
    sources: Sequence[SourceSettings],
    *,
    kills: int,
    seed: int,
    pause: float = 1.0,
    keep: Path | None = None,
    say: Callable[[Report, str], None] = lambda _, __: None,
) -> Report:
    """Play records with and without faults, and compare.

    Parameters
    ----------
    sources : sequence of SourceSettings
    kills : int
        Number of kills after which no new round starts.
    seed : int
        Seed of victims, moments and durations.
    pause : float
        Mean time between two faults in s.
    keep : Path, optional
        Where the folders of rounds with problems are copied.
    say : callable
        Called several times a second with the current report and the current activity.

    Raises
    ------
    FailedError
        If the undisturbed run fails.
    """
    report = Report(seed=seed, streams=len(sources))
    began = time.monotonic()
    plan = faults(np.random.default_rng(seed), pause)
    armed: dict[str, list[Fault]] = {name: [] for name in VICTIMS}
    with tempfile.TemporaryDirectory(prefix="ecgmon-t-") as temporary:  # a short name: socket paths are limited
        reference = _reference(Path(temporary) / "calm", sources, report, say)
        for number in count(1):
            folder = Path(temporary) / str(number)
            round_ = _Round(folder, sources, plan, armed, report, reference, wanted=kills, began=began, say=say)
            problems = len(report.problems)
            try:
                round_.play()
            except FailedError as error:
                report.note(f"round {number}: {error}")
            finally:
                round_.roles.close()
            report.rounds += 1
            round_.judge(f"round {number}")
            if len(report.problems) > problems and keep is not None:
                shutil.copytree(
                    folder, keep / folder.name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("runtime")
                )
            shutil.rmtree(folder)
            if report.kills.total() >= kills or not report.ok:
                break
    report.seconds = time.monotonic() - began
    return report


def configured(folder: Path, sources: Sequence[SourceSettings]) -> Config:
    """Make the configuration of a run: every window is stored, and no alert depends on the clock."""
    return Config(
        runtime=RuntimeSettings(dir=str(folder / "runtime")),
        store=StoreSettings(path=str(folder / "state"), detail="all", commit_interval_seconds=0.03),
        delivery=_DELIVERY,
        worker=WorkerSettings(count=2, device="cpu"),
        producer=ProducerSettings(buffer_items=1024),
        source=tuple(msgspec.structs.replace(source, speed=0.0) for source in sources),
        alerts=AlertSettings(stalled_seconds=1e6),
        exporter=ExporterSettings(port=0),
    )


def _reference(
    folder: Path, sources: Sequence[SourceSettings], report: Report, say: Callable[[Report, str], None]
) -> dict[str, Rows]:
    folder.mkdir(parents=True)
    roles = Roles(configured(folder, sources), folder)
    try:
        _finish(roles, lambda: say(report, "undisturbed run"))
    finally:
        roles.close()
    found = contents(folder / "state")
    report.beats = len(found["beats"])
    wrong = numbered(found)
    if wrong or not report.beats:
        raise FailedError(f"the undisturbed run is wrong: {'; '.join(wrong) or 'it has no beats'}")
    unended = [name for (name,), row in found["streams"].items() if not row[5]]
    if unended or len(found["streams"]) != len(sources):
        raise FailedError(f"the undisturbed run is not complete: {len(found['streams'])} streams, unended: {unended}")
    return found


def _finish(roles: Roles, meanwhile: Callable[[], None]) -> None:
    """Run to the end without faults, and end all processes."""
    deadline = time.monotonic() + _CALM_SECONDS
    for process in roles.processes.values():
        roles.release(process)
    while not roles.done:
        roles.look()
        meanwhile()
        if time.monotonic() > deadline:
            logs = "\n".join(f"{process.name}:\n{process.tail()}" for process in roles.processes.values())
            raise FailedError(f"not everything was stored within {_CALM_SECONDS:g} s without faults; logs:\n{logs}")
        time.sleep(_TICK_SECONDS)
    roles.end()


@dataclass(slots=True)
class _Round:
    """One round: a state folder that is filled from empty until everything is stored."""

    folder: Path
    sources: Sequence[SourceSettings]
    plan: Iterator[Fault]
    armed: dict[str, list[Fault]]
    """Faults to be applied at the next start of their victim."""
    report: Report
    reference: dict[str, Rows]
    wanted: int
    began: float
    say: Callable[[Report, str], None]
    roles: Roles = field(init=False)
    _pending: list[tuple[float, Process, int, Fault]] = field(init=False, default_factory=list)
    """Faults with a time; each applies only if its victim was not restarted in between."""
    _thaws: dict[str, float] = field(init=False, default_factory=dict)
    _reported: dict[str, int] = field(init=False, default_factory=dict)
    """Beats of each stream that a monitor reported as stored."""
    _redelivered: int = field(init=False, default=0)
    _asked: float = field(init=False, default=0.0)
    _kills: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.roles = Roles(configured(self.folder, self.sources), self.folder)

    def play(self) -> None:
        """Apply faults until everything is stored or there were enough kills, then finish without faults."""
        fault = next(self.plan)
        strike_at = time.monotonic() + fault.wait
        log: tuple[int, int] | None = None  # state of the store's log, while a fault is aimed at a commit
        while not self.roles.done and self._kills < _MOST_PER_ROUND and self.report.kills.total() < self.wanted:
            self._tend()
            now = time.monotonic()
            due = now >= strike_at
            victim = self.roles.processes[fault.victim]
            if due and (fault.moment == "start" or victim.running is None):
                self.armed[fault.victim].append(fault)
            elif due and fault.moment == "commit" and now < strike_at + _AIM_SECONDS:
                seen = self._log_seen()
                if log is None or seen == log:
                    log = seen
                    time.sleep(_AIMING_TICK_SECONDS)
                    continue
                time.sleep(fault.delay)
                self._strike(fault, at_commit=True)
            elif due:
                self._strike(fault)
            else:
                time.sleep(min(_TICK_SECONDS, max(0.0, strike_at - now)))
                continue
            fault, log = next(self.plan), None
            strike_at = time.monotonic() + fault.wait
        _finish(self.roles, lambda: self._say("to the end without faults"))
        self._ask()

    def _tend(self) -> None:
        """Do what is due: starts, releases, and faults aimed at a start-up."""
        for process in self.roles.look():
            if self.armed[process.name]:
                fault = self.armed[process.name].pop(0)
                self._pending.append((time.monotonic() + fault.late, process, process.starts, fault))
        now = time.monotonic()
        for name in [name for name, at in self._thaws.items() if now >= at]:
            del self._thaws[name]
            self.roles.release(self.roles.processes[name])
        due = [pending for pending in self._pending if now >= pending[0]]
        self._pending = [pending for pending in self._pending if now < pending[0]]
        for _, process, start, fault in due:
            if process.running is not None and process.starts == start:
                self._strike(fault)
        if now >= self._asked + _ASK_EVERY_SECONDS:
            self._asked = now
            self._ask()
            self._say("under faults")

    def _say(self, what: str) -> None:
        self.report.seconds = time.monotonic() - self.began
        self.say(self.report, f"round {self.report.rounds + 1} {what}, {sum(self._reported.values())} beats stored")

    def _log_seen(self) -> tuple[int, int] | None:
        try:
            found = (self.folder / "state" / f"{FILE}-wal").stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_size

    def _ask(self) -> None:
        status: Status | None = self.roles.status()
        if status is None:
            return
        self.report.redelivered += max(0, status.redelivered - self._redelivered)
        self._redelivered = status.redelivered
        for name, stream in status.streams.items():
            self._reported[name] = max(self._reported.get(name, 0), stream.beats)

    def _strike(self, fault: Fault, *, at_commit: bool = False) -> None:
        report, process = self.report, self.roles.processes[fault.victim]
        if process.running is None or process.running.poll() is not None:
            return
        if not fault.kill:
            if not process.frozen:
                self.roles.freeze(process)
                report.freezes[process.role] += 1
                report.long += is_long(fault.frozen)
                self._thaws[process.name] = time.monotonic() + fault.frozen
            return
        joined = process.joined
        if not self.roles.kill(process):
            return
        self._thaws.pop(process.name, None)
        self._kills += 1
        report.kills[process.role] += 1
        report.starting += not joined
        report.committing += at_commit
        if process.role == "monitor":
            self._redelivered = 0
            report.half_written += half_written(self.folder / "state")
            self._inspect()

    def _inspect(self) -> None:
        """Check the store of a killed monitor: rows equal the reference, and no beat reported as stored is missing."""
        if not (self.folder / "state" / FILE).exists():
            return
        left, name = left_behind(self.folder / "state"), f"round {self.report.rounds + 1}"
        for problem in numbered(left):
            self.report.note(f"{name}: after a kill of the monitor: {problem}")
        for table in ("beats", "details"):
            wrong = [key for key, row in left[table].items() if self.reference[table].get(key) != row]
            if wrong:
                self.report.differing += len(wrong)
                self.report.note(f"{name}: after a kill of the monitor {len(wrong)} {table} differ: {wrong[0]}")
        for stream, reported in self._reported.items():
            stored = left["streams"].get((stream,), (0, "", 0, 0))[3]
            if stored < reported:
                self.report.lost += reported - stored
                self.report.note(f"{name}: {stream}: {reported} beats were reported as stored, {stored} are")

    def judge(self, name: str) -> None:
        """Compare the store with the reference."""
        try:
            got = contents(self.folder / "state")
        except Exception as error:  # noqa: BLE001 - any exception is a finding
            self.report.note(f"{name}: the store cannot be read: {error}")
            return
        found = compare(got, self.reference)
        self.report.lost += found.lost
        self.report.duplicate += found.duplicate
        self.report.differing += found.differing
        for problem in numbered(got) + found.examples:
            self.report.note(f"{name}: {problem}")
