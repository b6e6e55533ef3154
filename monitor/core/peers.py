"""Who takes part: producers and workers, and since when they are silent.

Pure: no sockets and no clock.  A peer is whatever names a connection; ``now`` is in seconds on any monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

_SHARE: Final = 2  # a producer gets at most this fraction (1/n) of the room that is left


@dataclass(slots=True)
class Producer:
    """A producer that was accepted.

    Attributes
    ----------
    name : str
        Random, new for every process.
    streams : list of str
        By their numbers in its messages.
    leads : list of int
        Leads of the windows of each stream.
    heard : float
        When it was last heard of.
    credit : int
        Most items that it may have sent and not stored.
    under_way : int
        Items that it has sent and that are not stored.
    resent, dropped : int
        Beats, as it reported them last.
    """

    name: str
    streams: list[str]
    leads: list[int]
    heard: float
    credit: int
    under_way: int
    resent: int = 0
    dropped: int = 0


@dataclass(slots=True)
class Worker:
    """A worker that was accepted.

    Attributes
    ----------
    name : str
        Random, new for every process.
    device : str
        ``cpu`` or ``cuda``.
    heard : float
        When it was last heard of.
    scored : int
        Beats.
    degraded : str
        Why it does not compute where it should; empty where it does.
    """

    name: str
    device: str
    heard: float
    scored: int = 0
    degraded: str = ""


Peer = TypeVar("Peer", bound="Hashable")


class Peers(Generic[Peer]):
    """The producers and workers that take part, by their connection.

    Attributes
    ----------
    producers : dict of peer to Producer
    workers : dict of peer to Worker
    """

    def __init__(self) -> None:
        self.producers: dict[Peer, Producer] = {}
        self.workers: dict[Peer, Worker] = {}

    def grant(self, room: int, most: int) -> int:
        """Find the credit of a new producer: a share of what is left, so that none ever gets nothing.

        Parameters
        ----------
        room : int
            Items that the monitor holds unstored at most.
        most : int
            Items that one producer may have under way.
        """
        left = room - sum(producer.credit for producer in self.producers.values())
        return max(1, min(most, left // _SHARE))

    def other_connections(self, name: str, peer: Peer) -> list[Peer]:
        """Find older connections of a process that comes over a new one, by the name that it gives itself."""
        found = [other for other, producer in self.producers.items() if producer.name == name]
        found += [other for other, worker in self.workers.items() if worker.name == name]
        return [other for other in found if other != peer]

    def silent_producers(self, now: float, limit: float) -> list[Peer]:
        """Find producers that were not heard of for longer than ``limit`` seconds."""
        return [peer for peer, producer in self.producers.items() if now - producer.heard > limit]

    def silent_workers(self, now: float, limit: float) -> list[Peer]:
        """Find workers that were not heard of for longer than ``limit`` seconds."""
        return [peer for peer, worker in self.workers.items() if now - worker.heard > limit]

    def degraded(self) -> dict[str, str]:
        """Workers that do not compute where they should, and why, by name."""
        return {worker.name: worker.degraded for worker in self.workers.values() if worker.degraded}

    def devices(self) -> dict[str, int]:
        """Count workers by device; ``cpu`` and ``cuda`` are always there."""
        counts = dict.fromkeys(("cpu", "cuda"), 0)
        for worker in self.workers.values():
            counts[worker.device] = counts.get(worker.device, 0) + 1
        return counts
