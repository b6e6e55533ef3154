"""From records to scored beats, alerts and metrics, through real processes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from ecgmon.models.inference.reconstruction import Scorer
from ecgmon.monitor.config.schema import AlertSettings
from ecgmon.monitor.offline.alerts import Watched, alerts_of, watch
from ecgmon.monitor.store import Reader, Store
from ecgmon.pipelines.offline.record import score_record
from ecgmon.pipelines.sources.finding import resolve
from ecgmon.pipelines.sources.record import open_source
from tests.e2e.processes import (
    Daemon,
    Replayed,
    RunEcgmon,
    StartDaemon,
    missing_tool,
    result,
    sequence,
    shared,
    stored,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client import Metric

TOY = {"record": "toy", "speed": 0}


@pytest.fixture(scope="module")
def watched() -> list[Watched]:
    """The built-in record through the offline path, in chunks of another length than a producer's."""
    source = open_source(resolve(["toy"])[0])
    return list(watch(source, Scorer(), AlertSettings(), chunk_seconds=7.0))


@pytest.fixture
def state(replayed: Replayed, tmp_path: Path) -> Path:
    """A copy of the state folder after an undisturbed replay."""
    return shutil.copytree(replayed.state, tmp_path / "copy")


def test_a_replay_stores_the_same_bits_as_the_offline_path(
    replayed: Replayed, state: Path, tmp_path: Path, watched: list[Watched]
) -> None:
    summary = replayed.summary
    with Store(tmp_path / "offline") as store:
        last = watched[-1].entry.state
        stream = store.open_stream("toy", last.fs, last.leads, 0)
        model = store.use_model("the same", "the same")
        for part in watched:
            store.write([replace(part.entry, state=replace(part.entry.state, id=stream.id))], model, 0)
        remembered = sorted(store.remembered(stream))
    daemon = stored(state)
    assert daemon == stored(tmp_path / "offline")
    with Store(state) as store:
        assert sorted(store.remembered(store.open_stream("toy", last.fs, last.leads, 0))) == remembered
    alerts = daemon["toy"]["alerts"]
    assert alerts
    assert alerts_of(score_record(open_source(resolve(["toy"])[0]), Scorer()), AlertSettings()) == alerts
    beats = sum(len(part.scored.score) for part in watched)
    assert summary["streams"] == {"toy": {"beats": beats, "alerts": len(alerts)}}
    assert summary["beats"] == {
        "segmented": beats, "scored": beats, "stored": beats, "redelivered": 0, "dropped": 0
    }  # fmt: skip
    assert 0 < summary["latency_seconds"]["p50"] <= summary["latency_seconds"]["p99"]
    assert summary["beats_per_second"] == pytest.approx(beats / summary["seconds"], rel=1e-3)


def test_speed_and_number_of_workers_do_not_change_the_store(ecgmon: RunEcgmon, tmp_path: Path, state: Path) -> None:
    result(ecgmon("replay", "toy", "--state", tmp_path / "paced", "--json", "--speed", "60", "--workers", "2"))
    fast = stored(state)
    assert fast == stored(tmp_path / "paced")
    assert fast["toy"]["ended"]
    assert fast["toy"]["details"], "beats of an anomalous record are stored with their windows"


def test_a_second_replay_into_the_same_store_adds_nothing(ecgmon: RunEcgmon, state: Path) -> None:
    before = stored(state)
    again = result(ecgmon("replay", "toy", "--state", state, "--json"))
    assert again["beats"]["stored"] == 0
    assert stored(state) == before


def test_a_replay_takes_the_time_that_its_speed_implies(ecgmon: RunEcgmon) -> None:
    summary = result(ecgmon("replay", "toy", "--stop", "60", "--speed", "20", "--json"))
    # 60 s of signal at 20 times real time; the last beats come when the record ends
    assert 2.5 <= summary["seconds"] <= 30


def kill(running: Daemon, role: str) -> None:
    """Kill a role after some more beats, and wait for the next one."""
    status = running.status()
    before = status.stored if status else 0
    running.wait(lambda status: status.stored > before + 30, "some beats")
    (victim,) = running.pids(role)
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: running.pids(role) not in ([], [victim]), f"a new {role}")


def test_roles_killed_during_a_replay_lose_and_duplicate_nothing(daemon: StartDaemon, state: Path) -> None:
    torn = daemon([{**TOY, "speed": 15}])
    for role in ("worker", "monitor", "producer"):
        kill(torn, role)
    torn.wait(lambda status: status.streams and all(s.ended for s in status.streams.values()), "the end of the stream")
    assert torn.stop() == 0
    calm, got = stored(state)["toy"], stored(torn.state)["toy"]
    stalled = [alert for alert in got["alerts"] if alert.kind == "stream_stalled"]
    assert not stalled, "the stream was silent for less than ten seconds"
    assert sequence(torn.state, "toy").tolist() == list(range(len(sequence(torn.state, "toy"))))
    assert got == calm


def test_a_frozen_worker_that_resumes_changes_nothing(daemon: StartDaemon, state: Path) -> None:
    torn = daemon([{**TOY, "speed": 60}], "[worker]\ncount = 2")
    torn.wait(lambda status: status.stored > 30, "some beats")
    victim = torn.pids("worker")[0]
    os.kill(victim, signal.SIGSTOP)
    try:
        torn.wait(lambda status: len(status.workers) == 1, "the monitor to notice")
    finally:
        os.kill(victim, signal.SIGCONT)
    torn.wait(lambda status: len(status.workers) == 2, "the worker to come back")
    torn.wait(lambda status: status.streams["toy"].ended, "the end of the stream")
    assert torn.stop() == 0
    assert stored(torn.state) == stored(state)


def samples(families: Iterable[Metric]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon whose two streams have ended."""
    with shared(tmp_path_factory, [TOY, {"record": "toy", "name": "again", "speed": 0}]) as found:
        found.wait(lambda status: len(status.streams) == 2 and all(s.ended for s in status.streams.values()), "the end")
        yield found


def test_metrics_agree_with_the_store(running: Daemon) -> None:
    found = samples(parse(running.get("/metrics")))
    with Reader(running.state) as reader:
        for stream in ("toy", "again"):
            label = (("stream", stream),)
            beats = reader.beats(stream)
            assert found["ecgmon_beats_stored_total", label] == len(beats)
            assert found["ecgmon_beats_segmented_total", label] == len(beats)
            assert found["ecgmon_score_count", label] == found["ecgmon_beats_scored_total", label] == len(beats)
            assert found["ecgmon_score_sum", label] == pytest.approx(beats["score"].sum())
            over = (beats["score"] > 3).sum()
            bucket = found["ecgmon_score_bucket", (("le", "3.0"), ("stream", stream))]
            assert bucket == len(beats) - over
        raised = sum(value for (name, _), value in found.items() if name == "ecgmon_alerts_raised_total")
        assert raised == len(reader.alerts())
        active = sum(value for (name, _), value in found.items() if name == "ecgmon_alerts_active")
        assert active == sum(alert.alert.end is None for alert in reader.alerts())


def test_promtool_accepts_the_metrics(running: Daemon) -> None:
    if shutil.which("promtool") is None:
        missing_tool("promtool (Debian's prometheus) is not installed")
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=running.get("/metrics"), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_exemplars_name_the_beat(running: Daemon) -> None:
    text = running.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert text.rstrip().endswith("# EOF")
    found = [
        s
        for family in parse_openmetrics(text)
        for s in family.samples
        if s.name == "ecgmon_score_bucket" and s.exemplar
    ]
    assert found
    with Reader(running.state) as reader:
        beats = {stream: reader.beats(stream) for stream in ("toy", "again")}
    for sample in found:
        labels = sample.exemplar.labels
        assert beats[sample.labels["stream"]]["score"][int(labels["seq"])] == pytest.approx(sample.exemplar.value)


def test_healthy_and_ready_are_separate_from_metrics(running: Daemon) -> None:
    assert json.loads(running.get("/-/healthy")) == {"healthy": True}
    wait_for(lambda: json.loads(running.get("/-/ready"))["ready"], "readiness")


def test_status_and_alerts_describe_a_running_daemon_and_the_store_of_a_stopped_one(
    ecgmon: RunEcgmon, running: Daemon
) -> None:
    live = json.loads(ecgmon("status", "--config", running.config, "--json").stdout)
    assert live["running"]
    assert live["daemon"]["stored"] == sum(stream["beats"] for stream in live["store"].values())
    assert live["store"]["toy"]["beats"] == live["store"]["again"]["beats"] > 400
    told = json.loads(ecgmon("alerts", "--config", running.config, "--json").stdout)["alerts"]
    assert running.stop() == 0  # so this is the last test of that daemon
    left = json.loads(ecgmon("status", "--state", running.state, "--json").stdout)
    assert not left["running"]
    assert left["store"] == live["store"]
    after = ecgmon("alerts", "--state", running.state, "--json")
    assert json.loads(after.stdout)["alerts"] == told
    assert "toy" in ecgmon("status", "--state", running.state).stdout
    nothing = ecgmon("status", "--state", running.state / "nowhere")
    assert nothing.returncode == 1
    assert "there is no store in" in nothing.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_daemon_drains_exits_with_0_and_leaves_no_process(daemon: StartDaemon, number: int) -> None:
    running = daemon([{**TOY, "speed": 20}])
    running.wait(lambda status: status.stored > 5, "some beats")
    children = [pid for role in ("monitor", "worker", "producer") for pid in running.pids(role)]
    assert len(children) == 3
    running.process.send_signal(number)
    running.process.send_signal(number)  # a second signal must not interrupt the drain
    assert running.stop(number) == 0
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    assert [left.name for left in running.runtime.iterdir()] == ["lock"]
    beats = sequence(running.state, "toy")
    assert beats.tolist() == list(range(len(beats)))


def test_bad_records_are_reported_a_truncated_one_delivers_its_samples_and_no_other_is_stopped(
    ecgmon: RunEcgmon, tmp_path: Path, mitdb: Path
) -> None:
    (tmp_path / "bad.hea").write_text("bad 1 360 1000\nbad.dat 212 200 11 1024 0 0 0 MLII\n")
    (tmp_path / "100.hea").write_text((mitdb / "100.hea").read_text())
    (tmp_path / "100.dat").write_bytes((mitdb / "100.dat").read_bytes()[: 3 * 360 * 60])
    run = ecgmon("replay", tmp_path / "bad", tmp_path / "100", "toy", "no-such-record", "--json")
    assert run.returncode == 1
    summary = json.loads(run.stdout)
    assert summary["streams"]["100"]["beats"] > 60
    assert summary["streams"]["toy"]["beats"] > 400
    assert set(summary["failed"]) == {"bad", "100", "no-such-record"}


def test_the_error_for_a_port_in_use_names_the_key_to_change(ecgmon: RunEcgmon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = ecgmon("replay", "toy", "--port", port)
    assert run.returncode == 3
    assert f"127.0.0.1:{port}" in run.stderr
    assert "exporter" in run.stderr


def test_a_state_folder_that_cannot_be_used_is_reported(ecgmon: RunEcgmon, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = ecgmon("replay", "toy", "--state", tmp_path / "file" / "state")
    assert run.returncode == 3
    assert "state folder" in run.stderr


def test_an_invalid_configuration_is_reported_without_a_traceback(ecgmon: RunEcgmon, tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[exporter]\nprot = 1\n")
    for command in ("run", "monitor", "worker", "producer", "check-config"):
        run = ecgmon(command, "--config", file)
        assert run.returncode in (1, 3), command
        assert "prot" in run.stderr
        assert "port" in run.stderr
        assert "Traceback" not in run.stderr


def test_the_demo_prints_plain_lines_without_a_terminal_and_draws_its_picture(
    ecgmon: RunEcgmon, tmp_path: Path
) -> None:
    run = ecgmon("demo", "--speed", "60", "--picture", tmp_path / "demo.png")
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(r"\d+ segmented, \d+ scored, \d+ stored, 0 lost", run.stdout)
    assert "\x1b" not in run.stdout + run.stderr


def test_the_command_line_starts_fast_because_it_imports_nothing_heavy(ecgmon: RunEcgmon) -> None:
    code = "import sys; sys.argv = ['ecgmon', '--help']\ntry:\n    from ecgmon.monitor.cli.main import main; main()\nexcept SystemExit: pass\n"
    code += "heavy = {'torch', 'wfdb', 'scipy', 'numba', 'matplotlib', 'pandas', 'numpy'} & set(sys.modules)\nassert not heavy, heavy"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    for command in ("replay", "run", "status", "alerts", "check-config"):
        assert ecgmon(command, "--help").returncode == 0
