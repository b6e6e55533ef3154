"""``ecgmon keygen``: keys for roles on several hosts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ecgmon.monitor.cli.printing import complain

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Make a key pair for connections over tcp. The secret key is written to a new file with mode 0600, the public "
        "key is printed. Every host needs its own pair; the monitor lists the public keys of the others in the file "
        "that [network] clients names."
    )
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="file for the secret key; it must not exist, except with --public"
    )
    parser.add_argument("--public", action="store_true", help="make no key: print the public key that belongs to FILE")


def run(args: Namespace) -> int:
    """Make a key pair, or print the public half of one; return 1 on failure."""
    from ecgmon.pipelines.transport import keys

    try:
        public = keys.read(args.file).public if args.public else keys.generate(args.file)
    except keys.KeyFileError as error:
        return complain(error)
    print(public.decode())
    return 0
