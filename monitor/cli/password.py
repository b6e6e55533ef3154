"""``ecgmon password``: the password file of the metrics' HTTP server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ecgmon.monitor.cli.printing import complain

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Write the salted hash of a password to a new file with mode 0600, for [exporter] password_file. On a "
        "terminal, the command asks for the password twice; without one, it reads one line from standard input."
    )
    parser.add_argument("--out", type=Path, metavar="FILE", required=True, help="file to write; it must not exist")


def run(args: Namespace) -> int:
    """Read a password and write its hash; 1 if that cannot be done."""
    from ecgmon.monitor.web import passwords

    try:
        passwords.write(args.out, _asked())
    except (passwords.PasswordError, EOFError) as error:
        return complain(str(error) or "no password was given")
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
        raise PasswordError("the two passwords differ; run the command again")
    return password
