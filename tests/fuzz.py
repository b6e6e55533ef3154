"""Malformed input for all code that reads external data: ``python -m tests.fuzz --frames 1000000``.

Valid messages, records, checkpoints and configurations are damaged, bit by bit and field by field, and given to
the module that reads them.  It must accept them or refuse them with its own class of error.  Everything else is
a bug: another exception, a case that takes too long, memory that grows.  Each case depends only on the seed and
its number, so ``--target wire --case 123`` repeats a case.

docs/fuzzing.md lists the bugs that were found.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import math
import multiprocessing
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from ecgmon.models.windows import LENGTH
from ecgmon.pipelines import wire
from ecgmon.pipelines.items import ITEM, Items, Kind
from ecgmon.pipelines.sources.errors import SourceError
from ecgmon.pipelines.sources.finding import RecordRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

CASE_SECONDS: Final = 2.0
"""Limit of processor time per case in s; a case that takes longer counts as hanging. The slowest valid one takes a tenth of it."""

GROWTH: Final = 200 * 2**20
"""Bytes by which a process may grow while it runs its cases."""

_MOST_BYTES: Final = 2**22  # limit of repeated parts; sockets refuse frames of more than 64 MiB

_KEPT: Final = 20  # bugs of a target that are reported with their traceback


class TooSlowError(BaseException):
    """A case took longer than :data:`CASE_SECONDS`. Not a subclass of Exception, which a module might catch."""


class AcceptedError(Exception):
    """A module accepted input that it should have refused."""


@dataclass
class Tally:
    """The results of the cases of a target.

    Attributes
    ----------
    outcomes : Counter
        Number of cases by reason; "accepted" is a reason.
    bugs : list of str
        Number of the case and traceback.
    slowest : float
        Longest time of a case in s.
    growth : int
        Bytes by which the process grew after its first tenth, in which caches fill.
    peak : int
        Largest growth at any time after it, in bytes.
    """

    target: str
    outcomes: Counter[str] = field(default_factory=Counter)
    bugs: list[str] = field(default_factory=list)
    failed: int = 0
    slowest: float = 0.0
    seconds: float = 0.0
    growth: int = 0
    peak: int = 0

    def add(self, other: Tally) -> None:
        """Add the results of other cases of the same target."""
        self.outcomes += other.outcomes
        self.bugs = (self.bugs + other.bugs)[:_KEPT]
        self.failed += other.failed
        self.slowest = max(self.slowest, other.slowest)
        self.seconds += other.seconds
        self.growth = max(self.growth, other.growth)
        self.peak = max(self.peak, other.peak)


# ---- damage


def hostile(rng: random.Random) -> object:
    """Choose a value that hardly any field expects."""
    return rng.choice(_HOSTILE)


_DEEP: Final = 100_000
_HOSTILE: Final[list[object]] = [
    -1, 0, 1, 2, 64, 65, 65_535, 65_536, 65_537, 2**31 - 1, 2**31, 2**32, 2**53 - 1, 2**53, 2**63 - 1, -(2**63), 2**64 - 1,
    0.0, -0.0, 0.5, 1.5, -1.0, 1e-300, 1e308, math.nan, math.inf, -math.inf, True, False, None,
    "", "a", "a/b", "../../etc/passwd", "a" * 65, "a" * 300, "x" * 100_000, "\0", "é\u202e", "\U0001f4a9", "a\nb", '"',
    "nan", "1e999", b"", b"\0" * 64, [], [[]], {}, {"type": "bye"}, [1, 2, 3], [[0, 0, 1, 1]], [[-1, -1]],
]  # fmt: skip

_RAW: Final = [
    msgspec.Raw(raw)
    for raw in (
        b"\x91" * _DEEP + b"\xc0",  # a list in a list in a list
        b"\x81\xa1a" * _DEEP + b"\xc0",
        b"\xdd\xff\xff\xff\xff",  # a list of 2**32 - 1
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\xc1",  # a byte that MessagePack never uses
        b"\xd6\xff\x00\x00\x00\x00",  # a time
        b"\xa3\xff\xfe\xfd",  # text that is not UTF-8
        b"\xd9\x05ab",  # text that ends early
        b"\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00",
    )
]


def damage_tree(tree: Any, rng: random.Random, values: Callable[[random.Random], object] = hostile) -> Any:
    """Change a tree of lists and dicts in one place: change, repeat, delete or rename an entry."""
    places = list(_places(tree))
    if not places:
        return values(rng)
    container, key = rng.choice(places)
    what = rng.randrange(6)
    if what == 0:
        del container[key]
    elif what == 1 and isinstance(container, list):
        times = rng.choice((1, 2, 100, 20_000))
        size = sum(len(leaf) if isinstance(leaf, (str, bytes)) else 8 for leaf in _leaves(container[key]))
        container[key:key] = [container[key]] * min(times, 1 + _MOST_BYTES // max(size, 1))
    elif what == 2 and isinstance(container, dict):
        container[rng.choice(("", "x", f"{key} ", "type", "_"))] = container.pop(key)
    elif what == 3 and isinstance(container[key], (int, float)) and not isinstance(container[key], bool):
        container[key] = container[key] + rng.choice((-1, 1, 0.5, -1e9, 2**31))
    else:
        container[key] = values(rng)
    return tree


def _places(tree: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield tree, key
            yield from _places(value)
    elif isinstance(tree, list):
        for number, value in enumerate(tree[:20]):
            yield tree, number
            yield from _places(value)


def damage_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip bits, cut, repeat, insert, overwrite: one to four times."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        what = rng.randrange(7)
        at = rng.randrange(len(out) + 1)
        if not out or what == 0:
            out[at:at] = rng.randbytes(rng.choice((1, 2, 8, 300)))
        elif what in (1, 2):
            at = min(at, len(out) - 1)
            out[at] ^= 1 << rng.randrange(8)
        elif what == 3:
            del out[at:]
        elif what == 4:
            del out[at : at + rng.choice((1, 2, 4, 100))]
        elif what == 5:
            out[at:at] = out[at : at + 64]
        else:
            out[at : at + 4] = rng.choice(
                (b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f", b"\0\0\xc0\x7f", b"\0\0\x80\x7f")
            )
    return bytes(out)


# ---- messages


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
                values = hostile if rng.random() < 0.8 else lambda rng: rng.choice(_RAW)
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
    for value in _leaves(msgspec.to_builtins(header)):
        if isinstance(value, float) and not math.isfinite(value):
            raise AcceptedError(f"{value} in a {type(header).__name__}")
    return "accepted"


def _leaves(tree: Any) -> Iterable[object]:
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, (list, tuple)):
        yield tree
        return
    for value in tree:
        yield from _leaves(value)


def wire_case(rng: random.Random, folder: Path) -> str:
    """Read one damaged message."""
    del folder
    return read_message(*damaged_message(rng))


# ---- records


_SAMPLES: Final = 720
_FORMATS: Final = ("16", "24", "32", "61", "80", "160", "212", "310", "311", "8", "508", "516", "524", "0", "999", "x")
_NUMBERS: Final = (
    "0", "-1", "1", "2", "3", "360", "0.5", "100.0", "99.9", "1000", "1e3", "1e400", "nan", "inf", "-inf", "4294967296",
    "9223372036854775808", "9" * 400, "0x10", "", "1_0", "360/1000", "360/1000(5)", "½",
)  # fmt: skip
_FIELDS: Final = (
    "~", "r.dat", "r", "x.dat", "../r.dat", "/etc/passwd", "212x2", "212x0", "212x99999999", "212:5", "212:-5", "212+4",
    "212+99999999999", "16x2:1+3", "0/mV", "-0(0)/mV", "1e-9/mV", "200(5)/uV", "200(-99999999999)/V", "200/", "200()/mV", "nan/mV",
    "inf/mV", "200/mmHg", "200/\u03bcV", "r/2", "r/99999", "r/0", "~ 720", "r 720", "s 720", "r_layout 0", "12:00:00", "99:99:99",
    "31/02/2020", "MLII", "#", "# <age>: 80", "\t", "\0", "\udc80", "A" * 5000, "%s%n", "s3://x/y",
)  # fmt: skip

_GAINS: Final = (
    "0",
    "0/mV",
    "-200/mV",
    "1e-9/mV",
    "1e300/mV",
    "1e9999/mV",
    "200/mmHg",
    "200(9999999999)/mV",
    "0.5/uV",
    "1/V",
)

_SEGMENTED: Final = "r/2 2 360 1440\nr_a 720\nr_a 720\n"
_VARIABLE: Final = "r/3 2 360 1440\nr_layout 0\nr_a 720\n~ 720\n"
_LAYOUT: Final = "r_layout 2 360 0\n~ 0 200/mV 12 0 0 0 0 MLII\n~ 0 200/mV 12 0 0 0 0 V1\n"


@dataclass(frozen=True)
class _RecordFiles:
    plain: str
    samples: bytes
    annotations: bytes
    compressed_header: str
    compressed: bytes


@cache
def _record() -> _RecordFiles:
    import wfdb

    with tempfile.TemporaryDirectory() as name:
        steps = np.random.default_rng(1).integers(-400, 400, (_SAMPLES, 2))
        wfdb.wrsamp(
            "r", 360, ["mV"] * 2, ["MLII", "V1"], d_signal=steps, fmt=["212"] * 2, adc_gain=[200.0] * 2, baseline=[0] * 2,
            write_dir=name,
        )  # fmt: skip
        at = np.array([5, 50, 300, 301, 500, 719])
        notes = ["(N", "", "a longer note", "", "", ""]
        wfdb.wrann("r", "atr", at, symbol=list("+NVN|N"), aux_note=notes, fs=360, write_dir=name)
        files = Path(name)
        plain, data = (files / "r.hea").read_text(), (files / "r.dat").read_bytes()
        wfdb.wrsamp(
            "r", 360, ["mV"] * 2, ["MLII", "V1"], d_signal=steps, fmt=["516"] * 2, adc_gain=[200.0] * 2, baseline=[0] * 2,
            write_dir=name,
        )  # fmt: skip
        return _RecordFiles(
            plain,
            data,
            (files / "r.atr").read_bytes(),
            (files / "r.hea").read_text(),
            (files / "r.dat").read_bytes(),
        )


def _damaged_header(text: str, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 3))):
        lines = text.split("\n")
        at = rng.randrange(len(lines))
        what = rng.randrange(9)
        fields = lines[at].split(" ")
        if what <= 3:
            fields[rng.randrange(len(fields))] = rng.choice(rng.choice((_FIELDS, _NUMBERS, _FORMATS)))
            lines[at] = " ".join(fields)
        elif what == 4:
            del fields[rng.randrange(len(fields)) :]
            lines[at] = " ".join(fields)
        elif what == 5:
            lines[at:at] = [lines[rng.randrange(len(lines))]] * rng.choice((1, 2, 50))
        elif what == 6:
            del lines[at]
        elif what == 7:
            gain = rng.choice(_GAINS)
            lines = [re.sub(r"200\S*/mV", gain, line) for line in lines]  # of one lead alone, it would be left out
        else:
            raw = damage_bytes(text.encode("utf-8", "surrogateescape"), rng)
            lines = raw.decode("utf-8", "surrogateescape").split("\n")
        text = "\n".join(lines)
    return text.encode("utf-8", "surrogateescape")


def record_case(rng: random.Random, folder: Path) -> str:
    """Open and read one damaged record, or its annotations."""
    from ecgmon.pipelines.sources.annotations import read_annotations
    from ecgmon.pipelines.sources.wfdb_record import open_record

    good = _record()
    header, samples, annotations = good.plain.encode(), good.samples, good.annotations
    inner = layout = b""
    what = rng.randrange(12)
    if what <= 3:
        header = _damaged_header(good.plain, rng)
    elif what >= 10:
        header, samples = good.compressed_header.encode(), good.compressed
        if what == 10:
            header = _damaged_header(good.compressed_header, rng)
        else:
            samples = damage_bytes(samples, rng)
    elif what <= 5:
        header = (_SEGMENTED if what == 4 else _VARIABLE).encode()
        inner, layout = good.plain.replace("r 2", "r_a 2", 1).encode(), _LAYOUT.encode()
        chosen = rng.randrange(3)
        if chosen == 0:
            header = _damaged_header(header.decode(), rng)
        elif chosen == 1:
            inner = _damaged_header(inner.decode(), rng)
        else:
            layout = _damaged_header(layout.decode(), rng)
    elif what == 6:
        samples = damage_bytes(samples, rng)
    else:
        annotations = damage_bytes(annotations, rng)
    for name, data in {
        "r.hea": header, "r.dat": samples, "r.atr": annotations, "r_a.hea": inner, "r_layout.hea": layout,
    }.items():  # fmt: skip
        (folder / name).write_bytes(data)
    ref = RecordRef("r", folder / "r")
    try:
        if 7 <= what <= 9:
            found = read_annotations(ref)
            if not len(found.sample) == len(found.symbol) == len(found.note):
                raise AcceptedError("annotations of unequal length")
            return "accepted"
        record = open_record(ref)
        if not (100 <= record.fs <= 1000 and record.leads and record.length > 0):
            raise AcceptedError("an impossible record")
        stop = min(record.length, 2 * _SAMPLES)
        block = record.read(max(0, stop - 400), stop)
        if block.shape[1] != len(record.leads) or np.isinf(block).any():
            raise AcceptedError("impossible samples")
    except SourceError as error:
        return type(error).__name__
    return "accepted"


# ---- checkpoints


@cache
def _checkpoint() -> tuple[bytes, dict[str, Any], dict[str, Any]]:
    """Make a small checkpoint: its bytes, its tensors, its metadata."""
    import torch
    from safetensors.numpy import load

    from ecgmon.models.networks.dense import DenseGenerator
    from ecgmon.models.networks.shape import DenseShape
    from ecgmon.models.score.fitting import fit_score
    from ecgmon.models.weights import checkpoint
    from ecgmon.testing.evidence import normal_beats

    torch.manual_seed(0)
    score = fit_score(normal_beats(1000, seed=1), normal_beats(1000, seed=2))
    generator = DenseGenerator(DenseShape(leads=1, width=1, latent=2)).eval()
    usual = np.linspace(0.001, 0.01, LENGTH, dtype=np.float32)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model.safetensors"
        checkpoint.save(path, generator, name="n", score=score, usual=usual, command="c", data={"a": "b"})
        data = path.read_bytes()
    tensors, about = load(data), _about(data)
    return _write_checkpoint(tensors, json.dumps(about)), tensors, about


def _about(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    about: dict[str, Any] = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["ecgmon"])
    return about


def _damaged_tensor(array: np.ndarray[Any, Any], rng: random.Random) -> np.ndarray[Any, Any] | None:
    what = rng.randrange(8)
    if what == 0:
        return None
    if what == 1:
        return array.astype(rng.choice(("<f8", "<f2", "<i4", "u1", "?", "<i8", "<u2")))
    if what == 2:
        return array[..., :-1] if array.ndim else array.reshape(1)
    if what == 3:
        return array.reshape(-1)
    if what == 4:
        return np.zeros(rng.choice(((), (0,), (1, 0, 3), (1,) * 9)), array.dtype)
    out = array.copy()
    if out.size:
        out.reshape(-1)[rng.randrange(out.size)] = (
            rng.choice((0, -1, np.nan, np.inf, 6e4)) if out.dtype.kind == "f" else -1
        )
    return out if what < 7 else out[None]


_TYPES: Final = {"f2": "F16", "f4": "F32", "f8": "F64", "i4": "I32", "i8": "I64", "u1": "U8", "u2": "U16", "b1": "BOOL"}


def _write_checkpoint(tensors: dict[str, Any], text: str) -> bytes:
    """Write a checkpoint by hand, because the order in a file of safetensors is not always the same."""
    from ecgmon.models.weights.checkpoint import _checksum

    header: dict[str, Any] = {"__metadata__": {"ecgmon": text, "sha256": _checksum(text, tensors)}}
    body = b""
    for name, array in sorted(tensors.items()):
        data = array.tobytes()
        kind = array.dtype.str[1:]
        header[name] = {"dtype": _TYPES[kind], "shape": array.shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    start = json.dumps(header).encode()
    return len(start).to_bytes(8, "little") + start + body


def damaged_checkpoint(rng: random.Random) -> bytes:
    """Make an invalid checkpoint; its checksum usually agrees with its content."""
    data, tensors, about = _checkpoint()
    what = rng.randrange(10)
    if what <= 1:
        return damage_bytes(data, rng)
    if what == 2:  # the header of the safetensors format: types, shapes, offsets, metadata
        length = int.from_bytes(data[:8], "little")
        header = damage_tree(json.loads(data[8 : 8 + length]), rng)
        text = json.dumps(header, default=lambda value: value.hex()).encode()
        claimed = rng.choice((len(text), len(text), len(text), 0, 2**63, 2**64 - 1, len(text) + 1))
        return claimed.to_bytes(8, "little") + text + data[8 + length :]
    if what <= 6:
        about = json.loads(json.dumps(about))
        places = about if rng.random() < 0.5 else about["score"]
        damage_tree(places, rng)
        written = json.dumps(about, default=lambda value: value.hex())
        if rng.random() < 0.1:
            nines = written.replace("1", "9" * 5000, 1)
            written = rng.choice(("[" * _DEEP, "", "null", "[]", written[:-1], nines, "\ud800x"))
            written = written.encode("utf-8", "replace").decode()
        return _write_checkpoint(tensors, written)
    changed = dict(tensors)
    for name in rng.sample(sorted(tensors), rng.choice((1, 1, 2))):
        array = _damaged_tensor(tensors[name], rng)
        del changed[name]
        if array is not None:
            changed[name if rng.random() < 0.9 else f"{name}x"] = np.ascontiguousarray(array)
    return _write_checkpoint(changed, json.dumps(about))


_CHECKPOINT_REASONS: Final = (
    "no checkpoint at", "cannot be read", "not a whole safetensors file", "no ecgmon metadata", "is damaged", "was made for",
    "metadata that do not fit", "for the usual errors", "usual error is not", "does not hold the tensors", "expected float16",
    "values that are not finite", "negative variances",
)  # fmt: skip


def checkpoint_case(rng: random.Random, folder: Path) -> str:
    """Read one damaged checkpoint, and load it if it is accepted."""
    from ecgmon.models.weights.checkpoint import CheckpointError, load_generator, read_info
    from ecgmon.testing.evidence import normal_beats

    path = folder / "model.safetensors"
    path.write_bytes(damaged_checkpoint(rng))
    try:
        info = read_info(path)
    except CheckpointError as error:
        return next((reason for reason in _CHECKPOINT_REASONS if reason in str(error)), "other")
    load_generator(path)
    with np.errstate(all="ignore"):
        info.score.score(normal_beats(4, seed=3))
    return "accepted"


# ---- configurations


@cache
def _configuration() -> str:
    from ecgmon.monitor.config.reading import Config, SourceSettings, dump_toml

    sources = (SourceSettings(record="208"), SourceSettings(record="100", speed=0.5))
    return dump_toml(msgspec.structs.replace(Config(), source=sources), documented=False)


_TOML: Final = (
    "nan", "inf", "-1", "1e400", "9" * 5000, "0x1F", "1979-05-27T07:32:00Z", "true", '""', '"\\ud800"', "'''", '"""', "[", "{",
    "[[1, 2], [3]]", "{ a = 1 }", "[" * 5000, "{a=" * 3000, '"a/../b"', '"\\u0000"', '"' + "x" * 100_000 + '"', "07", "1_0", "#",
    "[[source]]", "[source]", "[alerts.priorities.x]", "a.b.c = 1", '"" = 1', "=", "\x00", "\r", "\ufeff", "\u0085", "1" * 30,
)  # fmt: skip


def damaged_configuration(rng: random.Random) -> bytes:
    """Make an invalid configuration."""
    text = _configuration()
    for _ in range(rng.choice((1, 1, 2, 4))):
        lines = text.split("\n")
        at = rng.randrange(len(lines))
        what = rng.randrange(7)
        if what <= 2:
            key = lines[at].partition(" = ")[0]
            lines[at] = f"{key} = {rng.choice(_TOML)}"
        elif what == 3:
            lines[at] = rng.choice(_TOML)
        elif what == 4:
            lines[at:at] = [lines[rng.randrange(len(lines))]] * rng.choice((1, 2, 300))
        elif what == 5:
            del lines[at : at + rng.choice((1, 3))]
        else:
            raw = damage_bytes(text.encode("utf-8", "surrogateescape"), rng)
            lines = raw.decode("utf-8", "surrogateescape").split("\n")
        text = "\n".join(lines)
    return text.encode("utf-8", "surrogateescape")


def configuration_case(rng: random.Random, folder: Path) -> str:
    """Read one damaged configuration: the file, or the JSON that a supervisor gives to a role."""
    from ecgmon.monitor.config.errors import ConfigError
    from ecgmon.monitor.config.reading import Config, from_json, load, to_json

    try:
        if rng.random() < 0.2:
            tree = damage_tree(msgspec.json.decode(to_json(Config())), rng)
            from_json(damage_bytes(_json(tree), rng) if rng.random() < 0.3 else _json(tree))
        else:
            path = folder / "ecgmon.toml"
            path.write_bytes(damaged_configuration(rng))
            config = load(path, environ={"HOME": "/home/somebody"}, overrides={})
            again = from_json(to_json(config))
            if again != config:
                raise AcceptedError("a configuration that does not survive being handed on")
    except ConfigError as error:
        problem = error.problems[0]
        return " ".join(re.sub(r"\[.*?\]|`.*?`|0x\w\w|\d+(\.\d+)?", "...", problem.message).split()[:3])
    return "accepted"


def _json(tree: object) -> bytes:
    return json.dumps(tree, default=lambda value: value.hex()).encode()


TARGETS: Final[dict[str, Callable[[random.Random, Path], str]]] = {
    "wire": wire_case,
    "records": record_case,
    "checkpoints": checkpoint_case,
    "configurations": configuration_case,
}


# ---- the run


def memory() -> int:
    """Return the bytes of memory that this process uses."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _too_slow(*_: object) -> None:
    raise TooSlowError


def run(target: str, cases: Iterable[int], *, seed: int) -> Tally:
    """Run the cases of a target with these numbers.

    Parameters
    ----------
    target : str
        One of :data:`TARGETS`.
    cases : iterable of int
    seed : int
    """
    case, tally, numbers = TARGETS[target], Tally(target), list(cases)
    memory_folder = Path("/dev/shm")  # in memory, because there may be a hundred thousand small files
    before = 0
    rng = random.Random()
    # processor time, so that other load on the machine does not count; faulthandler finds a case that waits
    previous = signal.signal(signal.SIGPROF, _too_slow)
    folder = Path(tempfile.mkdtemp(dir=memory_folder if memory_folder.is_dir() else None))
    began = time.perf_counter()
    try:
        for done, number in enumerate(numbers):
            if done == len(numbers) // 10:
                before = memory()
            if done % 1000 == 0:  # for a hang in compiled code, which a signal handler cannot end
                faulthandler.dump_traceback_later(1000 * CASE_SECONDS, exit=True)
            rng.seed(seed << 40 | _ORDER[target] << 36 | number)
            started = time.perf_counter()
            # the first case imports, compiles and makes the valid inputs
            signal.setitimer(signal.ITIMER_PROF, CASE_SECONDS if done else 120.0)
            try:
                outcome = case(rng, folder)
            except (Exception, TooSlowError):  # noqa: BLE001 - any exception is a bug
                signal.setitimer(signal.ITIMER_PROF, 0)
                tally.failed += 1
                if len(tally.bugs) < _KEPT:
                    tally.bugs.append(f"{target}, case {number}:\n{traceback.format_exc()}")
                outcome = "BUG"
            signal.setitimer(signal.ITIMER_PROF, 0)
            tally.outcomes[outcome] += 1
            if done:
                tally.slowest = max(tally.slowest, time.perf_counter() - started)
        tally.growth = max(0, memory() - before)
        tally.peak = max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)
        faulthandler.cancel_dump_traceback_later()
        shutil.rmtree(folder)
    tally.seconds = time.perf_counter() - began
    return tally


_ORDER: Final = {name: number for number, name in enumerate(TARGETS)}


def _share(job: tuple[str, range], seed: int) -> Tally:
    # warnings are errors, as in the tests
    with warnings.catch_warnings():
        warnings.filterwarnings("error")
        warnings.filterwarnings("ignore", "The inplace keyword")  # pandas 3.1 warns about a call in wfdb 4.3
        return run(*job, seed=seed)


def table(tallies: Iterable[Tally]) -> str:
    """Write the results as Markdown."""
    lines = []
    for tally in tallies:
        total = sum(tally.outcomes.values())
        lines += [
            f"### {tally.target}: {total} cases, {tally.failed} bugs",
            "",
            f"{tally.seconds:.0f} s of processor time, slowest case {tally.slowest * 1e3:.0f} ms, memory grew by {tally.growth / 2**20:.1f} MiB and by {tally.peak / 2**20:.1f} MiB at its peak.",
            "",
            "| outcome | cases |",
            "| --- | ---: |",
            *(f"| {reason} | {count} |" for reason, count in tally.outcomes.most_common()),
            "",
        ]
    return "\n".join(lines)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description="Damage valid messages, records, checkpoints and configurations, and give them to the modules that "
        "read them. Exits with 1 if one does anything but accept them or refuse them with its own error.",
    )
    parser.add_argument("--frames", type=int, default=1_000_000, help="messages (default: %(default)s)")
    parser.add_argument("--files", type=int, default=100_000, help="records (default: %(default)s)")
    parser.add_argument("--documents", type=int, default=10_000, help="checkpoints, and configurations, each")
    parser.add_argument("--seed", type=int, default=1, help="seed of all damage (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once (default: %(default)s)")
    parser.add_argument("--target", choices=TARGETS, help="run this target only")
    parser.add_argument("--case", type=int, help="run this case of --target only")
    args = parser.parse_args()
    budget = {
        "wire": args.frames,
        "records": args.files,
        "checkpoints": args.documents,
        "configurations": args.documents,
    }
    if args.target:
        budget = {args.target: budget[args.target]}
    if args.case is not None:
        if not args.target:
            parser.error("--case needs --target")
        shares = [(args.target, range(args.case, args.case + 1))]
    else:
        # each slice runs in its own process, so that the memory of one target does not count for another
        shares = [
            (name, range(first, n, args.jobs)) for name, n in budget.items() for first in range(min(args.jobs, n))
        ]
    began = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    tallies: dict[str, Tally] = {}
    with context.Pool(args.jobs, maxtasksperchild=1) as pool:
        for part in pool.imap_unordered(partial(_share, seed=args.seed), shares, chunksize=1):
            tallies.setdefault(part.target, Tally(part.target)).add(part)
            print(f"{part.target}: {sum(part.outcomes.values())} cases, {part.failed} bugs", file=sys.stderr)
            for bug in part.bugs:  # at once, because the whole run takes long
                print(bug, file=sys.stderr, flush=True)
    print(table(tallies[name] for name in TARGETS if name in tallies))
    print(f"{time.perf_counter() - began:.0f} s with {args.jobs} processes, seed {args.seed}")
    grew = [tally.target for tally in tallies.values() if max(tally.growth, tally.peak) > GROWTH]
    if grew:
        print(f"memory grew: {', '.join(grew)}", file=sys.stderr)
    return 1 if grew or any(tally.failed for tally in tallies.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
