"""Others may speak the protocol, well or badly; the daemon goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import zmq
from conftest import sequence

EXAMPLE = Path(__file__).parents[2] / "examples" / "producer.py"


def rejected(daemon, role: str) -> float:
    lines = daemon.get("/metrics").splitlines()
    found = [
        line
        for line in lines
        if line.startswith('ecgmon_messages_rejected_total{reason="') and f'role="{role}"' in line
    ]
    return sum(float(line.rpartition(" ")[2]) for line in found)


def test_a_producer_written_after_the_protocol_page_is_served(daemon):
    running = daemon([])
    running.wait(lambda status: status.workers, "a worker")
    process = subprocess.run(
        [sys.executable, str(EXAMPLE), str(running.runtime), "elsewhere/1", "5000"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    running.wait(lambda status: status.streams["elsewhere/1"].ended, "the end of the stream")
    assert running.stop() == 0
    assert sequence(running.state, "elsewhere/1").tolist() == list(range(5000))


def test_the_example_uses_nothing_of_ours():
    source = EXAMPLE.read_text()
    assert not any(
        f"import {package}" in source or f"from {package}" in source for package in ("monitor", "models", "pipelines")
    )


def test_garbage_on_every_socket_is_counted_and_honest_streams_do_not_notice(daemon):
    running = daemon([{"record": "toy", "speed": 60}])
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
