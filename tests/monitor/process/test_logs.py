"""Log lines of several processes do not mix: each line is one write."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

_PROGRAM = """
import structlog
from ecgmon.monitor.process import logs
from ecgmon.monitor.config.schema import LogSettings
logs.configure(LogSettings(format="json"), role="worker")
for number in range(5):
    structlog.get_logger().info("logged", number=number, text="x" * 4000)
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_line_and_its_newline_are_one_write(unbuffered: str) -> None:
    reading, writing = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # keeps writes apart
    with reading, writing:
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        subprocess.run(
            [sys.executable, "-c", _PROGRAM], stderr=writing.fileno(), env=environment, timeout=60, check=True
        )
        writing.close()
        writes = list(iter(lambda: reading.recv(65536), b""))
    assert [json.loads(write)["number"] for write in writes] == [0, 1, 2, 3, 4]
    assert all(write.endswith(b"}\n") for write in writes)
