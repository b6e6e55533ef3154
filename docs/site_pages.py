"""Generated pages of the site: the front page, the API and the command line.

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
"""Text added below a name."""

CHECKOUT: Final = Path(__file__).resolve().parent.parent

_LINK: Final = re.compile(r"\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")

_PYTHON: Final = """\
# Python

`import ecgmon` is fast: the modules behind a name are imported when it is first used. Signals are in mV, times in
seconds, rates in Hz; arrays have one row per beat. The tests run every example on this page.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
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
    """Change links to the README into links to the front page, and links to files outside the site into plain text."""

    def moved(match: re.Match[str]) -> str:
        target, anchor = match["target"], match["anchor"] or ""
        if target == "../README.md":
            return f"](index.md{anchor})"
        return match[0] if not target.startswith("../") or target.endswith(".md") else "]"

    return _LINK.sub(moved, text)


def front_page(readme: str) -> str:
    """Make the front page from the README; links into ``docs/`` become links beside the page."""

    def moved(match: re.Match[str]) -> str:
        target, anchor = match["target"], match["anchor"] or ""
        return f"]({target.removeprefix('docs/')}{anchor})" if target.startswith("docs/") else match[0]

    linked = _LINK.sub(moved, readme)
    # files outside docs/ are not on the site: only their names stay
    return re.sub(r"\[([^\]]+)\]\((?!https?://)[A-Z][A-Za-z_]*(\.md)?\)", r"\1", linked)


def api_page(head: str, module: ModuleType) -> str:
    """Write a page on which mkdocstrings documents the public names of a module."""
    names = [name for name in module.__all__ if not isinstance(getattr(module, name), ModuleType)]
    parts = [f"::: {module.__name__}.{name}\n\n{_MORE.get(name, '')}" for name in names]
    return "\n\n".join([head, *parts]) + "\n"


def command_line() -> str:
    """Write a page with every command and its options, from the parsers."""
    lines = [
        "# Command line",
        "",
        "Made from the parsers of the commands; `ecgmon COMMAND --help` prints the same.",
        "",
    ]
    for name, summary in COMMANDS.items():
        parser = argparse.ArgumentParser(prog=f"ecgmon {name}", add_help=False)
        import_module(f"ecgmon.monitor.cli.{name.replace('-', '_')}").add_arguments(parser)
        lines += [f"## `ecgmon {name}`", "", f"{summary[0].upper()}{summary[1:]}.", "", *_described(parser)]
    return "\n".join(lines) + "\n"


def _described(parser: argparse.ArgumentParser, level: int = 3) -> Iterator[str]:
    """Describe one parser and its subcommands."""
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
    """Breaks lines at a hundred characters, regardless of the terminal."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=100)


def _row(action: argparse.Action) -> str:
    """Write one argument as a row of a table."""
    value = "" if action.nargs == 0 else f" {action.metavar or ''}"
    if action.choices is not None and action.metavar is None:
        value = f" {{{','.join(map(str, action.choices))}}}"
    names = ", ".join(f"`{option}{value if action.nargs != 0 else ''}`" for option in action.option_strings)
    shown = names or f"`{action.metavar or action.dest}`"
    text = (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
    return f"| {shown.replace('|', chr(92) + '|')} | {text.replace('|', chr(92) + '|')} |"
