"""The documented TOML file and the reference page, both made from the schema."""

from __future__ import annotations

import textwrap
from inspect import getdoc
from typing import TYPE_CHECKING, Final

import msgspec

from ecgmon.monitor.config.keys import SOURCE, Key, keys, sections
from ecgmon.monitor.config.toml import toml_value

if TYPE_CHECKING:
    from ecgmon.monitor.config.schema import Config

_WIDTH: Final = 100  # maximum length of a comment line

_HEAD: Final = """\
# Configuration

<!-- Made from monitor/config/schema.py by `ecgmon check-config --reference > docs/configuration.md`; tested. -->

ecgmon reads its configuration from a [TOML](https://toml.io) file. Every key may be left out. Later settings override
earlier ones, in this order: the defaults, the file (`--config FILE`), the environment, flags
(`--set exporter.port=9465`). The name of an environment variable is `ECGMON_`, the section, `_` and the key:
`ECGMON_EXPORTER_PORT=9465`. In the environment and in flags, text has no quotes.

`ecgmon check-config --config FILE` reports every error in a configuration, with its line and the nearest valid key.
`ecgmon check-config --print` prints the resolved configuration with every key explained; use it as a first file. `~`
stands for the home folder. Other relative paths start at the working folder.
"""


def dump_toml(config: Config, *, documented: bool = True) -> str:
    """Write a configuration as TOML, which :func:`ecgmon.monitor.config.reading.load` reads back unchanged.

    Parameters
    ----------
    config : Config
    documented : bool
        Write the explanation of every key above it.
    """
    parts: list[str] = []
    for section in sections():
        tables = _tables(config, section)
        parts += [_table(section, table, documented=documented) for table in tables]
        if documented and not tables:
            parts.append(f'# {_heading(section)}\n# [[{section}]]\n# record = "208"\n# speed = 1.0\n')
    return "\n".join(parts)


def reference_page() -> str:
    """Write the reference page, docs/configuration.md."""
    parts = [_HEAD]
    for section in sections():
        title = f"[[{section}]]" if section == SOURCE else f"[{section}]"
        rows = ["| key | value | unit | default | meaning |", "| --- | --- | --- | --- | --- |"]
        for key in _keys(section):
            default = "required" if key.default is msgspec.NODEFAULT else f"`{toml_value(key.default)}`"
            rows.append(f"| `{key.name}` | {key.expected} | {key.unit} | {default} | {key.description} |")
        once = "\nOne table for each stream; only in the file.\n" if section == SOURCE else ""
        parts.append(f"## `{title}`\n\n{_heading(section)}\n{once}\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _heading(section: str) -> str:
    return (getdoc(sections()[section]) or "").splitlines()[0]


def _keys(section: str) -> list[Key]:
    return [key for key in keys().values() if key.section == section]


def _tables(config: Config, section: str) -> list[object]:
    if section == SOURCE:
        return list(config.source)
    table: object = config
    for name in section.split("."):
        table = getattr(table, name)
    return [table]


def _table(section: str, table: object, *, documented: bool) -> str:
    header = f"[[{section}]]" if section == SOURCE else f"[{section}]"
    lines = [f"# {_heading(section)}", header] if documented else [header]
    for key in _keys(section):
        if documented:
            lines += ["", *textwrap.wrap(_explanation(key), _WIDTH, initial_indent="# ", subsequent_indent="# ")]
        lines.append(f"{key.name} = {toml_value(getattr(table, key.name))}")
    return "\n".join(lines) + "\n"


def _explanation(key: Key) -> str:
    unit = f", in {key.unit}" if key.unit else ""
    default = "required" if key.default is msgspec.NODEFAULT else f"default {toml_value(key.default)}"
    return f"{key.description.removesuffix('.')} ({key.expected}{unit}; {default})."
