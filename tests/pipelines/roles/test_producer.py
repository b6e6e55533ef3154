"""A producer with a monitor that answers late and twice, like one that was frozen and continues."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import msgspec
import zmq

from ecgmon.pipelines import wire
from ecgmon.pipelines.roles.producer import UNPACED_CHUNK_SECONDS, Feed, Producer, unpaced_chunk
from ecgmon.pipelines.sources.finding import resolve
from ecgmon.pipelines.sources.record import open_source

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE_MS = 60_000


def test_a_hello_that_is_answered_twice_sends_no_item_twice(tmp_path: Path) -> None:
    feed = Feed(open_source(resolve(["toy"])[0], stop=60.0), 0.0, 0.25)
    address = f"ipc://{tmp_path}/m"
    with zmq.Context() as context, context.socket(zmq.ROUTER) as monitor:
        monitor.setsockopt(zmq.LINGER, 0)
        monitor.bind(address)
        producer = Producer(address, [feed], buffer_items=64, drain_seconds=5.0)
        thread = threading.Thread(target=producer.run, args=(lambda: False,), daemon=True)
        thread.start()
        expected = deliveries = 0
        while thread.is_alive():
            assert monitor.poll(PATIENCE_MS), "the producer sends no more messages"
            peer, header, *_ = monitor.recv_multipart()
            message = msgspec.msgpack.decode(header)
            if message["type"] == "hello":
                welcome = wire.encode(
                    wire.Welcome(
                        epoch=7,
                        received=[0],
                        stored=[0],
                        samples=[0],
                        window=32,
                        heartbeat=1.0,
                        greeting=message["greeting"],
                    )
                )
                monitor.send_multipart([peer, welcome])
            elif message["type"] == "deliver":
                if not deliveries:
                    monitor.send_multipart([peer, welcome])  # the answer to a repeated hello
                deliveries += 1
                for _, first, items, _ in message["parts"]:
                    assert first == expected
                    expected += items
                monitor.send_multipart([peer, wire.encode(wire.Stored(7, [(0, expected)]))])
            elif message["type"] == "bye":
                break
        thread.join(timeout=10)
        producer.close()
    assert deliveries > 1
    assert expected == feed.position


def test_no_stream_of_thousands_at_full_speed_waits_long_for_its_turn() -> None:
    assert unpaced_chunk(1) == unpaced_chunk(500) == UNPACED_CHUNK_SECONDS
    assert unpaced_chunk(1000) == 30
    assert unpaced_chunk(10_000) == 10
    feed = Feed(open_source(resolve(["toy"])[0], stop=60.0), 0.0, 0.25, unpaced_chunk(2000))
    feed.advance()
    assert feed.samples == 15 * 360
