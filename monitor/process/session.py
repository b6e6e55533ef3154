"""One replay from start to end: the whole pipeline in child processes, and its outcome."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec
import zmq

from ecgmon.monitor.core.status import FeedUpdate, Status
from ecgmon.monitor.process.control import NotRunningError
from ecgmon.monitor.process.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecgmon.monitor.config.schema import Config

_POLL_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Played:
    """The outcome of a replay.

    Attributes
    ----------
    status : Status
        The last status of the monitor.
    interrupted : bool
        Whether the replay was stopped before its sources had ended.
    """

    status: Status
    interrupted: bool


def play(
    config: Config,
    *,
    observe: Callable[[Status, list[FeedUpdate]], None],
    output: Callable[[str], None] | None,
    stopping: Callable[[], bool],
) -> Played:
    """Start the roles of a configuration, watch until its sources are stored, and stop the roles.

    Parameters
    ----------
    config : Config
        With the sources.
    observe : callable
        Called ten times a second with the monitor's status and new updates from the feed.
    output : callable or None
        Called with every line that a role writes to standard error; None passes the lines through.
    stopping : callable
        Returns whether to drain and stop early.

    Raises
    ------
    SupervisorError
        If a role cannot be kept running.
    """
    supervisor = Supervisor(config, output=output)
    status: Status | None = None
    try:
        with supervisor.client.feed() as feed:
            supervisor.start(stopping)
            busy = True
            while busy and not stopping():
                time.sleep(_POLL_SECONDS)
                busy = supervisor.watch()
                with suppress(NotRunningError):  # the monitor may be restarting after a failure
                    status = supervisor.client.status()
                    observe(status, _read(feed))
        interrupted = busy
        if interrupted and supervisor.producer is not None:
            supervisor.end([supervisor.producer])
            with suppress(NotRunningError):
                status = supervisor.client.status()
        if status is None:
            status = supervisor.client.status()
        return Played(status, interrupted)
    finally:
        supervisor.stop()


def _read(feed: zmq.Socket[bytes]) -> list[FeedUpdate]:
    updates = []
    with suppress(zmq.Again):
        while True:
            _, payload = feed.recv_multipart(zmq.NOBLOCK)
            updates.append(msgspec.msgpack.decode(payload, type=FeedUpdate))
    return updates
