"""Taking a changed configuration at SIGHUP: all of it or, where something about it is wrong, none.

A reload happens between two turns of a role's main loop.  What is wrong is logged, and the role
goes on as it was.  Some keys say where a role lives; these keep their values until it is started again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from ecgmon.models.weights.checkpoint import CheckpointError
from ecgmon.monitor.config.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecgmon.monitor.config.schema import Config
    from ecgmon.monitor.process.signals import ReloadRequest
    from ecgmon.monitor.process.systemd import Service

_log = structlog.get_logger("reload")

_FIXED: Final = {
    "monitor": ("runtime", "store.path", "network", "exporter", "log"),
    "worker": ("runtime", "network", "log"),
    "producer": ("runtime", "network", "producer", "source", "log"),
    "supervisor": ("runtime", "store.path", "network", "exporter", "log"),
}
"""Sections and keys of each role that hold until it is started again."""

_OWN: Final = {
    "monitor": ("store", "delivery", "alerts", "worker", *_FIXED["monitor"]),
    "worker": ("worker", *_FIXED["worker"]),
    "producer": _FIXED["producer"],
    "supervisor": ("store", "delivery", "alerts", "worker", "producer", "source", *_FIXED["supervisor"]),
}
"""What each role looks at."""


class ReloadError(Exception):
    """A changed configuration cannot be taken now; the message says why."""


def merged(old: Config, new: Config, role: str) -> tuple[Config, list[str]]:
    """Take what a role can change while it runs.

    Returns
    -------
    config : Config
        ``new``, with the values of ``old`` for keys that hold until the role is started again.
    held : list of str
        Dotted keys among these that differ.
    """
    held: list[str] = []
    for place in _FIXED[role]:
        section, _, name = place.partition(".")
        before, after = getattr(old, section), getattr(new, section)
        if before == after:
            continue
        if section == "source":
            held.append(section)
            kept = before
        else:
            differing = [key for key in before.__struct_fields__ if getattr(before, key) != getattr(after, key)]
            fixed = [key for key in differing if name in ("", key)]
            held += [f"{section}.{key}" for key in fixed]
            kept = msgspec.structs.replace(after, **{key: getattr(before, key) for key in fixed})
        new = msgspec.structs.replace(new, **{section: kept})
    return new, held


class Reloader:
    """Does the reload of one role.

    Parameters
    ----------
    role : str
        ``monitor``, ``worker``, ``producer`` or ``supervisor``.
    config : Config
        What the role runs with.
    load : callable
        Reads the configuration anew.
    asked : ReloadRequest
    service : Service
        Tells systemd that the role reloads, and in its status that it could not.
    refusals : tuple of exception types
        What :meth:`turned`'s ``apply`` may raise besides :class:`ReloadError` to refuse a configuration.
    ended : callable
        Called after each reload with whether it was taken.
    """

    def __init__(
        self,
        role: str,
        config: Config,
        load: Callable[[], Config],
        *,
        asked: ReloadRequest,
        service: Service,
        refusals: tuple[type[Exception], ...] = (),
        ended: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.config = config
        self._role = role
        self._load = load
        self._asked = asked
        self._service = service
        self._refusals: tuple[type[Exception], ...] = (ConfigError, CheckpointError, ReloadError, OSError, *refusals)
        self._refused = ""
        self._ended = ended

    def turned(self, said: Callable[[], str], apply: Callable[[Config], None]) -> None:
        """Take note that the loop has turned, and reload if that was asked for.

        Parameters
        ----------
        said : callable
            Says how things stand.
        apply : callable
            Takes the configuration: all of it, or it raises and changes nothing.
        """
        self._service.turned(lambda: said() + self._refused)
        if self._asked.taken():
            with self._service.reloading():
                self._reload(apply)
            self._ended(not self._refused)

    def _reload(self, apply: Callable[[Config], None]) -> None:
        try:
            config, held = merged(self.config, self._load(), self._role)
            changed = [name for name in dict.fromkeys(place.partition(".")[0] for place in _OWN[self._role])
                       if getattr(config, name) != getattr(self.config, name)]  # fmt: skip
            apply(config)
        except self._refusals as error:
            self._refused = "; the configuration as it is now was refused, see the log"
            _log.error("reload-refused", reason=str(error))
            return
        self._refused = ""
        self.config = config
        if held:
            _log.warning("restart-needed", keys=held)
        _log.info("reloaded", changed=changed)
