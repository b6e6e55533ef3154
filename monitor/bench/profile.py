"""Where the time of a stage goes: samples of what Python is at, each with the processor time since the one before."""

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

_EVERY_SECONDS: Final = 0.0005  # of processor time
_ROOT: Final = Path(__file__).resolve().parents[2]
_OURS: Final = tuple(f"{_ROOT / package}/" for package in ("models", "monitor", "pipelines"))
_NOT: Final = f"{_ROOT / 'monitor' / 'bench'}/"


class Profile:
    """Adds up processor time by stage and function of ours.

    What a library or a compiled loop takes counts for the function that called it: a signal is handled when the call
    is over, and the sample has the weight of all the time since the last.

    Attributes
    ----------
    stage : str
        Whose time it is now.
    """

    def __init__(self) -> None:
        self.stage = ""
        self._spent: dict[str, defaultdict[str, float]] = {}
        self._last = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Take samples meanwhile; in the main thread only."""
        before = signal.signal(signal.SIGPROF, self._sample)
        self._last = time.thread_time()
        signal.setitimer(signal.ITIMER_PROF, _EVERY_SECONDS, _EVERY_SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, before)

    def _sample(self, _: int, frame: FrameType | None) -> None:
        now = time.thread_time()
        while frame is not None and not _is_ours(frame.f_code.co_filename):
            frame = frame.f_back
        if frame is not None and self.stage:
            module = Path(frame.f_code.co_filename).relative_to(_ROOT).with_suffix("")
            where = f"{'.'.join(module.parts)}.{frame.f_code.co_qualname}"
            self._spent.setdefault(self.stage, defaultdict(float))[where] += now - self._last
        self._last = now

    def begin(self, stage: str) -> None:
        """Count what comes for a stage; what was since the last sample is nobody's."""
        self.stage = stage
        self._last = time.thread_time()

    def shares(self, least: float) -> dict[str, dict[str, float]]:
        """Give of each stage the functions that took at least a share of it, largest first."""
        found: dict[str, dict[str, float]] = {}
        for stage, spent in self._spent.items():
            total = sum(spent.values())
            shares = {where: seconds / total for where, seconds in spent.items() if seconds >= least * total}
            found[stage] = dict(sorted(shares.items(), key=lambda pair: -pair[1]))
        return found


def _is_ours(file: str) -> bool:
    return file.startswith(_OURS) and not file.startswith(_NOT)
