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
    """Read a password and write its hash; return 1 on failure."""
    from ecgmon.monitor.web import passwords

    try:
        passwords.write(args.out, _read_password())
    except (passwords.PasswordError, EOFError) as error:
        return complain(str(error) or "no password was given")
    return 0


def _read_password() -> str:
    from getpass import getpass

    from ecgmon.monitor.web.passwords import MAX_BYTES, PasswordError

    if not sys.stdin.isatty():
        # as bytes, because the error message of a decoder would show the text
        line = sys.stdin.buffer.readline(MAX_BYTES + 3)
        try:
            return line.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise PasswordError("the password is not UTF-8") from None
    password = getpass("password: ")
    if getpass("once more: ") != password:
        raise PasswordError("the two passwords differ; run the command again")
    return password
