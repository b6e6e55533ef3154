"""Random damage to bytes and to trees of plain values."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

_MOST_BYTES: Final = 2**22  # limit of repeated parts; sockets refuse frames of more than 64 MiB


class AcceptedError(Exception):
    """A module accepted input that it should have refused."""


def hostile(rng: random.Random) -> object:
    """Choose a value that hardly any field expects."""
    return rng.choice(_HOSTILE)


DEEP: Final = 100_000
_HOSTILE: Final[list[object]] = [
    -1, 0, 1, 2, 64, 65, 65_535, 65_536, 65_537, 2**31 - 1, 2**31, 2**32, 2**53 - 1, 2**53, 2**63 - 1, -(2**63), 2**64 - 1,
    0.0, -0.0, 0.5, 1.5, -1.0, 1e-300, 1e308, math.nan, math.inf, -math.inf, True, False, None,
    "", "a", "a/b", "../../etc/passwd", "a" * 65, "a" * 300, "x" * 100_000, "\0", "é\u202e", "\U0001f4a9", "a\nb", '"',
    "nan", "1e999", b"", b"\0" * 64, [], [[]], {}, {"type": "bye"}, [1, 2, 3], [[0, 0, 1, 1]], [[-1, -1]],
]  # fmt: skip

RAW: Final = [
    msgspec.Raw(raw)
    for raw in (
        b"\x91" * DEEP + b"\xc0",  # a list in a list in a list
        b"\x81\xa1a" * DEEP + b"\xc0",
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
        size = sum(len(leaf) if isinstance(leaf, (str, bytes)) else 8 for leaf in leaves(container[key]))
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


def encode_json(tree: object) -> bytes:
    """Encode a tree as JSON; bytes become text."""
    return json.dumps(tree, default=lambda value: value.hex()).encode()


def leaves(tree: Any) -> Iterable[object]:
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, (list, tuple)):
        yield tree
        return
    for value in tree:
        yield from leaves(value)
