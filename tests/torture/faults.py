"""The plan of faults, drawn from a seed: which process is killed or frozen, and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

VICTIMS: Final = {"monitor": 0.36, "producer": 0.28, "worker 1": 0.18, "worker 2": 0.18}
"""Processes of a round, and how often each is hit."""

DEAD_AFTER: Final = 1.0
"""Time in s after which a silent peer counts as dead, in every run."""
LEASE: Final = 1.5
"""Time in s after which an unanswered batch goes to another worker, in every run."""

_KILLS: Final = 0.8  # share of kills among the faults; the others are freezes
_LONG: Final = 0.4  # share of the freezes that are longer than every time-out
_START_SECONDS: Final = 3.0  # a role takes 1 to 4 s to start
_COMMIT_SECONDS: Final = 0.03  # a commit takes some ms, and its acknowledgement follows

Moment = Literal["any", "commit", "start"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of one process.

    Attributes
    ----------
    wait : float
        Time in s since the previous fault.
    kill : bool
        True: SIGKILL; False: SIGSTOP, and SIGCONT after ``frozen`` seconds.
    moment : str
        ``any``: at once; ``commit``: ``delay`` s after the store's log changes; ``start``:
        ``late`` s after the process's next start.
    """

    wait: float
    victim: str
    kill: bool
    moment: Moment
    delay: float
    late: float
    frozen: float


def is_long(frozen: float) -> bool:
    """Whether a freeze is longer than ``DEAD_AFTER`` and ``LEASE``."""
    return frozen > max(DEAD_AFTER, LEASE)


def faults(random: np.random.Generator, pause: float) -> Iterator[Fault]:
    """Draw faults without end.

    Parameters
    ----------
    random : Generator
    pause : float
        Mean time between two faults in s.
    """
    names, weights = list(VICTIMS), list(VICTIMS.values())
    moments: tuple[Moment, ...] = ("any", "commit", "start")
    while True:
        # every fault draws the same number of values, so that changing one kind does not change later faults
        victim = names[int(random.choice(len(names), p=weights))]
        kill = bool(random.random() < _KILLS)
        moment = moments[int(random.choice(3, p=(0.35, 0.4, 0.25)))]
        long = bool(random.random() < _LONG)
        short_seconds = float(random.uniform(0.02, 0.5 * DEAD_AFTER))
        long_seconds = float(random.uniform(1.2, 2.0)) * max(DEAD_AFTER, LEASE)
        yield Fault(
            wait=float(min(random.exponential(pause), 4 * pause)),
            victim=victim,
            kill=kill,
            moment=moment,
            delay=_COMMIT_SECONDS * float(random.random()) ** 2,  # most of them during the write
            late=float(random.uniform(0, _START_SECONDS)),
            frozen=long_seconds if long else short_seconds,
        )
