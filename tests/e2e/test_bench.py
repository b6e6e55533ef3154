"""``ecgmon bench``: what it prints is whole, and came from real processes; no figure is judged here."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from conftest import clean_environment

from monitor.bench.compare import compare, table

pytestmark = pytest.mark.timeout(900)  # the first test waits for all the measurements

BARE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"msgspec", "zmq", "wfdb", "scipy", "structlog", "prometheus_client", "pandas", "numba"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from monitor.cli import main
sys.exit(main(["bench", "worker", "--repeats", "1", "--json"]))
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Measurements as small as they can be, by the names that the report looks for."""
    folder = tmp_path_factory.mktemp("bench")
    commands = {
        "pipeline": ("pipeline", "toy", "--repeats", 1),
        "live": ("live", "toy", "--streams", 12, "--seconds", 3),
        "store": ("store", "--large", 20_000),
        "soak": ("soak", "toy", "--minutes", 0.3),
    }
    found = {}
    for name, command in commands.items():
        done = subprocess.run(
            [sys.executable, "-m", "monitor", "bench", *map(str, command), "--json"],
            capture_output=True, text=True, timeout=300, check=False, env=clean_environment(folder),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found[name] = json.loads(done.stdout)
        (folder / f"{name}.json").write_text(done.stdout)
    bare = subprocess.run([sys.executable, "-W", "ignore", "-c", BARE], capture_output=True, text=True, check=False)
    assert bare.returncode == 0, bare.stderr
    found["worker-cpu"] = json.loads(bare.stdout)
    (folder / "worker-cpu.json").write_text(bare.stdout)
    return found, folder


def test_pipeline_stores_what_it_counts_and_says_where_the_time_goes(measured):
    found = measured[0]["pipeline"]
    assert found["beats"] > 400
    assert found["ratio"] == pytest.approx(found["beats_per_second"] / found["reference_beats_per_second"])
    assert set(found["stages"]) == set(found["floors"])
    assert all(value > 0 for value in found["stages"].values())
    assert 0 < found["floor_microseconds_per_beat"] < sum(found["stages"].values())
    assert set(found["roles_cpu_seconds_per_beat"]) == {"monitor", "worker", "producer"}
    assert found["cpu_seconds_per_beat"] > 0


def test_live_drops_nothing_of_a_few_streams(measured):
    found = measured[0]["live"]
    assert found["streams"] == 12
    assert found["dropped"] == 0
    assert found["beats"] > 12
    latency = found["latency_seconds"]
    assert 0 < latency["p50"] <= latency["p99"] <= latency["max"]
    assert found["rss_bytes"] > 0
    assert found["cpu_cores"] > 0


def test_the_store_answers_every_question(measured):
    found = measured[0]["store"]
    assert found["queries"]["beats"] == 20_000
    assert all(seconds["median"] > 0 for seconds in found["queries"]["seconds"].values())
    assert found["bytes_per_million_beats"] > 1e6


def test_the_worker_is_measured_with_torch_numpy_and_safetensors_alone(measured):
    found = measured[0]["worker-cpu"]
    assert found["difference_between_batch_sizes"] == 0
    assert found["forms"]["deployed"]["parity"] == 0
    for name in ("eager", "fused", "traced"):  # the same arithmetic in another order
        assert found["forms"][name]["parity"] < 1e-4
    assert found["best"]["over_floor"] > 0


def test_a_soak_has_a_slope_for_every_role(measured):
    found = measured[0]["soak"]
    assert set(found["roles"]) == {"monitor", "worker", "producer"}
    assert found["beats"] > 0


def test_the_report_is_made_from_measurements_and_keeps_what_is_written_by_hand(measured, ecgmon, tmp_path):
    page = tmp_path / "performance.md"
    page.write_text("old\n<!-- below this line the page is written by hand -->\n\nby hand\n")
    done = ecgmon("bench", "report", "--results", measured[1], "--out", page)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert text.endswith("\nby hand\n")
    assert "old" not in text
    assert f"{measured[0]['pipeline']['beats']} beats" in text
    assert "## growth\n\nNot measured." in text
    assert (tmp_path / "performance" / "stages.png").read_bytes().startswith(b"\x89PNG")


def test_comparing_shows_old_and_new(measured):
    new = measured[0]["store"]
    old = json.loads(json.dumps(new))
    old["commits"]["10"]["microseconds_per_beat"] *= 2
    pairs = compare(old, new)
    halved = [(before, after) for name, before, after in pairs if name == "commits.10.microseconds_per_beat"]
    assert halved == [(2 * halved[0][1], halved[0][1])]
    lines = table(pairs).splitlines()
    assert len(lines) == len(pairs) + 1
    assert sum("-50.0 %" in line for line in lines) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("pipeline", "no-such-record"), "no-such-record"),
        (("store", "--compare", "no-such-file.json"), "no-such-file.json"),
        (("report", "--results", "no-such-folder"), "no measurement"),
    ],
)
def test_what_can_not_be_measured_is_said(ecgmon, arguments, said):
    done = ecgmon("bench", *arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
