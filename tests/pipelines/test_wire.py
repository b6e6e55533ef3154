"""The wire format: no message can crash a process, and malformed messages are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgmon.models.windows import LENGTH
from ecgmon.pipelines import wire
from ecgmon.pipelines.items import ITEM, Items, Kind

if TYPE_CHECKING:
    from msgspec.msgpack import Decoder
    from numpy.typing import NDArray

    from ecgmon.pipelines.wire import Deliver


def some_items(beats: int = 2, seconds: int = 1) -> Items:
    table = np.zeros(beats + seconds, ITEM)
    table["kind"] = [Kind.BEAT] * beats + [Kind.SECOND] * seconds
    table["seq"] = range(beats + seconds)
    table["rr"] = np.nan
    rng = np.random.default_rng(1)
    return Items(table, rng.standard_normal((beats, 1, LENGTH)).astype(np.float32))


def deliver(items: Items, *, epoch: int = 7) -> list[bytes]:
    return wire.pack_deliver(epoch, [(0, 5, items, np.full(len(items), 0.25, np.float32))], 0.001)


def unpack(
    frames: list[bytes], leads: list[int] | None = None
) -> tuple[Deliver, list[tuple[Items, NDArray[np.float32]]]]:
    header = wire.decode(wire.from_producer, frames)
    assert isinstance(header, wire.Deliver)
    return header, wire.unpack_deliver(header, frames, leads or [1])


def test_items_arrive_as_they_were_sent() -> None:
    items = some_items()
    header, [(back, ages)] = unpack(deliver(items))
    assert header.parts[0].first == 5
    assert back.table.tobytes() == items.table.tobytes()
    assert back.windows.tobytes() == items.windows.tobytes()
    assert ages.tolist() == [0.25] * 3


def test_streams_with_different_leads_share_a_message() -> None:
    one = some_items()
    two = Items(one.table, np.repeat(one.windows, 2, axis=1))
    ages = np.zeros(3, np.float32)
    frames = wire.pack_deliver(7, [(1, 0, two, ages), (0, 9, one, ages)], 0.0)
    _, [(first, _), (second, _)] = unpack(frames, [1, 2])
    assert first.windows.shape == (2, 2, LENGTH)
    assert second.windows.tobytes() == one.windows.tobytes()


def test_scores_and_batches_arrive_as_they_were_sent() -> None:
    windows = some_items().windows
    frames = wire.pack_batch(3, 4, windows)
    batch = wire.decode(wire.to_worker, frames)
    assert wire.unpack_batch(batch, frames).tobytes() == windows.tobytes()
    errors, ticks = np.array([0.1, np.nan], np.float32), np.ones((2, LENGTH), np.float16)
    frames = wire.pack_scores(3, 4, 0.01, errors, ticks)
    back, back_ticks = wire.unpack_scores(frames, 2)
    assert back.tobytes() == errors.tobytes()
    assert back_ticks.tobytes() == ticks.tobytes()


def changed(position: int, frame: bytes) -> list[bytes]:
    frames = deliver(some_items())
    frames[position] = frame
    return frames


def with_item(**fields: object) -> list[bytes]:
    items = some_items()
    table = items.table.copy()
    for name, value in fields.items():
        table[name][0] = value
    return deliver(Items(table, items.windows))


def hello(stream: str, **changes: object) -> bytes:
    info = {"stream": stream, "fs": 360.0, "leads": ["MLII"], **changes}
    return msgspec.msgpack.encode({"type": "hello", "protocol": 1, "producer": "p", "streams": [info]})


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([], "frames"),
        ([b""], "header"),
        ([b"\x80"], "header"),
        ([msgspec.msgpack.encode({"type": "nonsense"})], "header"),
        ([msgspec.msgpack.encode({"type": "bye", "epoch": 1, "more": 2})], "header"),
        ([msgspec.msgpack.encode({"type": "bye", "epoch": "1"})], "header"),
        ([msgspec.msgpack.encode({"type": "bye", "epoch": 0})], "header"),
        ([hello("../etc/passwd")], "header"),
        ([hello("x" * 65)], "header"),
        ([hello('a"} 1')], "header"),
        ([hello("a", fs=99.0)], "header"),
        ([hello("a", fs=float("nan"))], "header"),
        ([hello("a", leads=[])], "header"),
        (deliver(some_items())[:3], "frames"),
        ([*deliver(some_items()), b""], "frames"),
        (changed(1, b"x" * 31), "size"),
        (changed(2, b""), "size"),
        (changed(3, np.full(3, np.nan, np.float32).tobytes()), "item"),
        (changed(3, np.full(3, -1, np.float32).tobytes()), "item"),
        (with_item(kind=9), "item"),
        (with_item(kind=Kind.SECOND), "item"),
        (with_item(quality=9), "item"),
        (with_item(sample=-1), "item"),
        (with_item(rr=-0.5), "item"),
        (with_item(rr=np.inf), "item"),
        (with_item(rr_ratio=np.inf), "item"),
        (
            [
                msgspec.msgpack.encode(
                    {"type": "deliver", "epoch": 1, "parts": [[0, 0, 1, 0]], "segment_seconds": np.inf}
                )
            ],
            "header",
        ),
        (changed(2, np.full((2, 1, LENGTH), np.inf, np.float32).tobytes()), "window"),
        (wire.pack_deliver(7, [(3, 0, some_items(), np.zeros(3, np.float32))], 0.0), "stream"),
    ],
)
def test_a_malformed_message_is_refused_with_its_reason(frames: list[bytes], reason: str) -> None:
    with pytest.raises(wire.WireError) as caught:
        unpack(frames) if len(frames) > 1 else wire.decode(wire.from_producer, frames)
    assert caught.value.reason == reason


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_batch_with_values_that_are_not_finite_is_refused(value: float) -> None:
    windows = some_items().windows
    windows[1, 0, 7] = value
    frames = wire.pack_batch(3, 4, windows)
    with pytest.raises(wire.WireError) as caught:
        wire.unpack_batch(wire.decode(wire.to_worker, frames), frames)
    assert caught.value.reason == "window"


@pytest.mark.parametrize("value", [np.inf, np.nan, 1e300])
@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        (wire.from_worker, {"type": "scores", "epoch": 1, "batch": 1, "seconds": 0.0}),
        (wire.to_worker, {"type": "accepted", "epoch": 1, "heartbeat": 1.0}),
    ],
)
def test_an_invalid_time_is_refused(decoder: Decoder[Any], message: dict[str, float | str], value: float) -> None:
    timed = {key: value if isinstance(old, float) else old for key, old in message.items()}
    with pytest.raises(wire.WireError, match="header"):
        wire.decode(decoder, [msgspec.msgpack.encode(timed), b"", b""])


def test_a_wrong_number_of_beats_in_a_header_is_refused() -> None:
    header = wire.Deliver(epoch=7, parts=[wire.Part(0, 0, 3, 1)], segment_seconds=0.0)
    frames = [wire.encode(header), *deliver(some_items())[1:]]
    frames[2] = frames[2][: LENGTH * 4]
    with pytest.raises(wire.WireError, match="a part has 2 beats, but its header says 1"):
        unpack(frames)


@pytest.mark.parametrize(
    "frames",
    [
        [b"h", np.full(1, -1, np.float32).tobytes(), bytes(640)],
        [b"h", bytes(4), bytes(639)],
        [b"h", bytes(8), bytes(640)],
    ],
)
def test_an_invalid_answer_is_refused(frames: list[bytes]) -> None:
    with pytest.raises(wire.WireError):
        wire.unpack_scores(frames, 1)


@settings(max_examples=400, deadline=None)
@given(
    data=st.data(),
    decoder=st.sampled_from([wire.from_producer, wire.to_producer, wire.from_worker, wire.to_worker]),
)
def test_random_and_mutated_frames_raise_nothing_but_wire_errors(data: st.DataObject, decoder: Decoder[Any]) -> None:
    frames = deliver(some_items())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(frames) - 1))
        frame = bytearray(frames[at])
        if frame and data.draw(st.booleans()):
            frame[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
        else:
            frame = bytearray(data.draw(st.binary(max_size=64)))
        frames[at] = bytes(frame)
    try:
        header = wire.decode(decoder, frames)
        if isinstance(header, wire.Deliver):
            wire.unpack_deliver(header, frames, [1])
    except wire.WireError:
        pass
