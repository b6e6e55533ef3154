"""The histogram is exposed exactly like the client's, for single and for grouped observations."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Histogram as ClientHistogram
from prometheus_client.core import DuplicateTimeseries
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from ecgmon.monitor.metrics.histograms import Histogram, observe_all
from ecgmon.monitor.metrics.instruments import DURATION_BUCKETS, Metrics, score_buckets

if TYPE_CHECKING:
    from collections.abc import Sequence

BOUNDS = (0.5, 1.0, 2.0, 5.0)
NAME, TEXT = "h_seconds", "A \\ text.\nOf two lines."
NOW = 1700000000.25


@pytest.fixture(autouse=True)
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock, so that the times of exemplars and of creation are equal."""
    monkeypatch.setattr("time.time", lambda: NOW)


def ours(registry: CollectorRegistry | None, labels: Sequence[str] = (), bounds: Sequence[float] = BOUNDS) -> Histogram:
    return Histogram(NAME, TEXT, labels, buckets=bounds, registry=registry, clock=lambda: NOW)


def clients(
    registry: CollectorRegistry, labels: Sequence[str] = (), bounds: Sequence[float] = BOUNDS
) -> ClientHistogram:
    return ClientHistogram(NAME, TEXT, labels, buckets=bounds, registry=registry)


def exposed(registry: CollectorRegistry) -> tuple[bytes, bytes]:
    return generate_latest(registry), generate_openmetrics(registry)


def exemplar(first: int, index: int) -> dict[str, str]:
    return {"seq": str(first + index), "stream": "a"}


@pytest.mark.parametrize("n", [0, 1, 2, 16, 17, 500])
@pytest.mark.parametrize("labels", [(), ("stream",), ("stream", "kind")])
@pytest.mark.parametrize("with_exemplars", [False, True])
@pytest.mark.parametrize("bounds", [BOUNDS, DURATION_BUCKETS, score_buckets(2.7), (1, 2, 4, 8, 1e6, 1e7)])
def test_the_exposition_equals_that_of_the_client_byte_for_byte(
    n: int, labels: tuple[str, ...], with_exemplars: bool, bounds: tuple[float, ...]
) -> None:
    values = np.random.default_rng(n).integers(0, 28, n) / 4  # also on bounds; sums are exact
    registries = CollectorRegistry(), CollectorRegistry()
    mine, theirs = ours(registries[0], labels, bounds), clients(registries[1], labels, bounds)
    for names in (('a "quoted"\n\\ name', "b"), ("π/β", "c")):
        here = names[: len(labels)]
        child = theirs.labels(*here) if labels else theirs
        for part in np.array_split(values, 3):
            first = len(values) - len(part)
            observe_all(mine.labels(*here), part, partial(exemplar, first) if with_exemplars else None)
            for index, value in enumerate(part.tolist()):
                child.observe(value, exemplar(first, index) if with_exemplars else None)
    assert exposed(registries[0]) == exposed(registries[1])
    assert (b"# {" in exposed(registries[0])[1]) == (with_exemplars and n > 0)
    assert list(parse_openmetrics(exposed(registries[0])[1].decode()))


RECORDED = """\
# HELP h_seconds A text.
# TYPE h_seconds histogram
h_seconds_bucket{le="0.5",stream="a"} 2.0 # {seq="4"} 0.5 1700000000.25
h_seconds_bucket{le="1.0",stream="a"} 3.0 # {seq="1"} 0.75 1700000000.25
h_seconds_bucket{le="2.0",stream="a"} 3.0
h_seconds_bucket{le="5.0",stream="a"} 4.0 # {seq="2"} 5.0 1700000000.25
h_seconds_bucket{le="+Inf",stream="a"} 5.0 # {seq="3"} 7.25 1700000000.25
h_seconds_count{stream="a"} 5.0
h_seconds_sum{stream="a"} 13.75
h_seconds_created{stream="a"} 1.70000000025e+09
# EOF
"""
"""Output of the previous histogram, which used private attributes of prometheus_client 0.26, for the values below."""


def test_the_exposition_is_unchanged() -> None:
    registry = CollectorRegistry()
    made = Histogram("h_seconds", "A text.", ["stream"], buckets=BOUNDS, registry=registry, clock=lambda: NOW)
    made.labels("a").observe_all([0.25, 0.75, 5.0, 7.25, 0.5], lambda index: {"seq": str(index)})
    assert generate_openmetrics(registry).decode() == RECORDED


def test_single_and_grouped_observations_give_the_same() -> None:
    registries = CollectorRegistry(), CollectorRegistry()
    values = np.random.default_rng(1).integers(0, 28, 40) / 4
    ours(registries[0]).labels().observe_all(values)
    single = ours(registries[1])
    for value in values.tolist():
        single.observe(value)
    assert exposed(registries[0]) == exposed(registries[1])


@pytest.mark.parametrize("setting", ["True", "1", "t"])
def test_created_series_are_left_out_as_in_the_client(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv("PROMETHEUS_DISABLE_CREATED_SERIES", setting)
    registry = CollectorRegistry()
    ours(registry).observe(1)
    assert b"_created" not in generate_openmetrics(registry)


def test_a_name_can_be_registered_only_once() -> None:
    registry = CollectorRegistry()
    ours(registry)
    with pytest.raises(DuplicateTimeseries):
        ours(registry)
    with pytest.raises(DuplicateTimeseries):
        clients(registry)


@pytest.mark.parametrize("bounds", [(), (2, 1), (1, 1), (-1, 1), (1, float("inf")), (float("nan"),)])
def test_invalid_bounds_are_refused(bounds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"h_seconds: buckets .* ascending"):
        ours(None, bounds=bounds)


def test_wrong_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="a label is named le"):
        ours(None, ("le",))
    with pytest.raises(ValueError, match=r"label values \('a', 'b'\), expected one for each of \('stream',\)"):
        ours(None, ("stream",)).labels("a", "b")
    with pytest.raises(ValueError, match="expected one for each"):
        ours(None, ("stream",)).observe(1)


def test_a_scrape_during_observations_is_consistent() -> None:
    made = ours(None, ("stream",), (1,))
    stop = threading.Event()

    def observing() -> None:
        while not stop.is_set():
            made.labels("a").observe_all([0.5] * 20)

    threads = [threading.Thread(target=observing) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        total = 0.0
        while total < 20_000:
            (family,) = made.collect()
            values = {sample.name: sample.value for sample in family.samples}
            total = values.get("h_seconds_count", 0)
            assert values.get("h_seconds_sum", 0) == total / 2
            assert total % 20 == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_registry_uses_only_the_documented_interface_of_collectors() -> None:
    class Documented:
        """The methods that a custom collector must have."""

        def __init__(self, made: Histogram) -> None:
            self.describe, self.collect = made.describe, made.collect

    registries = CollectorRegistry(), CollectorRegistry()
    made = ours(registries[0])
    registries[1].register(Documented(made))
    made.observe(1)
    assert exposed(registries[0]) == exposed(registries[1])
    assert b"h_seconds_count 1.0" in exposed(registries[0])[0]


def test_the_histograms_of_a_monitor_are_in_its_registry() -> None:
    metrics = Metrics(threshold=2.0, max_stream_labels=1)
    metrics.batch.observe(3)
    metrics.duration.labels("total").observe_all(np.linspace(0, 1, 100))
    assert metrics.registry.get_sample_value("ecgmon_batch_beats_bucket", {"le": "4.0"}) == 1
    assert metrics.registry.get_sample_value("ecgmon_stage_duration_seconds_count", {"stage": "total"}) == 100
