"""Over tcp only clients with a key on the list are admitted, with the rights that the list gives them."""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import msgspec
import pytest
import zmq

from ecgmon.pipelines.transport import keys
from tests.e2e.processes import Daemon, Replayed, RunEcgmon, role, shared, stored, wait_for
from tests.e2e.test_strangers import rejected

if TYPE_CHECKING:
    from collections.abc import Iterator


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def new_network(folder: Path) -> SimpleNamespace:
    """Make keys of a monitor, a ward's producer, a worker and a stranger, and the [network] section for them."""
    public = {name: keys.generate(folder / name).decode() for name in ("monitor", "ward", "gpu", "stranger")}
    clients = folder / "clients"
    clients.write_text(f"ward producer {public['ward']} ward/*\ngpu worker {public['gpu']}\n")
    ports = {"producers": free_port(), "workers": free_port()}
    address = {name: f"tcp://127.0.0.1:{port}" for name, port in ports.items()}
    bind = (
        f'[network]\nbind_producers = "{address["producers"]}"\nbind_workers = "{address["workers"]}"\n'
        f'key_file = "{folder}/monitor"\nclients = "{clients}"\n'
    )
    return SimpleNamespace(folder=folder, public=public, clients=clients, address=address, bind=bind)


@pytest.fixture
def network(tmp_path: Path) -> SimpleNamespace:
    folder = tmp_path / "keys"
    folder.mkdir()
    return new_network(folder)


def connection(network: SimpleNamespace, name: str) -> str:
    return (
        f'[network]\nconnect_producers = "{network.address["producers"]}"\n'
        f'connect_workers = "{network.address["workers"]}"\n'
        f'monitor_key = "{network.public["monitor"]}"\nkey_file = "{network.folder}/{name}"\n'
    )


SOURCES = "".join(f'[[source]]\nrecord = "toy"\nname = "ward/{bed}"\nspeed = 0\n' for bed in (1, 2))


def test_roles_on_several_hosts_store_the_same_as_on_one_host(
    tmp_path: Path, network: SimpleNamespace, runtime: Path, replayed: Replayed
) -> None:
    state, hub = tmp_path / "hub", runtime / "hub"
    monitor = f'[runtime]\ndir = "{hub}"\n[store]\npath = "{state}"\n[exporter]\nport = 0\n{network.bind}'
    away = f'[runtime]\ndir = "{runtime}/nothing-here"\n'
    with (
        role(tmp_path, "monitor", monitor),
        role(tmp_path, "worker", away + connection(network, "gpu")),
        role(tmp_path, "producer", away + connection(network, "ward") + SOURCES) as producer,
    ):
        assert producer.wait(timeout=90) == 0, (tmp_path / "producer.log").read_text()
    expected = stored(replayed.state)["toy"]
    assert stored(state) == {"ward/1": expected, "ward/2": expected}


@pytest.mark.parametrize("what", ["monitor", "worker", "producer"])
@pytest.mark.parametrize("wrong", ["no key", "open key", "no list or server", "broken key"])
def test_tcp_without_proper_keys_is_refused_at_start(
    ecgmon: RunEcgmon, tmp_path: Path, runtime: Path, network: SimpleNamespace, what: str, wrong: str
) -> None:
    section = network.bind if what == "monitor" else connection(network, {"worker": "gpu", "producer": "ward"}[what])
    name = {"monitor": "monitor", "worker": "gpu", "producer": "ward"}[what]
    secret = keys.read(network.folder / name).secret.decode()
    if wrong == "no key":
        section = re.sub(r"key_file.*\n", "", section)
    elif wrong == "no list or server":
        section = re.sub(r"(clients|monitor_key).*\n", "", section)
    elif wrong == "open key":
        (network.folder / name).chmod(0o644)
    else:
        (network.folder / name).write_text(secret[:-1])
    config = tmp_path / "c.toml"
    config.write_text(
        f'[runtime]\ndir = "{runtime}/r"\n[store]\npath = "{tmp_path}/s"\n[exporter]\nport = 0\n{section}{SOURCES}'
    )
    done = ecgmon(what, "--config", config)
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert re.search(r"key|clients", done.stderr)
    assert secret[:-1] not in done.stderr
    for port in network.address.values():
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", int(port.rpartition(":")[2]))) != 0


def test_keygen_writes_a_key_prints_the_public_one_and_overwrites_nothing(ecgmon: RunEcgmon, tmp_path: Path) -> None:
    path = tmp_path / "own.key"
    made = ecgmon("keygen", path)
    assert (made.returncode, len(made.stdout.strip())) == (0, 40)
    assert ecgmon("keygen", "--public", path).stdout == made.stdout
    again = ecgmon("keygen", path)
    assert again.returncode == 1
    assert "never overwritten" in again.stderr
    assert path.stat().st_mode & 0o777 == 0o600


def attack(network: SimpleNamespace, how: str, listener: str = "producers") -> zmq.Socket[bytes]:
    """Connect a socket that tries to reach the monitor without the right keys."""
    dealer: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    dealer.linger = 0
    stranger, known = (
        keys.read(network.folder / "stranger"),
        keys.read(network.folder / ("ward" if listener == "producers" else "gpu")),
    )
    server = network.public["monitor"].encode()
    if how == "plain":
        dealer.plain_username, dealer.plain_password = b"ward", b"ward"
    elif how != "null":
        mine = {
            "unknown key": stranger,
            "wrong server key": known,
            "key of the other role": keys.read(network.folder / ("gpu" if listener == "producers" else "ward")),
        }[how]
        dealer.curve_publickey, dealer.curve_secretkey = mine.public, mine.secret
        dealer.curve_serverkey = stranger.public if how == "wrong server key" else server
    dealer.connect(network.address[listener])
    return dealer


HELLO = msgspec.msgpack.encode(
    {
        "type": "hello",
        "protocol": 1,
        "producer": "mallory",
        "streams": [{"stream": "ward/1", "fs": 360.0, "leads": ["MLII"]}],
    }
)
READY = msgspec.msgpack.encode(
    {"type": "ready", "protocol": 1, "worker": "mallory", "model": "0" * 64, "device": "cpu", "leads": 1, "credit": 1}
)


def handshakes(running: Daemon, role: str) -> float:
    found = re.search(
        rf'^ecgmon_messages_rejected_total{{reason="handshake",role="{role}"}} (\S+)',
        running.get("/metrics"),
        re.MULTILINE,
    )
    return float(found[1]) if found else 0.0


@pytest.fixture(scope="module")
def lan(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The network of the daemon that the tests share."""
    return new_network(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, lan: SimpleNamespace) -> Iterator[Daemon]:
    """A daemon with a stream that ends after fifteen seconds and a slow one that never ends."""
    sources: list[dict[str, object]] = [
        {"record": "toy", "name": "ward/9", "speed": 20},
        {"record": "toy", "name": "ward/8", "speed": 5, "loop": 0},
    ]
    with shared(tmp_path_factory, sources, lan.bind + '[log]\nlevel = "debug"\n') as running:
        running.wait(lambda status: status.stored > 5, "some beats")
        yield running


def test_no_message_gets_through_without_the_right_keys_and_other_streams_continue(
    guarded: Daemon, lan: SimpleNamespace
) -> None:
    counted = {"producer": 0.0, "worker": 0.0}

    def more(who: str) -> bool:
        return handshakes(guarded, who) > counted[who]

    assert [rejected(guarded, "producer"), rejected(guarded, "worker")] == [0, 0]
    for how in ("null", "plain", "unknown key", "wrong server key", "key of the other role"):
        for listener, who, message in (("producers", "producer", HELLO), ("workers", "worker", READY)):
            with attack(lan, how, listener) as dealer:
                with suppress(zmq.Again):
                    dealer.send(message, zmq.NOBLOCK)
                wait_for(partial(more, who), f"{how} at {listener} to be counted", 20)
                assert not dealer.poll(300), how
            counted[who] = handshakes(guarded, who)
    status = guarded.wait(lambda status: status.streams["ward/9"].ended, "the end")
    assert set(status.streams) == {"ward/8", "ward/9"}
    assert len(status.workers) == 1
    assert (status.redelivered, status.dropped) == (0, 0)
    assert "mallory" not in guarded.log.read_text()
    assert rejected(guarded, "producer") == handshakes(guarded, "producer")  # none of their messages was processed


def test_a_flood_of_strangers_does_not_keep_listed_clients_out(guarded: Daemon, lan: SimpleNamespace) -> None:
    before = guarded.log.read_text().count("handshake-failed")
    sockets = [attack(lan, how) for how in ("null", "unknown key", "wrong server key") for _ in range(30)]
    try:
        listed = listed_client(lan, "ward")
        with listed:
            listed.send(HELLO)
            assert listed.poll(20_000)
            assert msgspec.msgpack.decode(listed.recv())["type"] == "welcome"
    finally:
        for one in sockets:
            one.close()
    logged = guarded.log.read_text().count("handshake-failed") - before
    assert logged <= 6  # one line in ten seconds, with a count of the others


def listed_client(network: SimpleNamespace, name: str, listener: str = "producers") -> zmq.Socket[bytes]:
    """Connect a socket with a key that is on the list."""
    dealer: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    dealer.linger = 0
    keys.ConnectionKeys(keys.read(network.folder / name), network.public["monitor"].encode()).secure(dealer)
    dealer.connect(network.address[listener])
    return dealer


def asked(dealer: zmq.Socket[bytes], *frames: bytes) -> dict[str, object]:
    dealer.send_multipart(frames)
    assert dealer.poll(10_000)
    return msgspec.msgpack.decode(dealer.recv())


def test_a_producer_may_write_its_own_streams_only(guarded: Daemon, lan: SimpleNamespace) -> None:
    with listed_client(lan, "ward") as dealer:
        refused = asked(dealer, HELLO.replace(b"ward/1", b"icus/1"))
        assert refused["type"] == "refused"
        assert refused["retry"] is False
        assert "may not write stream icus/1" in str(refused["reason"])
        assert "icus/1" not in guarded.now().streams
        welcome = asked(dealer, HELLO)
        assert welcome["type"] == "welcome"
        # it may not report trouble of another client's stream either
        trouble = {"type": "trouble", "epoch": welcome["epoch"], "stream": "icus/1", "reason": "x"}
        dealer.send(msgspec.msgpack.encode(trouble))
        assert (
            asked(dealer, msgspec.msgpack.encode({"type": "producer-ping", "epoch": welcome["epoch"], "resent": 0}))[
                "type"
            ]
            == "pong"
        )
        assert guarded.now().troubles == {}
    found = re.findall(r'_total{reason="stream-not-allowed",role="producer"} (\S+)', guarded.get("/metrics"))
    assert found == ["2.0"]


def test_a_stream_that_somebody_else_sends_cannot_be_taken_over_with_another_key(
    guarded: Daemon, lan: SimpleNamespace
) -> None:
    with listed_client(lan, "ward") as dealer:
        refused = asked(dealer, HELLO.replace(b"ward/1", b"ward/8"))
    assert refused["type"] == "refused"
    before = guarded.now().streams["ward/8"].beats
    more = guarded.wait(lambda status: status.streams["ward/8"].beats > before + 20, "the stream to go on")
    assert more.redelivered == 0


def test_secrets_are_not_in_output_logs_metrics_or_proc(
    guarded: Daemon, lan: SimpleNamespace, ecgmon: RunEcgmon
) -> None:
    secret = keys.read(lan.folder / "monitor").secret
    shown = ecgmon("check-config", "--print", "--config", guarded.config).stdout + ecgmon("keygen", "--help").stdout
    assert secret.decode() not in shown + guarded.log.read_text() + guarded.get("/metrics")
    for pid in (guarded.process.pid, *guarded.pids("monitor"), *guarded.pids("worker"), *guarded.pids("producer")):
        with suppress(OSError):
            for file in ("cmdline", "environ"):
                assert secret not in Path(f"/proc/{pid}/{file}").read_bytes()
    for path in guarded.runtime.rglob("*"):
        if path.is_file():
            assert secret not in path.read_bytes()


@pytest.mark.usefixtures("guarded")
def test_a_client_whose_key_was_taken_off_the_list_is_refused(lan: SimpleNamespace) -> None:
    with listed_client(lan, "ward") as dealer:
        epoch = asked(dealer, HELLO)["epoch"]
        ping = msgspec.msgpack.encode({"type": "producer-ping", "epoch": epoch, "resent": 0})
        assert asked(dealer, ping)["type"] == "pong"
        lan.clients.write_text(f"gpu worker {lan.public['gpu']}\n")
        wait_for(lambda: asked(dealer, ping)["type"] == "unknown", "the producer to be dropped", 20)
        assert asked(dealer, HELLO)["type"] == "refused"
