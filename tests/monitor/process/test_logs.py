"""Log lines of several processes in one place: each is written whole."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

_SPEAKER = """
import structlog
from ecgmon.monitor.process import logs
from ecgmon.monitor.config.schema import LogSettings
logs.configure(LogSettings(format="json"), role="worker")
for number in range(5):
    structlog.get_logger().info("spoke", number=number, text="x" * 4000)
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_line_is_one_write_with_its_end(unbuffered: str) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # keeps writes apart
    with ours, theirs:
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        subprocess.run(
            [sys.executable, "-c", _SPEAKER], stderr=theirs.fileno(), env=environment, timeout=60, check=True
        )
        theirs.close()
        writes = list(iter(lambda: ours.recv(65536), b""))
    assert [json.loads(write)["number"] for write in writes] == [0, 1, 2, 3, 4]
    assert all(write.endswith(b"}\n") for write in writes)
