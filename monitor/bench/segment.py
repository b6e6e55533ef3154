"""``ecgmon bench segment``: speed of segmentation against references in the same run.

Absolute times of a shared machine mean little, so every figure comes with its spread and with the figure of a reference
that ran between its repeats.  Time is processor time of this thread: the time of other programs does not count, though
they still slow it down.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ecgmon.pipelines.segmentation.segmenter import Segmenter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from ecgmon.pipelines.sources.interfaces import Record

_REFERENCE_SECONDS: Final = 300.0  # of signal for the references, which are hundreds of times slower
_LARGE_CHUNK_SECONDS: Final = 60.0
_LIVE_SECONDS: Final = 0.25  # between two chunks of a live stream
_LIVE_ROUNDS: Final = 20  # chunks fed to every live stream: 5 s
_CHUNKS: Final = {"0.25 s": 0.25, "1 s": 1.0, "10 s": 10.0}
_CHUNKS_TIMED: Final = 200


@dataclass(frozen=True, slots=True)
class Timing:
    """Repeated measurements of one quantity.

    Attributes
    ----------
    values : tuple of float
    """

    values: tuple[float, ...]

    def as_dict(self) -> dict[str, float]:
        """Return the median, minimum and maximum."""
        return {"median": float(np.median(self.values)), "min": min(self.values), "max": max(self.values)}


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process on one core during a ``with`` block."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _seconds(what: Callable[[], object]) -> float:
    began = time.thread_time()
    what()
    return time.thread_time() - began


def _stream(fs: float, leads: tuple[str, ...], samples: NDArray[np.float32], step: int) -> None:
    segmenter = Segmenter(fs, leads)
    for first in range(0, len(samples), step):
        segmenter.push(samples[first : first + step])
    segmenter.finish()


def _live_cores(fs: float, leads: tuple[str, ...], samples: NDArray[np.float32], streams: int) -> float:
    """Feed live streams in turn; return the number of cores that this takes."""
    segmenters = [Segmenter(fs, leads) for _ in range(streams)]
    step = round(_LIVE_SECONDS * fs)
    # every stream has another start, so that their beats do not coincide
    starts = np.linspace(0, len(samples) - (_LIVE_ROUNDS + 1) * step, streams).astype(int)
    began = time.thread_time()
    for round_number in range(_LIVE_ROUNDS):
        for segmenter, start in zip(segmenters, starts.tolist(), strict=True):
            at = start + round_number * step
            segmenter.push(samples[at : at + step])
    return (time.thread_time() - began) / (_LIVE_ROUNDS * _LIVE_SECONDS)


def _chunk_microseconds(fs: float, leads: tuple[str, ...], samples: NDArray[np.float32], seconds: float) -> list[float]:
    """Feed one stream in chunks of ``seconds``; return the time of each chunk in microseconds."""
    step = round(seconds * fs)
    segmenter = Segmenter(fs, leads)
    count = min(_CHUNKS_TIMED, len(samples) // step)
    spent = []
    for first in range(0, count * step, step):
        began = time.thread_time()
        segmenter.push(samples[first : first + step])
        spent.append(1e6 * (time.thread_time() - began))
    return spent


def segment(records: list[Record], *, repeats: int = 5, streams: int = 1000) -> dict[str, Any]:
    """Measure detection and cutting of beats on one core.

    Parameters
    ----------
    records : list of Record
        At least one; the references run on the beginning of the first.
    repeats : int
        Number of measurements of each quantity, in turn, after a warm-up.
    streams : int
        Number of live streams, fed in turn.

    Returns
    -------
    dict
        ``times_real_time`` in chunks of a minute over all records; ``reference``: the same for wfdb's xqrs and for
        sleepecg, which get the whole signal of one lead at once; ``per_chunk_microseconds`` for one stream;
        ``live``: cores for ``streams`` streams that are fed every 250 ms; ``spread``: median, min and max of each.
    """
    import sleepecg
    from wfdb.processing import XQRS

    signals = [(record.fs, record.leads, record.read(0, record.length)) for record in records]
    total = sum(len(samples) / fs for fs, _, samples in signals)
    fs, leads, samples = signals[0]
    beginning = samples[: round(_REFERENCE_SECONDS * fs), 0].astype(np.float64)
    length = len(beginning) / fs

    def ours() -> None:
        for one_fs, one_leads, one in signals:
            _stream(one_fs, one_leads, one, round(_LARGE_CHUNK_SECONDS * one_fs))

    def xqrs() -> None:
        XQRS(beginning, fs).detect(verbose=False)

    times: dict[str, list[float]] = {"ours": [], "xqrs": [], "sleepecg": [], "live": []}
    per_chunk: dict[str, list[float]] = {name: [] for name in _CHUNKS}
    with one_core():
        ours()  # warm-up: compiles and fills the caches
        for _ in range(repeats):
            times["ours"].append(total / _seconds(ours))
            times["xqrs"].append(length / _seconds(xqrs))
            times["sleepecg"].append(length / _seconds(lambda: sleepecg.detect_heartbeats(beginning, fs)))
            times["live"].append(_live_cores(fs, leads, samples, streams))
            for name, seconds in _CHUNKS.items():
                per_chunk[name] += _chunk_microseconds(fs, leads, samples, seconds)
    spread = {name: Timing(tuple(values)).as_dict() for name, values in times.items()}
    return {
        "times_real_time": spread["ours"]["median"],
        "reference": {name: spread[name]["median"] for name in ("xqrs", "sleepecg")},
        "per_chunk_microseconds": {
            name: {"median": float(np.median(values)), "p99": float(np.percentile(values, 99))}
            for name, values in per_chunk.items()
        },
        "live": {"streams": streams, "chunk_seconds": _LIVE_SECONDS, "cores": spread["live"]["median"]},
        "spread": spread,
        "leads": len(leads),
        "fs": fs,
        "signal_seconds": total,
        "repeats": repeats,
    }
