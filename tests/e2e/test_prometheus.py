"""With the real Prometheus and Alertmanager: alerts reach a webhook, exemplars lead to beats, every panel has data."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ecgmon.monitor.store import Reader
from tests.e2e.processes import Daemon, missing_tool, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

SYSTEMD = Path(__file__).parents[2] / "systemd"
DASHBOARD = json.loads((SYSTEMD / "grafana/ecgmon.json").read_text())
PRIORITY = '[alerts.priorities]\nanomalous_episode = "high"\n'  # the built-in record always raises this kind


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Webhook:
    """The receiver of Alertmanager: keeps (path, status, labels) of every alert."""

    def __init__(self) -> None:
        self.received: list[tuple[str, str, dict[str, str]]] = []
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                received.extend((self.path, alert["status"], alert["labels"]) for alert in message["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def delivered(self, path: str, status: str, name: str) -> list[dict[str, str]]:
        return [labels for at, how, labels in self.received if (at, how, labels["alertname"]) == (path, status, name)]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Watchers:
    """A Prometheus that scrapes every second, with the shipped rules at shorter times, and an Alertmanager."""

    def __init__(self, folder: Path, target: str, webhook: int) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        self.prometheus, self.alertmanager = free_port(), free_port()
        rules = re.sub(r"for: \w+", "for: 1s", (SYSTEMD / "prometheus/ecgmon.rules.yml").read_text())
        (folder / "ecgmon.rules.yml").write_text(rules)
        scrape = (SYSTEMD / "prometheus/prometheus.yml").read_text()
        scrape = scrape.replace("127.0.0.1:9464", target).replace("127.0.0.1:9093", f"127.0.0.1:{self.alertmanager}")
        (folder / "prometheus.yml").write_text(scrape.replace(": 5s", ": 1s"))
        routes = (
            (SYSTEMD / "alertmanager/alertmanager.yml").read_text().replace("127.0.0.1:8060", f"127.0.0.1:{webhook}")
        )
        routes = re.sub(
            r"group_wait: \w+", "group_wait: 0s", re.sub(r"group_interval: \w+", "group_interval: 1s", routes)
        )
        (folder / "alertmanager.yml").write_text(routes)
        self._log = folder / "watchers.log"
        self._start(
            "prometheus-alertmanager", f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/am",
            f"--web.listen-address=127.0.0.1:{self.alertmanager}", "--cluster.listen-address=",
        )  # fmt: skip
        self._start(
            "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
            f"--web.listen-address=127.0.0.1:{self.prometheus}", "--enable-feature=exemplar-storage",
        )  # fmt: skip

    def _start(self, *command: str) -> None:
        with self._log.open("ab") as log:
            self._processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def ask(self, what: str, **parameters: object) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://127.0.0.1:{self.prometheus}/api/v1/{what}?{query}", timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        return self.ask("query", query=expression)["result"]

    def up(self) -> bool:
        assert all(process.poll() is None for process in self._processes), self._log.read_text()[-3000:]
        try:
            return bool(self.query("up == 1"))
        except OSError:
            return False

    def alerts(self, post: list[dict[str, Any]] | None = None) -> Any:
        """Return the alerts of Alertmanager, or send some to it."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.alertmanager}/api/v2/alerts", headers={"Content-Type": "application/json"},
            data=None if post is None else json.dumps(post).encode(),
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read()
        return json.loads(text) if text.strip() else None

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(timeout=30)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    found = Webhook()
    yield found
    found.close()


def expressions(stream: str) -> list[tuple[str, str]]:
    """Return every query of the dashboard, as Grafana would send it."""
    variables = {"$__rate_interval": "10s", "$instance": ".+", "$stream": stream}
    found = []
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"]
            for name, value in variables.items():
                expression = expression.replace(name, value)
            assert "$" not in expression, expression
            found.append((panel["title"], expression))
    return found


def test_the_dashboard_has_complete_panels_that_do_not_overlap() -> None:
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    places = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(places) == len(set(places)), "panels overlap"
    assert max(x for x, _ in places) == 23
    for panel in panels:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["targets"], panel["title"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


def test_alerts_reach_the_webhook_and_resolve_exemplars_name_beats_and_every_panel_has_data(
    tmp_path: Path, runtime: Path, webhook: Webhook
) -> None:
    for tool in ("prometheus", "prometheus-alertmanager"):
        if shutil.which(tool) is None:
            missing_tool(f"{tool} (Debian's {tool}) is not installed")
    sources: list[dict[str, object]] = [
        {"record": "toy", "name": name, "speed": 6, "loop": 0} for name in ("bed-1", "bed-2")
    ]
    daemon = Daemon(tmp_path, runtime, sources, extra=PRIORITY)
    target = daemon.wait(lambda status: status.metrics and status.workers, "the daemon").metrics.split("/")[2]
    watchers = Watchers(tmp_path, target, webhook.port)
    try:
        wait_for(watchers.up, "Prometheus to scrape", 60)

        # a patient's alert reaches the ward, and ends there
        raised = wait_for(lambda: webhook.delivered("/ward", "firing", "EcgmonHighPriorityAlert"), "the ward", 90)
        assert raised[0]["kind"] == "anomalous_episode"
        assert raised[0]["instance"] == target
        wait_for(lambda: webhook.delivered("/ward", "resolved", "EcgmonHighPriorityAlert"), "the end of an episode", 90)

        # a worker that hangs, and continues
        (worker,) = daemon.pids("worker")
        os.kill(worker, signal.SIGSTOP)
        try:
            wait_for(lambda: webhook.delivered("/on-call", "firing", "EcgmonNoWorker"), "the alert for no worker", 60)
        finally:
            os.kill(worker, signal.SIGCONT)
        wait_for(lambda: webhook.delivered("/on-call", "resolved", "EcgmonNoWorker"), "the worker's return", 60)
        daemon.wait(lambda status: status.workers, "the worker")

        # every query of the dashboard has an answer when the rates have enough samples again
        time.sleep(12.0)
        for title, expression in expressions("bed-1"):
            found = watchers.query(expression)
            assert found, f"{title}: {expression}"
            values = [float(one["value"][1]) for one in found]
            assert not all(map(math.isnan, values)), f"{title} has only NaN: {expression}"
        for variable in DASHBOARD["templating"]["list"]:
            if variable["type"] == "query":
                asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
                assert asked, variable["query"]
                metric, label = asked.groups()
                seen = {one["metric"][label] for one in watchers.query(metric.replace("$instance", ".+"))}
                assert seen == ({target} if label == "instance" else {"bed-1", "bed-2"})

        # an exemplar names the beat whose score it is
        now = time.time()
        series = watchers.ask("query_exemplars", query="ecgmon_score_bucket", start=now - 300, end=now)
        exemplars = [one for each in series for one in each["exemplars"]]
        assert len(exemplars) > 5
        with Reader(daemon.state) as reader:
            beats = {name: reader.beats(name) for name in ("bed-1", "bed-2")}
        for one in exemplars:
            beat = beats[one["labels"]["stream"]][int(one["labels"]["seq"])]
            assert beat["seq"] == int(one["labels"]["seq"])
            assert float(one["value"]) == pytest.approx(beat["score"], rel=1e-5)

        # a daemon that is down; its other alerts are inhibited
        assert daemon.stop() == 0
        wait_for(lambda: webhook.delivered("/on-call", "firing", "EcgmonDown"), "the alert of the end", 60)
        labels = {"alertname": "EcgmonStreamStalled", "instance": target, "job": "ecgmon", "severity": "warning"}
        elsewhere = {**labels, "instance": "elsewhere:9464"}
        watchers.alerts([{"labels": labels}, {"labels": elsewhere}])

        def silenced() -> dict[str, bool]:
            return {
                alert["labels"]["instance"]: bool(alert["status"]["inhibitedBy"])
                for alert in watchers.alerts()
                if alert["labels"]["alertname"] == "EcgmonStreamStalled" and alert["status"]["state"] != "unprocessed"
            }

        wait_for(lambda: silenced() == {target: True, "elsewhere:9464": False}, "one to be silenced, not the other", 30)
        wait_for(
            lambda: webhook.delivered("/engineers", "firing", "EcgmonStreamStalled"),
            "the alert of the other instance",
            30,
        )
        assert {one["instance"] for one in webhook.delivered("/engineers", "firing", "EcgmonStreamStalled")} == {
            "elsewhere:9464"
        }
    finally:
        watchers.close()
        daemon.stop()
