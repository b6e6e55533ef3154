"""The command ``password``: the file that the metrics' HTTP server knows its client by."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_password(parser: ArgumentParser) -> None:
    """Add the arguments of ``ecgmon password``."""
    parser.description = (
        "Write the salted hash of a password to a new file of mode 0600, for [exporter] password_file. The password is "
        "asked for twice on a terminal, else read as one line from standard input; it is never an argument."
    )
    parser.add_argument("--out", type=Path, metavar="FILE", required=True, help="the file to make")


def run_password(args: Namespace) -> int:
    """Read a password and write its hash; 1 if that cannot be done."""
    from ecgmon.monitor.web import passwords

    try:
        passwords.write(args.out, _asked())
    except (passwords.PasswordError, EOFError) as error:
        print(f"ecgmon: {error or 'no password was given'}", file=sys.stderr)
        return 1
    return 0


def _asked() -> str:
    from getpass import getpass

    from ecgmon.monitor.web.passwords import MOST, PasswordError

    if not sys.stdin.isatty():
        # bytes: a file of another encoding must not show in a decoder's message
        line = sys.stdin.buffer.readline(MOST + 3)
        try:
            return line.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise PasswordError("the password is not UTF-8") from None
    password = getpass("password: ")
    if getpass("once more: ") != password:
        raise PasswordError("the two are not the same")
    return password
