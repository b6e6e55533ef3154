"""Reading of a measurement that ``ecgmon bench ... --json`` printed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


class MeasurementError(Exception):
    """A file contains no measurement, or one of another version; the message says what to do."""


class MissingFigureError(Exception):
    """A measurement lacks a figure; the message is its name."""


class Measurement(dict[str, Any]):
    """An object of a measurement; a missing figure raises :class:`MissingFigureError`, not ``KeyError``."""

    def __missing__(self, name: str) -> Any:  # noqa: ANN401 - never returns
        raise MissingFigureError(name)


def read(path: Path) -> Measurement:
    """Read a measurement.

    Raises
    ------
    MeasurementError
        If the file cannot be read, is not JSON, or contains no object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"), object_hook=Measurement)
    except OSError as error:
        raise MeasurementError(f"{path} cannot be read: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MeasurementError(f"{path} is not JSON ({error}); measure again") from error
    if not isinstance(found, Measurement):
        raise MeasurementError(f"{path} is not a measurement; expected the JSON object that --json printed")
    return found


def command(path: Path, found: Measurement) -> list[str]:
    """Return the arguments of a measurement after ``ecgmon bench``.

    Raises
    ------
    MeasurementError
        If the measurement does not contain them.
    """
    words = found.get("command")
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise MeasurementError(f"{path} does not say what it measured; name it: ecgmon bench pipeline --compare {path}")
    return words
