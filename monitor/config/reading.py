"""Reading the configuration: defaults, then the file, then the environment, then flags.

All problems are reported together, each with its place.  The environment is an argument, so the same
inputs always give the same configuration.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ecgmon.monitor.config.documentation import dump_toml
from ecgmon.monitor.config.errors import ConfigError, Problem
from ecgmon.monitor.config.keys import ENVIRONMENT_PREFIX, SOURCE, Key, is_text, keys, nearest, sections
from ecgmon.monitor.config.schema import AlertSettings, Config, SourceSettings, is_loopback
from ecgmon.monitor.config.toml import key_lines, line_of, toml_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "AlertSettings",
    "Config",
    "ConfigError",
    "Problem",
    "SourceSettings",
    "dump_toml",
    "from_json",
    "load",
    "problems",
    "to_json",
]

OTHER_VARIABLES: Final = frozenset({"ECGMON_MITDB", "ECGMON_REQUIRE_ALL"})
"""Environment variables of ecgmon that are not keys: the folder of MIT-BIH, and a switch that forbids skipped tests."""

_SHOWN: Final = 60  # characters of a wrong value that a message shows


def load(path: Path | None, *, environ: Mapping[str, str], overrides: Mapping[str, str]) -> Config:
    """Read the configuration.

    Parameters
    ----------
    path : Path or None
        TOML file; None for none.
    environ : mapping
        Environment: ``ECGMON_EXPORTER_PORT`` sets ``exporter.port``.  It also has the folders of systemd and XDG, and
        HOME.
    overrides : mapping
        Values of flags by dotted key, as text.

    Returns
    -------
    Config
        Without ``~`` in paths: those of ``runtime``, ``store``, ``worker``, ``exporter`` and ``network``.  Empty
        values of ``runtime.dir`` and ``store.path`` are replaced.

    Raises
    ------
    ConfigError
        With all problems.
    """
    layers = _Layers()
    if path is not None:
        layers.read_file(path)
    layers.read_environment(environ)
    layers.read_overrides(overrides)
    config = layers.config()
    if config is None:
        raise ConfigError(layers.problems)
    return _with_folders(config, environ)


def problems(path: Path | None, *, environ: Mapping[str, str], overrides: Mapping[str, str]) -> list[Problem]:
    """Return all problems of a configuration; parameters as in :func:`load`."""
    try:
        load(path, environ=environ, overrides=overrides)
    except ConfigError as error:
        return list(error.problems)
    return []


def to_json(config: Config) -> bytes:
    """Encode a configuration for a child process."""
    return msgspec.json.encode(config)


def from_json(data: bytes) -> Config:
    """Decode the output of :func:`to_json`.

    Raises
    ------
    ConfigError
        If it is not a configuration of this version.
    """
    try:
        return msgspec.json.decode(data, type=Config)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"{error}; expected the configuration as the supervisor encodes it: are the versions the same?"
        raise ConfigError([Problem("JSON", None, "", None, message)]) from error


def _shown(value: object) -> str:
    text = toml_value(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


@dataclass(frozen=True, slots=True)
class _Given:
    """A valid value and where it was given."""

    value: Any
    where: str
    line: int | None


@dataclass(frozen=True, slots=True)
class _Relation:
    """A condition between keys; if it does not hold, the problem names the first key."""

    keys: tuple[str, ...]
    holds: Callable[..., bool]
    expected: str


_RELATIONS: Final = (
    _Relation(
        ("delivery.dead_after_seconds", "delivery.heartbeat_seconds"),
        lambda dead, heartbeat: dead > heartbeat,
        "expected more than delivery.heartbeat_seconds, or every peer is taken to be dead",
    ),
    _Relation(
        ("delivery.batch_beats", "delivery.queue_items"),
        lambda batch, queue: batch <= queue,
        "expected at most delivery.queue_items, or no batch is ever full",
    ),
    _Relation(
        ("network.clients", "network.bind_producers", "network.bind_workers"),
        lambda clients, *binds: bool(clients) or not any(binds),
        "missing; a monitor that listens on tcp needs the list of those who may connect",
    ),
    _Relation(
        ("network.monitor_key", "network.connect_producers", "network.connect_workers"),
        lambda key, *connects: bool(key) or not any(connects),
        "missing; a role that connects over tcp knows its monitor by this key",
    ),
    _Relation(
        ("exporter.tls_certificate", "exporter.tls_key"),
        lambda certificate, key: bool(certificate) == bool(key),
        "expected both or neither of exporter.tls_certificate and exporter.tls_key",
    ),
    _Relation(
        ("exporter.user", "exporter.password_file"),
        lambda user, password: bool(user) == bool(password),
        "expected both or neither of exporter.user and exporter.password_file",
    ),
    _Relation(
        ("exporter.host", "exporter.tls_certificate", "exporter.password_file"),
        lambda host, *needed: is_loopback(host) or all(needed),
        "other hosts could read the metrics there; expected a loopback address such as 127.0.0.1, "
        "or all of exporter.tls_certificate, tls_key, user and password_file",
    ),
    _Relation(
        ("alerts.episode_beats_k", "alerts.episode_beats_m"),
        lambda k, m: k <= m,
        "expected at most alerts.episode_beats_m, or no episode is ever raised",
    ),
    _Relation(
        ("alerts.episode_clear_beats", "alerts.episode_beats_k"),
        lambda clear, k: clear < k,
        "expected less than alerts.episode_beats_k, or an episode is cleared as soon as it is raised",
    ),
    _Relation(
        ("alerts.asystole_first_seconds", "alerts.asystole_seconds"),
        lambda first, seconds: first >= seconds,
        "expected at least alerts.asystole_seconds",
    ),
    _Relation(
        ("alerts.bradycardia_clear_per_minute", "alerts.bradycardia_per_minute"),
        lambda clear, limit: clear > limit,
        "expected more than alerts.bradycardia_per_minute, or the alert flaps",
    ),
    _Relation(
        ("alerts.tachycardia_clear_per_minute", "alerts.tachycardia_per_minute"),
        lambda clear, limit: clear < limit,
        "expected less than alerts.tachycardia_per_minute, or the alert flaps",
    ),
    _Relation(
        ("alerts.bradycardia_clear_per_minute", "alerts.tachycardia_clear_per_minute"),
        lambda slow, fast: slow < fast,
        "expected less than alerts.tachycardia_clear_per_minute: some heart rate must be neither too low nor too high",
    ),
    _Relation(
        ("alerts.technical_seconds", "alerts.technical_window_seconds"),
        lambda seconds, window: seconds <= window,
        "expected at most alerts.technical_window_seconds, or the alerts are never raised",
    ),
    _Relation(
        ("alerts.noisy_seconds", "alerts.noisy_window_seconds"),
        lambda seconds, window: seconds <= window,
        "expected at most alerts.noisy_window_seconds, or the alert is never raised",
    ),
)


class _Layers:
    """Collects values and problems; later layers override earlier ones."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._given: dict[str, _Given] = {}
        self._sources: list[dict[str, _Given]] = []
        self._bad: set[str] = set()  # keys with an invalid value; their relations are not checked

    def read_file(self, path: Path) -> None:
        where = str(path)

        def refuse(message: str, line: int | None = None) -> None:
            self.problems.append(Problem(where, line, "", None, message))

        try:
            data = path.read_bytes()
        except FileNotFoundError:
            refuse("there is no such file; `ecgmon check-config --print` prints one to begin with")
            return
        except IsADirectoryError:
            refuse("this is a folder; expected a TOML file")
            return
        except OSError as error:
            refuse(f"the file cannot be read ({error.strerror}); expected a readable TOML file")
            return
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            byte = f"byte 0x{data[error.start]:02x}"
            refuse(f"{byte} is not UTF-8; save the file as UTF-8", data.count(b"\n", 0, error.start) + 1)
            return
        lines = key_lines(text)
        try:
            tree = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # a number of 5,000 digits raises a plain ValueError
            self._explain_syntax(where, text, lines, error)
            return
        self._read_tree(where, lines, tree)

    def _explain_syntax(self, where: str, text: str, lines: dict[str, list[int]], error: Exception) -> None:
        twice = {key: places for key, places in lines.items() if len(places) > 1}
        for key, places in twice.items():
            message = f"given a second time, first on line {places[0]}; keep one of them"
            self.problems.append(Problem(where, places[1], key, None, message))
        if not twice:
            at = re.search(r"\(at line (\d+), column \d+\)", str(error))
            line = int(at[1]) if at else len(text.splitlines()) if "end of document" in str(error) else None
            reason = re.sub(r" \(at .*\)$", "", str(error))
            self.problems.append(Problem(where, line, "", None, f"not TOML: {reason}"))

    def _read_tree(self, where: str, lines: dict[str, list[int]], tree: dict[str, Any], prefix: str = "") -> None:
        for name, value in tree.items():
            dotted = prefix + name
            line = line_of(lines, dotted)
            if "." in name:  # in quotes: a name with a dot in it, which no key has
                self._unknown(where, line, dotted, value)
            elif dotted == SOURCE:
                self._read_sources(where, lines, value)
            elif dotted in sections():
                if isinstance(value, dict):
                    self._read_tree(where, lines, value, f"{dotted}.")
                else:
                    line = line_of(lines, f"{dotted}.0") or line
                    message = f"expected a section: write [{dotted}] on a line of its own, once, and its keys under it"
                    self.problems.append(Problem(where, line, dotted, _shown(value), message))
            elif dotted in keys():
                self._take(self._given, keys()[dotted], value, where, line)
            else:
                self._unknown(where, line, dotted, value)

    def _read_sources(self, where: str, lines: dict[str, list[int]], value: object) -> None:
        if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
            message = (
                "expected a list of sections: write [[source]], in double brackets, before the keys of each stream"
            )
            self.problems.append(Problem(where, line_of(lines, SOURCE), SOURCE, _shown(value), message))
            return
        for number, table in enumerate(value):
            source: dict[str, _Given] = {}
            for name, item in table.items():
                line = line_of(lines, f"{SOURCE}.{number}.{name}")
                key = keys().get(f"{SOURCE}.{name}")
                if key is None:
                    self._unknown(where, line, f"{SOURCE}.{name}", item)
                else:
                    self._take(source, key, item, where, line)
            line = line_of(lines, f"{SOURCE}.{number}")
            if "record" not in table:
                message = f"missing; expected {keys()['source.record'].expected}: which record to play"
                self.problems.append(Problem(where, line, "source.record", None, message))
            self._relate_source(source)
            self._sources.append(source)

    def _relate_source(self, source: dict[str, _Given]) -> None:
        start, stop, name = (source.get(f"{SOURCE}.{key}") for key in ("start", "stop", "name"))
        if stop is not None and stop.value and stop.value <= (start.value if start else 0.0):
            message = (
                f"expected more than source.start ({start.value if start else 0.0:g} s), or 0 for the record's end"
            )
            self.problems.append(Problem(stop.where, stop.line, "source.stop", _shown(stop.value), message))
        if name is not None and name.value:
            for other in self._sources:
                first = other.get(f"{SOURCE}.name")
                if first is not None and first.value == name.value:
                    message = f"another stream has this id, on line {first.line}; give each its own"
                    self.problems.append(Problem(name.where, name.line, "source.name", _shown(name.value), message))

    def read_environment(self, environ: Mapping[str, str]) -> None:
        variables = {key.variable: key for key in keys().values() if key.variable}
        for variable in sorted(environ):
            if not variable.startswith(ENVIRONMENT_PREFIX) or variable in OTHER_VARIABLES:
                continue
            where = f"environment variable {variable}"
            key = variables.get(variable)
            if key is not None:
                self._take_text(key, environ[variable], where)
                continue
            meant = nearest(variable.removeprefix(ENVIRONMENT_PREFIX).lower().replace("_", ".", 1))
            hint = keys()[meant].variable if meant in keys() else None
            message = "names no key of the configuration; unset it, or give it the name of a key"
            self.problems.append(Problem(where, None, "", None, message, hint or None))

    def read_overrides(self, overrides: Mapping[str, str]) -> None:
        for dotted, text in overrides.items():
            key = keys().get(dotted)
            if key is None:
                section, _, name = dotted.rpartition(".")
                self._unknown("command line", None, dotted, text, nearest(name, section))
            elif key.section == SOURCE:
                message = "the streams can be set in a file only, in [[source]]"
                self.problems.append(Problem("command line", None, dotted, _shown(text), message))
            else:
                self._take_text(key, text, "command line")

    def _unknown(self, where: str, line: int | None, dotted: str, value: object, meant: str | None = None) -> None:
        section, _, name = dotted.rpartition(".")
        kind = "section" if isinstance(value, dict) else "key"
        self.problems.append(
            Problem(
                where,
                line,
                dotted,
                None if kind == "section" else _shown(value),
                f"there is no such {kind}",
                meant or nearest(name, section),
            )
        )

    def _take(self, into: dict[str, _Given], key: Key, value: object, where: str, line: int | None) -> None:
        """Take a typed value."""
        self._convert(into, key, value, _Given(value, where, line), strict=True)

    def _take_text(self, key: Key, text: str, where: str) -> None:
        """Take a value that was written as text."""
        self._convert(self._given, key, text, _Given(text, where, None), strict=is_text(key))

    def _convert(self, into: dict[str, _Given], key: Key, value: object, given: _Given, *, strict: bool) -> None:
        try:
            converted = msgspec.convert(value, type=key.annotation, strict=strict)
            valid = not isinstance(converted, float) or math.isfinite(converted)  # the limits accept NaN
        except (msgspec.ValidationError, OverflowError):
            valid = False
        if valid:
            into[key.dotted] = _Given(converted, given.where, given.line)
            self._bad.discard(key.dotted)
            return
        unit = f", in {key.unit}" if key.unit else ""
        message = f"expected {key.expected}{unit}"
        self.problems.append(Problem(given.where, given.line, key.dotted, _shown(given.value), message))
        self._bad.add(key.dotted)

    def _relate(self) -> None:
        for relation in _RELATIONS:
            if self._bad.intersection(relation.keys):
                continue
            givens = [self._given.get(name) for name in relation.keys]
            values = [
                keys()[name].default if given is None else given.value
                for name, given in zip(relation.keys, givens, strict=True)
            ]
            if not relation.holds(*values):
                # Report the place of the first key that was given
                place = next(given for given in givens if given is not None)
                others = ", ".join(
                    f"{name} is {_shown(value)}" for name, value in zip(relation.keys[1:], values[1:], strict=True)
                )
                self.problems.append(
                    Problem(
                        place.where,
                        place.line,
                        relation.keys[0],
                        _shown(values[0]),
                        f"{relation.expected} ({others})",
                    )
                )

    def config(self) -> Config | None:
        """Combine the layers; None if there is a problem."""
        self._relate()
        if self.problems:
            return None
        tree: dict[str, Any] = {section: {} for section in sections() if "." not in section}
        for section in sections():
            if "." in section:
                parent, _, name = section.partition(".")
                tree[parent][name] = {}
        for dotted, given in self._given.items():
            table = tree
            *path, name = dotted.split(".")
            for part in path:
                table = table[part]
            table[name] = given.value
        tree[SOURCE] = [
            {dotted.partition(".")[2]: given.value for dotted, given in source.items()} for source in self._sources
        ]
        return msgspec.convert(tree, type=Config)


def _with_folders(config: Config, environ: Mapping[str, str]) -> Config:
    def expanded(path: str) -> str:
        return str(_home(environ) / path[1:].lstrip("/")) if path == "~" or path.startswith("~/") else path

    # systemd separates several folders by colons; the first one has the unit's name
    runtime = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if not runtime:
        session = environ.get("XDG_RUNTIME_DIR")
        runtime = f"{session}/ecgmon" if session else f"/tmp/ecgmon-{os.getuid()}"  # noqa: S108 made with mode 0700 and checked
    state = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if not state and not config.store.path:
        state = str(Path(environ.get("XDG_STATE_HOME") or _home(environ) / ".local" / "state") / "ecgmon")

    replace = msgspec.structs.replace
    return replace(
        config,
        runtime=replace(config.runtime, dir=expanded(config.runtime.dir) or runtime),
        store=replace(config.store, path=expanded(config.store.path) or state),
        worker=replace(
            config.worker, weights=expanded(config.worker.weights), registry=expanded(config.worker.registry)
        ),
        exporter=replace(
            config.exporter,
            tls_certificate=expanded(config.exporter.tls_certificate),
            tls_key=expanded(config.exporter.tls_key),
            password_file=expanded(config.exporter.password_file),
        ),
        network=replace(
            config.network, clients=expanded(config.network.clients), key_file=expanded(config.network.key_file)
        ),
    )


def _home(environ: Mapping[str, str]) -> Path:
    try:
        return Path(environ.get("HOME") or Path.home())
    except RuntimeError as error:  # the system's list of users has no entry for the user
        message = "the user has no home folder; set HOME, or store.path and worker.weights to whole paths"
        raise ConfigError([Problem("environment", None, "", None, message)]) from error
