"""``ecgmon bench`` prints complete measurements of real processes; these tests do not judge the figures."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecgmon.monitor.bench.compare import compare, table
from ecgmon.monitor.bench.records import written
from ecgmon.pipelines.sources.finding import RecordRef
from ecgmon.pipelines.sources.wfdb_record import open_record
from tests.conftest import CHECKOUT
from tests.e2e.processes import RunEcgmon, clean_environment

pytestmark = pytest.mark.timeout(900)  # the first test waits for all measurements, which use every core

Measured = tuple[dict[str, Any], Path]

BARE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"msgspec", "zmq", "wfdb", "scipy", "structlog", "prometheus_client", "pandas", "numba"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from ecgmon.monitor.cli.main import main
sys.exit(main(["bench", "worker", "--repeats", "1", "--json"]))
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """The smallest possible measurements, under the names that the report reads."""
    folder = tmp_path_factory.mktemp("bench")
    commands = {
        "pipeline": ("pipeline", "--loop", 1, "--repeats", 1),
        "segment": ("segment", "--repeats", 1, "--streams", 10),
        "live": ("live", "toy", "--streams", 12, "--seconds", 3),
        "store": ("store", "--large", 20_000),
        "soak": ("soak", "toy", "--minutes", 0.3),
    }
    started = {
        name: [sys.executable, "-m", "ecgmon", "bench", *map(str, command), "--json"]
        for name, command in commands.items()
    }
    started["worker-cpu"] = [sys.executable, "-W", "ignore", "-c", BARE]

    def measure(name: str) -> dict[str, Any]:
        folder_of_its_own = folder / f"home-{name}"
        folder_of_its_own.mkdir()
        done = subprocess.run(
            started[name],
            capture_output=True, text=True, timeout=600, check=False, env=clean_environment(folder_of_its_own),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (folder / f"{name}.json").write_text(done.stdout)
        return json.loads(done.stdout)

    # in parallel: no test depends on the figures, and they mostly wait
    with ThreadPoolExecutor(3) as pool:
        found = dict(zip(started, pool.map(measure, started), strict=True))
    return found, folder


@pytest.mark.serial
def test_pipeline_stores_all_counted_beats_and_reports_the_time_of_each_stage(measured: Measured) -> None:
    found = measured[0]["pipeline"]
    assert found["records"] == 8
    assert 20_000 < found["beats"] < 30_000  # half an hour each
    assert found["floors"]["read"]["bytes"] > 0
    assert set(found["profile"]) == set(found["stages"])
    for shares in found["profile"].values():
        assert 0.5 < sum(shares.values()) <= 1.000001
        assert all(where.split(".")[0] in ("models", "monitor", "pipelines") for where in shares)
    assert found["ratio"] == pytest.approx(found["beats_per_second"] / found["reference_beats_per_second"])
    assert set(found["stages"]) == set(found["floors"])
    assert all(value > 0 for value in found["stages"].values())
    assert 0 < found["floor_microseconds_per_beat"] < sum(found["stages"].values())
    assert set(found["roles_cpu_seconds_per_beat"]) == {"monitor", "worker", "producer"}
    assert found["cpu_seconds_per_beat"] > 0


@pytest.mark.serial
def test_live_drops_no_beat_of_a_few_streams(measured: Measured) -> None:
    found = measured[0]["live"]
    assert found["streams"] == 12
    assert found["command"] == ["live", "toy", "--streams", "12", "--seconds", "3.0"]
    assert found["dropped"] == 0
    assert found["beats"] > 12
    latency = found["latency_seconds"]
    assert 0 < latency["p50"] <= latency["p99"] <= latency["max"]
    assert found["rss_bytes"] > 0
    assert found["cpu_cores"] > 0


@pytest.mark.serial
def test_the_store_benchmark_runs_every_query(measured: Measured) -> None:
    found = measured[0]["store"]
    assert found["queries"]["beats"] == 20_000
    assert all(seconds["median"] > 0 for seconds in found["queries"]["seconds"].values())
    assert found["bytes_per_million_beats"] > 1e6


@pytest.mark.serial
def test_the_worker_is_measured_with_torch_numpy_and_safetensors_alone(measured: Measured) -> None:
    found = measured[0]["worker-cpu"]
    assert found["difference_between_batch_sizes"] == 0
    assert found["forms"]["deployed"]["parity"] == 0
    for name in ("eager", "fused", "traced"):  # the same arithmetic in another order
        assert found["forms"][name]["parity"] < 1e-4
    assert found["best"]["over_floor"] > 0


@pytest.mark.serial
def test_a_soak_reports_a_memory_slope_for_every_role(measured: Measured) -> None:
    found = measured[0]["soak"]
    assert set(found["roles"]) == {"monitor", "worker", "producer"}
    assert found["beats"] > 0


@pytest.mark.serial
def test_the_report_is_made_from_measurements_and_keeps_handwritten_text(
    measured: Measured, ecgmon: RunEcgmon, tmp_path: Path
) -> None:
    page = tmp_path / "performance.md"
    page.write_text("old\n<!-- below this line the page is written by hand -->\n\nby hand\n")
    done = ecgmon("bench", "report", "--results", measured[1], "--out", page)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert text.endswith("\nby hand\n")
    assert "old" not in text
    assert f"{measured[0]['pipeline']['beats']:,} beats" in text
    assert "## growth\n\nNot measured." in text
    for picture in ("pipeline", "worker-cpu", "store", "soak"):
        assert f"![{picture}](performance/{picture}.png)" in text
        assert (tmp_path / "performance" / f"{picture}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("damaged", ["{", "[]", "{}", '{"machine": 3}'])
def test_files_that_are_no_measurements_are_refused_and_the_page_is_unchanged(
    ecgmon: RunEcgmon, tmp_path: Path, damaged: str
) -> None:
    (tmp_path / "pipeline.json").write_text(damaged)
    page = tmp_path / "performance.md"
    page.write_text("old\n")
    done = ecgmon("bench", "report", "--results", tmp_path, "--out", page)
    assert done.returncode == 1
    assert "pipeline.json is no" in done.stderr
    assert page.read_text() == "old\n"


def test_compare_repeats_a_measurement_and_prints_the_table_of_the_page(ecgmon: RunEcgmon, tmp_path: Path) -> None:
    first = ecgmon("bench", "start", "--repeats", 1, "--json")
    assert first.returncode == 0, first.stderr
    old = tmp_path / "old.json"
    old.write_text(first.stdout)
    again = ecgmon("bench", "--compare", old)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("Start\n\nMeasured on: ")
    assert "\n`ecgmon bench start --repeats 1`.\n" in again.stdout
    rows = [line.split("|") for line in again.stdout.splitlines() if line.startswith("|")]
    assert len({len(row) for row in rows}) == 1
    assert sum(cell.strip().endswith(" s") for row in rows for cell in row) == 5 * 3
    before = json.loads(first.stdout)["run_ready"]["median"]
    (line,) = (line for line in again.stdout.splitlines() if line.startswith("run_ready.median"))
    assert float(line.split()[1]) == pytest.approx(before, rel=1e-4)


def test_the_default_records_hold_the_samples_of_the_built_in_one() -> None:
    toy = open_record(RecordRef("toy", None)).read(0, 108_000)
    with written() as refs:
        assert len(refs) == 8
        for number, ref in enumerate(refs):
            record = open_record(ref)
            assert (record.fs, record.leads, record.length) == (360, ("MLII",), 6 * len(toy))
            expected = np.roll(toy, number * len(toy) // 8, axis=0)
            assert np.array_equal(record.read(len(toy), 2 * len(toy)), expected)
    assert not any(ref.path is None or ref.path.parent.exists() for ref in refs)


@pytest.mark.serial
def test_compare_shows_old_and_new_values(measured: Measured) -> None:
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
    ("arguments", "code", "said"),
    [
        (("pipeline", "no-such-record"), 1, "no-such-record"),
        (("store", "--compare", "no-such-file.json"), 1, "no-such-file.json"),
        (("report", "--results", "no-such-folder"), 1, "no measurement"),
        ((), 2, "name what to measure"),
        (("--compare", "no-such-file.json"), 1, "no-such-file.json"),
        (("--compare", CHECKOUT / "results" / "ablation.json"), 1, "does not say what it measured"),
        (("pipeline", "--repeats", "0"), 2, "'0' is not a whole number of at least 1"),
        (("live", "--streams", "-3"), 2, "'-3' is not a whole number of at least 1"),
        (("soak", "--minutes", "inf"), 2, "'inf' is not a number above 0"),
    ],
)
def test_a_measurement_that_cannot_be_made_reports_the_reason(
    ecgmon: RunEcgmon, arguments: tuple[object, ...], code: int, said: str
) -> None:
    done = ecgmon("bench", *arguments)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
