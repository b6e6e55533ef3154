"""The commands ``run``, ``producer``, ``worker`` and ``monitor``: the daemon and its roles one by one."""

from __future__ import annotations

import gc
import os
import sys
import time
from argparse import SUPPRESS
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ecgmon.monitor.cli.check_config import add_config_flags, overrides
from ecgmon.monitor.config.reading import from_json, load

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from ecgmon.monitor.config.schema import Config, SourceSettings
    from ecgmon.monitor.metrics.instruments import Metrics
    from ecgmon.monitor.process.authenticator import Authenticator
    from ecgmon.pipelines.roles.producer import Feed
    from ecgmon.pipelines.roles.worker import Worker
    from ecgmon.pipelines.sources.record import RecordSource
    from ecgmon.pipelines.transport.keys import ConnectionKeys

_TICK_SECONDS: Final = 0.1
_GARBAGE: Final = (20_000, 50, 100)  # objects made before the youngest are searched, searches before the older are

_PHASES: Final = 37  # chunks between the phases of two streams; prime to those of a block: all phases occur


def load_config(args: Namespace, extra: dict[str, str] | None = None) -> Config:
    """Load the configuration of a command: defaults, file, environment, flags.

    Parameters
    ----------
    args : Namespace
        With the flags of :func:`ecgmon.monitor.cli.check_config.add_config_flags`.
    extra : dict, optional
        Values of the command's own flags by dotted key; they count as flags.

    Raises
    ------
    ConfigError
    """
    if getattr(args, "resolved", None) is not None:
        return from_json(args.resolved.read_bytes())
    return load(args.config, environ=os.environ, overrides={**overrides(args), **(extra or {})})


def _add_role_flags(parser: ArgumentParser) -> None:
    add_config_flags(parser)
    parser.add_argument("--resolved", type=Path, help=SUPPRESS)  # what a supervisor hands to its children
    parser.add_argument("--parent", type=int, help=SUPPRESS)


def _begin(args: Namespace, role: str, config: Config) -> None:
    from ecgmon.monitor.process.logs import configure
    from ecgmon.monitor.process.signals import end_with_parent

    configure(config.log, role=role)
    if args.parent is not None:
        end_with_parent(args.parent)


def _fail(error: Exception, status: int) -> int:
    print(f"ecgmon: {error}", file=sys.stderr)
    return status


# ---- monitor


def add_monitor(parser: ArgumentParser) -> None:
    """Add the arguments of ``ecgmon monitor``."""
    parser.description = (
        "Take beats from producers, have workers score them, store scores and alerts, serve metrics. "
        "SIGTERM and Ctrl-C finish what is in progress, within [runtime] drain_seconds."
    )
    _add_role_flags(parser)


def run_monitor(args: Namespace) -> int:
    """Run the monitor until it is asked to stop."""
    from ecgmon.monitor.process.signals import ReloadRequest, StopRequest
    from ecgmon.monitor.process.systemd import Service

    stopping, reload = StopRequest(), ReloadRequest()  # first of all: what is imported below takes seconds
    service = Service()

    from zmq import ZMQError

    from ecgmon.models.weights.checkpoint import CheckpointError, default_weights, read_info
    from ecgmon.monitor.metrics.instruments import Metrics
    from ecgmon.monitor.process import connections as endpoints
    from ecgmon.monitor.process.monitor import Monitor
    from ecgmon.monitor.process.reload import Reloader
    from ecgmon.monitor.process.supervisor import EXIT_REFUSED
    from ecgmon.monitor.store import Store, StoreError
    from ecgmon.monitor.web.exporter import ExporterError, serve
    from ecgmon.pipelines.scoring import chain
    from ecgmon.pipelines.transport.keys import KeyFileError

    config = load_config(args)
    _begin(args, "monitor", config)
    runtime = Path(config.runtime.dir)
    try:
        info = read_info(_weights(config) or default_weights())
        endpoints.claim(runtime)
        metrics = Metrics(threshold=config.alerts.score_threshold, max_stream_labels=config.exporter.max_stream_labels)
        authenticator = _authenticator(config, metrics)
        store = Store(Path(config.store.path))
    except (CheckpointError, endpoints.EndpointError, KeyFileError, StoreError) as error:
        return _fail(error, EXIT_REFUSED)
    with store:
        metrics.build.info({"version": version("ecgmon")})
        chain.warm_up()
        _settle()
        try:
            monitor = Monitor(
                config, info=info, store=store, metrics=metrics, runtime=runtime, authenticator=authenticator
            )
        except (endpoints.EndpointError, ZMQError) as error:
            return _fail(error, EXIT_REFUSED)
        try:
            exporter = serve(metrics, monitor.health, config.exporter)
        except ExporterError as error:
            monitor.close()
            return _fail(error, EXIT_REFUSED)
        monitor.metrics_url = exporter.url
        reloader = Reloader(
            "monitor", config, lambda: load_config(args), asked=reload, service=service, refusals=(StoreError,),
            ended=metrics.reload_success.set,
        )  # fmt: skip

        def take(new: Config) -> None:
            monitor.reconfigure(new, read_info(_weights(new) or default_weights()))

        try:
            monitor.run(
                service.watch(stopping, config.runtime.drain_seconds), lambda said: reloader.turned(said, take)
            )  # fmt: skip
        finally:
            exporter.close()
            monitor.close()
    return 0


def _settle() -> None:
    """Leave what was imported out of every later search for garbage: it stays, and looking through it takes 70 ms.

    Search seldom: nearly all that a role makes are rows and arrays, which go when they are done with.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GARBAGE)


def _weights(config: Config) -> Path | None:
    return Path(config.worker.weights) if config.worker.weights else None


def _authenticator(config: Config, metrics: Metrics) -> Authenticator | None:
    """Guard the monitor's tcp addresses, if it has any; keys are demanded before anything is bound."""
    network = config.network
    if not (network.bind_producers or network.bind_workers):
        return None
    from ecgmon.monitor.process.authenticator import Authenticator
    from ecgmon.pipelines.transport import keys

    return Authenticator(
        keys.find(network.key_file, os.environ),
        Path(network.clients),
        refused=lambda role: metrics.rejected.labels(role, "handshake").inc(),
    )


def _way(config: Config, role: str) -> tuple[str, ConnectionKeys | None]:
    """Where a role finds its monitor, and the keys that it takes there.

    Raises
    ------
    ecgmon.monitor.process.connections.EndpointError, ecgmon.pipelines.transport.keys.KeyFileError
    """
    from ecgmon.monitor.process import connections as endpoints
    from ecgmon.pipelines.transport import keys

    network = config.network
    remote = network.connect_producers if role == "producer" else network.connect_workers
    if not remote:
        name = endpoints.PRODUCERS if role == "producer" else endpoints.WORKERS
        return endpoints.endpoint(Path(config.runtime.dir), name), None
    return remote, keys.ConnectionKeys(
        keys.find(network.key_file, os.environ), keys.checked(network.monitor_key.encode())
    )


# ---- worker


def add_worker(parser: ArgumentParser) -> None:
    """Add the arguments of ``ecgmon worker``."""
    parser.description = "Score the beats that the monitor hands out, on a GPU or on the CPU. Any number may run."
    _add_role_flags(parser)


def run_worker(args: Namespace) -> int:
    """Run a worker until it is asked to stop."""
    from ecgmon.monitor.process.signals import ReloadRequest, StopRequest
    from ecgmon.monitor.process.systemd import Service

    stopping, reload = StopRequest(), ReloadRequest()  # first of all: what is imported below takes seconds
    service = Service()

    from ecgmon.models.weights.checkpoint import CheckpointError
    from ecgmon.monitor.process import connections as endpoints
    from ecgmon.monitor.process.reload import Reloader
    from ecgmon.monitor.process.supervisor import EXIT_REFUSED
    from ecgmon.pipelines.roles.worker import Model, Worker, WorkerError, load_model
    from ecgmon.pipelines.transport.keys import KeyFileError

    config = load_config(args)
    _begin(args, "worker", config)

    def model(config: Config) -> Model:
        return load_model(_weights(config), config.worker.device, config.worker.threads)

    try:
        address, line = _way(config, "worker")
        loaded = model(config)
        _settle()
        worker = Worker(
            address, loaded.scorer, device=loaded.device, credit=config.worker.credit_batches, line=line,
            spare=loaded.spare,
        )  # fmt: skip
        reloader = Reloader(
            "worker", config, lambda: load_config(args), asked=reload, service=service, refusals=(WorkerError,)
        )

        def take(new: Config) -> None:
            if new.worker != reloader.config.worker or _weights_changed(worker, new):
                worker.renew(model(new), credit=new.worker.credit_batches)

        try:
            worker.run(
                service.watch(stopping, config.runtime.drain_seconds), lambda said: reloader.turned(said, take)
            )  # fmt: skip
        finally:
            worker.close()
    except (CheckpointError, KeyFileError, WorkerError, endpoints.EndpointError) as error:
        return _fail(error, EXIT_REFUSED)
    return 0


def _weights_changed(worker: Worker, config: Config) -> bool:
    """Whether the file of the weights is another by now, under the same name."""
    from ecgmon.models.weights.checkpoint import default_weights, read_info

    return read_info(_weights(config) or default_weights()).fingerprint != worker.fingerprint


# ---- producer


def add_producer(parser: ArgumentParser) -> None:
    """Add the arguments of ``ecgmon producer``."""
    parser.description = (
        "Read the [[source]] records of the configuration, cut them into beats, send them, "
        "and end when all of them are stored."
    )
    _add_role_flags(parser)


def run_producer(args: Namespace) -> int:
    """Run a producer until its sources are stored or it is asked to stop; 1 if a source failed."""
    from ecgmon.monitor.process.signals import ReloadRequest, StopRequest
    from ecgmon.monitor.process.systemd import Service

    stopping, reload = StopRequest(), ReloadRequest()  # first of all: what is imported below takes seconds
    service = Service()

    from ecgmon.monitor.process import connections as endpoints
    from ecgmon.monitor.process.reload import Reloader
    from ecgmon.monitor.process.supervisor import EXIT_FAILED, EXIT_REFUSED
    from ecgmon.pipelines.roles.producer import Producer, ProducerError, warm_up
    from ecgmon.pipelines.transport.keys import KeyFileError

    config = load_config(args)
    _begin(args, "producer", config)
    feeds, troubles = _open_feeds(config)
    for stream, reason in troubles:
        print(f"ecgmon: {stream}: {reason}", file=sys.stderr)
    if not feeds:
        if not troubles:
            print("ecgmon: there is nothing to read: the configuration has no [[source]]", file=sys.stderr)
        return EXIT_REFUSED
    try:
        address, line = _way(config, "producer")
        warm_up()
        _settle()
        producer = Producer(
            address,
            feeds,
            line=line,
            buffer_items=config.producer.buffer_items,
            drain_seconds=config.runtime.drain_seconds,
            troubles=troubles,
        )
    except (KeyFileError, ProducerError, endpoints.EndpointError) as error:
        return _fail(error, EXIT_REFUSED)
    reloader = Reloader("producer", config, lambda: load_config(args), asked=reload, service=service)
    try:
        producer.run(
            service.watch(stopping, config.runtime.drain_seconds),
            lambda said: reloader.turned(said, lambda _: None),  # it says which keys a restart is needed for
        )
    except ProducerError as error:
        return _fail(error, EXIT_REFUSED)
    finally:
        producer.close()
    return EXIT_FAILED if producer.failed else 0


def _open_feeds(config: Config) -> tuple[list[Feed], list[tuple[str, str]]]:
    from ecgmon.pipelines.roles.producer import Feed, unpaced_chunk
    from ecgmon.pipelines.segmentation.segmenter import SegmentationError
    from ecgmon.pipelines.sources.errors import SourceError

    feeds: list[Feed] = []
    troubles: list[tuple[str, str]] = []
    for settings in config.source:
        try:
            feed = Feed(
                _open_source(settings), settings.speed, config.producer.chunk_seconds, unpaced_chunk(len(config.source)),
                live=settings.live, phase=_PHASES * len(feeds),
            )  # fmt: skip
        except (SourceError, SegmentationError) as error:
            troubles.append((settings.name or settings.record, str(error)))
            continue
        if any(feed.source.stream == other.source.stream for other in feeds):
            troubles.append((feed.source.stream, "two sources have this name; give one another with `name`"))
            continue
        feeds.append(feed)
    return feeds, troubles


def _open_source(settings: SourceSettings) -> RecordSource:
    from dataclasses import replace

    from ecgmon.pipelines.sources.finding import resolve
    from ecgmon.pipelines.sources.record import open_source

    ref = resolve([settings.record])[0]
    if settings.name:
        ref = replace(ref, stream=settings.name)
    return open_source(
        ref, leads=settings.leads or None, start=settings.start, stop=settings.stop or None, loop=settings.loop
    )


# ---- run


def add_run(parser: ArgumentParser) -> None:
    """Add the arguments of ``ecgmon run``."""
    parser.description = (
        "The daemon: a monitor, its workers and a producer for the [[source]] records, under one supervisor "
        "that starts again what fails. SIGTERM and Ctrl-C drain within [runtime] drain_seconds and exit 0."
    )
    add_config_flags(parser)
    parser.add_argument("--state", metavar="DIR", help="state folder, as [store] path")
    parser.add_argument("--port", metavar="N", help="port of the metrics, as [exporter] port; 0 takes a free one")
    parser.add_argument("--workers", metavar="N", help="number of workers, as [worker] count")


def run_run(args: Namespace) -> int:
    """Run the daemon until it is asked to stop."""
    from ecgmon.models.weights.checkpoint import default_weights, read_info
    from ecgmon.monitor.process.logs import configure
    from ecgmon.monitor.process.reload import Reloader
    from ecgmon.monitor.process.signals import ReloadRequest, StopRequest
    from ecgmon.monitor.process.supervisor import Supervisor, SupervisorError
    from ecgmon.monitor.process.systemd import Service

    stopping, reload = StopRequest(), ReloadRequest()
    service = Service()
    named = {"store.path": args.state, "exporter.port": args.port, "worker.count": args.workers}
    flags = {key: value for key, value in named.items() if value is not None}
    config = load_config(args, flags)
    configure(config.log, role="supervisor")
    supervisor = Supervisor(config)
    try:
        supervisor.start(stopping)
        asked = service.watch(stopping, len(supervisor.roles) * config.runtime.drain_seconds)
        reloader = Reloader("supervisor", config, lambda: load_config(args, flags), asked=reload, service=service)

        def take(new: Config) -> None:
            read_info(_weights(new) or default_weights())
            supervisor.reload(new)

        while not asked():
            supervisor.watch()  # goes on when the sources have ended: other producers may connect
            reloader.turned(lambda: f"{len(supervisor.roles)} roles", take)
            time.sleep(_TICK_SECONDS)
    except SupervisorError as error:
        return _fail(error, error.status)
    finally:
        supervisor.stop()
    return 0
