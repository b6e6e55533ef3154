"""The keys of the configuration, derived from its schema: names, types and allowed values."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from typing import Final, get_args, get_type_hints

import msgspec
from msgspec import inspect

from ecgmon.monitor.config.schema import Config, SourceSettings

ENVIRONMENT_PREFIX: Final = "ECGMON_"

SOURCE: Final = "source"
"""The only section that can be given several times: ``[[source]]``."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the configuration.

    Attributes
    ----------
    section : str
        Dotted name of its section, like ``alerts.priorities``.
    name : str
        Its name in the section.
    annotation : object
        Type with limits, for :func:`msgspec.convert`.
    default : object
        ``msgspec.NODEFAULT`` if the key is required.
    expected : str
        The allowed values, in words.
    unit : str
        Empty for none.
    description : str
        One line.
    """

    section: str
    name: str
    annotation: object
    default: object
    expected: str
    unit: str
    description: str

    @property
    def dotted(self) -> str:
        """Its full name, like ``exporter.port``."""
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        """The environment variable that sets it; empty for a key of ``[[source]]``, which has none."""
        if self.section == SOURCE:
            return ""
        return ENVIRONMENT_PREFIX + self.dotted.replace(".", "_").upper()


@cache
def sections() -> dict[str, type[msgspec.Struct]]:
    """Return the struct of every section by dotted name, in the order of the schema, nested ones after their parent."""
    found: dict[str, type[msgspec.Struct]] = {}

    def walk(struct: type[msgspec.Struct], prefix: str) -> None:
        for name, annotation in get_type_hints(struct).items():
            if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
                found[prefix + name] = annotation
                walk(annotation, f"{prefix}{name}.")
            elif (prefix + name) == SOURCE:
                found[SOURCE] = SourceSettings

    walk(Config, "")
    return found


@cache
def keys() -> dict[str, Key]:
    """Return every key by dotted name, in the order of the schema; those of ``[[source]]`` as ``source.record``."""
    found: dict[str, Key] = {}
    for section, struct in sections().items():
        hints = get_type_hints(struct, include_extras=True)
        for field in msgspec.structs.fields(struct):
            annotation = hints[field.name]
            if f"{section}.{field.name}" in sections():
                continue
            info = inspect.type_info(annotation)
            assert isinstance(info, inspect.Metadata)  # every key of the schema is described
            extra, schema = info.extra or {}, info.extra_json_schema or {}
            key = Key(
                section=section,
                name=field.name,
                annotation=annotation,
                default=field.default,
                expected=_expected(annotation, info.type, extra.get("form", "")),
                unit=extra["unit"],
                description=schema["description"],
            )
            found[key.dotted] = key
    return found


def _expected(annotation: object, info: inspect.Type, form: str) -> str:
    if isinstance(info, inspect.LiteralType):
        words = get_args(get_args(annotation)[0])  # in the order of the schema; inspect sorts them
        *most, last = (f'"{word}"' for word in words)
        return f"{', '.join(most)} or {last}"
    if isinstance(info, inspect.VarTupleType):
        return "a list of texts"
    if isinstance(info, (inspect.IntType, inspect.FloatType)):
        kind = "a whole number" if isinstance(info, inspect.IntType) else "a number"
        if info.gt is not None:
            return f"{kind} greater than {_plain(info.gt)}" + (
                "" if info.le is None else f", at most {_plain(info.le)}"
            )
        assert info.ge is not None  # every number of the schema has a lower limit
        return f"{kind} from {_plain(info.ge)} " + ("on" if info.le is None else f"to {_plain(info.le)}")
    return form


def _plain(limit: float) -> str:
    return str(int(limit)) if limit == int(limit) else str(limit)


def is_text(key: Key) -> bool:
    """Return whether a key holds text or one of several words, which have no quotes outside a file."""
    info = inspect.type_info(key.annotation)
    assert isinstance(info, inspect.Metadata)
    return isinstance(info.type, (inspect.StrType, inspect.LiteralType))


def nearest(name: str, section: str = "") -> str | None:
    """Find the valid key or section that was probably meant.

    Parameters
    ----------
    name : str
        The given name: dotted, or bare together with ``section``.
    section : str
        Section in which it was given; its similar keys are preferred to those of other sections.

    Returns
    -------
    str or None
        A dotted name of a key or section.
    """
    # A valid key in a wrong section, or without a section
    if elsewhere := [key.dotted for key in keys().values() if key.name == name.rpartition(".")[2]]:
        return elsewhere[0]
    own = [key.name for key in keys().values() if key.section == section]
    if match := difflib.get_close_matches(name, own, n=1, cutoff=0.6):
        return f"{section}.{match[0]}"
    dotted = f"{section}.{name}" if section else name
    match = difflib.get_close_matches(dotted, [*keys(), *sections()], n=1, cutoff=0.6)
    return match[0] if match else None
