"""The units work on a real systemd that runs as process 1."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sysconfig
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from ecgmon.monitor.config.documentation import dump_toml
from ecgmon.monitor.config.schema import Config
from tests.e2e.processes import Replayed, Watched, missing_tool, stored, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ecgmon.monitor.core.status import Status

CHECKOUT = Path(__file__).parents[2]
UNITS = CHECKOUT / "systemd"
MOST_EXPOSED = {"ecgmon-monitor.service": 1.1, "ecgmon-worker@.service": 0.5, "ecgmon-producer@.service": 0.3}


@pytest.fixture(scope="module")
def analyze() -> Callable[..., subprocess.CompletedProcess[str]]:
    if shutil.which("systemd-analyze") is None:
        missing_tool("systemd-analyze (Debian's systemd) is not installed")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize("unit", [*MOST_EXPOSED, "ecgmon.target"])
def test_systemd_analyze_verify_accepts_a_unit(
    analyze: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, unit: str
) -> None:
    for path in UNITS.glob("ecgmon*"):
        if path.is_file() and path.suffix != ".toml":
            (tmp_path / path.name).write_text(path.read_text().replace("/usr/local/bin/ecgmon", "/bin/true"))
    instance = unit.replace("@.", "@1.")
    if instance != unit:
        shutil.copy(tmp_path / unit, tmp_path / instance)
    done = analyze("verify", str(tmp_path / instance))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("unit", MOST_EXPOSED)
def test_the_exposure_level_of_a_unit_is_low(
    analyze: Callable[..., subprocess.CompletedProcess[str]], unit: str
) -> None:
    done = analyze("security", "--offline=yes", "--no-pager", str(UNITS / unit))
    found = re.search(r"Overall exposure level.*: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= MOST_EXPOSED[unit]


def test_the_example_configuration_explains_every_key_and_holds_the_defaults() -> None:
    head, _, rest = (UNITS / "ecgmon.toml").read_text().partition("\n\n")
    assert head.startswith("#")
    assert rest == dump_toml(Config()), "write it again from ecgmon.monitor.config.documentation.dump_toml(Config())"


class Machine:
    """systemd in namespaces of its own."""

    def __init__(self, folder: Path) -> None:
        packages = sysconfig.get_path("purelib")
        self._unshare = subprocess.Popen(
            ["unshare", "-m", "-p", "-f", "-C", "-u", "-i", "-n", "--kill-child", "sh", str(Path(__file__).with_name("boot_systemd.sh")),
             str(folder), str(CHECKOUT), packages],
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

    def write(self, path: str, text: str) -> None:
        inside = self.path(path)
        inside.parent.mkdir(exist_ok=True, parents=True)
        inside.write_text(text)
        if path.startswith("/etc/ecgmon/"):
            self.done("chgrp", "ecgmon", path)
            inside.chmod(0o640)

    def install(
        self, source: str = "/opt/ecgmon", packages: str = "/opt/packages", compile_loops: str = ""
    ) -> subprocess.CompletedProcess[str]:
        settings = (f"PACKAGES={packages}", "PYTHON=/usr/bin/python3", f"COMPILE={compile_loops}")
        return self("make", "--no-print-directory", "-C", source, "install", *settings)

    def release(self) -> str:
        return self.done("readlink", "-f", "/usr/local/lib/ecgmon/current").strip()

    def wait_active(self, *units: str) -> None:
        def active() -> bool:
            return self("systemctl", "is-active", *units).stdout.split() == ["active"] * len(units)

        try:
            wait_for(active, "the units", 60)
        except AssertionError:
            pytest.fail(self("sh", "-c", f"systemctl status --no-pager {' '.join(units)}").stdout)

    def events(self, unit: str, name: str) -> list[dict[str, object]]:
        lines = self.done("journalctl", "-u", unit, "-o", "cat", "--no-pager").splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [event for event in found if event["event"] == name]

    def status(self) -> dict[str, Any]:
        asked = self("/usr/local/bin/ecgmon", "status", "--config", "/etc/ecgmon/ecgmon.toml", "--json")
        return json.loads(asked.stdout) if asked.returncode == 0 else {}

    def watched(self) -> Status | None:
        """Ask the monitor without a process of its own, for loops that wait."""
        return Watched(self.path("/run/ecgmon"))()

    def main(self, unit: str) -> int:
        return int(self.show(unit, "MainPID"))

    def path(self, inside: str) -> Path:
        return Path(f"/proc/{self.pid}/root{inside}")

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._unshare.communicate(timeout=30)


CONFIG = (
    '[runtime]\ndir = "/run/ecgmon"\n[store]\npath = "/var/lib/ecgmon"\n[delivery]\nheartbeat_seconds = 0.5\n'
    "dead_after_seconds = 3.0\n[alerts]\nstalled_seconds = 600.0\nscore_threshold = 2.0\n"
)
TOY = '[[source]]\nrecord = "toy"\nspeed = 12\n'


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    if os.geteuid() != 0 or not Path("/lib/systemd/systemd").exists():
        missing_tool("booting systemd needs root and Debian's systemd")
    if subprocess.run(
        ["/usr/bin/python3", "-c", "import venv, sys; sys.exit(sys.version_info < (3, 11))"], check=False
    ).returncode:
        missing_tool("installing needs Debian's python3-venv, 3.11 or newer")
    with TemporaryDirectory(prefix="ecgmon-t-") as folder:
        if subprocess.run(["unshare", "-m", "-p", "-f", "-C", "-n", "true"], check=False).returncode:
            missing_tool("booting systemd needs namespaces")
        found = Machine(Path(folder))
        try:
            done = found.install()
            assert done.returncode == 0, done.stdout + done.stderr
            assert "compiles them at its first start" not in done.stderr
            assert list(found.path("/var/cache/private/ecgmon").rglob("*.nbi")), "nothing was compiled"
            example = found.path("/etc/ecgmon/ecgmon.toml")
            assert example.read_text() == (UNITS / "ecgmon.toml").read_text()
            assert example.stat().st_mode & 0o777 == 0o640
            found.write("/etc/ecgmon/ecgmon.toml", CONFIG)
            found.write("/etc/ecgmon/toy.toml", CONFIG + TOY)
            found.write("/etc/systemd/system/ecgmon-monitor.service.d/test.conf", "[Service]\nWatchdogSec=4\n")
            found.done("systemctl", "daemon-reload")
            yield found
        finally:
            found.close()


def stopped(machine: Machine, unit: str) -> bool:
    return machine.show(unit, "ActiveState") == "inactive"


def contents(machine: Machine, folder: Path) -> dict[str, object]:
    """Read the store inside the machine."""
    folder.mkdir()
    for name in ("ecgmon.sqlite", "ecgmon.sqlite-wal"):
        source = machine.path(f"/var/lib/ecgmon/{name}")
        if source.exists():
            shutil.copy(source, folder / name)
    return stored(folder)


def test_the_target_starts_and_survives_failures_of_its_services(
    machine: Machine, tmp_path: Path, replayed: Replayed
) -> None:
    machine.done("systemctl", "start", "ecgmon.target")
    wait_for(
        lambda: machine("systemctl", "is-active", "ecgmon-monitor", "ecgmon-worker@1").stdout.split() == ["active"] * 2,
        "both",
    )

    # the restrictions in effect
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

    # the status for an operator and for Prometheus
    assert re.search(
        r'Status: ".* streams, .* 1 workers', machine.done("systemctl", "status", "--no-pager", "ecgmon-monitor")
    )
    scrape = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9464/metrics').read().decode())"
    assert "\necgmon_ready 1.0\n" in machine.done("python3", "-c", scrape)

    # a killed worker is restarted; the watchdog ends a stopped monitor
    machine.done("systemctl", "start", "ecgmon-producer@toy")
    wait_for(lambda: "0 streams" not in machine.show("ecgmon-monitor", "StatusText"), "the stream")
    machine.done("kill", "-9", str(machine.main("ecgmon-worker@1")))
    wait_for(lambda: machine.show("ecgmon-worker@1", "NRestarts") == "1", "the worker to be started again")
    machine.done("kill", "-STOP", str(machine.main("ecgmon-monitor")))
    wait_for(lambda: machine.show("ecgmon-monitor", "NRestarts") == "1", "the watchdog")
    wait_for(lambda: machine.show("ecgmon-producer@toy", "ActiveState") == "inactive", "the stream to be stored")
    assert machine.show("ecgmon-producer@toy", "Result") == "success"

    # stopped: everything is drained and the result is success
    machine.done("systemctl", "stop", "ecgmon.target")
    for unit in ("ecgmon-monitor", "ecgmon-worker@1"):
        wait_for(partial(stopped, machine, unit), f"{unit} to stop")
        assert machine.show(unit, "Result") == "success"
    expected = stored(replayed.state)
    assert contents(machine, tmp_path / "found") == expected

    # the journal has a line for every event, with its priority
    lines = machine.done("journalctl", "-u", "ecgmon-monitor", "-o", "json", "--no-pager").splitlines()
    events = [json.loads(line) for line in lines]
    ours = [(json.loads(e["MESSAGE"]), int(e["PRIORITY"])) for e in events if str(e.get("MESSAGE", "")).startswith("{")]
    names = {message["event"]: priority for message, priority in ours}
    assert names["alert-raised"] == 4
    assert names["producer-joined"] == 6
    assert names["stopped"] == 6

    # after a start it continues where it stopped
    machine.done("systemctl", "start", "ecgmon.target")
    wait_for(lambda: machine.show("ecgmon-monitor", "ActiveState") == "active", "the monitor")
    machine.done("systemctl", "start", "ecgmon-producer@toy")
    wait_for(
        lambda: machine.show("ecgmon-producer@toy", "ActiveState") == "inactive", "the producer to find all stored"
    )
    assert contents(machine, tmp_path / "again") == expected
    machine.done("systemctl", "stop", "ecgmon.target")


def test_a_reload_applies_thresholds_and_weights_and_refuses_errors(machine: Machine) -> None:
    machine.write("/etc/ecgmon/again.toml", CONFIG + TOY.replace("toy", "toy").replace("12", '10\nname = "again"'))
    machine.done("systemctl", "start", "ecgmon.target", "ecgmon-producer@again")
    units = ("ecgmon-monitor", "ecgmon-worker@1")
    machine.wait_active(*units)
    pids = [machine.main(unit) for unit in units]

    def beats() -> int:
        status = machine.watched()
        return status.streams["again"].beats if status and "again" in status.streams else 0

    wait_for(lambda: beats() > 20, "beats")
    other = "/etc/ecgmon/other.safetensors"
    machine.done("install", "-m", "644", "/opt/ecgmon/models/weights/ds1.safetensors", other)
    machine.write("/etc/ecgmon/ecgmon.toml", CONFIG.replace("= 2.0", "= 3.5") + f'[worker]\nweights = "{other}"\n')
    machine.done("systemctl", "reload", "ecgmon-monitor")  # also reloads the workers
    wait_for(lambda: machine.events("ecgmon-monitor", "reloaded"), "the reload")
    stood = beats()
    wait_for(lambda: beats() > stood + 20, "beats by the other model")
    assert "ds1" in str(machine.status()["daemon"]["model"]) or "DS1" in str(machine.status()["daemon"]["model"])

    machine.write("/etc/ecgmon/ecgmon.toml", CONFIG.replace("= 2.0", "= -3.5"))
    assert machine("systemctl", "reload", "ecgmon-monitor").returncode != 0
    machine.done("kill", "-HUP", str(machine.main("ecgmon-monitor")))  # without the check: the daemon refuses it too
    wait_for(lambda: machine.events("ecgmon-monitor", "reload-refused"), "the refusal")
    assert "refused" in wait_for(
        lambda: (text := machine.show("ecgmon-monitor", "StatusText")) and "refused" in text and text, "the status"
    )
    machine.write("/etc/ecgmon/ecgmon.toml", CONFIG)
    machine.done("systemctl", "reload", "ecgmon-monitor")
    wait_for(lambda: machine.show("ecgmon-producer@again", "ActiveState") == "inactive", "the end", 90)
    assert machine.show("ecgmon-producer@again", "Result") == "success"
    assert [machine.main(unit) for unit in units] == pids
    assert [machine.show(unit, "NRestarts") for unit in units] == ["0", "0"]
    assert (
        beats() == machine.status()["daemon"]["streams"]["toy"]["beats"]
        if "toy" in machine.status()["daemon"]["streams"]
        else True
    )


@pytest.mark.timeout(600)
def test_an_upgrade_keeps_configuration_and_state_and_a_failed_one_changes_nothing(machine: Machine) -> None:
    machine.done("systemctl", "start", "ecgmon.target")
    machine.wait_active("ecgmon-monitor", "ecgmon-worker@1")
    pid, release = machine.main("ecgmon-monitor"), machine.release()

    # it cannot be installed, or refuses the configuration: nothing has changed
    for wrong in (lambda: machine.install(packages="/nowhere"), lambda: machine.install(packages="/tmp")):
        failed = wrong()
        assert failed.returncode != 0
        assert "nothing was changed" in failed.stderr
        assert (machine.main("ecgmon-monitor"), machine.release()) == (pid, release)
    machine.write("/etc/ecgmon/ecgmon.toml", CONFIG + "[nonsense]\n")
    assert "cannot use /etc/ecgmon/ecgmon.toml" in machine.install().stderr
    machine.write("/etc/ecgmon/ecgmon.toml", CONFIG)
    assert (machine.main("ecgmon-monitor"), machine.release()) == (pid, release)
    assert len(machine.done("ls", "/usr/local/lib/ecgmon/releases").split()) == 1

    # it can be installed but does not run: the old release is restored
    machine.done(
        "sh",
        "-c",
        "mkdir /opt/broken && cd /opt/ecgmon && cp -r Makefile README.md LICENSE pyproject.toml requirements.txt systemd ecgmon monitor models pipelines /opt/broken",
    )
    machine.done(
        "sed",
        "-i",
        "s/^def run(.*/&\\n    raise RuntimeError('broken')/",
        "/opt/broken/monitor/cli/monitor.py",
    )
    failed = machine.install("/opt/broken", compile_loops="no")
    assert failed.returncode != 0
    assert "going back" in failed.stderr
    assert machine.release() == release
    machine.wait_active("ecgmon-monitor", "ecgmon-worker@1")

    # a working release, whose monitor compiles its loops at its start
    done = machine.install(compile_loops="no")
    assert done.returncode == 0, done.stdout + done.stderr
    machine.wait_active("ecgmon-monitor", "ecgmon-worker@1")
    assert machine.release() != release
    assert machine.main("ecgmon-monitor") != pid
    assert machine.path("/etc/ecgmon/ecgmon.toml").read_text() == CONFIG
    assert machine.path("/etc/ecgmon/ecgmon.toml.example").exists()
    assert (
        machine.path("/var/lib/private/ecgmon/ecgmon.sqlite").exists()
        or machine.path("/var/lib/ecgmon/ecgmon.sqlite").exists()
    )
    assert len(machine.done("ls", "/usr/local/lib/ecgmon/releases").split()) == 2


PROBE = """
import ctypes, errno, os, socket, sys
def tried(what):
    try:
        what()
    except OSError as error:
        return errno.errorcode[error.errno] if error.errno else type(error).__name__
    return "done"
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")
print(*(tried(what) for what in (
    lambda: open("/dev/kmsg"),
    lambda: open("/etc/probe", "w"),
    lambda: call(165, b"none", b"/tmp", b"tmpfs", 0, 0),
    lambda: socket.socket(socket.AF_INET),
    lambda: os.listdir("/root/."),
    lambda: open("/dev/null"),
    lambda: socket.create_connection(("192.0.2.1", 9), 1) if "monitor" in sys.argv else None,
)))
"""


def test_a_role_cannot_reach_files_and_networks_that_it_does_not_need(machine: Machine) -> None:
    machine.write("/opt/probe.py", PROBE)
    machine.done("ip", "addr", "add", "192.0.2.1/32", "dev", "lo")  # an address that would refuse a connection at once
    for role in ("monitor", "worker@"):
        text = (UNITS / f"ecgmon-{role}.service").read_text()
        text = re.sub(r"ExecStart=.*", f"ExecStart=/usr/bin/python3 /opt/probe.py {role}", text)
        text = re.sub(r"Type=notify|WatchdogSec=.*|Restart=.*|ExecReload=.*|NotifyAccess=.*", "", text)
        machine.write(
            f"/etc/systemd/system/probe-{role.strip('@')}.service", text.replace("[Service]", "[Service]\nType=oneshot")
        )
        machine.done("systemctl", "daemon-reload")
        machine.done("systemctl", "start", f"probe-{role.strip('@')}")
        said = machine.done("journalctl", "-u", f"probe-{role.strip('@')}", "-o", "cat", "--no-pager")
        found = next(line.split() for line in said.splitlines() if len(line.split()) == 7)
        kmsg, etc, mount, inet, home, null, far = found
        assert kmsg in ("EPERM", "EACCES", "ENOENT"), found
        assert etc in ("EROFS", "EACCES"), found
        assert mount == "EPERM", found
        assert inet == ("done" if role == "monitor" else "EAFNOSUPPORT"), found
        assert home in ("EACCES", "ENOENT"), found
        assert null == "done", found
        assert far in (("EPERM", "TimeoutError") if role == "monitor" else ("done",)), found


def test_a_worker_connects_over_tcp_with_a_key_from_a_systemd_credential(machine: Machine) -> None:
    machine.done(
        "sh", "-c", "cd /etc/ecgmon && for who in monitor worker stranger; do ecgmon keygen $who.key > $who.said; done"
    )
    public = {
        who: re.findall(r"[^\s\"]{40}", machine.path(f"/etc/ecgmon/{who}.said").read_text())[0]
        for who in ("monitor", "worker")
    }
    machine.write("/etc/ecgmon/clients", f"w worker {public['worker']}\n")
    network = '[network]\nbind_workers = "tcp://127.0.0.1:9701"\nclients = "/etc/ecgmon/clients"\n'
    machine.write("/etc/ecgmon/ecgmon.toml", CONFIG + network)
    machine.write(
        "/etc/ecgmon/far.toml",
        CONFIG + f'[network]\nconnect_workers = "tcp://127.0.0.1:9701"\nmonitor_key = "{public["monitor"]}"\n',
    )
    drop_in = (UNITS / "tcp-monitor.conf").read_text()
    machine.write("/etc/systemd/system/ecgmon-monitor.service.d/tcp.conf", drop_in)
    for number, who in ((2, "worker"), (3, "stranger")):
        drop_in = (UNITS / "tcp-peer.conf").read_text().replace("peer.key", f"{who}.key")
        way = "ExecStart=\nExecStart=/usr/local/bin/ecgmon worker --config /etc/ecgmon/far.toml\n"
        machine.write(f"/etc/systemd/system/ecgmon-worker@{number}.service.d/tcp.conf", drop_in + way)
    machine.done("systemctl", "daemon-reload")
    machine.done("systemctl", "restart", "ecgmon-monitor")
    machine.done("systemctl", "start", "ecgmon.target", "ecgmon-worker@2", "ecgmon-worker@3")
    machine.wait_active("ecgmon-monitor", "ecgmon-worker@1", "ecgmon-worker@2", "ecgmon-worker@3")
    wait_for(lambda: (status := machine.watched()) and len(status.workers) == 2, "two workers")
    wait_for(lambda: machine.events("ecgmon-monitor", "handshake-failed"), "the stranger to be noticed")
    assert len(machine.status()["daemon"]["workers"]) == 2
    main = machine.main("ecgmon-worker@2")
    secret = machine.path("/etc/ecgmon/worker.key").read_text().split()[-1]
    for shown in ("environ", "cmdline"):
        assert secret not in machine.path(f"/proc/{main}/{shown}").read_bytes().decode(errors="replace")
    assert secret not in machine.done("journalctl", "--no-pager", "-o", "cat")
    assert machine.path("/etc/ecgmon/worker.key").stat().st_mode & 0o777 == 0o600
    machine.write("/etc/ecgmon/ecgmon.toml", CONFIG)
    machine.done("systemctl", "stop", "ecgmon.target", "ecgmon-worker@2", "ecgmon-worker@3")


def test_a_service_with_an_invalid_configuration_is_not_restarted(machine: Machine) -> None:
    machine.path("/etc/ecgmon/broken.toml").write_text("[[source]]\nrecord = 7\n")
    assert machine("systemctl", "start", "ecgmon-producer@broken").returncode != 0
    assert machine.show("ecgmon-producer@broken", "ActiveState") == "failed"
    assert machine.show("ecgmon-producer@broken", "ExecMainStatus") == "3"
    assert machine.show("ecgmon-producer@broken", "NRestarts") == "0"


def test_uninstalling_keeps_the_store_and_the_configuration(machine: Machine) -> None:
    machine.done("systemctl", "enable", "--now", "ecgmon.target")
    machine.wait_active("ecgmon-monitor", "ecgmon-worker@1")
    done = machine("make", "--no-print-directory", "-C", "/opt/ecgmon", "uninstall")
    assert done.returncode == 0, done.stdout + done.stderr
    left = machine.done("sh", "-c", "find /usr/local /etc/systemd /etc/ecgmon /var/lib -name '*ecgmon*' | sort").split()
    assert [
        path for path in left if not path.startswith(("/etc/ecgmon", "/var/lib", "/etc/systemd/system/ecgmon-"))
    ] == []
    assert all(
        path.endswith((".d",)) for path in left if path.startswith("/etc/systemd/system/ecgmon-")
    )  # our drop-ins
    assert machine.path("/etc/ecgmon/ecgmon.toml").read_text() == CONFIG
    assert machine.done(
        "sh", "-c", "ls /var/lib/ecgmon/ecgmon.sqlite /var/lib/private/ecgmon/ecgmon.sqlite 2>/dev/null || true"
    )
    assert not machine("systemctl", "list-units", "--plain", "--no-legend", "--state=active", "ecgmon-*").stdout.split()
