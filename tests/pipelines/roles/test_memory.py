"""Memory that a burst used is returned to the system."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from ecgmon.pipelines.roles.memory import Freed


def rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_freed_memory_between_live_blocks_is_returned_to_the_system() -> None:
    now = 0.0
    freed = Freed(10.0, clock=lambda: now)
    if freed._trim is None:
        pytest.skip("the C library cannot")
    blocks = [np.ones(10_000, np.uint8) for _ in range(4000)]  # 40 MB
    kept = blocks[::20]
    del blocks
    full = rss()
    freed.turned()
    assert rss() > full - 1e6  # not yet
    now = 10.0
    freed.turned()
    assert rss() < full - 25e6
    assert all(block.all() for block in kept)
