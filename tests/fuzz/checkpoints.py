"""Damaged checkpoints."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ecgmon.models.windows import LENGTH
from tests.fuzz.damage import DEEP, damage_bytes, damage_tree

if TYPE_CHECKING:
    import random


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
            written = rng.choice(("[" * DEEP, "", "null", "[]", written[:-1], nines, "\ud800x"))
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
