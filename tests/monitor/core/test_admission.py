"""Admission: which producers and workers are refused, why, and whether they may retry."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import pytest

from ecgmon.models.weights.checkpoint import default_weights, read_info
from ecgmon.monitor.config.schema import AlertSettings, DeliverySettings
from ecgmon.monitor.core.admission import refuse_producer, refuse_worker
from ecgmon.monitor.core.commit import StreamState
from ecgmon.monitor.core.outcomes import StreamRules
from ecgmon.monitor.core.peers import Peers, Producer, Worker
from ecgmon.monitor.core.streams import Streams
from ecgmon.pipelines import wire

if TYPE_CHECKING:
    from ecgmon.models.weights.checkpoint import ModelInfo

LEADS = ["MLII", "V1"]


@pytest.fixture(scope="module")
def info() -> ModelInfo:
    return read_info(default_weights())


def hello(
    *streams: str, name: str = "p", leads: list[str] = LEADS, fs: float = 360.0, protocol: int = wire.PROTOCOL
) -> wire.Hello:
    return wire.Hello(protocol, name, [wire.StreamInfo(stream, fs, leads) for stream in streams])


class Monitor:
    """A monitor to which producer ``p`` of client ``c`` sends stream ``a`` over connection ``c1``."""

    def __init__(self, info: ModelInfo) -> None:
        self.info = info
        self.peers: Peers[str] = Peers()
        self.streams: Streams[str] = Streams()
        self.limits = DeliverySettings(max_streams=3, max_producers=2, max_workers=1)
        self.peers.producers["c1"] = Producer("p", ["a"], [2], 0.0, 1, 0)
        rules = StreamRules(StreamState(1, "a", 360.0, tuple(LEADS)), AlertSettings())
        self.streams.open(rules, ("c1", 0), 0.0, 0)

    def refuse(self, hello: wire.Hello, peer: str = "c2", *, same_client: bool = True) -> tuple[str, bool] | None:
        refused = refuse_producer(
            hello,
            peer,
            peers=self.peers,
            streams=self.streams,
            limits=self.limits,
            info=self.info,
            same_client=lambda _: same_client,
        )
        return None if refused is None else (refused.reason, refused.retry)


@pytest.fixture
def monitor(info: ModelInfo) -> Monitor:
    return Monitor(info)


def test_producer_with_its_own_streams_is_accepted(monitor: Monitor) -> None:
    assert monitor.refuse(hello("b", "c", name="q")) is None


def test_other_protocol_is_refused_permanently(monitor: Monitor) -> None:
    reason = f"protocol 99; this monitor speaks {wire.PROTOCOL}"
    assert monitor.refuse(hello("b", protocol=99)) == (reason, False)


def test_duplicate_stream_is_refused_permanently(monitor: Monitor) -> None:
    assert monitor.refuse(hello("b", "b")) == ("a stream is named twice", False)


def test_streams_above_the_limit_may_retry_and_known_ones_do_not_count(monitor: Monitor) -> None:
    assert monitor.refuse(hello("a", "b", "c")) is None
    assert monitor.refuse(hello("b", "c", "d")) == ("more than 3 streams ([delivery] max_streams)", True)


def test_producers_above_the_limit_may_retry_and_a_known_connection_does_not_count(monitor: Monitor) -> None:
    monitor.peers.producers["c3"] = Producer("r", [], [], 0.0, 1, 0)
    assert monitor.refuse(hello("b", name="q")) == ("more than 2 producers ([delivery] max_producers)", True)
    assert monitor.refuse(hello("a"), "c1") is None


def test_fewer_leads_than_the_model_takes_are_refused_permanently(info: ModelInfo) -> None:
    monitor = Monitor(replace(info, leads=3))
    reason = "stream b has 2 leads in its windows, the model takes 3"
    assert monitor.refuse(hello("b", name="q")) == (reason, False)


@pytest.mark.parametrize("changed", [hello("a", fs=250.0), hello("a", leads=["V1", "MLII"])])
def test_stream_cannot_change_its_sampling_frequency_or_leads(monitor: Monitor, changed: wire.Hello) -> None:
    assert monitor.refuse(changed) == ("stream a has another sampling frequency or other leads", False)


@pytest.mark.parametrize(("name", "same_client", "taken"), [("p", True, False), ("q", True, True), ("p", False, True)])
def test_stream_belongs_to_its_sender_until_the_sender_leaves(
    monitor: Monitor, *, name: str, same_client: bool, taken: bool
) -> None:
    refused = monitor.refuse(hello("a", name=name), same_client=same_client)
    assert refused == (("stream a is being sent by another producer", True) if taken else None)
    del monitor.peers.producers["c1"]
    assert monitor.refuse(hello("a", name=name), same_client=same_client) is None


def test_worker_needs_the_protocol_the_model_and_a_free_place(info: ModelInfo) -> None:
    peers: Peers[str] = Peers()
    limits = DeliverySettings(max_workers=1)
    ready = wire.Ready(wire.PROTOCOL, "w", info.fingerprint, "cpu", info.leads, 1)

    def refuse(ready: wire.Ready, peer: str = "c2") -> tuple[str, bool] | None:
        refused = refuse_worker(ready, peer, peers=peers, limits=limits, info=info)
        return None if refused is None else (refused.reason, refused.retry)

    assert refuse(ready) is None
    old = msgspec.structs.replace(ready, protocol=99)
    assert refuse(old) == (f"protocol 99; this monitor speaks {wire.PROTOCOL}", False)
    other = refuse(msgspec.structs.replace(ready, model="0" * 64))
    expected = f"model {'0' * 12}; this monitor takes scores of {info.fingerprint[:12]} ({info.name})"
    assert other == (expected, True)  # one of the two may be about to reload
    peers.workers["c1"] = Worker("w", "cpu", 0.0)
    assert refuse(ready, "c1") is None
    assert refuse(ready) == ("more than 1 workers ([delivery] max_workers)", False)
