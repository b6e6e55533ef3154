"""Over a link that is cut, narrow or loses packets, every item arrives once, without a restart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from ecgmon.pipelines.transport import keys
from tests.e2e.processes import Replayed, Watched, clean_environment, missing_tool, stored, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = {"record": "toy", "speed": 15, "name": "ward/1"}
HUB, WARD = "10.77.0.1", "10.77.0.2"


@pytest.fixture(scope="module")
def expected(replayed: Replayed) -> dict[str, Any]:
    """The stream in the store of an undisturbed run on one host."""
    return stored(replayed.state)["toy"]


class Network:
    """Two hosts, simulated by network namespaces, with one link between them."""

    def __init__(self) -> None:
        self._holders = [subprocess.Popen(["unshare", "--net", "sleep", "600"]) for _ in range(2)]
        self.hub, self.ward = (holder.pid for holder in self._holders)
        own = Path("/proc/self/ns/net").stat().st_ino
        for pid in (self.hub, self.ward):
            wait_for(partial(self.is_apart, pid, own), "a namespace", 10)
        self.inside(
            self.hub, "ip", "link", "add", "ecgmon0", "type", "veth", "peer", "name", "ecgmon0", "netns", str(self.ward)
        )
        for pid, address in ((self.hub, HUB), (self.ward, WARD)):
            self.inside(pid, "ip", "address", "add", f"{address}/24", "dev", "ecgmon0")
            self.inside(pid, "ip", "link", "set", "ecgmon0", "up")
            self.inside(pid, "ip", "link", "set", "lo", "up")

    @staticmethod
    def is_apart(pid: int, own: int) -> bool:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino != own

    @staticmethod
    def inside(pid: int, *command: str) -> None:
        done = subprocess.run(["nsenter", "-t", str(pid), "-n", *command], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")

    def cut(self) -> None:
        self.inside(self.hub, "ip", "link", "set", "ecgmon0", "down")

    def mend(self) -> None:
        self.inside(self.hub, "ip", "link", "set", "ecgmon0", "up")

    def impair(self, how: str) -> None:
        for pid in (self.hub, self.ward):
            self.inside(pid, "tc", "qdisc", "add", "dev", "ecgmon0", "root", *how.split())

    def close(self) -> None:
        for holder in self._holders:
            holder.kill()
            holder.wait()


@pytest.fixture
def network() -> Iterator[Network]:
    if (
        os.geteuid() != 0
        or subprocess.run(["unshare", "--net", "ip", "link"], capture_output=True, check=False).returncode
    ):
        missing_tool("two hosts on one machine need root, network namespaces and iproute2")
    found = Network()
    yield found
    found.close()


@pytest.fixture
def apart(network: Network, tmp_path: Path, runtime: Path) -> Iterator[SimpleNamespace]:
    """A monitor and a worker on one host, a producer and another worker on the other, with keys."""
    public = {name: keys.generate(tmp_path / name).decode() for name in ("hub", "ward", "gpu")}
    clients = tmp_path / "clients"
    clients.write_text(f"ward producer {public['ward']} ward/*\ngpu worker {public['gpu']}\n")
    beats, batches = f"tcp://{HUB}:5570", f"tcp://{HUB}:5571"
    state = tmp_path / "state"

    def text(section: str) -> str:
        return (
            f'[runtime]\ndir = "{runtime}/r"\n[store]\npath = "{state}"\n[exporter]\nport = 0\n'
            f"[delivery]\nheartbeat_seconds = 0.5\ndead_after_seconds = 3.0\nlease_seconds = 4.0\n"
            f"[alerts]\nstalled_seconds = 600.0\n{section}"  # the only alert that uses the clock
        )

    def away(key: str) -> str:
        return (
            f'[network]\nconnect_producers = "{beats}"\nconnect_workers = "{batches}"\n'
            f'monitor_key = "{public["hub"]}"\nkey_file = "{tmp_path}/{key}"\n'
        )

    source = "[[source]]\n" + "".join(f"{key} = {value!r}\n".replace("'", '"') for key, value in SOURCE.items())
    bind = f'[network]\nbind_producers = "{beats}"\nbind_workers = "{batches}"\nkey_file = "{tmp_path}/hub"\nclients = "{clients}"\n'
    with ExitStack() as stack:

        def start(host: int, role: str, section: str, name: str) -> subprocess.Popen[bytes]:
            config = tmp_path / f"{name}.toml"
            config.write_text(text(section))
            log = stack.enter_context((tmp_path / f"{name}.log").open("ab"))
            process = subprocess.Popen(
                ["nsenter", "-t", str(host), "-n", sys.executable, "-m", "ecgmon", role, "--config", str(config)],
                stdout=log, stderr=log, env=clean_environment(tmp_path),
            )  # fmt: skip
            stack.callback(ended, process)
            return process

        monitor = start(network.hub, "monitor", bind, "monitor")
        workers = [start(network.hub, "worker", "", "near"), start(network.ward, "worker", away("gpu"), "far")]
        status = Watched(runtime / "r")
        wait_for(lambda: (s := status()) and len(s.workers) == 2, "both workers")
        producer = start(network.ward, "producer", away("ward") + source, "producer")
        yield SimpleNamespace(
            status=status, state=state, producer=producer, others=[monitor, *workers], folder=tmp_path
        )


def ended(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    process.wait(timeout=40)


def everything_arrives(apart: SimpleNamespace, expected: dict[str, Any]) -> None:
    assert apart.producer.wait(timeout=150) == 0, (apart.folder / "producer.log").read_text()
    assert all(process.poll() is None for process in apart.others)  # no process was restarted
    status = wait_for(apart.status, "the monitor")
    assert (status.stored, status.dropped) == (len(expected["beats"]) and status.streams["ward/1"].beats, 0)
    assert stored(apart.state) == {"ward/1": expected}


def cut(network: Network, apart: SimpleNamespace, seconds: float) -> None:
    """Cut the link after some more beats, and wait until they flow again."""
    before = (apart.status() or SimpleNamespace(stored=0)).stored
    wait_for(lambda: (s := apart.status()) and s.stored > before + 50, "some beats")
    network.cut()
    time.sleep(seconds)
    halted = apart.status().stored
    assert halted < 480
    network.mend()
    wait_for(lambda: apart.status().stored > halted, "beats to flow again", 30)


@pytest.mark.parametrize("cuts", [(1, 10), pytest.param((60,), marks=pytest.mark.long)])
def test_a_cut_link_delays_beats_but_loses_none(
    network: Network, apart: SimpleNamespace, expected: dict[str, Any], cuts: tuple[int, ...]
) -> None:
    for seconds in cuts:
        cut(network, apart, seconds)
    everything_arrives(apart, expected)


def impairments() -> list[str]:
    """List the impairments: a link so narrow that bursts are lost, and random loss and reordering if the kernel has netem."""
    narrow = ["tbf rate 4mbit burst 8kb limit 20kb"]
    probe = "ip link add ecgmon9 type dummy && tc qdisc add dev ecgmon9 root netem loss 1%"
    with suppress(OSError):
        if subprocess.run(["unshare", "--net", "sh", "-c", probe], capture_output=True, check=False).returncode == 0:
            return [*narrow, "netem loss 10%", "netem delay 40ms 30ms reorder 25% 50%"]
    return narrow


@pytest.mark.parametrize("how", impairments())
def test_packet_loss_and_reordering_delay_beats_but_lose_none(
    network: Network, apart: SimpleNamespace, expected: dict[str, Any], how: str
) -> None:
    network.impair(how)
    everything_arrives(apart, expected)
