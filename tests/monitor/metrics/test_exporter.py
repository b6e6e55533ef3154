"""The served metrics match the documentation, and no client can disturb the daemon."""

from __future__ import annotations

import base64
import http.client
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from ecgmon.monitor.config.schema import ExporterSettings
from ecgmon.monitor.metrics.instruments import MAX_LABEL, OTHER, Metrics
from ecgmon.monitor.web import http_server, passwords
from ecgmon.monitor.web.exporter import Exporter, ExporterError, Guard, access, application, serve
from ecgmon.monitor.web.http_server import MAX_CONNECTIONS
from ecgmon.monitor.web.passwords import Hashed
from tests.conftest import missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from wsgiref.types import StartResponse, WSGIEnvironment

    from prometheus_client import Metric

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"


@pytest.fixture
def metrics() -> Metrics:
    made = Metrics(threshold=2.0, max_stream_labels=2)
    made.build.info({"version": "1"})
    made.model.info({"name": "m", "fingerprint": "f", "leads": "1", "width": "16"})
    return made


@pytest.fixture
def health() -> dict[str, bool]:
    return {"alive": True, "worker": True}


@pytest.fixture
def exporter(metrics: Metrics, health: dict[str, bool]) -> Iterator[Exporter]:
    served = Exporter(application(metrics, lambda: health), "127.0.0.1", 0)
    yield served
    served.close()


class Statuses:
    """Records the statuses of the answers of a WSGI application."""

    def __init__(self) -> None:
        self.statuses: list[str] = []

    def __call__(self, status: str, _headers: object, _error: object = None, /) -> Callable[[bytes], object]:
        self.statuses.append(status)
        return len


def ask(exporter: Exporter, path: str, *, method: str = "GET", **headers: str) -> tuple[int, str, str]:
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


def test_the_page_lists_exactly_the_metrics_with_their_types_and_labels(metrics: Metrics) -> None:
    described = {}
    for collector in [value for value in vars(metrics).values() if hasattr(value, "describe")]:
        (family,) = collector.describe()
        name = {"counter": f"{family.name}_total", "info": f"{family.name}_info"}.get(family.type, family.name)
        described[name] = (family.type, set(metrics.label_names.get(family.name, ())))
    page = documented()
    assert set(page) == set(described)
    for name, (kind, labels) in described.items():
        if kind != "info":  # its labels are values
            assert page[name] == (kind, labels), name


def test_the_served_metrics_are_the_documented_ones(exporter: Exporter) -> None:
    _, _, text = ask(exporter, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    page = documented()
    suffix = {"counter": "_total", "info": "_info"}
    served = {
        family.name + suffix.get(family.type, "")
        for family in parse_openmetrics(text)
        if family.name.startswith("ecgmon_")
    }
    assert served == set(page)


def test_openmetrics_is_served_on_request(exporter: Exporter) -> None:
    _, kind, text = ask(exporter, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert list(parse_openmetrics(text))
    _, kind, _ = ask(exporter, "/metrics")
    assert kind.startswith("text/plain")


def test_streams_beyond_the_limit_share_a_label(metrics: Metrics) -> None:
    assert [metrics.of_stream(name).label for name in ("a", "b", "c", "a", "d")] == ["a", "b", OTHER, "a", OTHER]


def test_ready_names_the_missing_condition_on_which_healthy_does_not_depend(
    exporter: Exporter, health: dict[str, bool]
) -> None:
    assert ask(exporter, "/-/ready")[0] == 200
    health["worker"] = False
    status, _, text = ask(exporter, "/-/ready")
    assert status == 503
    assert '"worker": false' in text
    assert ask(exporter, "/-/healthy")[0] == 200
    health["alive"] = False
    assert ask(exporter, "/-/healthy")[0] == 503


@pytest.mark.parametrize(
    ("method", "path", "expected"), [("GET", "/nothing", 404), ("POST", "/metrics", 405), ("GET", "/", 200)]
)
def test_other_requests_get_their_status(exporter: Exporter, method: str, path: str, expected: int) -> None:
    assert ask(exporter, path, method=method)[0] == expected


def test_silent_clients_do_not_block_others(exporter: Exporter) -> None:
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(socket.create_connection(("127.0.0.1", exporter.port)))
        assert ask(exporter, "/-/healthy")[0] == 200


def test_a_port_in_use_is_reported(exporter: Exporter, metrics: Metrics) -> None:
    with pytest.raises(ExporterError, match=rf"127\.0\.0\.1:{exporter.port}.*\[exporter\] port"):
        Exporter(application(metrics, dict), "127.0.0.1", exporter.port)


def test_the_alert_threshold_is_a_bucket_bound() -> None:
    metrics = Metrics(threshold=2.7, max_stream_labels=1)
    metrics.score.labels("a").observe(2.69)
    assert metrics.registry.get_sample_value("ecgmon_score_bucket", {"stream": "a", "le": "2.7"}) == 1


# ---- Hostile names

HOSTILE = [
    'a"} 1\necgmon_evil 1',
    "back\\slash",
    "line\nfeed",
    "π/β",
    "\ud800",
    "nul\0",
    "x" * 10_000,
    "",
    "\u2028",
    "\r",
]


def test_no_stream_name_breaks_the_exposition() -> None:
    metrics = Metrics(threshold=2.0, max_stream_labels=64)
    for name in HOSTILE:
        metrics.of_stream(name).stored.inc()
    for text, parse in [
        (generate_latest(metrics.registry).decode(), parse_text),
        (generate_openmetrics(metrics.registry).decode(), parse_openmetrics),
    ]:
        (family,) = (
            family for family in parse(text) if family.name in {"ecgmon_beats_stored", "ecgmon_beats_stored_total"}
        )
        labels = [sample.labels["stream"] for sample in family.samples if sample.name.endswith("_total")]
        assert len(labels) == len(HOSTILE)
        assert max(map(len, labels)) <= MAX_LABEL
        assert "\necgmon_evil" not in text


def test_ten_thousand_names_make_no_more_series_than_allowed() -> None:
    metrics = Metrics(threshold=2.0, max_stream_labels=64)
    for number in range(10_000):
        metrics.of_stream(f"s{number}").stored.inc()
    text = generate_latest(metrics.registry).decode()
    series = re.findall(r"^ecgmon_beats_stored_total\{.*\} (.*)$", text, re.MULTILINE)
    assert len(series) == 65
    assert sum(map(float, series)) == 10_000
    assert f'ecgmon_beats_stored_total{{stream="{OTHER}"}} 9936.0' in text


# ---- Access


PASSWORD = "correct horse"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Make a self-signed certificate of 127.0.0.1, and its key."""
    if shutil.which("openssl") is None:
        missing("openssl, which makes the certificate, is not installed")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "tls.key", "-out", "tls.crt"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    (folder / "tls.key").chmod(0o600)
    return folder / "tls.crt", folder / "tls.key"


@pytest.fixture
def settings(certificate: tuple[Path, Path], tmp_path: Path) -> ExporterSettings:
    passwords.write(tmp_path / "password", PASSWORD)
    return ExporterSettings(
        host="0.0.0.0", port=0, tls_certificate=str(certificate[0]), tls_key=str(certificate[1]), user="prometheus",
        password_file=str(tmp_path / "password"),
    )  # fmt: skip


@pytest.fixture
def open_to_others(metrics: Metrics, settings: ExporterSettings) -> Iterator[Exporter]:
    served = serve(metrics, lambda: {"alive": True}, settings)
    yield served
    served.close()


def ask_tls(
    port: int,
    certificate: tuple[Path, Path],
    path: str = "/metrics",
    given: str | None = f"prometheus:{PASSWORD}",
    timeout: int = 10,
) -> int:
    context = ssl.create_default_context(cafile=str(certificate[0]))
    with closing(http.client.HTTPSConnection("127.0.0.1", port, timeout=timeout, context=context)) as connection:
        headers = {} if given is None else {"Authorization": "Basic " + base64.b64encode(given.encode()).decode()}
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status


def refused(metrics: Metrics, reason: str) -> float:
    value = metrics.registry.get_sample_value("ecgmon_http_refused_total", {"reason": reason})
    assert value is not None
    return value


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org", "0", "127.0.0.1.example.org"])
def test_an_address_open_to_other_hosts_is_refused_without_tls_and_password(
    metrics: Metrics, settings: ExporterSettings, host: str
) -> None:
    for without in [
        ("tls_certificate", "tls_key"),
        ("user", "password_file"),
        ("tls_certificate", "tls_key", "user", "password_file"),
    ]:
        changed = msgspec.structs.replace(settings, host=host, **dict.fromkeys(without, ""))
        with pytest.raises(ExporterError, match="tls_certificate, tls_key, user and password_file"):
            serve(metrics, dict, changed)
    with pytest.raises(ExporterError, match="could be read by other hosts"):
        Exporter(application(metrics, dict), host, 0)


@pytest.mark.parametrize("path", ["/metrics", "/-/healthy", "/-/ready", "/", "/nothing"])
def test_every_page_needs_tls_and_password(
    open_to_others: Exporter, certificate: tuple[Path, Path], metrics: Metrics, path: str
) -> None:
    port = open_to_others.port
    assert ask_tls(port, certificate, path) == (404 if path == "/nothing" else 200)
    assert ask_tls(port, certificate, path, None) == 401
    assert ask_tls(port, certificate, path, "prometheus:wrong") == 401
    assert ask_tls(port, certificate, path, f"other:{PASSWORD}") == 401
    assert (refused(metrics, "authentication"), refused(metrics, "no-credentials")) == (2, 1)
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(open_to_others, path)
    assert open_to_others.url.startswith("https://")


@pytest.mark.parametrize(
    "header", ["", "Basic", "Basic !", "Basic Zm9v", "Bearer x", "Basic " + "QQ" * 4000, "Basic \xff"]
)
def test_an_invalid_authorization_header_is_refused(metrics: Metrics, header: str) -> None:
    guard = Guard(application(metrics, dict), "a", Hashed.of(PASSWORD), refused=lambda _: None)
    recorder = Statuses()
    guard({"HTTP_AUTHORIZATION": header}, recorder)
    assert recorder.statuses == ["401 Unauthorized"]


def test_wrong_passwords_are_limited_and_do_not_block_an_accepted_client(
    metrics: Metrics, capsys: pytest.CaptureFixture[str]
) -> None:
    reasons: list[str] = []
    now = 0.0
    guard = Guard(
        application(metrics, lambda: {"alive": True}),
        "a",
        Hashed.of(PASSWORD),
        refused=reasons.append,
        clock=lambda: now,
    )

    def attempt(given: str) -> str:
        recorder = Statuses()
        header = "Basic " + base64.b64encode(given.encode()).decode()
        guard({"HTTP_AUTHORIZATION": header, "REQUEST_METHOD": "GET", "PATH_INFO": "/"}, recorder)
        return recorder.statuses[0][:3]

    assert attempt(f"a:{PASSWORD}") == "200"
    assert [attempt(f"a:guess{k}") for k in range(8)] == ["401"] * 5 + ["429"] * 3
    assert attempt(f"a:{PASSWORD}") == "200"
    now += 2.0
    assert [attempt(f"a:{k}") for k in range(3)] == ["401", "401", "429"]
    assert Counter(reasons) == {"authentication": 7, "attempts": 4}
    logged = capsys.readouterr()
    lines = [line for line in (logged.out + logged.err).splitlines() if "http-authentication-failed" in line]
    assert len(lines) == 2  # one of each kind in ten seconds
    assert "guess" not in logged.out + logged.err


@pytest.mark.parametrize("key", ["tls_key", "password_file"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o622])
def test_a_secret_open_to_other_users_is_refused(
    settings: ExporterSettings, tmp_path: Path, key: str, mode: int
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(Path(getattr(settings, key)).read_bytes())
    path.chmod(mode)
    with pytest.raises(ExporterError, match=f"mode {mode:04o}.*chmod 0600"):
        access(msgspec.structs.replace(settings, **{key: str(path)}))
    path.chmod(0o400)
    assert access(msgspec.structs.replace(settings, **{key: str(path)})).complete


@pytest.mark.parametrize("key", ["tls_key", "password_file"])
def test_a_secret_that_is_missing_or_not_a_regular_file_is_refused(
    settings: ExporterSettings, tmp_path: Path, key: str
) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path, message in [
        (tmp_path / "pipe", "not a regular file"),
        (tmp_path, "regular"),
        (tmp_path / "no", "No such file"),
    ]:
        with pytest.raises(ExporterError, match=message):
            access(msgspec.structs.replace(settings, **{key: str(path)}))


def test_a_certificate_and_a_key_that_do_not_match_are_refused(settings: ExporterSettings, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("no key")
    other.chmod(0o600)
    with pytest.raises(ExporterError, match="cannot be used"):
        access(msgspec.structs.replace(settings, tls_key=str(other)))
    with pytest.raises(ExporterError, match=r"certificate .* is not a file"):
        access(msgspec.structs.replace(settings, tls_certificate=str(tmp_path / "no")))


def test_an_encrypted_key_is_refused_without_a_prompt(settings: ExporterSettings, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    subprocess.run(
        ["openssl", "ec", "-in", settings.tls_key, "-aes128", "-passout", "pass:secret", "-out", str(locked)],
        check=True, capture_output=True,
    )  # fmt: skip
    locked.chmod(0o600)
    with pytest.raises(ExporterError, match="without a password"):
        access(msgspec.structs.replace(settings, tls_key=str(locked)))


# ---- Slow, many and invalid requests


def memory() -> int:
    """Return the memory that this process uses, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.serial
@pytest.mark.parametrize("secure", [False, True])
def test_two_hundred_unfinished_requests_do_not_block_others(
    metrics: Metrics, settings: ExporterSettings, certificate: tuple[Path, Path], secure: bool
) -> None:
    settings = msgspec.structs.replace(settings, host="127.0.0.1")
    if not secure:
        settings = msgspec.structs.replace(settings, tls_certificate="", tls_key="")
    served = serve(metrics, lambda: {"alive": True}, settings)
    before = memory()
    try:
        with ExitStack() as stack:
            slow = []
            for number in range(200):
                slow.append(stack.enter_context(socket.create_connection(("127.0.0.1", served.port))))
                # a part of a request line, of headers or of a TLS greeting, or nothing
                slow[-1].sendall(
                    [b"GET /met", b"GET /metrics HTTP/1.1\r\nHost: a\r\nX", b"\x16\x03\x01\x02\x00\x01", b""][
                        number % 4
                    ]
                )
            for _ in range(10):
                began = time.monotonic()
                if secure:
                    assert ask_tls(served.port, certificate) == 200
                else:
                    header = "Basic " + base64.b64encode(f"prometheus:{PASSWORD}".encode()).decode()
                    assert ask(served, "/metrics", Authorization=header)[0] == 200
                assert time.monotonic() - began < 2.0
                for one in slow:  # one more byte each, as in a Slowloris attack
                    with suppress(OSError):
                        one.send(b"x")
            assert sum(thread.name == "metrics" for thread in threading.enumerate()) <= 2 * MAX_CONNECTIONS
            assert memory() - before < 100 * 2**20
            assert sum(refused(metrics, reason) for reason in ("connections", "handshake")) >= 200 - MAX_CONNECTIONS
        assert threads_are_gone()
    finally:
        served.close()


def threads_are_gone() -> bool:
    deadline = time.monotonic() + 20
    while any(thread.name == "metrics" for thread in threading.enumerate()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.serial
def test_a_client_that_sends_single_bytes_is_disconnected_at_its_deadline(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "REQUEST_SECONDS", 0.5)
    with socket.create_connection(("127.0.0.1", exporter.port)) as slow:
        slow.settimeout(0.1)
        began = time.monotonic()
        while time.monotonic() - began < 10:
            try:
                slow.send(b"G")
                if slow.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert 0.4 < time.monotonic() - began < 5


@pytest.mark.serial
def test_a_client_that_does_not_read_its_answer_is_disconnected_at_its_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_server, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(http_server, "REQUEST_SECONDS", 0.4)

    def app(_: WSGIEnvironment, start: StartResponse) -> list[bytes]:
        start("200 OK", [("Content-Type", "text/plain")])
        return [b"x" * 50_000_000]

    reasons: list[str] = []
    served = Exporter(app, "127.0.0.1", 0, refused=reasons.append)
    try:
        with socket.create_connection(("127.0.0.1", served.port)) as slow:
            slow.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert slow.recv(1) == b"H"
            assert threads_are_gone()
        # ended by the server's deadline or by the time-out of a write
    finally:
        served.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
        b"GET /metrics HTTP/1.1\r\nX: " + b"y" * 60_000 + b"\r\n\r\n",
    ],
)
def test_a_request_that_is_too_long_is_refused(metrics: Metrics, sent: bytes) -> None:
    served = serve(metrics, lambda: {"alive": True}, ExporterSettings(port=0))
    try:
        with socket.create_connection(("127.0.0.1", served.port), timeout=10) as client, suppress(ConnectionError):
            client.sendall(sent)
            answer = client.recv(100)
            assert answer == b"" or b" 431 " in answer or b" 414 " in answer
        deadline = time.monotonic() + 10  # its thread may not have run yet when the client disconnects
        while (
            not (counted := refused(metrics, "too-long") + refused(metrics, "request")) and time.monotonic() < deadline
        ):
            time.sleep(0.01)
        assert counted == 1
        assert threads_are_gone()
    finally:
        served.close()


def test_random_bytes_get_an_answer_or_a_closed_connection(
    exporter: Exporter, capfd: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(1)
    for _ in range(100):
        with socket.create_connection(("127.0.0.1", exporter.port), timeout=10) as client, suppress(ConnectionError):
            client.sendall(random.bytes(200) + b"\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            while client.recv(4096):
                pass
    assert ask(exporter, "/metrics")[0] == 200
    assert "Traceback" not in capfd.readouterr().err


def test_head_answers_like_get_without_the_body(exporter: Exporter) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", exporter.port, timeout=10)
    with closing(connection):
        connection.request("HEAD", "/-/healthy")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
        assert int(answer.headers["Content-Length"]) == len(ask(exporter, "/-/healthy")[2])


@pytest.mark.serial
def test_rendering_takes_at_most_half_of_the_time(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rendering holds the interpreter, in which the monitor's loop runs, too."""
    app = application(metrics, lambda: {"alive": True})
    spent = 0.0
    registry = metrics.registry
    collect = registry.collect

    def timed() -> Iterator[Metric]:
        nonlocal spent
        began = time.monotonic()
        yield from list(collect())
        spent += time.monotonic() - began

    monkeypatch.setattr(registry, "collect", timed)
    began = time.monotonic()
    while time.monotonic() - began < 1.0:
        app({"REQUEST_METHOD": "GET", "PATH_INFO": "/metrics"}, Statuses())
    assert spent / (time.monotonic() - began) < 0.6
