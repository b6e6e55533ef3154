"""Errors of a configuration; this module imports nothing of ecgmon, because every command imports it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a configuration.

    Attributes
    ----------
    where : str
        The file, environment variable or flag.
    line : int or None
        Line in the file, from 1.
    key : str
        Dotted key; empty if the problem has no key.
    value : str or None
        The wrong value, as TOML.
    message : str
        What is wrong, what was expected and, if it is not obvious, what to do.
    nearest : str or None
        The valid key that was probably meant.
    """

    where: str
    line: int | None
    key: str
    value: str | None
    message: str
    nearest: str | None = None

    def __str__(self) -> str:
        place = self.where if self.line is None else f"{self.where}:{self.line}"
        subject = "" if not self.key else f" {self.key}:" if self.value is None else f" {self.key} = {self.value}:"
        hint = f"; did you mean {self.nearest}?" if self.nearest else ""
        return f"{place}:{subject} {self.message}{hint}"


class ConfigError(Exception):
    """The configuration cannot be used.

    Parameters
    ----------
    problems : sequence of Problem
        All problems, at least one.
    """

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, problems)))
