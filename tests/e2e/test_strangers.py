"""Correct and incorrect foreign implementations of the protocol: the daemon continues."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
import zmq

from ecgmon.pipelines.items import ITEM, Kind
from tests.e2e.processes import Daemon, StartDaemon, sequence, shared, stored

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = Path(__file__).parents[2] / "examples" / "producer.py"


def rejected(daemon: Daemon, role: str) -> float:
    lines = daemon.get("/metrics").splitlines()
    found = [
        line
        for line in lines
        if line.startswith('ecgmon_messages_rejected_total{reason="') and f'role="{role}"' in line
    ]
    return sum(float(line.rpartition(" ")[2]) for line in found)


def test_the_example_producer_imports_nothing_from_ecgmon() -> None:
    source = EXAMPLE.read_text()
    assert not any(
        f"import {package}" in source or f"from {package}" in source for package in ("monitor", "models", "pipelines")
    )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with shared(tmp_path_factory, [{"record": "toy", "speed": 60}]) as found:
        yield found


def test_garbage_on_every_socket_is_counted_and_does_not_disturb_other_streams(running: Daemon) -> None:
    running.wait(lambda status: status.stored > 10, "some beats")
    context = zmq.Context()
    bad = [
        [b""],
        [b"\x00" * 100],
        [os.urandom(1000)] * 4,
        [msgspec.msgpack.encode({"type": "hello", "protocol": 1, "producer": "x", "streams": []})],
        [msgspec.msgpack.encode({"type": "scores", "epoch": 1, "batch": 1, "seconds": -1.0}), b"", b""],
        [
            msgspec.msgpack.encode({"type": "deliver", "epoch": 1, "parts": [[0, 0, 1, 1]], "segment_seconds": 0.0}),
            b"x",
            b"y",
            b"z",
        ],
    ]
    sent = 0
    with (
        context.socket(zmq.DEALER) as producers,
        context.socket(zmq.DEALER) as workers,
        context.socket(zmq.REQ) as control,
    ):
        for socket, name in ((producers, "producers"), (workers, "workers"), (control, "control")):
            socket.setsockopt(zmq.LINGER, 1000)
            socket.connect(f"ipc://{running.runtime}/{name}")
        for _ in range(50):
            for frames in bad:
                producers.send_multipart(frames)
                workers.send_multipart(frames)
                sent += 1
        control.send(b"drop table")
        assert control.recv() == b""
    context.term()
    status = running.wait(lambda status: status.streams["toy"].ended, "the end of the stream")
    assert status.redelivered == 0
    assert rejected(running, "producer") >= 4 * 50
    assert rejected(running, "worker") >= 4 * 50
    assert sequence(running.state, "toy").tolist() == list(range(status.streams["toy"].beats))
    assert sent == 300


def test_a_producer_written_from_the_protocol_page_works(running: Daemon) -> None:
    running.wait(lambda status: status.workers, "a worker")
    process = subprocess.run(
        [sys.executable, str(EXAMPLE), str(running.runtime), "elsewhere/1", "5000"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    running.wait(lambda status: status.streams["elsewhere/1"].ended, "the end of the stream")
    assert sequence(running.state, "elsewhere/1").tolist() == list(range(5000))


def speak(socket: zmq.Socket[bytes], header: dict[str, object], *frames: bytes) -> dict[str, object]:
    """Send a message; return the header of the next message other than ``stored``."""
    socket.send_multipart([msgspec.msgpack.encode(header), *frames])
    while True:
        assert socket.poll(20_000), f"no answer to {header['type']}"
        answer = msgspec.msgpack.decode(socket.recv_multipart()[0])
        if answer["type"] != "stored":
            return answer


def test_items_after_the_end_of_a_stream_are_refused_and_the_daemon_continues(running: Daemon) -> None:
    running.wait(lambda status: status.workers, "a worker")
    before = rejected(running, "producer")
    ends = np.zeros(2, ITEM)
    ends["kind"] = Kind.END
    second = np.zeros(1, ITEM)
    second["kind"] = Kind.SECOND
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(f"ipc://{running.runtime}/producers")
        info = {"stream": "odd", "fs": 360.0, "leads": ["MLII"]}
        hello = {"type": "hello", "protocol": 1, "producer": "odd one", "streams": [info]}
        epoch = speak(socket, hello)["epoch"]
        deliver = {"type": "deliver", "epoch": epoch, "segment_seconds": 0.0}
        ping = {"type": "producer-ping", "epoch": epoch, "resent": 0}
        two = [msgspec.msgpack.encode({**deliver, "parts": [[0, 0, 2, 0]]}), ends.tobytes(), b"", bytes(8)]
        one = [msgspec.msgpack.encode({**deliver, "parts": [[0, 0, 1, 0]]}), ends[:1].tobytes(), b"", bytes(4)]
        late = [msgspec.msgpack.encode({**deliver, "parts": [[0, 1, 1, 0]]}), second.tobytes(), b"", bytes(4)]
        for message in (two, one, late):
            socket.send_multipart(message)
        assert speak(socket, ping)["type"] == "pong"
        changed = {**hello, "streams": [{**info, "fs": 250.0}]}
        assert speak(socket, changed) == {
            "type": "refused", "retry": False, "reason": "stream odd has another sampling frequency or other leads"
        }  # fmt: skip
    running.wait(lambda status: status.streams["odd"].ended, "the end of the stream")
    assert rejected(running, "producer") == before + 2
    assert stored(running.state)["odd"]["position"] == 1


@pytest.mark.serial
def test_a_flood_of_messages_is_discarded_and_does_not_disturb_other_streams(daemon: StartDaemon) -> None:
    running = daemon([{"record": "toy", "speed": 60}], "max_messages_per_second = 200\n")
    running.wait(lambda status: status.stored > 10, "some beats")
    ping = msgspec.msgpack.encode({"type": "producer-ping", "epoch": 1, "resent": 0})
    with zmq.Context() as context, context.socket(zmq.DEALER) as flood:
        flood.linger = 0
        flood.connect(f"ipc://{running.runtime}/producers")
        for _ in range(20_000):
            flood.send(ping)
        status = running.wait(lambda status: status.streams["toy"].ended, "the end")
        answered = 0
        while flood.poll(200):
            flood.recv()
            answered += 1
    assert (status.redelivered, status.dropped) == (0, 0)
    assert 0 < answered < 10_000
    assert rejected(running, "producer") > 10_000
    assert running.log.read_text().count("message-rejected") < 6
