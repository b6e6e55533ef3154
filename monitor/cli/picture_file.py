"""Writing a picture, with messages for errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecgmon.monitor.cli.printing import complain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def write_picture(path: Path, flag: str, draw: Callable[[Path], None]) -> int:
    """Write a picture; create its folder if it is missing.

    Parameters
    ----------
    path : Path
        PNG to write.
    flag : str
        The flag of the command that sets the file, for the message.
    draw : callable
        Writes the picture to a path.

    Returns
    -------
    int
        Exit status: 0, or 1, with a message, if matplotlib is missing or the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(path)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "matplotlib":
            raise
        return complain("pictures need the package matplotlib, which is missing; pip install 'ecgmon[plot]'")
    except OSError as error:
        return complain(f"{path} cannot be written: {error.strerror or error}; choose another file with {flag}")
    return 0
