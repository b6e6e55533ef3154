"""Time per beat of each stage, and its lower bound: one process, one core, no sockets."""

from __future__ import annotations

import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ecgmon.models.features import BEATS
from ecgmon.models.windows import FILTER_HALF, FS, LENGTH
from ecgmon.monitor.bench.segment import one_core
from ecgmon.monitor.config.schema import AlertSettings
from ecgmon.monitor.core.exchange import Lot
from ecgmon.monitor.core.outcomes import StreamRules, conclude, observe
from ecgmon.monitor.store import Store
from ecgmon.pipelines import wire
from ecgmon.pipelines.items import ITEM
from ecgmon.pipelines.roles.producer import UNPACED_CHUNK_SECONDS
from ecgmon.pipelines.segmentation.qrs import gabor
from ecgmon.pipelines.segmentation.segmenter import Segmenter
from ecgmon.pipelines.sources.record import RecordSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ecgmon.models.inference.reconstruction import Reconstruction, Scorer
    from ecgmon.models.weights.checkpoint import ModelInfo
    from ecgmon.monitor.bench.profile import Profile
    from ecgmon.pipelines.items import Items
    from ecgmon.pipelines.sources.interfaces import Record

STAGES: Final = {
    "read": "read the record with wfdb, convert it to millivolts",
    "segment": "find the beats, judge the signal, cut and filter windows",
    "wire": "pack, check and unpack the three messages that carry a beat",
    "reconstruct": "scale, run the student, A(x) and its ticks",
    "evidence": "compare with the stream's last beats and intervals",
    "density": "the score from the evidence",
    "rules": "alert rules, rows",
    "store": "write and sync",
}
"""Stages, in order, and what they do."""

_LOTS: Final = 3  # chunks of a stream in a commit, about as many as at full speed
_PARTS: Final = 8  # chunks in a message: about the 1024 items that a producer sends
_BATCH_BEATS: Final = 1024
_SYNC_BYTES: Final = 8 * 2**20
_COMMIT_BYTES: Final = 2**20


class Clock:
    """Adds up the processor time of stages."""

    def __init__(self, profile: Profile | None) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._profile = profile

    def of(self, stage: str, what: Callable[[], Any]) -> Any:  # noqa: ANN401 - the result of ``what``
        """Run a function, and count its time for a stage."""
        if self._profile is not None:
            self._profile.enter(stage)
        began = time.thread_time()
        done = what()
        self.seconds[stage] += time.thread_time() - began
        if self._profile is not None:
            self._profile.leave()
        return done


def measure(records: list[Record], scorer: Scorer, profile: Profile | None = None) -> tuple[dict[str, float], int]:
    """Run records through every stage, one stage at a time.

    Parameters
    ----------
    profile : Profile, optional
        Gets the name of the running stage.

    Returns
    -------
    stages : dict
        Processor time in microseconds per beat.
    beats : int
    """
    clock = Clock(profile)
    with one_core(), tempfile.TemporaryDirectory(prefix="ecgmon-bench-") as name, Store(Path(name)) as store:
        lots: list[list[Lot]] = []
        rules: list[StreamRules] = []
        for number, record in enumerate(records):
            stream = f"s{number}"
            state = store.open_stream(stream, record.fs, Segmenter(record.fs, record.leads).leads, 0)
            rules.append(StreamRules(state, AlertSettings()))
            lots.append(_lots(clock, record, stream, scorer))
        beats = sum(len(lot.items.windows) for each in lots for lot in each)
        model = store.use_model(scorer.info.fingerprint, scorer.info.name)
        for first in range(0, max(map(len, lots)), _LOTS):
            now = [(rule, each[first : first + _LOTS]) for rule, each in zip(rules, lots, strict=True)]
            _commit(clock, [(rule, own) for rule, own in now if own], scorer.info, store, model)
    return {stage: 1e6 * seconds / beats for stage, seconds in clock.seconds.items()}, beats


def _lots(clock: Clock, record: Record, stream: str, scorer: Scorer) -> list[Lot]:
    """Read, segment, send and score one record."""
    segmenter = Segmenter(record.fs, record.leads)
    items: list[Items] = []
    chunks = RecordSource(stream, record, 0, record.length, 1).chunks(UNPACED_CHUNK_SECONDS)
    while (chunk := clock.of("read", partial(next, chunks, None))) is not None:
        items.append(clock.of("segment", partial(segmenter.push, chunk)))
    items.append(clock.of("segment", segmenter.finish))
    items = [part for part in items if len(part)]

    def deliver() -> list[Items]:
        arrived: list[Items] = []
        position = 0
        for first in range(0, len(items), _PARTS):
            parts = []
            for part in items[first : first + _PARTS]:
                parts.append((0, position, part, np.zeros(len(part), np.float32)))
                position += len(part)
            frames = wire.pack_deliver(1, parts, 0.0)
            header = wire.decode(wire.from_producer, frames)
            assert isinstance(header, wire.Deliver)
            arrived += [own for own, _ in wire.unpack_deliver(header, frames, [len(segmenter.leads)])]
        return arrived

    arrived: list[Items] = clock.of("wire", deliver)
    windows = np.concatenate([part.windows for part in arrived])[:, : scorer.info.leads]
    errors = np.empty(len(windows), np.float32)
    ticks = np.empty((len(windows), LENGTH), np.float16)
    for first in range(0, len(windows), _BATCH_BEATS):
        batch = windows[first : first + _BATCH_BEATS]

        given = clock.of("wire", partial(_batch, batch))
        raw = clock.of("reconstruct", partial(scorer.score, given))
        part = slice(first, first + len(batch))
        errors[part], ticks[part] = clock.of("wire", partial(_answer, raw))
    lots, position, beat = [], 0, 0
    for own in arrived:
        lot = Lot(stream, position, own, np.zeros(len(own)), 0.0)
        lot.ax[:] = errors[beat : beat + len(own.windows)]
        lot.ticks[:] = ticks[beat : beat + len(own.windows)]
        lot.unscored = 0
        lots.append(lot)
        position += len(own)
        beat += len(own.windows)
    return lots


def _batch(windows: NDArray[np.float32]) -> NDArray[np.float32]:
    frames = wire.pack_batch(1, 0, windows)
    header = wire.decode(wire.to_worker, frames)
    assert isinstance(header, wire.Batch)
    return wire.unpack_batch(header, frames)


def _answer(raw: Reconstruction) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
    return wire.unpack_scores(wire.pack_scores(1, 0, 0.0, raw.ax, raw.ticks), len(raw.ax))


def _commit(
    clock: Clock, arrived: list[tuple[StreamRules, list[Lot]]], info: ModelInfo, store: Store, model: int
) -> None:
    observed = clock.of("evidence", lambda: observe(arrived))
    scores = clock.of("density", lambda: observed.score(info.score))
    outcomes = clock.of("rules", lambda: conclude(arrived, observed, scores))
    clock.of("store", lambda: store.write([outcome.entry for outcome in outcomes], model, 0))
    for (rule, _), outcome in zip(arrived, outcomes, strict=True):
        rule.commit(outcome.entry)


def floors(scorer: Scorer, records: list[Record], beats: int, stored_bytes: float) -> dict[str, dict[str, float]]:
    """Return a lower bound of each stage's time per beat on one core, from its arithmetic and its bytes.

    Parameters
    ----------
    stored_bytes : float
        Bytes of a beat in the store.

    Returns
    -------
    dict
        By stage: ``operations`` and ``bytes`` of a beat, and ``microseconds`` at the rates measured here: of a large
        matrix product, of a large copy, and for the store, of a sequential write that is synced every megabyte.
    """
    from ecgmon.models.inference.benchmark import peak, threads

    with one_core(), threads(1):
        rate, copy = peak()
        disk = disk_bytes_per_second()
    info = scorer.info
    signal = sum(record.length * len(record.leads) for record in records) / beats  # samples
    leads = max(min(len(record.leads), 2) for record in records)
    window = LENGTH * 4.0
    work: dict[str, tuple[float, float, float]] = {
        # operations, bytes through memory, bytes to disk
        "read": (3 * signal, 6 * signal, 0.0),
        "segment": (2.0 * _taps(records, beats), 4 * signal + leads * window, 0.0),
        "wire": (0.0, leads * window + info.leads * window + LENGTH * 2.0 + ITEM.itemsize, 0.0),
        "reconstruct": (2.0 * scorer.multiply_adds, info.leads * window + LENGTH * 2.0, 0.0),
        "evidence": (3.0 * BEATS * leads * 53, 2.0 * leads * 53 * BEATS, 0.0),
        "density": (2.0 * _density_operations(info), 0.0, 0.0),
        "rules": (0.0, float(ITEM.itemsize), 0.0),
        "store": (0.0, stored_bytes, stored_bytes),
    }
    return {
        stage: {
            "operations": operations,
            "bytes": moved,
            "microseconds": 1e6 * (operations / rate + moved / copy + written / disk),
        }
        for stage, (operations, moved, written) in work.items()
    }


def _taps(records: list[Record], beats: int) -> float:
    """Count the filter multiplications per beat: two QRS filters on every sample, one on the samples of windows."""
    leads = max(min(len(record.leads), 2) for record in records)
    samples = sum(record.length / record.fs * FS * min(len(record.leads), 2) for record in records) / beats
    return samples * gabor().size + min(samples, leads * LENGTH) * (2 * FILTER_HALF + 1)


def _density_operations(info: ModelInfo) -> float:
    part = info.score.parts[0]
    if part is None or part.joint is None:
        return 0.0
    density = part.joint.density
    return float(density.into.size + density.within.size + density.out.size + density.basis.size)


def disk_bytes_per_second(folder: Path | None = None) -> float:
    """Return the rate of a sequential write that is synced every megabyte."""
    block = bytes(_COMMIT_BYTES)
    with tempfile.NamedTemporaryFile(prefix="ecgmon-bench-", dir=folder) as file:
        began = time.perf_counter()
        for _ in range(_SYNC_BYTES // _COMMIT_BYTES):
            file.write(block)
            file.flush()
            os.fdatasync(file.fileno())
        return _SYNC_BYTES / (time.perf_counter() - began)
