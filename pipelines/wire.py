"""The messages between producer, monitor and worker, and how to encode and decode them.

A message is a list of ZeroMQ frames.  The first is a header: msgpack of one of the structs below,
identified by its ``type``.  The three messages with beats also have raw little-endian arrays.
Nothing is unpickled.  Before any other use, every header is checked against its type and limits,
and every array against its header.

Peers (producers, workers) use DEALER sockets, the monitor uses ROUTER sockets.  The monitor draws a
new *epoch* at every start.  It answers :class:`Unknown` to a message with another epoch or from a
peer that has not greeted; the peer then greets again.  docs/architecture.md describes the exchange.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

import msgspec
import numpy as np

from ecgmon.models.windows import LENGTH
from ecgmon.pipelines.items import ITEM, Items, Kind, Quality
from ecgmon.pipelines.limits import FS_RANGE, MAX_ITEMS, MAX_STREAM_ID, STREAM_ID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

PROTOCOL: Final = 1
"""Version of the protocol; peers with another version are refused."""

MAX_FRAME: Final = 64 * 2**20
"""Longest frame in bytes that a socket accepts."""
MAX_STREAMS: Final = 10_000
"""Most streams of one producer."""
MAX_LEADS: Final = 16
"""Most leads of a window and of an announced stream."""
MAX_TEXT: Final = 256
"""Longest text in a header, in characters."""

Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
StreamId = Annotated[
    str,
    msgspec.Meta(min_length=1, max_length=MAX_STREAM_ID, pattern=f"^{STREAM_ID}$"),
]
Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
Epoch = Annotated[int, msgspec.Meta(ge=1, lt=2**53)]
Device = Literal["cpu", "cuda"]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]  # finite: one infinity would spoil a sum for good
Heartbeat = Annotated[float, msgspec.Meta(gt=0, le=1e9)]


class WireError(Exception):
    """A message that does not follow the protocol; ``reason`` is a short stable word for counting."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type"):
    """Base of all headers."""


class StreamInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A producer's description of a stream that it will send."""

    stream: StreamId
    fs: Annotated[float, msgspec.Meta(ge=FS_RANGE[0], le=FS_RANGE[1])]
    """Sampling frequency in Hz of the stream's own sample indices."""
    leads: Annotated[list[Text], msgspec.Meta(min_length=1, max_length=MAX_LEADS)]
    """Names of the leads in its windows, in order."""


# ---- producer -> monitor


class Hello(_Message, frozen=True, tag="hello"):
    """A producer's greeting with its streams; their order defines their numbers."""

    protocol: int
    producer: Text
    """Random name, new for every process, so that two processes with the same streams differ."""
    streams: Annotated[list[StreamInfo], msgspec.Meta(min_length=1, max_length=MAX_STREAMS)]
    greeting: Count = 0
    """Number of this hello among the producer's; the answer repeats it."""


class Part(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Consecutive items of one stream within a :class:`Deliver`."""

    stream: Annotated[int, msgspec.Meta(ge=0, lt=MAX_STREAMS)]
    """Number of the stream in the producer's hello."""
    first: Count
    """Position of the first item in the stream's order."""
    items: Annotated[int, msgspec.Meta(ge=1, le=MAX_ITEMS)]
    beats: Annotated[int, msgspec.Meta(ge=0, le=MAX_ITEMS)]


class Deliver(_Message, frozen=True, tag="deliver"):
    """Items.  Frames: ITEM table, windows float32 (beats, leads, 320), ages float32 (items,).

    An age is the time in seconds from the arrival of the last sample that an item depends on to the
    sending of this message.  Relative times need no common clock.
    """

    epoch: Epoch
    parts: Annotated[list[Part], msgspec.Meta(min_length=1, max_length=MAX_ITEMS)]
    segment_seconds: Seconds
    """Processor time in seconds spent on cutting these items."""


class ProducerPing(_Message, frozen=True, tag="producer-ping"):
    """A sign of life of a producer."""

    epoch: Epoch
    resent: Count
    """Beats sent more than once since the producer started."""
    dropped: Count = 0
    """Beats of live sources that were dropped for newer ones since the producer started."""


class Trouble(_Message, frozen=True, tag="trouble"):
    """A source cannot be read, or not to its end."""

    epoch: Epoch
    stream: StreamId
    reason: Annotated[str, msgspec.Meta(max_length=4 * MAX_TEXT)]


# ---- monitor -> producer


class Welcome(_Message, frozen=True, tag="welcome"):
    """Positions of the streams of a hello, in its order."""

    epoch: Epoch
    received: list[Count]
    """Position from which to send."""
    stored: list[Count]
    """Everything before this position is stored."""
    samples: list[Count]
    """The monitor has the stream up to this sample; a live source that reconnects continues there."""
    window: Annotated[int, msgspec.Meta(ge=1)]
    """Most items that may be sent and not stored yet."""
    heartbeat: Heartbeat
    """Seconds between pings; after several without an answer, the monitor counts as gone."""
    greeting: Count = 0
    """Number of the hello that this answers; an answer to an older hello is out of date and is ignored."""


class Stored(_Message, frozen=True, tag="stored"):
    """Pairs of stream number and position: everything before the position is stored."""

    epoch: Epoch
    positions: list[tuple[Count, Count]]


# ---- worker -> monitor


class Ready(_Message, frozen=True, tag="ready"):
    """A worker's greeting."""

    protocol: int
    worker: Text
    model: Text
    """Fingerprint of its weights; all scores of a store must come from one model."""
    device: Device
    leads: Annotated[int, msgspec.Meta(ge=1, le=MAX_LEADS)]
    credit: Annotated[int, msgspec.Meta(ge=1, le=64)]
    """Number of batches that it accepts at a time."""
    degraded: Text = ""
    """Why it computes on the CPU instead of its GPU; empty if it does not."""


class Scores(_Message, frozen=True, tag="scores"):
    """Answer to a batch.  Frames: errors float32 (beats,), ticks float16 (beats, 320)."""

    epoch: Epoch
    batch: Count
    seconds: Seconds
    """Time spent on scoring."""


class Failed(_Message, frozen=True, tag="failed"):
    """The worker could not score a batch, with the reason."""

    epoch: Epoch
    batch: Count
    reason: Text


class WorkerPing(_Message, frozen=True, tag="worker-ping"):
    """A sign of life of a worker."""

    epoch: Epoch


# ---- monitor -> worker


class Accepted(_Message, frozen=True, tag="accepted"):
    """The monitor has accepted the worker and may send batches."""

    epoch: Epoch
    heartbeat: Heartbeat


class Batch(_Message, frozen=True, tag="batch"):
    """Windows to score.  Frame: windows float32 (beats, leads, 320)."""

    epoch: Epoch
    batch: Count
    beats: Annotated[int, msgspec.Meta(ge=1, le=MAX_ITEMS)]
    leads: Annotated[int, msgspec.Meta(ge=1, le=MAX_LEADS)]


# ---- both ways


class Bye(_Message, frozen=True, tag="bye"):
    """The peer leaves: it sends and accepts no more messages."""

    epoch: Epoch


class Pong(_Message, frozen=True, tag="pong"):
    """The monitor's answer to a ping."""

    epoch: Epoch


class Unknown(_Message, frozen=True, tag="unknown"):
    """The monitor does not know the sender (any more); the sender must greet again."""

    epoch: Epoch


class Refused(_Message, frozen=True, tag="refused"):
    """The monitor refuses this peer; ``retry`` says whether the peer may try again later."""

    reason: Text
    retry: bool


FromProducer = Hello | Deliver | ProducerPing | Trouble | Bye
ToProducer = Welcome | Stored | Pong | Unknown | Refused
FromWorker = Ready | Scores | Failed | WorkerPing | Bye
ToWorker = Accepted | Batch | Pong | Unknown | Refused

_encoder = msgspec.msgpack.Encoder()
from_producer: Final = msgspec.msgpack.Decoder(FromProducer)
to_producer: Final = msgspec.msgpack.Decoder(ToProducer)
from_worker: Final = msgspec.msgpack.Decoder(FromWorker)
to_worker: Final = msgspec.msgpack.Decoder(ToWorker)

encode: Final = _encoder.encode
"""Encode a header struct to bytes."""

_T = TypeVar("_T")

_FRAMES: Final[dict[type, int]] = {Deliver: 4, Scores: 3, Batch: 2}


def decode(decoder: msgspec.msgpack.Decoder[_T], frames: Sequence[bytes | memoryview]) -> _T:
    """Decode a header and check the number of frames.

    Raises
    ------
    WireError
        ``header`` if the first frame is not a header of the decoder's types within their limits,
        ``frames`` if the number of frames is not that of the message.
    """
    if not frames:
        raise WireError("frames", "the message has no frames")
    try:
        header = decoder.decode(frames[0])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        # msgspec does not convert Python's errors for text that is not UTF-8 and for too deep nesting.
        raise WireError("header", str(error)) from None
    expected = _FRAMES.get(type(header), 1)
    if len(frames) != expected:
        raise WireError("frames", f"{type(header).__name__} has {len(frames)} frames, expected {expected}")
    return header


def _array(frame: bytes | memoryview, kind: np.dtype[Any] | str, shape: tuple[int, ...], what: str) -> NDArray[Any]:
    dtype = np.dtype(kind)
    expected = dtype.itemsize * int(np.prod(shape))
    size = len(frame) if isinstance(frame, bytes) else frame.nbytes
    if size != expected:
        raise WireError("size", f"{what}: {size} bytes, expected {expected} for {shape} of {dtype.name}")
    return np.frombuffer(frame, dtype).reshape(shape)


def _bytes_of(array: NDArray[Any], kind: np.dtype[Any] | str) -> memoryview:
    """Return the bytes of an array, without a copy if it already has this type and layout."""
    return np.ascontiguousarray(array, kind).data


def pack_deliver(
    epoch: int, parts: Sequence[tuple[int, int, Items, NDArray[np.float32]]], segment_seconds: float
) -> list[bytes]:
    """Encode a :class:`Deliver` as frames.

    Parameters
    ----------
    epoch : int
        The monitor's epoch.
    parts : sequence of (stream number, first position, items, ages)
        Ages are float32 in seconds, one per item.
    segment_seconds : float
        Processor time in seconds spent on cutting these items.
    """
    header = Deliver(
        epoch=epoch,
        parts=[Part(stream, first, len(items), len(items.windows)) for stream, first, items, _ in parts],
        segment_seconds=segment_seconds,
    )
    return [
        encode(header),
        b"".join([_bytes_of(items.table, ITEM) for _, _, items, _ in parts]),
        b"".join([_bytes_of(items.windows, "<f4") for _, _, items, _ in parts]),
        b"".join([_bytes_of(ages, "<f4") for _, _, _, ages in parts]),
    ]


def unpack_deliver(
    header: Deliver, frames: Sequence[bytes | memoryview], leads: Sequence[int]
) -> list[tuple[Items, NDArray[np.float32]]]:
    """Decode and check the items and ages of every part of a :class:`Deliver`.

    Parameters
    ----------
    header, frames
        As passed to and returned by :func:`decode`.
    leads : sequence of int
        Number of leads in the windows of each stream of the sender, by stream number.

    Raises
    ------
    WireError
        ``stream`` for a number that was not announced, ``size`` for arrays that are not as long as
        the parts say, ``item`` for impossible values in a row, ``window`` for values that are not finite, ``ended`` for items after an end.
    """
    total = sum(part.items for part in header.parts)
    if total > MAX_ITEMS:
        raise WireError("size", f"{total} items in one message; expected at most {MAX_ITEMS}")
    for part in header.parts:
        if part.stream >= len(leads):
            raise WireError("stream", f"stream number {part.stream} was not announced; expected 0 to {len(leads) - 1}")
    table = _array(frames[1], ITEM, (total,), "items")
    ages = _array(frames[3], "<f4", (total,), "ages")
    samples = _array(
        frames[2], "<f4", (sum(part.beats * leads[part.stream] * LENGTH for part in header.parts),), "windows"
    )
    if not np.isfinite(samples).all():
        raise WireError("window", "a window holds values that are not finite")
    if (table["kind"] > max(Kind)).any() or (table["quality"] > max(Quality)).any():  # both count from 0 without a gap
        raise WireError("item", "an item has a kind or a quality that does not exist")
    if not (np.isfinite(ages) & (ages >= 0)).all():
        raise WireError("item", "an age is negative or not a number")
    if ((table["sample"] < 0) | (table["rr"] < 0) | (table["rr_ratio"] < 0)).any():
        raise WireError("item", "a sample index, RR interval or ratio is negative")
    if np.isinf(table["rr"]).any() or np.isinf(table["rr_ratio"]).any():
        raise WireError("item", "an RR interval or ratio is infinite")
    last = np.cumsum([part.items for part in header.parts])  # one past the last row of each part
    before = np.concatenate([[0], np.cumsum(table["kind"] == Kind.BEAT)])  # beats before each row
    beats = np.diff(before[last], prepend=0).tolist()
    # The alert rules rely on this: no items after an end.
    ends = table["kind"] == Kind.END
    if ends.any() and not np.isin(np.flatnonzero(ends), last - 1).all():
        raise WireError("ended", "items follow the end of their stream")
    out = []
    row = at = 0
    for part, found in zip(header.parts, beats, strict=True):
        rows = slice(row, row + part.items)
        if found != part.beats:
            raise WireError("item", f"a part has {found} beats, but its header says {part.beats}")
        n_leads = leads[part.stream]
        size = part.beats * n_leads * LENGTH
        windows = samples[at : at + size].reshape(part.beats, n_leads, LENGTH)
        out.append((Items(table[rows], windows), ages[rows]))
        row += part.items
        at += size
    return out


def pack_batch(epoch: int, batch: int, windows: NDArray[np.float32]) -> list[bytes | memoryview]:
    """Encode a :class:`Batch` as frames; windows of shape (beats, leads, 320)."""
    beats, leads, _ = windows.shape
    return [encode(Batch(epoch, batch, beats, leads)), _bytes_of(windows, "<f4")]


def unpack_batch(header: Batch, frames: Sequence[bytes | memoryview]) -> NDArray[np.float32]:
    """Decode the windows of a :class:`Batch`, float32 of shape (beats, leads, 320).

    Raises
    ------
    WireError
        ``size`` if the frame is not as long as the header says, ``window`` for values that are not finite.
    """
    windows: NDArray[np.float32] = _array(frames[1], "<f4", (header.beats, header.leads, LENGTH), "windows")
    if not np.isfinite(windows).all():
        raise WireError("window", "a window holds values that are not finite")
    return windows


def pack_scores(
    epoch: int, batch: int, seconds: float, errors: NDArray[np.float32], ticks: NDArray[np.float16]
) -> list[bytes | memoryview]:
    """Encode a :class:`Scores` as frames: errors of shape (beats,), ticks of shape (beats, 320)."""
    return [
        encode(Scores(epoch, batch, seconds)),
        _bytes_of(errors, "<f4"),
        _bytes_of(ticks, "<f2"),
    ]


def unpack_scores(frames: Sequence[bytes | memoryview], beats: int) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
    """Decode the errors and ticks of a :class:`Scores` that answers a batch of ``beats``.

    Raises
    ------
    WireError
        ``size`` if their number is not that of the beats, ``score`` for an A(x) below zero.
    """
    errors = _array(frames[1], "<f4", (beats,), "errors")
    ticks = _array(frames[2], "<f2", (beats, LENGTH), "ticks")
    if (errors < 0).any():
        raise WireError("score", "an A(x) is negative")
    return errors, ticks
