"""Many observations at once are what they are one by one."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.openmetrics.exposition import generate_latest

from ecgmon.monitor.metrics.histograms import observe_all

BOUNDS = (0.5, 1.0, 2.0, 5.0)


def exposed(registry: CollectorRegistry) -> str:
    """All but the times of exemplars and of creation."""
    text = re.sub(r"(# \{.*?\} \S+) \S+", r"\1", generate_latest(registry).decode())
    return "\n".join(line for line in text.splitlines() if "_created" not in line)


def exemplar(first: int, index: int) -> dict[str, str]:
    return {"seq": str(first + index)}


@pytest.mark.parametrize("n", [0, 1, 2, 50])
@pytest.mark.parametrize("labelled", [False, True])
def test_the_exposition_is_the_same(n: int, labelled: bool) -> None:
    values = np.random.default_rng(n).integers(0, 28, n).astype(np.float32) / 4  # on bounds, too; sums are exact
    texts = []
    for at_once in (False, True):
        registry = CollectorRegistry()
        histogram = Histogram("h", "A text.", ["stream"] if labelled else [], buckets=BOUNDS, registry=registry)
        child = histogram.labels("a") if labelled else histogram
        for part in np.array_split(values, 3):
            first = len(values) - len(part)
            if at_once:
                observe_all(child, part, partial(exemplar, first))
            else:
                for index, value in enumerate(part.tolist()):
                    child.observe(value, {"seq": str(first + index)})
        texts.append(exposed(registry))
    assert texts[0] == texts[1]
    assert ("seq" in texts[0]) == (n > 0)


def test_exemplars_are_left_out_where_none_are_given() -> None:
    registry = CollectorRegistry()
    observe_all(Histogram("h", "A text.", buckets=BOUNDS, registry=registry), np.array([0.1, 7.0]))
    text = exposed(registry)
    assert "h_count 2.0" in text
    assert "h_sum 7.1" in text
    assert "# {" not in text
