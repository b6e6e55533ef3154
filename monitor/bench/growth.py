"""``ecgmon bench growth`` and ``soak``: speed against load, and memory against time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ecgmon.monitor.bench.pipeline import BATCH, loops, run_once
from ecgmon.monitor.bench.rig import BenchError, rig
from ecgmon.monitor.config.schema import DeliverySettings, ProducerSettings, SourceSettings, WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecgmon.pipelines.sources.finding import RecordRef
    from ecgmon.pipelines.sources.interfaces import Record

_STREAMS: Final = (1, 4, 16, 48)
_WORKERS: Final = (1, 2, 3, 4)
_BATCHES: Final = (16, 64, 256, 1024)
_MINUTES: Final = (5.0, 15.0, 30.0)
_SAMPLE_SECONDS: Final = 5.0
_WARM_SHARE: Final = 0.2  # of a soak, not counted: buffers fill, caches warm up
_START_SECONDS: Final = 120.0


def growth(
    refs: list[RecordRef], records: list[Record], *, progress: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Measure speed and latency against the numbers of streams and workers, the batch limit and the length of records.

    Records are repeated to a day of signal; to measure the length of records, each is played once.

    Returns
    -------
    dict
        By quantity, then by its value: the result of :func:`ecgmon.monitor.bench.pipeline.run_once`.
    """
    from ecgmon.models.inference.benchmark import machine

    def runs(name: str, values: tuple[Any, ...], **same: Any) -> dict[str, Any]:  # noqa: ANN401 - as run_once takes them
        found = {}
        for value in values:
            progress(f"{name} {value}")
            found[str(value)] = run_once(refs, **{"loop": loops(records), **same, name: value})
        return found

    by_streams = {}
    for streams in _STREAMS:
        progress(f"streams {streams}")
        which = [k % len(refs) for k in range(streams)]
        by_streams[str(streams)] = run_once([refs[k] for k in which], loop=loops([records[k] for k in which]))
    return {
        "streams": by_streams,
        "workers": runs("workers", _WORKERS),
        "batch": runs("batch", _BATCHES),
        "stop": runs("stop", tuple(60 * minutes for minutes in _MINUTES), loop=1),
        "default_batch": BATCH,
        "machine": machine(),
    }


def soak(refs: list[RecordRef], *, minutes: float, progress: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Run at full speed for a long time and fit a line to the memory of each role.

    Returns
    -------
    dict
        ``minutes``, ``beats``, ``beats_per_second``; ``roles``: by role, bytes of memory at the ``first`` and ``last``
        sample of the fitted part, and ``slope_bytes_per_hour``; ``samples``.

    Raises
    ------
    BenchError
        If a process ends, or beats are dropped.
    """
    from ecgmon.models.inference.benchmark import machine

    sources = [
        SourceSettings(record=str(ref.path or "toy"), name=f"s{number}", speed=0.0, loop=0)
        for number, ref in enumerate(refs)
    ]
    times: list[float] = []
    samples: dict[str, list[float]] = {"monitor": [], "worker": [], "producer": []}
    with rig(
        sources,
        worker=WorkerSettings(device="cpu"),
        delivery=DeliverySettings(batch_beats=BATCH),
        producer=ProducerSettings(),
    ) as pipeline:
        pipeline.wait_for(lambda status: status.stored > 0, _START_SECONDS, "no beat was stored")
        began, first = time.monotonic(), pipeline.status().stored
        while (now := time.monotonic() - began) < 60 * minutes:
            pipeline.watch()
            times.append(now)
            for role, bytes_ in pipeline.rss().items():
                samples[role].append(bytes_)
            if len(times) % 12 == 1:
                progress(
                    f"{now / 60:.0f} of {minutes:g} minutes, {sum(found[-1] for found in samples.values()):.0f} bytes"
                )
            time.sleep(_SAMPLE_SECONDS)
        status = pipeline.status()
        spent = time.monotonic() - began
    if status.dropped:
        raise BenchError(f"{status.dropped} beats were dropped")
    counted = np.array(times) >= _WARM_SHARE * times[-1]
    hours = np.array(times)[counted] / 3600
    roles = {}
    for role, values in samples.items():
        kept = np.array(values)[counted]
        slope = float(np.polyfit(hours, kept, 1)[0]) if len(kept) > 1 else None
        roles[role] = {"first": float(kept[0]), "last": float(kept[-1]), "slope_bytes_per_hour": slope}
    return {
        "minutes": spent / 60,
        "beats": status.stored - first,
        "beats_per_second": (status.stored - first) / spent,
        "roles": roles,
        "samples": {"seconds": times} | samples,
        "machine": machine(),
    }
