"""The metrics of a daemon leave the machine by TLS and password, or not at all."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("command", ["run", "monitor"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_daemon_whose_metrics_anybody_could_read_does_not_start(ecgmon, tmp_path, command, host):
    done = ecgmon(command, "--set", f"exporter.host={host}", "--set", f"runtime.dir={tmp_path / 'r'}")
    assert done.returncode == 3
    assert "exporter.host" in done.stderr
    assert "tls_certificate, tls_key, user and password_file" in done.stderr
