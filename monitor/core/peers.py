"""The connected producers and workers, and for how long each has been silent.

Pure: no sockets and no clock.  A peer is the identity of a connection; ``now`` is in seconds on any monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

_SHARE: Final = 2  # a new producer gets at most 1/2 of the remaining room


@dataclass(slots=True)
class Producer:
    """A producer that was accepted.

    Attributes
    ----------
    name : str
        Random, new for every process.
    streams : list of str
        Stream names; the index is the stream's number in the producer's messages.
    leads : list of int
        Number of leads in the windows of each stream.
    last_seen : float
        When its latest message arrived.
    credit : int
        Maximum number of items that it may have sent and that are not stored.
    under_way : int
        Items that it has sent and that are not stored.
    resent, dropped : int
        Beats, as in its latest report.
    """

    name: str
    streams: list[str]
    leads: list[int]
    last_seen: float
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
    last_seen : float
        When its latest message arrived.
    scored : int
        Beats scored.
    degraded : str
        Why its GPU failed, if it continues on the CPU; else empty.
    """

    name: str
    device: str
    last_seen: float
    scored: int = 0
    degraded: str = ""


Peer = TypeVar("Peer", bound="Hashable")


class Peers(Generic[Peer]):
    """The connected producers and workers, by connection.

    Attributes
    ----------
    producers : dict of peer to Producer
    workers : dict of peer to Worker
    """

    def __init__(self) -> None:
        self.producers: dict[Peer, Producer] = {}
        self.workers: dict[Peer, Worker] = {}

    def grant(self, room: int, most: int) -> int:
        """Return the credit of a new producer: a share of the remaining room, at least 1.

        Parameters
        ----------
        room : int
            Maximum number of unstored items in the monitor.
        most : int
            Maximum number of unstored items of one producer.
        """
        left = room - sum(producer.credit for producer in self.producers.values())
        return max(1, min(most, left // _SHARE))

    def other_connections(self, name: str, peer: Peer) -> list[Peer]:
        """Return older connections of the process with this name, which now uses connection ``peer``."""
        found = [other for other, producer in self.producers.items() if producer.name == name]
        found += [other for other, worker in self.workers.items() if worker.name == name]
        return [other for other in found if other != peer]

    def silent_producers(self, now: float, limit: float) -> list[Peer]:
        """Return producers that sent nothing for longer than ``limit`` seconds."""
        return [peer for peer, producer in self.producers.items() if now - producer.last_seen > limit]

    def silent_workers(self, now: float, limit: float) -> list[Peer]:
        """Return workers that sent nothing for longer than ``limit`` seconds."""
        return [peer for peer, worker in self.workers.items() if now - worker.last_seen > limit]

    def degraded(self) -> dict[str, str]:
        """Return why the GPU failed of workers that continue on the CPU, by worker name."""
        return {worker.name: worker.degraded for worker in self.workers.values() if worker.degraded}

    def devices(self) -> dict[str, int]:
        """Count workers by device; ``cpu`` and ``cuda`` are always included."""
        counts = dict.fromkeys(("cpu", "cuda"), 0)
        for worker in self.workers.values():
            counts[worker.device] = counts.get(worker.device, 0) + 1
        return counts
