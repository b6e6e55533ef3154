"""A registry of checkpoints in a folder, and which of them is deployed.

A checkpoint is a file with its fingerprint as its name, so its contents are checked whenever it is read.
``registry.json`` holds the names of the models and every promotion and rollback.  It is replaced as a whole and changed
under a lock, so a reader sees the state before or after a change.  Times and users are arguments.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from ecgmon.models.weights.checkpoint import CheckpointError, default_weights, read_info

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT: Final = 1
"""Version of ``registry.json``; another one is refused."""

SHIPPED: Final = "shipped"
"""Name of the model that is installed with ecgmon, which is deployed until another one is promoted."""

_FILE: Final = "registry.json"
_LOCK: Final = "lock"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")
_PREFIX: Final = re.compile(r"[0-9a-f]{4,64}")


class RegistryError(CheckpointError):
    """The registry is damaged, or it cannot do what is asked of it."""

    __module__ = "ecgmon.errors"


@dataclass(frozen=True, slots=True)
class Registered:
    """A model of the registry.

    Attributes
    ----------
    name : str
        Unique; :data:`SHIPPED` for the shipped model.
    fingerprint : str
        SHA-256 of the checkpoint in hexadecimal; :data:`SHIPPED` for the shipped model, which an upgrade may change.
    added : str
        Time in ISO 8601.
    by : str
        User who added it.
    origin : str
        File that it was copied from.
    """

    name: str
    fingerprint: str
    added: str = ""
    by: str = ""
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """A promotion or a rollback.

    Attributes
    ----------
    action : str
        ``promote`` or ``rollback``.
    when : str
        Time in ISO 8601.
    by : str
        User.
    before, after : str
        Fingerprints, or :data:`SHIPPED`.
    """

    action: str
    when: str
    by: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class _State:
    """The contents of ``registry.json``."""

    models: tuple[Registered, ...] = ()
    history: tuple[Change, ...] = ()

    @classmethod
    def parse(cls, plain: Any) -> Self:  # noqa: ANN401 - any JSON
        """Check the contents; raise ValueError, TypeError or LookupError for those that do not fit."""
        if plain["format"] != FORMAT:
            raise ValueError(f"it has format {plain['format']!r}; this version of ecgmon reads format {FORMAT}")
        models = tuple(Registered(**each) for each in plain["models"])
        history = tuple(Change(**each) for each in plain["history"])
        values = [value for each in plain["models"] + plain["history"] for value in each.values()]
        if not all(isinstance(value, str) for value in values):
            raise TypeError("a value is not text")
        for each in models:
            if not _FINGERPRINT.fullmatch(each.fingerprint):
                raise ValueError(f"{each.fingerprint!r} is not a fingerprint")
        known = {SHIPPED, *(each.fingerprint for each in models)}
        if unknown := {fingerprint for each in history for fingerprint in (each.before, each.after)} - known:
            raise ValueError(f"its history names {min(unknown)[:12]!r}, which is not among its models")
        state = cls(models, history)
        state.deployed()
        return state

    def deployed(self) -> tuple[str, ...]:
        """Return the fingerprints that a rollback goes back over; the last one is deployed."""
        stack = [SHIPPED]
        for change in self.history:
            if change.action == "promote":
                stack.append(change.after)
            elif change.action == "rollback" and len(stack) > 1:
                stack.pop()
            else:
                raise ValueError(f"its history has a {change.action!r} that is not possible")
        return tuple(stack)


def _digest(model: Registered) -> str:
    """Return the fingerprint of a model, also of the shipped one."""
    if model.fingerprint == SHIPPED:
        return hashlib.sha256(default_weights().read_bytes()).hexdigest()
    return model.fingerprint


class Registry:
    """The models of a folder.

    Parameters
    ----------
    folder : Path
        Made when the first model is added.  Other users may read it if its parent folders let them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def models(self) -> tuple[Registered, ...]:
        """Return all models, the shipped one first.

        Raises
        ------
        RegistryError
            If the registry cannot be read.
        """
        return (Registered(SHIPPED, SHIPPED), *self._read().models)

    def history(self) -> tuple[Change, ...]:
        """Return all promotions and rollbacks, the oldest first; errors as in :meth:`models`."""
        return self._read().history

    def deployed(self) -> Registered:
        """Return the deployed model; errors as in :meth:`models`."""
        return self._model(self._read().deployed()[-1])

    def find(self, text: str) -> Registered:
        """Find a model by its name, or by the first four or more digits of its fingerprint.

        Raises
        ------
        RegistryError
            If there is none, or several have these digits.
        """
        models = self.models()
        found = [each for each in models if each.name == text]
        if not found and _PREFIX.fullmatch(text):
            found = [each for each in models if _digest(each).startswith(text)]
        if len(found) > 1:
            names = ", ".join(f"{each.name} ({_digest(each)[:12]})" for each in found)
            raise RegistryError(f"several models have a fingerprint that begins with {text}: {names}; give a name")
        if not found:
            names = ", ".join(each.name for each in models)
            raise RegistryError(f"there is no model {text!r} in {self.folder}; expected {names} or a fingerprint")
        return found[0]

    def path(self, model: Registered) -> Path:
        """Return the checkpoint of a model, after checking its digest.

        Raises
        ------
        CheckpointError
            If the file is missing, or its contents are not those that were added.
        """
        if model.fingerprint == SHIPPED:
            return default_weights()
        path = self._file(model.fingerprint)
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise RegistryError(
                f"the checkpoint of {model.name}, {path}, cannot be read ({error.strerror}); "
                f"add it again with 'ecgmon models add FILE --name {model.name}'"
            ) from error
        if digest != model.fingerprint:
            raise RegistryError(
                f"{path} is damaged or was replaced: its SHA-256 is {digest[:12]}..., expected "
                f"{model.fingerprint[:12]}...; add it again with 'ecgmon models add FILE --name {model.name}'"
            )
        return path

    def checkpoint(self, text: str) -> Path:
        """Return a file by its path, or the checkpoint of a model as :meth:`find` and :meth:`path` do."""
        path = Path(text)
        return path if path.is_file() else self.path(self.find(text))

    def add(self, checkpoint: Path, name: str, *, when: str, by: str) -> Registered:
        """Copy a checkpoint into the registry; a model whose file is missing or damaged is restored.

        Parameters
        ----------
        checkpoint : Path
        name : str
            1 to 64 letters, digits, ``.``, ``_`` and ``-``.
        when, by : str
            Time and user.

        Raises
        ------
        CheckpointError
            If the file is not a checkpoint, the name is not valid or in use, or the model has another name.
        """
        if not _NAME.fullmatch(name) or name == SHIPPED:
            raise RegistryError(
                f"a model cannot be named {name!r}; expected 1 to 64 letters, digits, '.', '_' and '-', and not {SHIPPED!r}"
            )
        fingerprint = read_info(checkpoint).fingerprint
        data = checkpoint.read_bytes()
        if hashlib.sha256(data).hexdigest() != fingerprint:
            raise RegistryError(f"{checkpoint} has changed while it was read; try again")
        with self._changing() as state:
            for other in state.models:
                if other.name == name and other.fingerprint != fingerprint:
                    raise RegistryError(f"the name {name} belongs to {other.fingerprint[:12]}; choose another one")
                if other.fingerprint == fingerprint and other.name != name:
                    raise RegistryError(f"{checkpoint} is in the registry already, as {other.name}")
            self._replace(self._file(fingerprint), data)
            known = [each for each in state.models if each.fingerprint == fingerprint]
            if known:
                return known[0]
            added = Registered(name, fingerprint, when, by, str(checkpoint.absolute()))
            self._write(replace(state, models=(*state.models, added)))
            return added

    def promote(self, model: Registered, *, when: str, by: str) -> Change:
        """Deploy a model, after checking all of its file.

        Raises
        ------
        CheckpointError
            If the model is deployed already, or its checkpoint cannot be used.
        """
        read_info(self.path(model))
        with self._changing() as state:
            before = state.deployed()[-1]
            if before == model.fingerprint:
                raise RegistryError(f"{model.name} is deployed already")
            return self._record(state, Change("promote", when, by, before, model.fingerprint))

    def rollback(self, *, when: str, by: str) -> Change:
        """Deploy the model before the deployed one; again: the one before that.

        Raises
        ------
        CheckpointError
            If there is none, or its checkpoint cannot be used.
        """
        with self._changing() as state:
            stack = state.deployed()
            if len(stack) == 1:
                raise RegistryError(f"there is nothing to go back to: the {SHIPPED} model is deployed")
            read_info(self.path(self._model(stack[-2])))
            return self._record(state, Change("rollback", when, by, stack[-1], stack[-2]))

    def name_of(self, fingerprint: str) -> str:
        """Return the name of the model with a fingerprint of :meth:`history`."""
        return self._model(fingerprint).name

    def _model(self, fingerprint: str) -> Registered:
        return next(each for each in self.models() if each.fingerprint == fingerprint)

    def _file(self, fingerprint: str) -> Path:
        return self.folder / f"{fingerprint}.safetensors"

    def _read(self) -> _State:
        path = self.folder / _FILE
        try:
            return _State.parse(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return _State()
        except OSError as error:
            raise RegistryError(f"the registry {path} cannot be read: {error.strerror}") from error
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise RegistryError(
                f"the registry {path} is damaged ({error}); restore it from a backup, or move its folder away and add "
                "the models again"
            ) from error

    @contextmanager
    def _changing(self) -> Iterator[_State]:
        """Read the state, and keep other processes from changing it meanwhile."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / _LOCK).open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield self._read()
        except OSError as error:
            raise RegistryError(f"cannot write in the registry {self.folder}: {error.strerror or error}") from error

    def _record(self, state: _State, change: Change) -> Change:
        self._write(replace(state, history=(*state.history, change)))
        return change

    def _write(self, state: _State) -> None:
        self._replace(self.folder / _FILE, (json.dumps({"format": FORMAT, **asdict(state)}, indent=1) + "\n").encode())

    def _replace(self, path: Path, data: bytes) -> None:
        """Replace a file as a whole; it is on disk when this returns."""
        part = path.with_name(f"{path.name}.part")
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)  # the new name, too
        finally:
            os.close(folder)
