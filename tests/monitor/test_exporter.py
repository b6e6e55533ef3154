"""What is scraped is what is documented, and no client can hurt the daemon by asking."""

from __future__ import annotations

import http.client
import re
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from monitor.exporter import OTHER, Exporter, ExporterError, Metrics, application

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


@pytest.fixture
def metrics():
    made = Metrics(threshold=2.0, max_stream_labels=2)
    made.build.info({"version": "1"})
    made.model.info({"name": "m", "fingerprint": "f", "leads": "1", "width": "16"})
    return made


@pytest.fixture
def exporter(metrics):
    health = {"alive": True, "worker": True}
    served = Exporter(application(metrics, lambda: health), "127.0.0.1", 0)
    served.health = health
    yield served
    served.close()


def ask(exporter, path: str, *, method: str = "GET", **headers: str) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", exporter.port, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type", ""), answer.read().decode()
    finally:
        connection.close()


def documented() -> dict[str, tuple[str, set[str]]]:
    rows = re.findall(r"^\| `(ecgmon_\w+)` \| (\w+) \|([\w, ]*)\|", PAGE.read_text(), re.MULTILINE)
    return {name: (kind, set(filter(None, labels.replace(" ", "").split(",")))) for name, kind, labels in rows}


def test_the_page_lists_every_metric_with_its_type_and_labels_and_no_other(metrics):
    described = {}
    for collector in [
        value for value in vars(metrics).values() if hasattr(value, "describe") and hasattr(value, "_labelnames")
    ]:
        (family,) = collector.describe()
        name = {"counter": f"{family.name}_total", "info": f"{family.name}_info"}.get(family.type, family.name)
        described[name] = (family.type, set(collector._labelnames))
    page = documented()
    assert set(page) == set(described)
    for name, (kind, labels) in described.items():
        if kind != "info":  # its labels are values
            assert page[name] == (kind, labels), name


def test_what_is_served_is_what_is_documented(exporter):
    _, _, text = ask(exporter, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    page = documented()
    suffix = {"counter": "_total", "info": "_info"}
    served = {
        family.name + suffix.get(family.type, "")
        for family in parse_openmetrics(text)
        if family.name.startswith("ecgmon_")
    }
    assert served == set(page)


def test_openmetrics_is_served_to_who_asks_for_it(exporter):
    _, kind, text = ask(exporter, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert list(parse_openmetrics(text))
    _, kind, _ = ask(exporter, "/metrics")
    assert kind.startswith("text/plain")


def test_streams_beyond_the_limit_share_a_label(metrics):
    assert [metrics.stream_label(name) for name in ("a", "b", "c", "a", "d")] == ["a", "b", OTHER, "a", OTHER]


def test_ready_says_what_is_missing_while_healthy_goes_on(exporter):
    assert ask(exporter, "/-/ready")[0] == 200
    exporter.health["worker"] = False
    status, _, text = ask(exporter, "/-/ready")
    assert status == 503
    assert '"worker": false' in text
    assert ask(exporter, "/-/healthy")[0] == 200
    exporter.health["alive"] = False
    assert ask(exporter, "/-/healthy")[0] == 503


@pytest.mark.parametrize(
    ("method", "path", "expected"), [("GET", "/nothing", 404), ("POST", "/metrics", 405), ("GET", "/", 200)]
)
def test_other_requests_get_a_plain_answer(exporter, method, path, expected):
    assert ask(exporter, path, method=method)[0] == expected


def test_clients_that_say_nothing_do_not_keep_others_from_an_answer(exporter):
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(socket.create_connection(("127.0.0.1", exporter.port)))
        assert ask(exporter, "/-/healthy")[0] == 200


def test_a_port_that_is_taken_is_said(exporter, metrics):
    with pytest.raises(ExporterError, match=rf"127\.0\.0\.1:{exporter.port}.*\[exporter\] port"):
        Exporter(application(metrics, dict), "127.0.0.1", exporter.port)


def test_the_alert_threshold_is_a_bucket_bound():
    odd = Metrics(threshold=2.7, max_stream_labels=1)
    odd.score.labels("a").observe(2.69)
    assert odd.registry.get_sample_value("ecgmon_score_bucket", {"stream": "a", "le": "2.7"}) == 1
