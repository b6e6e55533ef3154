"""``ecgmon bench pipeline``: records from disk to stored scores at full speed, against the full BeatGAN generator."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Final

from ecgmon.monitor.bench import stages
from ecgmon.monitor.bench.profile import Profile
from ecgmon.monitor.bench.rig import BenchError, rig
from ecgmon.monitor.config.schema import DeliverySettings, ProducerSettings, SourceSettings, WorkerSettings
from ecgmon.monitor.store import FILE, Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ecgmon.monitor.core.status import Status
    from ecgmon.pipelines.sources.finding import RecordRef
    from ecgmon.pipelines.sources.interfaces import Record

BATCH: Final = 1024
"""Default number of beats in a batch: at full speed every batch is full."""

_PLAYED_SECONDS: Final = 24 * 3600.0  # of signal, about a hundred thousand beats: a few seconds of work
_REFERENCE_SECONDS: Final = 6.0
_START_SECONDS: Final = 120.0
_END_SECONDS: Final = 3600.0
_LEAST_SECONDS: Final = 0.05  # between the first two polls of the status
_MOST_SECONDS: Final = 0.2  # between later polls: twenty a second would take a twentieth of a core
_ITEMS: Final = 16_384
_LEAST_SHARE: Final = 0.03  # of a stage's time: functions below it are not listed
_LEAST_SAMPLES: Final = 300  # of every stage, so that this share is about nine samples
_MOST_PASSES: Final = 10  # over short records, to get that many samples


def run_once(
    refs: list[RecordRef], *, loop: int, workers: int = 1, batch: int = BATCH, stop: float = 0.0
) -> dict[str, Any]:
    """Run records through the pipeline once.

    Parameters
    ----------
    loop : int
        How often each record is played.
    workers : int
    batch : int
        Largest number of beats in a batch.
    stop : float
        Time in a record at which to stop, in s; 0: at its end.

    Returns
    -------
    dict
        ``beats``, ``seconds`` from the first item to the last commit, ``beats_per_second``, ``latency_seconds``,
        ``cpu_seconds_per_beat`` of each role, without its start, ``rss_bytes`` of each role, ``store_bytes`` per beat.

    Raises
    ------
    BenchError
        If beats were lost or repeated, or a process ended.
    """
    sources = [
        SourceSettings(record=str(ref.path or "toy"), name=f"s{number}", speed=0.0, loop=loop, stop=stop)
        for number, ref in enumerate(refs)
    ]
    with rig(
        sources,
        worker=WorkerSettings(count=workers, device="cpu"),
        delivery=DeliverySettings(batch_beats=batch, window_items=_ITEMS),
        producer=ProducerSettings(buffer_items=_ITEMS),
    ) as pipeline:
        pipeline.wait_for(lambda status: len(status.workers) == workers, _START_SECONDS, "the workers did not join")
        before = pipeline.cpu()
        pipeline.wait_for(  # a producer with little data may have left already
            lambda status: status.producers > 0 or status.segmented > 0, _START_SECONDS, "the producer did not join"
        )
        before["producer"] = pipeline.cpu().get("producer", 0.0)
        cpu, rss = dict(before), pipeline.rss()
        until = time.monotonic() + _END_SECONDS
        pause = _LEAST_SECONDS
        while pipeline.watch():
            if time.monotonic() > until:
                raise BenchError(f"the records were not stored within {_END_SECONDS:g} s")
            cpu |= {role: max(seconds, cpu.get(role, 0.0)) for role, seconds in pipeline.cpu().items()}
            rss |= {role: max(rss.get(role, 0.0), bytes_) for role, bytes_ in pipeline.rss().items()}
            time.sleep(pause)
            pause = min(_MOST_SECONDS, 1.1 * pause)
        status = pipeline.status()
        cpu |= {role: max(seconds, cpu.get(role, 0.0)) for role, seconds in pipeline.cpu().items()}
        _check(status, len(refs))
        store_bytes = (pipeline.state / FILE).stat().st_size
        with Reader(pipeline.state) as reader:
            stored = sum(stream.beats for stream in reader.streams())
        if stored != status.stored:
            raise BenchError(f"the monitor stored {status.stored} beats, the store has {stored}")
    return {
        "beats": status.stored,
        "seconds": status.busy_seconds,
        "beats_per_second": status.stored / status.busy_seconds,
        "latency_seconds": {"p50": status.latency_p50, "p99": status.latency_p99},
        "cpu_seconds_per_beat": {role: (cpu[role] - before[role]) / status.stored for role in before},
        "rss_bytes": rss,
        "store_bytes": store_bytes / status.stored,
    }


def loops(records: Sequence[Record]) -> int:
    """Return how often to play these records so that a run is long enough to measure."""
    return math.ceil(_PLAYED_SECONDS / sum(record.length / record.fs for record in records))


def _check(status: Status, streams: int) -> None:
    if status.troubles:
        stream, reason = next(iter(status.troubles.items()))
        raise BenchError(f"{stream}: {reason}")
    if not status.segmented == status.scored == status.stored or status.dropped or status.redelivered:
        raise BenchError(
            f"of {status.segmented} beats {status.stored} were stored, {status.dropped} dropped, "
            f"{status.redelivered} sent again; a run with lost or repeated beats is not a valid measurement"
        )
    if sum(stream.ended for stream in status.streams.values()) != streams:
        raise BenchError("not all streams ended")


def pipeline(
    refs: list[RecordRef],
    records: list[Record],
    *,
    repeats: int = 5,
    loop: int | None = None,
    workers: int = 1,
    batch: int = BATCH,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure the whole pipeline and the reference alternately.

    Parameters
    ----------
    refs, records
        The same records: by reference for the processes, and opened for this one.
    repeats : int
    loop : int, optional
        How often each record is played; by default, enough for a day of signal.

    Returns
    -------
    dict
        As docs/performance.md describes it.
    """
    from ecgmon.models.inference.benchmark import REFERENCE_BATCH, Reference, Spread, machine

    loop = loops(records) if loop is None else loop
    runs, references, ratios = [], [], []
    reference = Reference()
    for number in range(repeats + 1):
        progress(f"reference, {_REFERENCE_SECONDS:g} s")
        speed = reference.beats_per_second(_REFERENCE_SECONDS)
        progress(f"pipeline, round {number} of {repeats}" if number else "pipeline, warm-up round")
        run = run_once(refs, loop=loop, workers=workers, batch=batch)
        progress(f"{run['beats']} beats, {run['beats_per_second']:.0f} a second; reference {speed:.0f}")
        if number:
            runs.append(run)
            references.append(speed)
            ratios.append(run["beats_per_second"] / speed)
    cpu = {
        role: Spread(tuple(run["cpu_seconds_per_beat"][role] for run in runs)).median
        for role in runs[0]["cpu_seconds_per_beat"]
    }
    stored = Spread(tuple(run["store_bytes"] for run in runs)).median
    return {
        "beats_per_second": Spread(tuple(run["beats_per_second"] for run in runs)).median,
        "reference_beats_per_second": Spread(tuple(references)).median,
        "ratio": Spread(tuple(ratios)).median,
        "cpu_seconds_per_beat": sum(cpu.values()),
        "roles_cpu_seconds_per_beat": cpu,
        **_stages(records, stored, repeats=repeats, progress=progress),
        "spread": {
            "beats_per_second": Spread(tuple(run["beats_per_second"] for run in runs)).as_dict(),
            "reference_beats_per_second": Spread(tuple(references)).as_dict(),
            "ratio": Spread(tuple(ratios)).as_dict(),
        },
        "latency_seconds": runs[-1]["latency_seconds"],
        "rss_bytes": runs[-1]["rss_bytes"],
        "store_bytes_per_beat": stored,
        "reference_batch": REFERENCE_BATCH,
        "records": len(refs),
        "leads": max(len(record.leads) for record in records),
        "beats": runs[0]["beats"],
        "loop": loop,
        "workers": workers,
        "batch": batch,
        "repeats": repeats,
        "machine": machine(),
    }


def _stages(
    records: list[Record], stored_bytes: float, *, repeats: int, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Measure every stage by itself, and profile its functions.

    Parameters
    ----------
    stored_bytes : float
        Bytes per beat in the store.
    """
    from ecgmon.models.inference.benchmark import Spread
    from ecgmon.models.inference.reconstruction import Scorer

    progress("stages, each by itself")
    scorer = Scorer()
    stages.measure(records, scorer)  # warm-up: compiles and allocates memory
    measured = [stages.measure(records, scorer) for _ in range(repeats)]
    progress("profile of the stages")
    profile = Profile()
    with profile.running():
        for _ in range(_MOST_PASSES):
            stages.measure(records, scorer, profile)
            if profile.samples >= _LEAST_SAMPLES:
                break
    floors = stages.floors(scorer, records, measured[0][1], stored_bytes)
    return {
        "stages": {stage: Spread(tuple(found[stage] for found, _ in measured)).median for stage in measured[0][0]},
        "floor_microseconds_per_beat": sum(floor["microseconds"] for floor in floors.values()),
        "floors": floors,
        "profile": profile.shares(_LEAST_SHARE),
    }
