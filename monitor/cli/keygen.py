"""The command ``keygen``: keys for roles on several hosts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_keygen(parser: ArgumentParser) -> None:
    """Add the arguments of ``ecgmon keygen``."""
    parser.description = (
        "Make a key pair for tcp: the secret goes to a new file of mode 0600, the public key to standard output. "
        "Every host has its own; the monitor's [network] clients lists the public keys of the others."
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="file of the secret key")
    parser.add_argument(
        "--public", action="store_true", help="make nothing: print the public key of a secret that exists"
    )


def run_keygen(args: Namespace) -> int:
    """Make a key pair, or tell the public half of one; 1 if that cannot be done."""
    from ecgmon.pipelines.transport import keys

    try:
        public = keys.read(args.file).public if args.public else keys.generate(args.file)
    except keys.KeyFileError as error:
        print(f"ecgmon: {error}", file=sys.stderr)
        return 1
    print(public.decode())
    return 0
