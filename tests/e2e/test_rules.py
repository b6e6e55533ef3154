"""Every shipped rule fires only when it should and resolves; every alert has an entry in the runbook."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.processes import missing_tool

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKOUT = Path(__file__).parents[2]
RULES = CHECKOUT / "systemd/prometheus/ecgmon.rules.yml"
ROUTES = CHECKOUT / "systemd/alertmanager/alertmanager.yml"
ALERTS = re.findall(r"- alert: (\w+)", RULES.read_text())
GROUPS = re.findall(r"- name: (\S+)", RULES.read_text())  # recorded ones first
HERE = 'job="ecgmon",instance="m"'
STEP = 15  # seconds between two samples


@dataclass
class Case:
    """Samples every 15 s: five normal ones, then some that make the alert fire, then normal ones again."""

    alert: str
    series: dict[str, str]
    fires: int
    """Time in s at which it must fire."""
    resolved: int
    silent_until: int = 60
    also_silent: tuple[str, ...] = ()
    step: int = STEP
    labels: dict[str, str] = field(default_factory=dict)


def counter(name: str, labels: str, *parts: str) -> dict[str, str]:
    return {f"{name}{{{HERE}{labels}}}": " ".join(parts)}


def slow(bad: int) -> dict[str, str]:
    """Make 100 beats in time in each step, and for 20 steps some more that are late."""
    late = 20 * bad
    return counter("ecgmon_stage_duration_seconds_bucket", ',stage="total",le="1.0"', "0+100x900") | counter(
        "ecgmon_stage_duration_seconds_count",
        ',stage="total"',
        "0+100x4",
        f"500+{100 + bad}x19",
        f"{2500 + late}+100x875",
    )


def scores(over_half: tuple[int, int], over_one: tuple[int, int]) -> dict[str, str]:
    """Make 100 beats in each step; the arguments say how many are over a score, for 400 steps and then for 48 more."""

    def bucket(le: str, over: tuple[int, int]) -> dict[str, str]:
        first, then = 100 - over[0], 100 - over[1]
        return counter("ecgmon_score_bucket", f',stream="a",le="{le}"', f"0+{first}x400", f"{first * 401}+{then}x47")

    return (
        bucket("0.5", over_half) | bucket("1.0", over_one) | counter("ecgmon_score_count", ',stream="a"', "0+100x448")
    )


def gauge(name: str, labels: str, well: float, ill: float, steps: int) -> dict[str, str]:
    return {f"{name}{{{HERE}{labels}}}": f"{well}x4 {ill}x{steps} {well}x40"}


def jump(name: str, labels: str, to: int, steps: int = 400) -> dict[str, str]:
    return {f"{name}{{{HERE}{labels}}}": f"0x4 {to}x{steps}"}


CASES = [
    Case("EcgmonHighPriorityAlert", gauge("ecgmon_alerts_active", ',kind="asystole",priority="high"', 0, 1, 8), 75, 225),
    Case(
        "EcgmonMediumPriorityAlert", gauge("ecgmon_alerts_active", ',kind="lead_off",priority="medium"', 0, 2, 8), 105,
        225, silent_until=90, also_silent=("EcgmonHighPriorityAlert",),
    ),
    Case("EcgmonDown", gauge("up", "", 1, 0, 8), 90, 225, silent_until=75),
    Case("EcgmonNotScraped", {f"up{{{HERE}}}": "1x4 _x60 1x20", 'up{job="other"}': "1x90"}, 690, 1005, silent_until=600),
    Case("EcgmonNoWorker", gauge("ecgmon_workers", ',device="cpu"', 1, 0, 8) | gauge("ecgmon_workers", ',device="cuda"', 0, 0, 8), 90, 225, silent_until=75),
    Case("EcgmonWorkerDegraded", gauge("ecgmon_workers_degraded", "", 0, 1, 8), 150, 225, silent_until=105),
    Case("EcgmonStreamStalled", gauge("ecgmon_streams", ',state="stalled"', 0, 1, 8), 105, 225, silent_until=75),
    Case("EcgmonSourceErrors", jump("ecgmon_source_errors_total", "", 1), 90, 900),
    Case("EcgmonBeatsDropped", jump("ecgmon_producer_beats_dropped_total", "", 7), 90, 480),
    Case(
        "EcgmonBeatsRedelivered",
        counter("ecgmon_beats_redelivered_total", ',hop="worker"', "0x4", "0+10x60", "600x80")
        | counter("ecgmon_beats_redelivered_total", ',hop="producer"', "0x145")
        | counter("ecgmon_beats_stored_total", ',stream="a"', "0+100x145"),
        600, 2100, silent_until=300,
    ),
    Case("EcgmonBeatsUnscored", jump("ecgmon_beats_unscored_total", "", 1), 90, 4000),
    Case("EcgmonSlow", slow(10), 150, 800),
    Case("EcgmonSlowForLong", slow(1), 300, 3000, also_silent=("EcgmonSlow",)),
    Case(
        "EcgmonQueueFilling",
        gauge("ecgmon_queue_beats", ',queue="waiting"', 0, 40, 12) | gauge("ecgmon_queue_beats", ',queue="leased"', 0, 20, 12)
        | gauge("ecgmon_queue_limit_items", "", 100, 100, 12),
        225, 300, silent_until=180,
    ),
    Case("EcgmonStoreErrors", jump("ecgmon_store_errors_total", "", 1), 90, 300),
    Case("EcgmonNotReady", gauge("ecgmon_ready", "", 1, 0, 8), 150, 225, silent_until=120),
    Case("EcgmonReloadRefused", gauge("ecgmon_config_reload_success", "", 1, 0, 8), 75, 225),
    Case(
        "EcgmonIntruder", jump("ecgmon_messages_rejected_total", ',role="producer",reason="handshake"', 20)
        | jump("ecgmon_http_refused_total", ',reason="time"', 500), 90, 480,
    ),
    Case("EcgmonIntruder", jump("ecgmon_http_refused_total", ',reason="authentication"', 30), 90, 480),
    Case(
        "EcgmonScoreDrift", scores((32, 60), (10, 50)), 30 * 60 * 415, 30 * 60 * 399, silent_until=30 * 60 * 398, step=1800
    ),
    Case("EcgmonScoreDrift", scores((2, 2), (0, 0)), 30 * 60 * 10, 0, silent_until=1800, step=1800),
]  # fmt: skip


@pytest.fixture(scope="module")
def promtool() -> Callable[..., str]:
    if shutil.which("promtool") is None:
        missing_tool("promtool (Debian's prometheus) is not installed")

    def run(*arguments: object, text: str | None = None) -> str:
        done = subprocess.run(
            ["promtool", *map(str, arguments)], capture_output=True, text=True, input=text, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def test_every_alert_has_a_case() -> None:
    assert {case.alert for case in CASES} == set(ALERTS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_a_rule_fires_only_when_it_should(promtool: Callable[..., str], tmp_path: Path, case: Case) -> None:
    def firing(alert: str, at: int, count: int) -> str:
        samples = f"[{{labels: '{{}}', value: {count}}}]" if count else "[]"
        return (
            f'      - expr: count(ALERTS{{alertname="{alert}",alertstate="firing"}})\n        eval_time: {at}s\n'
            f"        exp_samples: {samples}\n"
        )  # fmt: skip

    expected = [firing(case.alert, case.silent_until, 0), firing(case.alert, case.fires, 1)]
    expected += [firing(case.alert, case.resolved, 0)] if case.resolved else []
    expected += [firing(other, case.fires, 0) for other in case.also_silent]
    series = "".join(f"      - series: '{name}'\n        values: '{values}'\n" for name, values in case.series.items())
    file = tmp_path / "test.yml"
    file.write_text(
        f"rule_files: [{RULES}]\nevaluation_interval: {case.step}s\n"
        f"group_eval_order: [{', '.join(GROUPS)}]\ntests:\n  - interval: {case.step}s\n"
        f"    input_series:\n{series}    promql_expr_test:\n{''.join(expected)}"
    )
    assert "SUCCESS" in promtool("test", "rules", file)


def test_promtool_accepts_the_rules_and_the_configuration(promtool: Callable[..., str], tmp_path: Path) -> None:
    shutil.copy(RULES, tmp_path)
    shutil.copy(RULES.with_name("prometheus.yml"), tmp_path)
    said = promtool("check", "config", "--lint-fatal", tmp_path / "prometheus.yml")
    assert "FAILED" not in said
    assert "SUCCESS" in promtool("check", "rules", "--lint-fatal", RULES)


def test_amtool_accepts_the_configuration_and_each_alert_has_the_right_receiver() -> None:
    if shutil.which("amtool") is None:
        missing_tool("amtool (Debian's prometheus-alertmanager) is not installed")

    def amtool(*arguments: str) -> str:
        done = subprocess.run(["amtool", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    assert "SUCCESS" in amtool("check-config", str(ROUTES))
    for labels, receiver in (
        (("alertname=EcgmonHighPriorityAlert", "priority=high", "severity=critical"), "ward"),
        (("alertname=EcgmonMediumPriorityAlert", "priority=medium", "severity=warning"), "ward"),
        (("alertname=EcgmonDown", "severity=critical"), "on-call"),
        (("alertname=EcgmonScoreDrift", "severity=warning"), "engineers"),
    ):
        assert amtool("config", "routes", "test", f"--config.file={ROUTES}", *labels) == receiver


def test_every_alert_has_a_severity_a_summary_and_its_entry_in_the_runbook() -> None:
    rules = RULES.read_text()
    runbook = (CHECKOUT / "docs/operations.md").read_text().partition("\n## Alerts\n")[2].partition("\n## ")[0]
    assert re.findall(r"^### (\w+)", runbook, re.MULTILINE) == ALERTS
    for name, body in re.findall(r"- alert: (\w+)\n(.*?)(?=\n      (?:- alert|#)|\n  - name|\Z)", rules, re.DOTALL):
        assert re.search(r"severity: (critical|warning)", body), name
        for annotation in ("summary: ", "description: ", f"runbook_url: docs/operations.md#{name.lower()}"):
            assert annotation in body, (name, annotation)
