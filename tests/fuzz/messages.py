"""Damaged messages of the wire."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from ecgmon.models.windows import LENGTH
from ecgmon.pipelines import wire
from ecgmon.pipelines.items import ITEM, Items, Kind
from tests.fuzz.damage import RAW, AcceptedError, damage_bytes, damage_tree, hostile, leaves

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence
    from pathlib import Path


@cache
def _messages() -> list[tuple[msgspec.msgpack.Decoder[Any], bytes, list[bytes]]]:
    """Make a valid message of every type: its decoder, its header, its other frames."""
    table = np.zeros(4, ITEM)
    table["kind"] = [Kind.BEAT, Kind.BEAT, Kind.SECOND, Kind.GAP]
    table["rr"] = [np.nan, 0.8, 0, 0]
    windows = np.random.default_rng(1).standard_normal((2, 1, LENGTH)).astype(np.float32)
    items = Items(table, windows)
    two = Items(table, np.repeat(windows, 2, axis=1))
    ages = np.full(4, 0.25, np.float32)
    scores = wire.pack_scores(7, 3, 0.01, np.array([0.1, np.nan], np.float32), np.ones((2, LENGTH), np.float16))
    info = wire.StreamInfo("a/b", 360.0, ["MLII"])
    whole: list[tuple[msgspec.msgpack.Decoder[Any], Sequence[bytes | memoryview]]] = [
        (wire.from_producer, wire.pack_deliver(7, [(0, 5, items, ages)], 0.001)),
        (wire.from_producer, wire.pack_deliver(7, [(0, 5, items, ages), (1, 0, two, ages)], 0.001)),
        (wire.from_worker, scores),
        (wire.to_worker, wire.pack_batch(7, 3, windows)),
    ]
    alone = [
        (wire.from_producer, wire.Hello(wire.PROTOCOL, "p", [info, wire.StreamInfo("c", 250.0, ["I", "II"])])),
        (wire.from_producer, wire.ProducerPing(7, 1, 2)),
        (wire.from_producer, wire.Trouble(7, "a", "why")),
        (wire.from_producer, wire.Bye(7)),
        (wire.to_producer, wire.Welcome(7, [1, 2], [1, 2], [360, 720], 4096, 1.0)),
        (wire.to_producer, wire.Stored(7, [(0, 5), (1, 9)])),
        (wire.to_producer, wire.Pong(7)),
        (wire.to_producer, wire.Unknown(7)),
        (wire.to_producer, wire.Refused("why", retry=True)),
        (wire.from_worker, wire.Ready(wire.PROTOCOL, "w", "f" * 64, "cpu", 1, 2)),
        (wire.from_worker, wire.Failed(7, 3, "why")),
        (wire.from_worker, wire.WorkerPing(7)),
        (wire.to_worker, wire.Accepted(7, 1.0)),
    ]
    return [(decoder, bytes(frames[0]), [bytes(frame) for frame in frames[1:]]) for decoder, frames in whole] + [
        (decoder, wire.encode(header), []) for decoder, header in alone
    ]


_DECODERS: Final = (wire.from_producer, wire.to_producer, wire.from_worker, wire.to_worker)
_WORDS: Final = [
    np.array([value], "<f4").tobytes() for value in (np.nan, np.inf, -np.inf, -1, -0.0, 3e38)
] + [b"\xff" * 8, b"\0" * 8, b"\xff" * 7 + b"\x7f", b"\0" * 7 + b"\x80", b"\x02", b"\x03", b"\xff"]  # fmt: skip


def damaged_message(rng: random.Random) -> tuple[msgspec.msgpack.Decoder[Any], list[bytes | memoryview]]:
    """Make a message that is usually invalid, and choose its decoder."""
    decoder, header, arrays = rng.choice(_messages()[:4] if rng.random() < 0.5 else _messages())
    frames = [header, *arrays]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        what = rng.randrange(10)
        if not frames:
            frames = [header]
        at = rng.randrange(len(frames))
        if what <= 3:
            try:
                tree = msgspec.msgpack.decode(frames[0])
                values = hostile if rng.random() < 0.8 else lambda rng: rng.choice(RAW)
                frames[0] = msgspec.msgpack.encode(damage_tree(tree, rng, values))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError, OverflowError):
                frames[0] = rng.randbytes(20)  # it is already damaged
        elif what == 4:
            frames[at] = damage_bytes(frames[at], rng)
        elif what == 5:
            frames[at] = frames[rng.randrange(len(frames))]
        elif what == 6:
            del frames[at]
        elif what == 7:
            frames.insert(at, rng.choice((b"", b"\0", header, bytes(1280))))
        elif len(frames) > 1:
            at = rng.randrange(1, len(frames))
            word = rng.choice(_WORDS)
            place = rng.randrange(0, max(1, len(frames[at]) - len(word) + 1), len(word))
            frames[at] = frames[at][:place] + word + frames[at][place + len(word) :]
    if rng.random() < 0.05:
        decoder = rng.choice(_DECODERS)
    return decoder, [memoryview(frame) if rng.random() < 0.5 else frame for frame in frames]


def read_message(decoder: msgspec.msgpack.Decoder[Any], frames: list[bytes | memoryview]) -> str:
    """Read a message as its receiver does, and check the guarantees for accepted messages."""
    try:
        header = wire.decode(decoder, frames)
        if isinstance(header, wire.Deliver):
            parts = wire.unpack_deliver(header, frames, [1, 2])
            for part, (items, ages) in zip(header.parts, parts, strict=True):
                table = items.table
                whole = len(table) == len(ages) == part.items and len(items.windows) == part.beats
                if not whole or np.isinf(table["rr"]).any() or np.isinf(table["rr_ratio"]).any():
                    raise AcceptedError("impossible items")
                if not (np.isfinite(items.windows).all() and np.isfinite(ages).all() and (table["sample"] >= 0).all()):
                    raise AcceptedError("impossible numbers")
        elif isinstance(header, wire.Batch):
            if not np.isfinite(wire.unpack_batch(header, frames)).all():
                raise AcceptedError("a window that is not finite")
        elif isinstance(header, wire.Scores):
            errors, ticks = wire.unpack_scores(frames, 2)
            if len(errors) != 2 or ticks.shape != (2, LENGTH):
                raise AcceptedError("impossible scores")
    except wire.WireError as error:
        return error.reason
    for value in leaves(msgspec.to_builtins(header)):
        if isinstance(value, float) and not math.isfinite(value):
            raise AcceptedError(f"{value} in a {type(header).__name__}")
    return "accepted"


def wire_case(rng: random.Random, folder: Path) -> str:
    """Read one damaged message."""
    del folder
    return read_message(*damaged_message(rng))
