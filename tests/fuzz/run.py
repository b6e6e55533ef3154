"""Run cases and count their outcomes."""

from __future__ import annotations

import faulthandler
import random
import resource
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.fuzz.checkpoints import checkpoint_case
from tests.fuzz.configurations import configuration_case
from tests.fuzz.messages import wire_case
from tests.fuzz.records import record_case

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CASE_SECONDS: Final = 2.0
"""Limit of processor time per case in s; a case that takes longer counts as hanging. The slowest valid one takes a tenth of it."""

GROWTH: Final = 200 * 2**20
"""Bytes by which a process may grow while it runs its cases."""

_KEPT: Final = 20  # bugs of a target that are reported with their traceback


TARGETS: Final[dict[str, Callable[[random.Random, Path], str]]] = {
    "wire": wire_case,
    "records": record_case,
    "checkpoints": checkpoint_case,
    "configurations": configuration_case,
}


_ORDER: Final = {name: number for number, name in enumerate(TARGETS)}


class TooSlowError(BaseException):
    """A case took longer than :data:`CASE_SECONDS`. Not a subclass of Exception, which a module might catch."""


@dataclass
class Tally:
    """The results of the cases of a target.

    Attributes
    ----------
    outcomes : Counter
        Number of cases by reason; "accepted" is a reason.
    bugs : list of str
        Number of the case and traceback.
    slowest : float
        Longest time of a case in s.
    growth : int
        Bytes by which the process grew after its first tenth, in which caches fill.
    peak : int
        Largest growth at any time after it, in bytes.
    """

    target: str
    outcomes: Counter[str] = field(default_factory=Counter)
    bugs: list[str] = field(default_factory=list)
    failed: int = 0
    slowest: float = 0.0
    seconds: float = 0.0
    growth: int = 0
    peak: int = 0

    def add(self, other: Tally) -> None:
        """Add the results of other cases of the same target."""
        self.outcomes += other.outcomes
        self.bugs = (self.bugs + other.bugs)[:_KEPT]
        self.failed += other.failed
        self.slowest = max(self.slowest, other.slowest)
        self.seconds += other.seconds
        self.growth = max(self.growth, other.growth)
        self.peak = max(self.peak, other.peak)


def memory() -> int:
    """Return the bytes of memory that this process uses."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _too_slow(*_: object) -> None:
    raise TooSlowError


def run(target: str, cases: Iterable[int], *, seed: int) -> Tally:
    """Run the cases of a target with these numbers.

    Parameters
    ----------
    target : str
        One of :data:`TARGETS`.
    cases : iterable of int
    seed : int
    """
    case, tally, numbers = TARGETS[target], Tally(target), list(cases)
    memory_folder = Path("/dev/shm")  # in memory, because there may be a hundred thousand small files
    before = 0
    rng = random.Random()
    # processor time, so that other load on the machine does not count; faulthandler finds a case that waits
    previous = signal.signal(signal.SIGPROF, _too_slow)
    folder = Path(tempfile.mkdtemp(dir=memory_folder if memory_folder.is_dir() else None))
    began = time.perf_counter()
    try:
        for done, number in enumerate(numbers):
            if done == len(numbers) // 10:
                before = memory()
            if done % 1000 == 0:  # for a hang in compiled code, which a signal handler cannot end
                faulthandler.dump_traceback_later(1000 * CASE_SECONDS, exit=True)
            rng.seed(seed << 40 | _ORDER[target] << 36 | number)
            started = time.perf_counter()
            # the first case imports, compiles and makes the valid inputs
            signal.setitimer(signal.ITIMER_PROF, CASE_SECONDS if done else 120.0)
            try:
                outcome = case(rng, folder)
            except (Exception, TooSlowError):  # noqa: BLE001 - any exception is a bug
                signal.setitimer(signal.ITIMER_PROF, 0)
                tally.failed += 1
                if len(tally.bugs) < _KEPT:
                    tally.bugs.append(f"{target}, case {number}:\n{traceback.format_exc()}")
                outcome = "BUG"
            signal.setitimer(signal.ITIMER_PROF, 0)
            tally.outcomes[outcome] += 1
            if done:
                tally.slowest = max(tally.slowest, time.perf_counter() - started)
        tally.growth = max(0, memory() - before)
        tally.peak = max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)
        faulthandler.cancel_dump_traceback_later()
        shutil.rmtree(folder)
    tally.seconds = time.perf_counter() - began
    return tally


def share(job: tuple[str, range], seed: int) -> Tally:
    """Run some cases of a target in a process of its own; warnings are errors, as in the tests."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error")
        warnings.filterwarnings("ignore", "The inplace keyword")  # pandas 3.1 warns about a call in wfdb 4.3
        return run(*job, seed=seed)


def table(tallies: Iterable[Tally]) -> str:
    """Write the results as Markdown."""
    lines = []
    for tally in tallies:
        total = sum(tally.outcomes.values())
        lines += [
            f"### {tally.target}: {total} cases, {tally.failed} bugs",
            "",
            f"{tally.seconds:.0f} s of processor time, slowest case {tally.slowest * 1e3:.0f} ms, memory grew by {tally.growth / 2**20:.1f} MiB and by {tally.peak / 2**20:.1f} MiB at its peak.",
            "",
            "| outcome | cases |",
            "| --- | ---: |",
            *(f"| {reason} | {count} |" for reason, count in tally.outcomes.most_common()),
            "",
        ]
    return "\n".join(lines)
