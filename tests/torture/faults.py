"""What is done to whom, and when: drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

VICTIMS: Final = {"monitor": 0.36, "producer": 0.28, "worker 1": 0.18, "worker 2": 0.18}
"""Processes of a round, and how often each is hit."""

DEAD_AFTER: Final = 1.0
"""Time in s after which a silent peer is taken to be dead, in every run."""
LEASE: Final = 1.5
"""Time in s after which an unanswered batch goes to another worker, in every run."""

_KILLS: Final = 0.8  # share of the faults; the others freeze
_LONG: Final = 0.4  # share of the freezes that outlast every patience
_START_SECONDS: Final = 3.0  # a role takes 1 to 4 s to start
_COMMIT_SECONDS: Final = 0.03  # a commit takes some ms, and its acknowledgement follows

Moment = Literal["any", "commit", "start"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing to do to one process.

    Attributes
    ----------
    wait : float
        Time in s since the fault before.
    kill : bool
        With SIGKILL; otherwise SIGSTOP, and SIGCONT after ``frozen`` seconds.
    moment : str
        ``any``: at once; ``commit``: as soon as the store is written to, and ``delay`` s later; ``start``:
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
    """Whether a freeze is longer than the others wait for a sign of life, or for an answer."""
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
        # every fault draws the same numbers, so that one that is changed leaves the others as they were
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
            delay=_COMMIT_SECONDS * float(random.random()) ** 2,  # most of them while it is written
            late=float(random.uniform(0, _START_SECONDS)),
            frozen=long_seconds if long else short_seconds,
        )
