"""Flags of the commands that read a configuration, and its loading."""

from __future__ import annotations

import os
from argparse import SUPPRESS, ArgumentTypeError
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Mapping

    from ecgmon.monitor.config.schema import Config


def add_config_flags(parser: ArgumentParser) -> None:
    """Add ``--config FILE`` and ``--set KEY=VALUE``."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML configuration (default: built-in values)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_assignment,
        metavar="KEY=VALUE",
        help="set one key, such as exporter.port=9465; overrides file and environment; can be repeated",
    )


def add_role_flags(parser: ArgumentParser) -> None:
    """Add the flags of a single role: those of a configuration, and those that a supervisor gives its children."""
    add_config_flags(parser)
    parser.add_argument("--resolved", type=Path, help=SUPPRESS)
    parser.add_argument("--parent", type=int, help=SUPPRESS)


def add_state_flag(parser: ArgumentParser) -> None:
    """Add ``--state DIR``; the command hands it to :func:`load_config` as ``store.path``."""
    parser.add_argument("--state", metavar="DIR", help="folder of the store; overrides [store] path")


def load_config(args: Namespace, flags: Mapping[str, str | None] | None = None) -> Config:
    """Load the configuration of a command: defaults, file, environment, flags.

    Parameters
    ----------
    args : Namespace
        With the flags of :func:`add_config_flags`.
    flags : mapping, optional
        Values of the command's own flags by dotted key; None leaves a key as it is.

    Raises
    ------
    ecgmon.monitor.config.errors.ConfigError
        If it has errors.
    """
    from ecgmon.monitor.config.reading import from_json, load

    if getattr(args, "resolved", None) is not None:
        return from_json(args.resolved.read_bytes())
    own = {key: value for key, value in (flags or {}).items() if value is not None}
    return load(args.config, environ=os.environ, overrides={**dict(args.set), **own})


def _assignment(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ArgumentTypeError(f"{text!r} is no assignment; expected KEY=VALUE, such as exporter.port=9465")
    return key.strip(), value.strip()
