"""Arguments that several commands take."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError
from typing import Final

RECORD_HELP: Final = (
    "A RECORD is a path, a folder of records, or a name such as 208 or mitdb/208. A name is searched in ECGMON_MITDB, "
    "then in ../shared/mitdb, then downloaded. `toy` is the built-in record."
)
"""Help text on the ways to name a record."""

TIME_HELP: Final = "seconds, MM:SS or HH:MM:SS"
"""Help text on the ways to write a time."""


def above_zero(text: str, expected: str = "is not a number above 0") -> float:
    """Read a finite number above 0.

    Raises
    ------
    ArgumentTypeError
        If it is not; the message is the quoted text, followed by ``expected``.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ArgumentTypeError(f"{text!r} {expected}")
    return value


def count(text: str) -> int:
    """Read a whole number of at least 1.

    Raises
    ------
    ArgumentTypeError
        If it is not valid.
    """
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number


def time(text: str) -> float:
    """Read a time in a record: seconds, MM:SS or HH:MM:SS; return it in s.

    Raises
    ------
    ArgumentTypeError
        If it is not valid.
    """
    from ecgmon.pipelines.sources.errors import RangeError
    from ecgmon.pipelines.sources.record import parse_time

    try:
        return parse_time(text)
    except RangeError as error:
        raise ArgumentTypeError(str(error)) from error


def leads(text: str) -> tuple[str, ...]:
    """Read names or numbers of leads, separated by commas.

    Raises
    ------
    ArgumentTypeError
        If one of them is empty.
    """
    found = tuple(lead.strip() for lead in text.split(","))
    if not all(found):
        raise ArgumentTypeError(f"{text!r} has an empty name in it; expected names or numbers, such as MLII,V1")
    return found


def speed(text: str) -> float:
    """Read a multiple of real time; ``max`` is 0, which means as fast as possible.

    Raises
    ------
    ArgumentTypeError
        If it is not valid.
    """
    if text == "max":
        return 0.0
    return above_zero(text, "is not a speed; expected a multiple of real time, such as 1 or 20, or max")
