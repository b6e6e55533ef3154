"""The producer as a process: the sources of a configuration and a connection to the monitor around its loop."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ecgmon.models.kernels.compiled import start_without_linear_algebra
from ecgmon.monitor.process.connections import EndpointError
from ecgmon.monitor.process.exit_status import DONE, FAILED, REFUSED
from ecgmon.monitor.process.reload import Reloader
from ecgmon.monitor.process.roles.setup import RoleError, exclude_imports_from_garbage_collection, monitor_address
from ecgmon.pipelines.roles.producer import Feed, Producer, ProducerError, unpaced_chunk, warm_up
from ecgmon.pipelines.segmentation.segmenter import SegmentationError
from ecgmon.pipelines.sources.errors import SourceError
from ecgmon.pipelines.sources.finding import resolve
from ecgmon.pipelines.sources.record import open_source
from ecgmon.pipelines.transport.keys import KeyFileError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecgmon.monitor.config.schema import Config, SourceSettings
    from ecgmon.monitor.process.roles.setup import Signals
    from ecgmon.pipelines.sources.record import RecordSource

_PHASES: Final = 37
"""Chunks between the phases of two streams; coprime to the chunks of a block, so that all phases occur."""


def run(config: Config, load: Callable[[], Config], signals: Signals, warn: Callable[[str], object]) -> int:
    """Run a producer until its sources are stored or it is asked to stop.

    Parameters
    ----------
    config : Config
    load : callable
        Reads the configuration again, for a reload.
    signals : Signals
    warn : callable
        Called with a line for each source that cannot be opened.

    Returns
    -------
    int
        Exit status: ``DONE``; ``FAILED`` if a source failed; ``REFUSED`` if no source can be opened.

    Raises
    ------
    RoleError
        If the producer cannot run because of its sources, keys or address, or a permanent refusal by the monitor.
    """
    start_without_linear_algebra()
    feeds, troubles = open_feeds(config)
    for stream, reason in troubles:
        warn(f"{stream}: {reason}")
    if not feeds and not troubles:
        raise RoleError("there is nothing to read: the configuration has no [[source]]")
    if not feeds:
        return REFUSED
    try:
        return FAILED if _serve(config, load, signals, feeds, troubles) else DONE
    except (EndpointError, KeyFileError, ProducerError) as error:
        raise RoleError(str(error)) from error


def open_feeds(config: Config) -> tuple[list[Feed], list[tuple[str, str]]]:
    """Open the sources of a configuration.

    Returns
    -------
    feeds : list of Feed
        The sources that can be opened.
    troubles : list of (stream, reason)
        The other sources.
    """
    feeds: list[Feed] = []
    troubles: list[tuple[str, str]] = []
    unpaced_seconds = unpaced_chunk(len(config.source))
    for settings in config.source:
        try:
            feed = Feed(
                _open(settings), settings.speed, config.producer.chunk_seconds, unpaced_seconds,
                live=settings.live, phase=_PHASES * len(feeds),
            )  # fmt: skip
        except (SourceError, SegmentationError) as error:
            troubles.append((settings.name or settings.record, str(error)))
            continue
        if any(feed.source.stream == other.source.stream for other in feeds):
            troubles.append((feed.source.stream, "two sources have this name; rename one of them with `name`"))
            continue
        feeds.append(feed)
    return feeds, troubles


def _open(settings: SourceSettings) -> RecordSource:
    ref = resolve([settings.record])[0]
    if settings.name:
        ref = replace(ref, stream=settings.name)
    return open_source(
        ref, leads=settings.leads or None, start=settings.start, stop=settings.stop or None, loop=settings.loop
    )


def _serve(
    config: Config,
    load: Callable[[], Config],
    signals: Signals,
    feeds: list[Feed],
    troubles: list[tuple[str, str]],
) -> bool:
    """Send the feeds; return whether a source failed."""
    address, connection_keys = monitor_address(config, "producer")
    warm_up()
    exclude_imports_from_garbage_collection()
    producer = Producer(
        address,
        feeds,
        keys=connection_keys,
        buffer_items=config.producer.buffer_items,
        drain_seconds=config.runtime.drain_seconds,
        troubles=troubles,
    )
    reloader = Reloader("producer", config, load, request=signals.reload, service=signals.service)
    try:
        producer.run(
            signals.stopping(config.runtime.drain_seconds),
            lambda status: reloader.turned(status, lambda _: None),  # only logs the keys that need a restart
        )
    finally:
        producer.close()
    return bool(producer.failed)
