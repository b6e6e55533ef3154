"""Kinds of command-line arguments that several commands take."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError


def above_zero(text: str, expected: str = "is no number above 0") -> float:
    """Read a finite number above 0.

    Raises
    ------
    ArgumentTypeError
        If it is none; the message quotes it, and ``expected`` goes on.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ArgumentTypeError(f"{text!r} {expected}")
    return value
