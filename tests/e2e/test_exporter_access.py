"""Other hosts can read the metrics of a daemon only with TLS and a password."""

from __future__ import annotations

import base64
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import missing

if TYPE_CHECKING:
    from tests.e2e.processes import RunEcgmon, StartDaemon

PASSWORD = "correct horse"


@pytest.mark.parametrize("command", ["run", "monitor"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_daemon_with_unprotected_metrics_on_the_network_does_not_start(
    ecgmon: RunEcgmon, tmp_path: Path, command: str, host: str
) -> None:
    done = ecgmon(command, "--set", f"exporter.host={host}", "--set", f"runtime.dir={tmp_path / 'r'}")
    assert done.returncode == 3
    assert "exporter.host" in done.stderr
    assert "tls_certificate, tls_key, user and password_file" in done.stderr


@pytest.fixture
def keys(ecgmon: RunEcgmon, tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1, its key, and a password file made by ``ecgmon password``."""
    if shutil.which("openssl") is None:
        missing("there is no openssl to make a certificate with")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "tls.key", "-out", "tls.crt"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    (tmp_path / "tls.key").chmod(0o600)
    assert ecgmon("password", "--out", tmp_path / "password", input=f"{PASSWORD}\n").returncode == 0
    return tmp_path


def configured(keys: Path) -> str:
    return (
        f'tls_certificate = "{keys}/tls.crt"\ntls_key = "{keys}/tls.key"\nuser = "prometheus"\n'
        f'password_file = "{keys}/password"\nhost = "0.0.0.0"\n'
    )


def ask(keys: Path, url: str, password: str = PASSWORD) -> str:
    context = ssl.create_default_context(cafile=str(keys / "tls.crt"))
    coded = base64.b64encode(f"prometheus:{password}".encode()).decode()
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {coded}"})
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:
        return answer.read().decode()


def test_metrics_on_every_address_need_tls_and_the_password(daemon: StartDaemon, keys: Path) -> None:
    running = daemon([{"record": "toy", "speed": 60}], exporter=configured(keys))
    status = running.wait(lambda status: status.stored > 10, "some beats")
    assert status.metrics.startswith("https://0.0.0.0:")
    url = status.metrics.replace("0.0.0.0", "127.0.0.1")
    assert "ecgmon_beats_stored_total" in ask(keys, url)
    for path in ("/metrics", "/-/healthy", "/-/ready"):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(keys, url.replace("/metrics", path), "wrong")
    log = running.log.read_text()
    assert "http-authentication-failed" in log
    lines = [Path(f"/proc/{pid}/cmdline").read_text() for pid in (running.process.pid, *running.pids("monitor"))]
    assert len(lines) == 2
    for seen in (log, *lines, (keys / "password").read_text(), running.config.read_text()):
        assert PASSWORD not in seen


@pytest.mark.serial
def test_slow_metrics_clients_delay_no_beat(daemon: StartDaemon, keys: Path) -> None:
    """Two hundred half-open connections to the metrics server do not delay beats."""
    running = daemon([{"record": "toy", "speed": 20}], exporter=configured(keys))
    status = running.wait(lambda status: status.stored > 50, "some beats")
    port = int(status.metrics.rpartition(":")[2].partition("/")[0])
    with ExitStack() as stack:
        for number in range(200):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            one.sendall(b"\x16\x03\x01"[: number % 4])
        began, before = time.monotonic(), running.now().stored
        running.wait(lambda status: status.stored > before + 100, "100 more beats")
        assert time.monotonic() - began < 30
        assert "ecgmon_ready 1.0" in ask(keys, status.metrics.replace("0.0.0.0", "127.0.0.1"))
