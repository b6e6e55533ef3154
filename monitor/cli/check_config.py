"""``ecgmon check-config``: the errors of a configuration."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import msgspec

from ecgmon.monitor.cli.configuration import add_config_flags, load_config
from ecgmon.monitor.config.documentation import dump_toml, reference_page
from ecgmon.monitor.config.errors import ConfigError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Check a configuration and print all of its errors: the line, the key, the expected value and the nearest valid "
        "key."
    )
    parser.epilog = "Exit status: 0 if the configuration can be used, 1 if it cannot."
    add_config_flags(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--print", action="store_true", help="print the resolved configuration, with a comment on every key"
    )
    form.add_argument("--json", action="store_true", help="print one JSON object: ok, problems, config")
    form.add_argument("--reference", action="store_true", help="print the reference page of all keys, as Markdown")


def run(args: Namespace) -> int:
    """Check a configuration; return 1 if there is a problem."""
    if args.reference:
        print(reference_page(), end="")
        return 0
    try:
        config = load_config(args)
    except ConfigError as error:
        if args.json:
            _print_json({"ok": False, "problems": [asdict(problem) for problem in error.problems], "config": None})
        else:
            print(error, file=sys.stderr)
        return 1
    if args.json:
        _print_json({"ok": True, "problems": [], "config": config})
    elif args.print:
        print(dump_toml(config), end="")
    else:
        print(f"OK: {args.config or 'the defaults, with environment and flags'}")
    return 0


def _print_json(answer: dict[str, object]) -> None:
    print(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())
