"""``ecgmon.connect`` to stores and exporters; to a running daemon in tests/e2e/test_python.py."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import numpy as np
import pytest

import ecgmon
from ecgmon.models.inference.model import load_model
from ecgmon.monitor.config.schema import AlertSettings, ExporterSettings
from ecgmon.monitor.metrics.instruments import Metrics
from ecgmon.monitor.offline.alerts import watch
from ecgmon.monitor.store import Store
from ecgmon.monitor.web import passwords
from ecgmon.monitor.web.exporter import serve
from ecgmon.pipelines.sources.arrays import source_of
from ecgmon.testing import synthetic_ecg

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ecgmon.monitor.web.exporter import Exporter
    from ecgmon.testing import SyntheticECG


def test_a_store_gives_status_alerts_and_scores(ecg: SyntheticECG, ecg_state: Path) -> None:
    expected = ecgmon.score(ecg.signal, ecg.fs, leads=ecg.leads)
    with ecgmon.connect(ecg_state) as monitor:
        status = monitor.status()
        scores = list(monitor.scores(past=True))
        (alert,) = monitor.alerts()
        assert monitor.alerts(active=True) == []
        assert list(monitor.scores()) == [], "the stream has ended: there are no new scores"
    stream = status.streams["synthetic"]
    assert (stream.beats, stream.ended, stream.alerts) == (len(expected), True, ())
    assert stream.last_score == expected.score[-1]
    assert stream.rate == pytest.approx(72, rel=0.05)
    assert status.running is None
    assert [beat.time for beat in scores] == expected.time.tolist()
    assert [beat.score for beat in scores] == expected.score.tolist()
    assert (alert.stream, alert.kind) == ("synthetic", "anomalous_episode")
    assert (alert.start, alert.end) == (expected.alerts[0].start, expected.alerts[0].end)
    assert status.to_dataframe().loc["synthetic", "beats"] == len(expected)
    assert repr(status) == f"<ecgmon.MonitorStatus: stored, 1 streams, {len(expected)} beats, 0 active alerts>"


def test_new_beats_of_a_store_are_followed(tmp_path: Path) -> None:
    made = synthetic_ecg(40)
    source = replace(source_of(made.signal, made.fs, leads=made.leads), stream="followed")
    with load_model().running() as scorer:
        parts = list(watch(source, scorer, AlertSettings(), chunk_seconds=10.0))
    with Store(tmp_path) as store:
        model = store.use_model("m", "m")
        stream = store.open_stream("followed", made.fs, made.leads, 0)
        entries = [replace(part.entry, state=replace(part.entry.state, id=stream.id)) for part in parts]
        store.write(entries[:2], model, 0)
        stored = sum(len(entry.beats) for entry in entries[:2])
        with ecgmon.connect(tmp_path) as monitor:
            following = monitor.scores()
            store.write(entries[2:3], model, 0)
            first = next(following)
            assert first.time == parts[2].scored.items.beats["sample"][0] / made.fs
            store.write(entries[3:], model, 0)
            others = list(following)
            assert stored + 1 + len(others) == sum(len(entry.beats) for entry in entries)


def test_following_a_silent_stream_ends_after_the_timeout(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.open_stream("silent", 360, ("MLII",), 0)
    with ecgmon.connect(tmp_path) as monitor:
        began = time.monotonic()
        assert list(monitor.scores(timeout=0.3)) == []
        assert 0.3 <= time.monotonic() - began < 10
        assert np.isnan(monitor.status().streams["silent"].rate)


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[Exporter]:
    metrics = Metrics(threshold=2.0, max_stream_labels=10)
    metrics.of_stream("a").stored.inc(7)
    metrics.of_stream("a").heart_rate.set(61.5)
    metrics.of_stream("b").stored.inc(2)
    metrics.alerts_active.labels("asystole", "high").set(2)
    metrics.alerts_active.labels("noisy", "low").set(0)
    metrics.model.info({"name": "a model"})
    metrics.ready.set(1)
    passwords.write(tmp_path / "password", "p@ss word/")
    settings = ExporterSettings(port=0, user="me", password_file=str(tmp_path / "password"))
    served = serve(metrics, lambda: {"alive": True}, settings)
    yield served
    served.close()


def test_an_exporter_gives_the_status_but_no_alerts_or_scores(exporter: Exporter) -> None:
    url = exporter.url.replace("://", "://me:p%40ss%20word%2F@")
    for address in (url, url.removesuffix("/metrics"), url.removesuffix("metrics")):
        with ecgmon.connect(address) as monitor:
            status = monitor.status()
            assert status.running
            assert status.model == "a model"
            assert {name: stream.beats for name, stream in status.streams.items()} == {"a": 7, "b": 2}
            assert status.streams["a"].rate == 61.5
            assert status.active_alerts == {"asystole": 2}
            assert "p%40ss" not in repr(monitor)
            assert monitor.address == f"http://127.0.0.1:{exporter.port}"
            with pytest.raises(
                ecgmon.errors.ConnectError, match="do not list them; connect to the monitor's runtime or state"
            ):
                monitor.alerts()
            with pytest.raises(ecgmon.errors.ConnectError, match="metrics have no single scores"):
                monitor.scores()


def test_the_error_asks_for_the_password_of_an_exporter(exporter: Exporter) -> None:
    with pytest.raises(ecgmon.errors.ConnectError, match="401 Unauthorized; give user and password in the URL"):
        ecgmon.connect(exporter.url)


@pytest.mark.parametrize("body", [b"{}", b"", b"node_load1 0.5\n", b"\xff\xfe{"])
def test_a_server_that_is_not_an_exporter_is_refused(body: bytes) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(ecgmon.errors.ConnectError, match=r"does not contain metrics|not those of ecgmon"):
            ecgmon.connect(f"http://127.0.0.1:{server.server_port}")
        thread.join()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("tcp://127.0.0.1:5555", "tcp:// is not supported; expected http:// or https://, or a folder"),
        ("http://127.0.0.1:1", "cannot read http://127.0.0.1:1/metrics"),
        ("http://", "cannot read http"),
        ("nowhere", "nowhere: neither a running monitor's sockets nor a store"),
    ],
)
def test_the_error_for_a_wrong_address_says_what_is_expected(address: str, expected: str) -> None:
    with pytest.raises(ecgmon.errors.ConnectError) as caught:
        ecgmon.connect(address)
    assert expected in str(caught.value)


def test_a_monitor_that_left_its_socket_behind_is_not_running(tmp_path: Path) -> None:
    (tmp_path / "control").touch()
    with pytest.raises(ecgmon.errors.NotRunningError, match="does not answer"):
        ecgmon.connect(tmp_path)


def test_scores_can_be_taken_a_few_at_a_time(ecg_state: Path) -> None:
    with ecgmon.connect(str(ecg_state)) as monitor:
        assert len(list(itertools.islice(monitor.scores(past=True), 5))) == 5
