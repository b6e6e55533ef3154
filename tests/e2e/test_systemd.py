"""The units do on a real systemd, as process 1, what they say."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from conftest import Daemon, missing_tool, stored, wait_for

from monitor.config_text import dump_toml
from monitor.settings import Config

CHECKOUT = Path(__file__).parents[2]
UNITS = CHECKOUT / "systemd"
MOST_EXPOSED = {"ecgmon-monitor.service": 1.0, "ecgmon-worker@.service": 0.5, "ecgmon-producer@.service": 0.3}


@pytest.fixture(scope="module")
def analyze():
    if shutil.which("systemd-analyze") is None:
        missing_tool("systemd-analyze (Debian's systemd) is not installed")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize("unit", [*MOST_EXPOSED, "ecgmon.target"])
def test_systemd_has_nothing_to_say_about_a_unit(analyze, tmp_path, unit):
    for path in UNITS.glob("ecgmon*"):
        if path.is_file() and path.suffix != ".toml":
            (tmp_path / path.name).write_text(path.read_text().replace("/usr/local/bin/ecgmon", "/bin/true"))
    instance = unit.replace("@.", "@1.")
    if instance != unit:
        shutil.copy(tmp_path / unit, tmp_path / instance)
    done = analyze("verify", str(tmp_path / instance))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("unit", MOST_EXPOSED)
def test_a_unit_is_hardly_exposed(analyze, unit):
    done = analyze("security", "--offline=yes", "--no-pager", str(UNITS / unit))
    found = re.search(r"Overall exposure level.*: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= MOST_EXPOSED[unit]


def test_the_example_explains_every_key_and_is_the_defaults():
    head, _, rest = (UNITS / "ecgmon.toml").read_text().partition("\n\n")
    assert head.startswith("#")
    assert rest == dump_toml(Config()), "write it anew from monitor.config_text.dump_toml(Config())"


class Machine:
    """systemd in namespaces of its own."""

    def __init__(self, folder: Path) -> None:
        packages = sysconfig.get_path("purelib")
        self._unshare = subprocess.Popen(
            ["unshare", "-m", "-p", "-f", "-C", "-u", "-i", "-n", "--kill-child", "sh", str(Path(__file__).with_name("boot_systemd.sh")),
             str(folder), str(CHECKOUT), sys.base_prefix, packages],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children")
        self.pid = int(wait_for(lambda: children.read_text().split(), "a process 1", 20)[0])
        wait_for(lambda: self("systemctl", "is-system-running").stdout.strip() == "running", "systemd", 60)

    def __call__(self, *command: str) -> subprocess.CompletedProcess[str]:
        inside = ["nsenter", "-t", str(self.pid), "-m", "-p", "-C", "-u", "-i", "-n", *command]
        return subprocess.run(inside, capture_output=True, text=True, check=False)

    def done(self, *command: str) -> str:
        result = self(*command)
        assert result.returncode == 0, (
            f"{command}: {result.stdout}{result.stderr}{self('journalctl', '--no-pager', '-n', '40').stdout}"
        )
        return result.stdout

    def show(self, unit: str, what: str) -> str:
        return self.done("systemctl", "show", "--value", "-p", what, unit).strip()

    def main(self, unit: str) -> int:
        return int(self.show(unit, "MainPID"))

    def path(self, inside: str) -> Path:
        return Path(f"/proc/{self.pid}/root{inside}")

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._unshare.communicate(timeout=30)


@pytest.fixture(scope="module")
def machine():
    if os.geteuid() != 0 or not Path("/lib/systemd/systemd").exists():
        missing_tool("booting systemd needs root and Debian's systemd")
    with TemporaryDirectory(prefix="ecgmon-t-") as folder:
        if subprocess.run(["unshare", "-m", "-p", "-f", "-C", "-n", "true"], check=False).returncode:
            missing_tool("booting systemd needs namespaces")
        found = Machine(Path(folder))
        yield found
        found.close()


def contents(machine: Machine, folder: Path) -> dict[str, object]:
    """What the store inside holds."""
    folder.mkdir()
    for name in ("ecgmon.sqlite", "ecgmon.sqlite-wal"):
        source = machine.path(f"/var/lib/ecgmon/{name}")
        if source.exists():
            shutil.copy(source, folder / name)
    return stored(folder)


def test_the_target_starts_and_survives_what_befalls_its_services(machine, tmp_path):
    machine.done("systemctl", "start", "ecgmon.target")
    wait_for(
        lambda: machine("systemctl", "is-active", "ecgmon-monitor", "ecgmon-worker@1").stdout.split() == ["active"] * 2,
        "both",
    )

    # what is in effect
    monitor = machine.main("ecgmon-monitor")
    status = machine.path(f"/proc/{monitor}/status").read_text()
    assert re.search(r"^Uid:\s+(?!0\s)", status, re.MULTILINE)
    assert "Seccomp:\t2" in status
    assert "NoNewPrivs:\t1" in status
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    for folder in ("/run/ecgmon", "/var/lib/ecgmon"):
        assert machine.path(folder).stat().st_mode & 0o777 == 0o700
    wait_for(
        lambda: re.search(r"\d+ streams, .* 1 workers", machine.show("ecgmon-monitor", "StatusText")), "the worker"
    )

    # a killed worker is started again, a monitor that stands still is ended by the watchdog
    machine.done("systemctl", "start", "ecgmon-producer@toy")
    wait_for(lambda: "0 streams" not in machine.show("ecgmon-monitor", "StatusText"), "the stream")
    machine.done("kill", "-9", str(machine.main("ecgmon-worker@1")))
    wait_for(lambda: machine.show("ecgmon-worker@1", "NRestarts") == "1", "the worker to be started again")
    machine.done("kill", "-STOP", str(machine.main("ecgmon-monitor")))
    wait_for(lambda: machine.show("ecgmon-monitor", "NRestarts") == "1", "the watchdog")
    wait_for(lambda: machine.show("ecgmon-producer@toy", "ActiveState") == "inactive", "the stream to be stored")
    assert machine.show("ecgmon-producer@toy", "Result") == "success"

    # stopped: drained, and clean
    machine.done("systemctl", "stop", "ecgmon.target")
    for unit in ("ecgmon-monitor", "ecgmon-worker@1"):
        wait_for(lambda unit=unit: machine.show(unit, "ActiveState") == "inactive", f"{unit} to stop")
        assert machine.show(unit, "Result") == "success"
    expected_folder = tmp_path / "expected"
    expected_folder.mkdir()
    with TemporaryDirectory(prefix="ecgmon-t-") as runtime:
        usual = Daemon(expected_folder, Path(runtime), [{"record": "toy", "speed": 0}])
        usual.wait(lambda status: status.streams and status.streams["toy"].ended, "the end")
        assert usual.stop() == 0
    assert contents(machine, tmp_path / "found") == stored(usual.state)

    # the journal has a line for every event, with its priority
    lines = machine.done("journalctl", "-u", "ecgmon-monitor", "-o", "json", "--no-pager").splitlines()
    events = [json.loads(line) for line in lines]
    ours = [(json.loads(e["MESSAGE"]), int(e["PRIORITY"])) for e in events if str(e.get("MESSAGE", "")).startswith("{")]
    names = {message["event"]: priority for message, priority in ours}
    assert names["alert-raised"] == 4
    assert names["producer-joined"] == 6
    assert names["stopped"] == 6

    # and it goes on where it stood
    machine.done("systemctl", "start", "ecgmon.target")
    wait_for(lambda: machine.show("ecgmon-monitor", "ActiveState") == "active", "the monitor")
    machine.done("systemctl", "start", "ecgmon-producer@toy")
    wait_for(
        lambda: machine.show("ecgmon-producer@toy", "ActiveState") == "inactive", "the producer to find all stored"
    )
    assert contents(machine, tmp_path / "again") == stored(usual.state)
    machine.done("systemctl", "stop", "ecgmon.target")


def test_a_configuration_that_can_not_be_used_is_not_tried_again_and_again(machine):
    machine.path("/etc/ecgmon/broken.toml").write_text("[[source]]\nrecord = 7\n")
    assert machine("systemctl", "start", "ecgmon-producer@broken").returncode != 0
    assert machine.show("ecgmon-producer@broken", "ActiveState") == "failed"
    assert machine.show("ecgmon-producer@broken", "ExecMainStatus") == "3"
    assert machine.show("ecgmon-producer@broken", "NRestarts") == "0"
