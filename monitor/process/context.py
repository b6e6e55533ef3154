"""State and services that the parts of a running monitor share."""

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
        The current one.
    info : ModelInfo
        The model whose scores are stored.
    model : int
        Its number in the store.
    epoch : int
        Random number of this run: a peer that uses another one is asked to say hello again.
    exchange : Exchange
    store : Store
    instruments : Instruments
    authenticator : Authenticator or None
    clock, wall : callable
        Monotonic time, and seconds since 1970.
    peers : Peers
    streams : Streams
    troubles : dict of str to str
        Reasons why sources cannot be read, by stream.
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
            # The peer is gone: housekeeping removes it, and its leases expire.
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
        """Return whether a peer may write a stream; a peer in the runtime folder may write all streams."""
        if not peer.listener.authenticated:
            return True
        client = self.authenticator.client(peer.client) if self.authenticator is not None else None
        return client is not None and client.may_write(stream)

    def may_work(self, peer: Connection) -> bool:
        """Return whether a peer may be a worker."""
        if not peer.listener.authenticated:
            return True
        return self.authenticator is not None and self.authenticator.allows("worker", peer.client)
