"""The profile of a stage gives every function its share of the time, in any order of calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecgmon.monitor.bench import profile
from ecgmon.monitor.bench.profile import Profile


def first(work: list[int]) -> None:
    sorted(work)  # one call of a library; a signal is handled when it returns


def second(work: list[int]) -> None:
    sorted(work)


@pytest.mark.serial
@pytest.mark.parametrize("size", [503, 2003, 20_011])
def test_two_functions_of_equal_time_get_equal_shares(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(profile, "_OURS", (__file__,))
    monkeypatch.setattr(profile, "_ROOT", Path(__file__).parent)
    work = [(k * 7919) % size for k in range(size)]
    found = Profile()
    with found.running():
        while found.samples < 800:
            found.enter("stage")
            first(work)
            second(work)
            found.leave()
    shares = {where.rpartition(".")[2]: share for where, share in found.shares(0.1)["stage"].items()}
    assert shares == {"first": pytest.approx(0.5, abs=0.12), "second": pytest.approx(0.5, abs=0.12)}


def test_a_stage_without_time_has_no_sample() -> None:
    found = Profile()
    found.enter("stage")
    found.leave()
    assert found.samples == 0
    assert found.shares(0.0) == {}
