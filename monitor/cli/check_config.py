"""The command ``ecgmon check-config``, and the flags that every command with a configuration has."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ecgmon.monitor.config.documentation import dump_toml, reference_page
from ecgmon.monitor.config.errors import ConfigError
from ecgmon.monitor.config.reading import load

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_config_flags(parser: ArgumentParser) -> None:
    """Add ``--config FILE`` and ``--set KEY=VALUE``; :func:`overrides` reads the latter."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML configuration; without it the defaults are used"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_assignment,
        metavar="KEY=VALUE",
        help="set one key, such as exporter.port=9465, over file and environment; may be repeated",
    )


def overrides(args: Namespace) -> dict[str, str]:
    """Read the values of ``--set`` by dotted key; the last one wins."""
    return dict(args.set)


def _assignment(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        # argparse shows the message of this error only
        from argparse import ArgumentTypeError

        raise ArgumentTypeError(f"{text!r} sets nothing; expected KEY=VALUE, such as exporter.port=9465")
    return key.strip(), value.strip()


def add_check_config(parser: ArgumentParser) -> None:
    """Add the arguments of ``ecgmon check-config`` to its parser."""
    parser.description = "Say all that is wrong with a configuration: line, key, what was expected, nearest valid key."
    parser.epilog = "Exit status: 0 where the configuration can be used, 1 where it cannot."
    add_config_flags(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--print", action="store_true", help="print the resolved configuration, every key explained")
    form.add_argument("--json", action="store_true", help="print one JSON object: ok, problems, config")
    form.add_argument("--reference", action="store_true", help="print the reference page of all keys, as Markdown")


def run_check_config(args: Namespace) -> int:
    """Run ``ecgmon check-config``.

    Returns
    -------
    int
        Exit status: 0, or 1 where there is a problem.
    """
    if args.reference:
        print(reference_page(), end="")
        return 0
    try:
        config = load(args.config, environ=os.environ, overrides=overrides(args))
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
