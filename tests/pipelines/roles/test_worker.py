"""A worker whose device fails continues on the CPU, answers the current batch, and reports the failure."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zmq

from ecgmon.models.inference.reconstruction import Reconstruction, Scorer
from ecgmon.pipelines import wire
from ecgmon.pipelines.roles.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgmon.pipelines.wire import Failed, Ready, Scores

EPOCH = 7


class Broken:
    """A scorer on a device that fails permanently from its second batch on, like CUDA."""

    def __init__(self) -> None:
        self._good = Scorer()
        self.info = self._good.info
        self.left = 1

    def score(self, windows: NDArray[np.float32]) -> Reconstruction:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return self._good.score(windows)


class Monitor:
    """A monitor that receives and sends single messages."""

    def __init__(self, address: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.bind(address)
        self.batch = 0

    def receive(self) -> tuple[Failed | Ready | Scores, list[bytes]]:
        assert self._socket.poll(20_000), "no message came from the worker"
        self._peer, *frames = self._socket.recv_multipart()
        return wire.decode(wire.from_worker, frames), frames

    def send(self, frames: Sequence[bytes | memoryview]) -> None:
        self._socket.send_multipart([self._peer, *frames])

    def ask(self, windows: NDArray[np.float32]) -> None:
        self.batch += 1
        self.send(wire.pack_batch(EPOCH, self.batch, windows))

    def close(self) -> None:
        self._context.destroy(linger=0)


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[Monitor]:
    found = Monitor(f"ipc://{tmp_path}/w")
    yield found
    found.close()


@pytest.fixture
def working(monitor: Monitor, tmp_path: Path) -> Iterator[Callable[..., Any]]:  # noqa: ARG001  # it must close after the worker
    """Run a worker in a thread until the test is over."""
    running: list[tuple[threading.Thread, threading.Event]] = []

    def start(scorer: Any, spare: type[Any] | None) -> None:
        ended = threading.Event()

        def work() -> None:
            worker = Worker(f"ipc://{tmp_path}/w", scorer, device="cuda", credit=2, spare=spare)
            worker.run(ended.is_set)
            worker.close()

        thread = threading.Thread(target=work)
        thread.start()
        running.append((thread, ended))

    yield start
    for thread, ended in running:
        ended.set()
        thread.join(timeout=20)


def beats(n: int) -> NDArray[np.float32]:
    return np.random.default_rng(n).standard_normal((n, 1, 320)).astype(np.float32)


def greeted(monitor: Monitor) -> wire.Ready:
    message, _ = monitor.receive()
    assert isinstance(message, wire.Ready)
    monitor.send([wire.encode(wire.Accepted(EPOCH, 60.0))])
    return message


def test_a_device_that_fails_during_a_batch_loses_no_beat(monitor: Monitor, working: Callable[..., Any]) -> None:
    working(Broken(), Scorer)
    ready = greeted(monitor)
    assert (ready.device, ready.degraded) == ("cuda", "")
    for n in (3, 40):
        monitor.ask(beats(n))
        message, frames = monitor.receive()
        assert isinstance(message, wire.Scores)
        errors, ticks = wire.unpack_scores(frames, n)
        expected = Scorer().score(beats(n))
        assert np.array_equal(errors, expected.ax)
        assert np.array_equal(ticks, expected.ticks)
    again = greeted(monitor)
    assert again.device == "cpu"
    assert "illegal memory access" in again.degraded
    assert (again.worker, again.model) == (ready.worker, ready.model)
    monitor.ask(beats(5))
    assert isinstance(monitor.receive()[0], wire.Scores)


def test_a_batch_that_the_fallback_cannot_score_either_is_reported(
    monitor: Monitor, working: Callable[..., Any]
) -> None:
    working(Broken(), Broken)  # the fallback scores one batch, then fails too
    greeted(monitor)
    monitor.ask(beats(1))
    assert isinstance(monitor.receive()[0], wire.Scores)
    monitor.ask(beats(2))
    assert isinstance(monitor.receive()[0], wire.Scores)
    greeted(monitor)
    monitor.ask(beats(3))
    message, _ = monitor.receive()
    assert isinstance(message, wire.Failed)
    assert "illegal memory access" in message.reason


def test_without_a_fallback_a_failure_is_reported_and_the_worker_continues(
    monitor: Monitor, working: Callable[..., Any]
) -> None:
    working(Broken(), None)
    greeted(monitor)
    monitor.ask(beats(1))
    assert isinstance(monitor.receive()[0], wire.Scores)
    for n in (2, 3):
        monitor.ask(beats(n))
        assert isinstance(monitor.receive()[0], wire.Failed)
