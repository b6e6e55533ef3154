"""``ecgmon bench live``: live streams in real time, from a few to more than the machine can handle."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from ecgmon.monitor.bench.rig import quantiles, rig
from ecgmon.monitor.config.schema import DeliverySettings, ProducerSettings, SourceSettings, WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecgmon.pipelines.sources.finding import RecordRef
    from ecgmon.pipelines.sources.interfaces import Record

CURVE: Final = (10, 30, 100, 200, 400, 600, 800, 1000, 1500, 2000, 3000, 5000)
"""Numbers of streams, tried in this order until one is not held."""

HELD_SECONDS: Final = 0.1
"""A number of streams is held if nothing is dropped and the 99th percentile of the latency is not above this."""

_FEW: Final = 10  # streams of a first run, whose memory is subtracted
_FEW_SECONDS: Final = 5.0
_START_SECONDS: Final = 180.0
_SETTLE_SECONDS: Final = 10.0  # not measured: the detector learns, alerts are raised and cleared
_APART_SECONDS: Final = 37.0  # between the starts of two streams of one record
_ITEMS_PER_STREAM: Final = 16
_LEAST_ITEMS: Final = 4096


def _sources(refs: list[RecordRef], records: list[Record], streams: int) -> list[SourceSettings]:
    sources = []
    for number in range(streams):
        which = number % len(refs)
        half = records[which].length / records[which].fs / 2
        sources.append(
            SourceSettings(
                record=str(refs[which].path or "toy"), name=f"s{number}", live=True, loop=0,
                start=(number // len(refs)) * _APART_SECONDS % half,
            )
        )  # fmt: skip
    return sources


def run_once(refs: list[RecordRef], records: list[Record], *, streams: int, seconds: float) -> dict[str, Any]:
    """Run live streams for some time.

    Returns
    -------
    dict
        ``streams``, ``latency_seconds`` (p50, p99, max: from the arrival of the last sample of a window to the commit),
        ``cpu_cores`` and ``rss_bytes`` (all roles together, and of each), ``dropped``, ``beats``.

    Raises
    ------
    BenchError
        If the pipeline does not start, or a process ends.
    """
    items = max(_LEAST_ITEMS, _ITEMS_PER_STREAM * streams)
    with rig(
        _sources(refs, records, streams),
        worker=WorkerSettings(device="cpu"),
        delivery=DeliverySettings(max_streams=max(10_000, streams), window_items=items, queue_items=4 * items),
        producer=ProducerSettings(buffer_items=items),
    ) as pipeline:
        pipeline.wait_for(lambda status: status.producers > 0, _START_SECONDS, "the producer did not join")
        _watch(pipeline.watch, _SETTLE_SECONDS)
        began, cpu, counts, stored = time.monotonic(), pipeline.cpu(), pipeline.latencies(), pipeline.status().stored
        _watch(pipeline.watch, seconds)
        spent = time.monotonic() - began
        cores = {role: (after - cpu[role]) / spent for role, after in pipeline.cpu().items()}
        counts = pipeline.latencies() - counts
        rss = pipeline.rss()
        status = pipeline.status()
    return {
        "streams": streams,
        "records": len(refs),
        "leads": max(len(record.leads) for record in records),
        "seconds": spent,
        "latency_seconds": quantiles(counts),
        "cpu_cores": sum(cores.values()),
        "roles_cpu_cores": cores,
        "rss_bytes": sum(rss.values()),
        "roles_rss_bytes": rss,
        "dropped": status.dropped,
        "beats": status.stored - stored,
    }


def _watch(watch: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        watch()
        time.sleep(min(0.5, max(0.0, until - time.monotonic())))


def live(
    refs: list[RecordRef],
    records: list[Record],
    *,
    streams: int,
    seconds: float = 60.0,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure a number of streams; ``bytes_per_stream`` is the memory of each beyond the first ten, or None."""
    from ecgmon.models.inference.benchmark import machine
    from ecgmon.pipelines.roles.warm_up import warm_up

    progress(f"{_FEW} streams, to compare the memory")
    warm_up()  # compile now: a process that compiles takes more memory than one that loads compiled loops
    few = run_once(refs, records, streams=min(_FEW, streams), seconds=_FEW_SECONDS)
    progress(f"{streams} streams for {seconds:g} s")
    found = run_once(refs, records, streams=streams, seconds=seconds)
    more = streams - few["streams"]
    found["bytes_per_stream"] = (found["rss_bytes"] - few["rss_bytes"]) / more if more else None
    return found | {"held": held(found), "machine": machine()}


def curve(
    refs: list[RecordRef],
    records: list[Record],
    *,
    seconds: float = 20.0,
    numbers: tuple[int, ...] = CURVE,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure increasing numbers of streams, up to the first that is not held."""
    from ecgmon.models.inference.benchmark import machine

    points: list[dict[str, Any]] = []
    for streams in numbers:
        progress(f"{streams} streams for {seconds:g} s")
        points.append(run_once(refs, records, streams=streams, seconds=seconds))
        if not held(points[-1]):
            break
    return {"points": points, "held": [held(point) for point in points], "machine": machine()}


def held(found: dict[str, Any]) -> bool:
    """Return whether a number of streams was held."""
    return bool(found["dropped"] == 0 and found["latency_seconds"]["p99"] <= HELD_SECONDS)
