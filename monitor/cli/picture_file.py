"""Writing a picture, and what can go wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecgmon.monitor.cli.printing import complain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def write_picture(path: Path, flag: str, draw: Callable[[Path], None]) -> int:
    """Write a picture, and make its folder if need be.

    Parameters
    ----------
    path : Path
        PNG to write.
    flag : str
        The command's flag that chooses another file.
    draw : callable
        Writes it.

    Returns
    -------
    int
        Exit status: 1, with a message, where matplotlib is missing or the file cannot be written.
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
