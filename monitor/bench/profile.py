"""Sampling profiler for stages: each sample is a Python function and the processor time since the last sample."""

from __future__ import annotations

import signal
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_EVERY_SECONDS: Final = 0.00025  # of real time: the system's timers for it are finer than those for processor time
_ROOT: Final = Path(__file__).parents[2]
_OURS: Final = tuple(f"{_ROOT / package}/" for package in ("models", "monitor", "pipelines"))
_NOT: Final = tuple(str(_ROOT / "monitor" / name) for name in ("bench/", "cli/bench.py", "cli/main.py"))


class Profile:
    """Adds up processor time by stage and function of this package.

    Time in a library or a compiled loop counts for the function that called it: a signal is handled when the call
    returns, and the sample has the weight of all the time since the last one.  A stage in many short pieces is sampled
    as one piece: the time left at the end of a piece is added to the next sample, whatever its function.
    """

    def __init__(self) -> None:
        self._stage = ""
        self._spent: dict[str, defaultdict[str, float]] = {}
        self._taken: defaultdict[str, int] = defaultdict(int)
        self._left: defaultdict[str, float] = defaultdict(float)
        self._last = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Take samples during a ``with`` block; only in the main thread."""
        before = signal.signal(signal.SIGALRM, self._sample)
        signal.setitimer(signal.ITIMER_REAL, _EVERY_SECONDS, _EVERY_SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def enter(self, stage: str) -> None:
        """Count the following time for a stage."""
        self._stage = stage
        self._taken[stage] += 0  # makes the stage known, even without samples
        self._last = time.thread_time()

    def leave(self) -> None:
        """Count the following time for no stage."""
        self._left[self._stage] += time.thread_time() - self._last
        self._stage = ""

    def _sample(self, _: int, frame: FrameType | None) -> None:
        if not self._stage:
            return
        while frame is not None and not _is_ours(frame.f_code.co_filename):
            frame = frame.f_back
        if frame is None:
            return
        now = time.thread_time()
        module = Path(frame.f_code.co_filename).relative_to(_ROOT).with_suffix("")
        where = f"{'.'.join(module.parts)}.{frame.f_code.co_qualname}"
        spent = self._spent.setdefault(self._stage, defaultdict(float))
        spent[where] += now - self._last + self._left.pop(self._stage, 0.0)
        self._taken[self._stage] += 1
        self._last = now

    @property
    def samples(self) -> int:
        """Number of samples of the stage that has the fewest."""
        return min(self._taken.values(), default=0)

    def shares(self, least: float) -> dict[str, dict[str, float]]:
        """Return for each stage the functions that took at least a share of its time, largest first."""
        found: dict[str, dict[str, float]] = {}
        for stage, spent in self._spent.items():
            total = sum(spent.values())
            shares = {where: seconds / total for where, seconds in spent.items() if seconds >= least * total}
            found[stage] = dict(sorted(shares.items(), key=lambda pair: -pair[1]))
        return found


def _is_ours(file: str) -> bool:
    return file.startswith(_OURS) and not file.startswith(_NOT)
