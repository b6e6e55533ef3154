"""A pipeline of real processes in its own folder, and its use of processor and memory."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from ecgmon.monitor.config.schema import Config, ExporterSettings, LogSettings, RuntimeSettings, StoreSettings
from ecgmon.monitor.metrics.latency import LatencyHistogram
from ecgmon.monitor.process.control import NotRunningError
from ecgmon.monitor.process.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from ecgmon.monitor.config.schema import DeliverySettings, ProducerSettings, SourceSettings, WorkerSettings
    from ecgmon.monitor.core.status import Status

POLL_SECONDS: Final = 0.1
_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_ASK_SECONDS: Final = 20.0


class BenchError(Exception):
    """A measurement is not possible; the message says why."""


class Rig:
    """The running monitor, workers and producer of a configuration.

    Parameters
    ----------
    supervisor : Supervisor
    state : Path
        Folder of the store.
    """

    def __init__(self, supervisor: Supervisor, state: Path) -> None:
        self._supervisor = supervisor
        self.state = state

    def status(self) -> Status:
        """Return the status of the monitor."""
        return self._supervisor.client.status(timeout=_ASK_SECONDS)

    def latencies(self) -> NDArray[np.int64]:
        """Return the latencies of all beats so far, as counts in the bins of :class:`LatencyHistogram`."""
        return np.frombuffer(self._supervisor.client.latencies(timeout=_ASK_SECONDS), np.int64)

    def cpu(self) -> dict[str, float]:
        """Return the processor seconds of each role since its start, summed over all workers."""
        return self._sum(_cpu_seconds)

    def rss(self) -> dict[str, float]:
        """Return the bytes of memory of each role."""
        return self._sum(_rss_bytes)

    def _sum(self, of: Callable[[int], float]) -> dict[str, float]:
        found: dict[str, float] = {}
        for role in self._supervisor.roles:
            if role.process is not None and role.process.poll() is None:
                found[role.name] = found.get(role.name, 0.0) + of(role.process.pid)
        return found

    def watch(self) -> bool:
        """Check the processes; return False when the sources have ended and are stored."""
        before = sum(role.restarts for role in self._supervisor.roles)
        busy = self._supervisor.watch()
        if sum(role.restarts for role in self._supervisor.roles) != before:
            raise BenchError("a role ended during the measurement; see its messages above")
        return busy

    def wait_for(self, condition: Callable[[Status], bool], seconds: float, failure: str) -> Status:
        """Wait until the monitor's status meets a condition.

        Raises
        ------
        BenchError
            If that takes longer than ``seconds``.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.watch()
            try:
                status = self.status()
            except NotRunningError:
                continue
            if condition(status):
                return status
            time.sleep(POLL_SECONDS)
        raise BenchError(f"{failure} within {seconds:g} s")


def _pass_on(line: str) -> None:
    """Print a log line of a role, unless it is an alert of a measured record."""
    if '"alert-' not in line:
        print(line, file=sys.stderr)


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0  # the process has just ended
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def _rss_bytes(pid: int) -> float:
    try:
        return float(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE)
    except OSError:
        return 0.0


@contextmanager
def rig(
    sources: Sequence[SourceSettings],
    *,
    worker: WorkerSettings,
    delivery: DeliverySettings,
    producer: ProducerSettings,
    folder: Path | None = None,
) -> Iterator[Rig]:
    """Start a pipeline; stop it and remove its store afterwards.

    Parameters
    ----------
    folder : Path, optional
        Where the store's folder is created; its disk is the one that is measured.
    """
    with tempfile.TemporaryDirectory(prefix="ecgmon-bench-", dir=folder) as name:
        state = Path(name, "state")
        config = Config(
            runtime=RuntimeSettings(dir=str(Path(name, "run"))),
            store=StoreSettings(path=str(state)),
            delivery=delivery,
            worker=worker,
            producer=producer,
            source=tuple(sources),
            exporter=ExporterSettings(port=0),
            log=LogSettings(level="warning"),
        )
        supervisor = Supervisor(config, output=_pass_on)
        try:
            supervisor.start()
            yield Rig(supervisor, state)
        finally:
            supervisor.stop()


def quantiles(counts: NDArray[np.int64]) -> dict[str, float]:
    """Return the median, 99th percentile and maximum of latencies in seconds."""
    histogram = LatencyHistogram(counts)
    return {"p50": histogram.quantile(0.5), "p99": histogram.quantile(0.99), "max": histogram.quantile(1.0)}
