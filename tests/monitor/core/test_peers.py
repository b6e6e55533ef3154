"""Peers: every producer gets credit, and silent peers are found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgmon.monitor.core.peers import Peers, Producer, Worker


def producer(name: str, *, last_seen: float = 0.0, credit: int = 1) -> Producer:
    return Producer(name, [], [], last_seen, credit, 0)


@given(room=st.integers(1, 10_000), most=st.integers(1, 5000), count=st.integers(1, 40))
def test_every_producer_gets_credit_and_none_more_than_its_share(room: int, most: int, count: int) -> None:
    peers: Peers[int] = Peers()
    for number in range(count):
        left = room - sum(other.credit for other in peers.producers.values())
        credit = peers.grant(room, most)
        assert 1 <= credit <= most
        assert credit == 1 or 2 * credit <= left
        peers.producers[number] = producer(str(number), credit=credit)
    granted = sum(other.credit for other in peers.producers.values())
    assert granted <= room + count  # beyond the room, each still gets one


def test_credit_is_half_of_the_rest_and_is_freed_when_a_producer_leaves() -> None:
    peers: Peers[str] = Peers()
    for name, expected in (("a", 500), ("b", 250), ("c", 125)):
        credit = peers.grant(1000, 4096)
        assert credit == expected
        peers.producers[name] = producer(name, credit=credit)
    del peers.producers["a"]
    assert peers.grant(1000, 4096) == (1000 - 375) // 2
    assert peers.grant(1000, 100) == 100


@pytest.mark.parametrize(("now", "producers", "workers"), [(5.0, [], []), (5.5, ["p"], []), (6.5, ["p"], ["w"])])
def test_peer_is_silent_after_longer_than_the_limit_without_a_message(
    now: float, producers: list[str], workers: list[str]
) -> None:
    peers: Peers[str] = Peers()
    peers.producers["p"] = producer("p", last_seen=0.0)
    peers.producers["talks"] = producer("talks", last_seen=now)
    peers.workers["w"] = Worker("w", "cpu", last_seen=1.0)
    assert peers.silent_producers(now, 5.0) == producers
    assert peers.silent_workers(now, 5.0) == workers


def test_older_connections_of_a_process_are_found_by_name() -> None:
    peers: Peers[str] = Peers()
    peers.producers |= {"old": producer("x"), "new": producer("x"), "other": producer("y")}
    peers.workers |= {"w-old": Worker("z", "cpu", 0.0), "w-new": Worker("z", "cpu", 0.0)}
    assert peers.other_connections("x", "new") == ["old"]
    assert peers.other_connections("z", "w-new") == ["w-old"]
    assert peers.other_connections("nobody", "new") == []


def test_workers_are_counted_by_device_and_degraded_ones_have_a_reason() -> None:
    peers: Peers[int] = Peers()
    assert peers.devices() == {"cpu": 0, "cuda": 0}
    assert peers.degraded() == {}
    peers.workers |= {0: Worker("a", "cuda", 0.0), 1: Worker("b", "cpu", 0.0, degraded="its GPU has failed")}
    assert peers.devices() == {"cpu": 1, "cuda": 1}
    assert peers.degraded() == {"b": "its GPU has failed"}
