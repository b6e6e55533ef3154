"""Damaged input is accepted, or refused with a reason, within the time limit: a small share of ``make fuzz``."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from tests.fuzz import checkpoints, configurations, messages, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BUDGET = {"wire": 30_000, "records": 1_500, "checkpoints": 250, "configurations": 500}

REASONS = {
    "wire": {"accepted", "frames", "header", "item", "score", "size", "stream", "window"},
    "records": {
        "accepted", "AnnotationError", "GainError", "HeaderError", "LeadError", "RecordNotFoundError", "RecordTooShortError",
        "SamplingRateError", "SignalFileError", "SignalFormatError",
    },
    "checkpoints": {"accepted", "is damaged", "metadata that do not fit", "not a whole safetensors file", "expected float16"},
    "configurations": {"accepted"},
}  # fmt: skip
"""Outcomes that must occur: damage that only the first check finds does not test the others."""


@pytest.mark.slow
@pytest.mark.parametrize("target", BUDGET)
def test_damaged_input_is_accepted_or_refused_with_its_own_error(target: str) -> None:
    tally = run.run(target, range(BUDGET[target]), seed=1)
    assert not tally.bugs, "\n".join(tally.bugs[:3])
    assert max(tally.growth, 0) < run.GROWTH
    assert REASONS[target] <= set(tally.outcomes), run.table([tally])
    assert sum(tally.outcomes.values()) == BUDGET[target]


def test_a_module_that_hangs_or_raises_another_error_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(*_: object) -> str:
        while True:
            pass

    def raises(*_: object) -> str:
        raise IndexError

    monkeypatch.setattr(run, "CASE_SECONDS", 0.2)
    for bad, name in ((endless, "TooSlowError"), (raises, "IndexError")):
        seen: list[float] = []

        def case(rng: Random, _: Path, bad: Callable[..., Any] = bad, seen: list[float] = seen) -> str | None:
            seen.append(rng.random())
            return bad() if len(seen) == 2 else "accepted"

        monkeypatch.setitem(run.TARGETS, "wire", case)
        tally = run.run("wire", range(3), seed=1)
        assert (tally.failed, tally.outcomes["accepted"]) == (1, 2)
        assert name in tally.bugs[0]
        assert "case 1" in tally.bugs[0]


def test_a_case_depends_on_its_number_only() -> None:
    made: Callable[[Random], Any]
    for target, made in (
        ("wire", messages.damaged_message),
        ("checkpoints", checkpoints.damaged_checkpoint),
        ("configurations", configurations.damaged_configuration),
    ):
        rounds: list[list[Any]] = [[made(Random(number)) for number in range(20)] for _ in range(2)]
        if target == "wire":
            rounds = [[list(map(bytes, frames)) for _, frames in each] for each in rounds]
        assert rounds[0] == rounds[1]
