"""Damaged configurations."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Final

import msgspec

from tests.fuzz.damage import AcceptedError, damage_bytes, damage_tree, encode_json

if TYPE_CHECKING:
    import random
    from pathlib import Path


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
            from_json(damage_bytes(encode_json(tree), rng) if rng.random() < 0.3 else encode_json(tree))
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
