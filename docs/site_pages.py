"""Pages of the site that are made from the code: the front page, the API and the command line.

mkdocs calls ``on_files`` when it builds (``hooks`` in mkdocs.yml).
"""

from __future__ import annotations

import argparse
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from mkdocs.structure.files import File, Files

import ecgmon
import ecgmon.errors
import ecgmon.testing
from ecgmon.monitor.cli.main import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig

_MORE: Final = {
    "AlertSettings": "Its arguments are the keys of `[alerts]` in [Configuration](../configuration.md), with the same defaults."
}
"""What is said below a name."""

CHECKOUT: Final = Path(__file__).resolve().parent.parent

_LINK: Final = re.compile(r"\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")

_PYTHON: Final = """\
# Python

`import ecgmon` takes no time: what a name needs is imported when it is first used. Signals are in mV, times in seconds,
rates in Hz; arrays have a row a beat. Every example on this page is run by the tests.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    pages = {
        "index.md": front_page((CHECKOUT / "README.md").read_text(encoding="utf-8")),
        "reference/python.md": api_page(_PYTHON, ecgmon),
        "reference/errors.md": api_page("# Errors\n\n" + str(ecgmon.errors.__doc__), ecgmon.errors),
        "reference/testing.md": api_page("# Testing\n\n" + str(ecgmon.testing.__doc__), ecgmon.testing),
        "reference/command-line.md": command_line(),
    }
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(text: str, **_: Any) -> str:  # noqa: ANN401 - page, config and files
    """Make links to the README links to the front page; files that the site does not have are only named."""

    def moved(match: re.Match[str]) -> str:
        target, anchor = match["target"], match["anchor"] or ""
        if target == "../README.md":
            return f"](index.md{anchor})"
        return match[0] if not target.startswith("../") or target.endswith(".md") else "]"

    return _LINK.sub(moved, text)


def front_page(readme: str) -> str:
    """Make the front page of the README: what it links to in ``docs/`` lies beside it here."""

    def moved(match: re.Match[str]) -> str:
        target, anchor = match["target"], match["anchor"] or ""
        return f"]({target.removeprefix('docs/')}{anchor})" if target.startswith("docs/") else match[0]

    linked = _LINK.sub(moved, readme)
    # what lies outside docs/ is not on the site: its name stays
    return re.sub(r"\[([^\]]+)\]\((?!https?://)[A-Z][A-Za-z_]*(\.md)?\)", r"\1", linked)


def api_page(head: str, module: ModuleType) -> str:
    """Have mkdocstrings document the public names of a module."""
    names = [name for name in module.__all__ if not isinstance(getattr(module, name), ModuleType)]
    parts = [f"::: {module.__name__}.{name}\n\n{_MORE.get(name, '')}" for name in names]
    return "\n\n".join([head, *parts]) + "\n"


def command_line() -> str:
    """Write down every command with its options, from the parsers themselves."""
    lines = [
        "# Command line",
        "",
        "Made from the parsers of the commands; `ecgmon COMMAND --help` says the same.",
        "",
    ]
    for name, summary in COMMANDS.items():
        parser = argparse.ArgumentParser(prog=f"ecgmon {name}", add_help=False)
        import_module(f"ecgmon.monitor.cli.{name.replace('-', '_')}").add_arguments(parser)
        lines += [f"## `ecgmon {name}`", "", f"{summary[0].upper()}{summary[1:]}.", "", *_described(parser)]
    return "\n".join(lines) + "\n"


def _described(parser: argparse.ArgumentParser, level: int = 3) -> Iterator[str]:
    """Describe one parser, and those of its own commands."""
    if parser.description:
        yield from (parser.description, "")
    parser.formatter_class = _Wide
    yield from ("```text", parser.format_usage().strip(), "```", "")
    subparsers = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]  # noqa: SLF001
    rows = [_row(action) for action in parser._actions if action not in subparsers and action.help != argparse.SUPPRESS]  # noqa: SLF001
    if rows:
        yield from ("| argument | meaning |", "| --- | --- |", *rows, "")
    if parser.epilog:
        yield from ("```text", parser.epilog.strip(), "```", "")
    for action in subparsers:
        for name, sub in action.choices.items():
            yield from (f"{'#' * level} `{sub.prog}`" if sub.prog else f"{'#' * level} `{name}`", "")
            yield from _described(sub, level + 1)


class _Wide(argparse.HelpFormatter):
    """Breaks no line before a hundred characters, whatever terminal builds the site."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=100)


def _row(action: argparse.Action) -> str:
    """Write one argument down as a row of a table."""
    value = "" if action.nargs == 0 else f" {action.metavar or ''}"
    if action.choices is not None and action.metavar is None:
        value = f" {{{','.join(map(str, action.choices))}}}"
    names = ", ".join(f"`{option}{value if action.nargs != 0 else ''}`" for option in action.option_strings)
    shown = names or f"`{action.metavar or action.dest}`"
    text = (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
    return f"| {shown.replace('|', chr(92) + '|')} | {text.replace('|', chr(92) + '|')} |"
