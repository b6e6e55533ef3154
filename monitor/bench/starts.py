"""``ecgmon bench start``: time from a command to its answer, and from the start of the daemon to its first score."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from ecgmon.monitor.bench.rig import rig
from ecgmon.monitor.config.schema import DeliverySettings, ProducerSettings, SourceSettings, WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Callable

_REFERENCE: Final = ("-c", "pass")  # Python alone
_COMMANDS: Final = {"help": ("-m", "ecgmon", "--help"), "version": ("-m", "ecgmon", "--version")}
_READY_SECONDS: Final = 120.0


def start(*, repeats: int = 5, progress: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Measure the start.

    Returns
    -------
    dict
        Seconds, each with median, min and max: ``python`` (the reference), ``help``, ``version``, ``run_ready`` (a
        worker has joined the monitor), ``first_beat`` (the first beat of a record at full speed is stored).
    """
    from ecgmon.models.inference.benchmark import Spread, machine

    times: dict[str, list[float]] = {}
    for number in range(repeats + 1):
        progress(f"round {number} of {repeats}" if number else "warm-up round")
        found = {name: _command(arguments) for name, arguments in {"python": _REFERENCE, **_COMMANDS}.items()}
        found |= _daemon()
        if number:
            for name, seconds in found.items():
                times.setdefault(name, []).append(seconds)
    return {name: Spread(tuple(values)).as_dict() for name, values in times.items()} | {"machine": machine()}


def _command(arguments: tuple[str, ...]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - known arguments
    return time.perf_counter() - began


def _daemon() -> dict[str, float]:
    began = time.perf_counter()
    with rig(
        [SourceSettings(record="toy", speed=0.0)],
        worker=WorkerSettings(device="cpu"),
        delivery=DeliverySettings(),
        producer=ProducerSettings(),
    ) as pipeline:
        ready = time.perf_counter() - began
        pipeline.wait_for(lambda status: status.stored > 0, _READY_SECONDS, "no beat was stored")
        return {"run_ready": ready, "first_beat": time.perf_counter() - began}
