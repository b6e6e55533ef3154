"""Admission of producers and workers.  Pure: no sockets, no clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecgmon.pipelines import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecgmon.models.weights.checkpoint import ModelInfo
    from ecgmon.monitor.config.schema import DeliverySettings
    from ecgmon.monitor.core.peers import Peer, Peers
    from ecgmon.monitor.core.streams import Streams


def refuse_producer(
    hello: wire.Hello,
    peer: Peer,
    *,
    peers: Peers[Peer],
    streams: Streams[Peer],
    limits: DeliverySettings,
    info: ModelInfo,
    same_client: Callable[[Peer], bool],
) -> wire.Refused | None:
    """Check whether a producer may join; its client is already allowed to write its streams.

    Parameters
    ----------
    hello : Hello
    peer : peer
        Its connection.
    peers : Peers
    streams : Streams
    limits : DeliverySettings
    info : ModelInfo
        The model whose scores are stored.
    same_client : callable
        Returns whether another connection belongs to the same client.

    Returns
    -------
    Refused or None
        None if the producer is accepted.
    """
    if hello.protocol != wire.PROTOCOL:
        return wire.Refused(f"protocol {hello.protocol}; this monitor speaks {wire.PROTOCOL}", retry=False)
    names = [announced.stream for announced in hello.streams]
    if len(set(names)) != len(names):
        return wire.Refused("a stream is named twice", retry=False)
    new = sum(name not in streams for name in names)
    if len(streams) + new > limits.max_streams:
        return wire.Refused(f"more than {limits.max_streams} streams ([delivery] max_streams)", retry=True)
    if peer not in peers.producers and len(peers.producers) >= limits.max_producers:
        return wire.Refused(f"more than {limits.max_producers} producers ([delivery] max_producers)", retry=True)
    for announced in hello.streams:
        if len(announced.leads) < info.leads:
            return wire.Refused(
                f"stream {announced.stream} has {len(announced.leads)} leads in its windows, the model takes {info.leads}",
                retry=False,
            )
        stream = streams.get(announced.stream)
        if stream is None:
            continue
        if not stream.rules.state.same(announced.fs, announced.leads):
            return wire.Refused(f"stream {announced.stream} has another sampling frequency or other leads", retry=False)
        holder = stream.sender[0]
        owner = peers.producers.get(holder)
        if owner is not None and not (owner.name == hello.producer and same_client(holder)):
            return wire.Refused(f"stream {announced.stream} is being sent by another producer", retry=True)
    return None


def refuse_worker(
    ready: wire.Ready, peer: Peer, *, peers: Peers[Peer], limits: DeliverySettings, info: ModelInfo
) -> wire.Refused | None:
    """Check whether a worker whose key is listed may join; parameters and result as in :func:`refuse_producer`."""
    if ready.protocol != wire.PROTOCOL:
        return wire.Refused(f"protocol {ready.protocol}; this monitor speaks {wire.PROTOCOL}", retry=False)
    if ready.model != info.fingerprint:
        reason = f"model {ready.model[:12]}; this monitor takes scores of {info.fingerprint[:12]} ({info.name})"
        return wire.Refused(reason, retry=True)  # one of the two may be about to reload
    if peer not in peers.workers and len(peers.workers) >= limits.max_workers:
        return wire.Refused(f"more than {limits.max_workers} workers ([delivery] max_workers)", retry=False)
    return None
