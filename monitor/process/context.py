"""What the parts of a running monitor share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from ecgmon.monitor.core.peers import Peers
from ecgmon.monitor.core.streams import Streams
from ecgmon.pipelines import wire
from ecgmon.pipelines.transport.rate_limit import RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ecgmon.models.weights.checkpoint import ModelInfo
    from ecgmon.monitor.config.schema import Config
    from ecgmon.monitor.core.exchange import Exchange
    from ecgmon.monitor.core.instruments import Instruments
    from ecgmon.monitor.process.authenticator import Authenticator
    from ecgmon.monitor.process.connections import Connection
    from ecgmon.monitor.store import Store

_log = structlog.get_logger("monitor")


@dataclass(slots=True, eq=False)
class Context:
    """Configuration, state and services of a running monitor.

    Attributes
    ----------
    config : Config
        That holds now.
    info : ModelInfo
        The model whose scores are stored.
    model : int
        Its number in the store.
    epoch : int
        Drawn at the start: who speaks with another one is asked to introduce itself again.
    exchange : Exchange
    store : Store
    instruments : Instruments
    authenticator : Authenticator or None
    clock, wall : callable
        Monotonic time, and seconds since 1970.
    peers : Peers
    streams : Streams
    troubles : dict of str to str
        Sources that cannot be read, and why.
    """

    config: Config
    info: ModelInfo
    model: int
    epoch: int
    exchange: Exchange
    store: Store
    instruments: Instruments
    authenticator: Authenticator | None
    clock: Callable[[], float]
    wall: Callable[[], float]
    peers: Peers[Connection] = field(default_factory=Peers)
    streams: Streams[Connection] = field(default_factory=Streams)
    troubles: dict[str, str] = field(default_factory=dict)
    rate_limit: RateLimit = field(default_factory=RateLimit)

    def send(self, peer: Connection, frames: Sequence[bytes | memoryview]) -> None:
        """Send a message to a peer that may have gone."""
        if (failed := peer.listener.send(peer, frames)) is not None:
            # The peer has gone; its silence is dealt with in housekeeping, its lease when it runs out.
            _log.debug("peer-unreachable", reason=failed)

    def introduce_again(self, peer: Connection) -> None:
        """Ask a peer to say hello again."""
        self.send(peer, [wire.encode(wire.Unknown(self.epoch))])

    def reject(self, role: str, error: wire.WireError) -> None:
        """Count and log a message that does not follow the protocol."""
        self.instruments.rejected(role, error.reason)
        if (more := self.rate_limit.due((role, error.reason))) is not None:
            _log.warning("message-rejected", sender=role, reason=error.reason, detail=str(error), others_since=more)

    def may_write(self, peer: Connection, stream: str) -> bool:
        """Tell whether a stream is one of the peer's; whoever may enter the runtime folder may write all."""
        if not peer.listener.guarded:
            return True
        client = self.authenticator.client(peer.client) if self.authenticator is not None else None
        return client is not None and client.may_write(stream)

    def may_work(self, peer: Connection) -> bool:
        """Tell whether a peer may be a worker."""
        if not peer.listener.guarded:
            return True
        return self.authenticator is not None and self.authenticator.allows("worker", peer.client)
