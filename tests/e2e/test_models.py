"""``ecgmon models promote`` and ``rollback`` change the model of a running daemon; no beat is lost or scored twice."""

from __future__ import annotations

import json
import shutil
import sqlite3
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgmon.models.weights.checkpoint import default_weights, read_info, shipped
from ecgmon.monitor.process.deployment import DeploymentError, deploy
from tests.e2e.processes import Daemon, RunEcgmon, StartDaemon, Watched, result, role, sequence, wait_for

if TYPE_CHECKING:
    from pathlib import Path

SHIPPED = read_info(default_weights()).fingerprint
FOLD0 = read_info(shipped("fold0")).fingerprint


def models_in_turn(state: Path) -> list[str]:
    """Return the fingerprints of the models of a stream's beats, each run of the same one once."""
    with sqlite3.connect(f"file:{state}/ecgmon.sqlite?mode=ro", uri=True) as db:
        rows = db.execute(
            "SELECT fingerprint FROM beats JOIN models ON models.id = beats.model ORDER BY stream, seq"
        ).fetchall()
    db.close()
    return [fingerprint for (fingerprint,), _ in groupby(rows)]


def more_beats(daemon: Daemon) -> None:
    stored = daemon.now().stored
    daemon.wait(lambda status: status.stored > stored + 10, "more beats")


def test_a_running_daemon_changes_to_a_promoted_model_and_back(daemon: StartDaemon, ecgmon: RunEcgmon) -> None:
    one = daemon([{"record": "toy", "speed": 2}], extra="[worker]\ncount = 2\n")
    flags = ("--config", one.config)
    one.wait(lambda status: len(status.workers) == 2 and status.stored > 10, "two workers and some beats")
    pids = {name: one.pids(name) for name in ("monitor", "worker")}
    added = result(ecgmon("models", "add", shipped("fold0"), "--json", *flags))
    assert (added["name"], added["fingerprint"]) == ("fold0", FOLD0)

    promoted = result(ecgmon("models", "promote", "fold0", "--json", *flags))
    assert (promoted["before"], promoted["after"]) == ("shipped", FOLD0)
    assert (promoted["daemon"], promoted["workers"], promoted["fingerprint"]) == (True, 2, FOLD0)
    assert one.now().fingerprint == FOLD0
    more_beats(one)
    again = ecgmon("models", "promote", "fold0", *flags)
    assert (again.returncode, again.stderr) == (1, "ecgmon: fold0 is deployed already\n")

    back = ecgmon("models", "rollback", *flags)
    assert back.returncode == 0, back.stderr
    assert f"the daemon scores with {SHIPPED[:12]}, on 2 workers" in back.stdout
    more_beats(one)
    assert {name: one.pids(name) for name in ("monitor", "worker")} == pids  # nothing was restarted
    assert one.stop() == 0
    assert "Traceback" not in one.log.read_text()

    seq = sequence(one.state, "toy")
    assert np.array_equal(seq, np.arange(len(seq)))
    assert models_in_turn(one.state) == [SHIPPED, FOLD0, SHIPPED]
    history = result(ecgmon("models", "history", "--json", *flags))["history"]
    assert [(each["action"], each["before"], each["after"]) for each in history] == [
        ("promote", "shipped", FOLD0), ("rollback", FOLD0, "shipped"),
    ]  # fmt: skip


def test_roles_that_run_alone_change_too_and_start_with_the_deployed_model(
    tmp_path: Path, runtime: Path, ecgmon: RunEcgmon
) -> None:
    common = (
        f'[runtime]\ndir = "{runtime}"\n[delivery]\nheartbeat_seconds = 0.2\ndead_after_seconds = 2.0\n'
        f'[store]\npath = "{tmp_path}/state"\n[exporter]\nport = 0\n[worker]\nregistry = "{tmp_path}/models"\n'
    )
    (tmp_path / "ecgmon.toml").write_text(common)
    flags = ("--config", tmp_path / "ecgmon.toml")
    result(ecgmon("models", "add", shutil.copy(shipped("fold0"), tmp_path), "--name", "ward", "--json", *flags))
    stopped = ecgmon("models", "promote", FOLD0[:8], *flags)
    assert stopped.stdout.splitlines() == [
        "promote   shipped -> ward", f"no daemon runs in {runtime}; the next one starts with this model",
    ]  # fmt: skip
    watched = Watched(runtime)
    with role(tmp_path, "monitor", common), role(tmp_path, "worker", common):
        wait_for(lambda: (found := watched()) and found.workers, "the worker")
        assert watched.now().fingerprint == FOLD0
        with pytest.raises(DeploymentError, match=r"still scores with dense .* after 0\.5 s; read its log"):
            deploy(runtime, 64 * "f", patience=0.5)
        assert result(ecgmon("models", "rollback", "--json", *flags))["workers"] == 1
        assert watched.now().fingerprint == SHIPPED
    assert json.loads((tmp_path / "models" / "registry.json").read_text())["models"][0]["name"] == "ward"


def test_a_daemon_with_weights_of_its_own_or_a_damaged_registry_says_so(tmp_path: Path, ecgmon: RunEcgmon) -> None:
    config = tmp_path / "ecgmon.toml"
    config.write_text(f'[store]\npath = "{tmp_path}/state"\n[worker]\nweights = "{shipped("fold0")}"\n')
    refused = ecgmon("models", "promote", "shipped", "--config", config)
    assert refused.returncode == 1
    assert "so the daemon does not use the registry; remove that key" in refused.stderr
    config.write_text(f'[runtime]\ndir = "{tmp_path}/run"\n[store]\npath = "{tmp_path}/state"\n')
    (tmp_path / "state" / "models").mkdir(parents=True)
    (tmp_path / "state" / "models" / "registry.json").write_text("{")
    for command in (("models", "list"), ("monitor",), ("worker",)):
        done = ecgmon(*command, "--config", config)
        assert done.returncode == (1 if command[0] == "models" else 3)
        assert "registry.json is damaged" in done.stderr.splitlines()[-1]
