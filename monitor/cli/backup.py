"""``ecgmon backup``: copy a store to a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ecgmon.monitor.cli.configuration import add_config_flags, add_state_flag, load_config
from ecgmon.monitor.cli.printing import complain

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Copy the store to a new file, complete and consistent, even while a daemon writes to it. To restore it, stop "
        "the daemon and put the file into an empty state folder as ecgmon.sqlite."
    )
    add_config_flags(parser)
    add_state_flag(parser)
    parser.add_argument("file", type=Path, metavar="FILE", help="file to write; it must not exist")


def run(args: Namespace) -> int:
    """Copy the store; return 1 if there is none or the file cannot be written."""
    from ecgmon.monitor.store import Reader, StoreError

    config = load_config(args, {"store.path": args.state})
    try:
        with Reader(Path(config.store.path)) as reader:
            beats = reader.backup(args.file, _show_progress)
    except StoreError as error:
        return complain(error)
    print(f"{args.file}: {beats} beats, {args.file.stat().st_size / 1e6:.1f} MB")
    return 0


def _show_progress(share: float) -> None:
    if sys.stderr.isatty():
        print(f"\r{share:4.0%}", end="\n" if share >= 1 else "", file=sys.stderr)
