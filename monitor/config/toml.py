"""Line numbers of TOML keys, and TOML values as text; the standard library has neither."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Final

import msgspec

_NAME: Final = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_DOTTED: Final = rf"{_NAME}(?:\s*\.\s*{_NAME})*"
_HEADER: Final = re.compile(rf"\s*(?P<open>\[\[?)\s*(?P<key>{_DOTTED})\s*\]")
_ASSIGNMENT: Final = re.compile(rf"\s*(?P<key>{_DOTTED})\s*=(?P<value>.*)")
_LONG_QUOTES: Final = ('"""', "'''")


def key_lines(text: str) -> dict[str, list[int]]:
    """Find the lines of every key and table.

    Parameters
    ----------
    text : str
        TOML, which need not be valid.

    Returns
    -------
    dict of str to list of int
        Line numbers, from 1, by dotted key.  The tables of an array have their number in the key, from 0:
        ``source.0.record``.  A key that is given twice has two lines.  Keys inside an inline table are not found.
    """
    found: dict[str, list[int]] = defaultdict(list)
    tables: dict[str, int] = defaultdict(int)
    prefix = ""
    closing: str | None = None  # quotes that end the current text of several lines
    for number, line in enumerate(text.splitlines(), start=1):
        if closing is not None:
            if closing in line:
                closing = None
        elif header := _HEADER.match(line):
            prefix = _plain(header["key"])
            if header["open"] == "[[":
                tables[prefix] += 1
                prefix += f".{tables[prefix] - 1}"
            found[prefix].append(number)
        elif assignment := _ASSIGNMENT.match(line):
            key = _plain(assignment["key"])
            found[f"{prefix}.{key}" if prefix else key].append(number)
            closing = next((quotes for quotes in _LONG_QUOTES if assignment["value"].count(quotes) == 1), None)
    return dict(found)


def line_of(lines: dict[str, list[int]], dotted: str) -> int | None:
    """Return the line of a key, or of the nearest table around it; None if there is neither."""
    while dotted:
        if dotted in lines:
            return lines[dotted][0]
        dotted = dotted.rpartition(".")[0]
    return None


def _plain(dotted: str) -> str:
    """Remove quotes and blanks from the parts of a dotted key."""
    return ".".join(part.strip("\"'") for part in re.findall(_NAME, dotted))


def toml_value(value: object) -> str:
    """Write a value as TOML."""
    if isinstance(value, str):
        # the escapes of JSON are valid TOML, but TOML requires one for DEL too
        return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {toml_value(item)}' for key, item in value.items())}}}"
    return str(value)
