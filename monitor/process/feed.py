"""The live feed: publishes what each commit added to a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import zmq

from ecgmon.monitor.core.status import FeedUpdate

if TYPE_CHECKING:
    from ecgmon.monitor.core.commit import Entry


class Feed:
    """Publishes updates.

    Parameters
    ----------
    socket : Socket
        XPUB, bound.
    """

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self._topics: set[bytes] = set()

    def read_subscriptions(self) -> None:
        """Read new subscriptions: without a subscriber nothing is published."""
        while True:
            try:
                change = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            if change[:1] == b"\1":
                self._topics.add(change[1:])
            else:
                self._topics.discard(change[1:])

    def publish(self, entry: Entry, rate: float) -> None:
        """Publish what a commit added to a stream, with its heart rate in beats/min, if there is a subscriber."""
        if not self._topics:
            return
        update = FeedUpdate.of(entry, rate)
        self._socket.send_multipart([update.stream.encode(), msgspec.msgpack.encode(update)], zmq.NOBLOCK)
