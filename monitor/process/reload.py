"""Reload of the configuration at SIGHUP: a valid one is applied as a whole, an invalid one not at all.

A reload happens between two turns of a role's main loop.  If it is refused, the reason is logged and the role
continues unchanged.  Folders, addresses and some other keys keep their values until the role is restarted.
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
"""Sections and keys of each role that keep their values until it is restarted."""

_OWN: Final = {
    "monitor": ("store", "delivery", "alerts", "worker", *_FIXED["monitor"]),
    "worker": ("worker", *_FIXED["worker"]),
    "producer": _FIXED["producer"],
    "supervisor": ("store", "delivery", "alerts", "worker", "producer", "source", *_FIXED["supervisor"]),
}
"""Sections and keys that each role uses."""


class ReloadError(Exception):
    """A changed configuration cannot be applied now; the message says why."""


def merged(old: Config, new: Config, role: str) -> tuple[Config, list[str]]:
    """Merge into a configuration the changes that a role can apply while it runs.

    Returns
    -------
    config : Config
        ``new``, with the values of ``old`` for keys that need a restart of the role.
    held : list of str
        Dotted keys that differ and need a restart.
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
    """Reloads the configuration of one role.

    Parameters
    ----------
    role : str
        ``monitor``, ``worker``, ``producer`` or ``supervisor``.
    config : Config
        The current configuration.
    load : callable
        Reads the configuration again.
    request : ReloadRequest
    service : Service
        Notifies systemd of a reload, and shows in its status that one was refused.
    refusals : tuple of exception types
        Errors besides :class:`ReloadError` by which ``apply`` may refuse a configuration.
    ended : callable
        Called after each reload with whether it succeeded.
    """

    def __init__(
        self,
        role: str,
        config: Config,
        load: Callable[[], Config],
        *,
        request: ReloadRequest,
        service: Service,
        refusals: tuple[type[Exception], ...] = (),
        ended: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.config = config
        self._role = role
        self._load = load
        self._request = request
        self._service = service
        self._refusals: tuple[type[Exception], ...] = (ConfigError, CheckpointError, ReloadError, OSError, *refusals)
        self._refused = ""
        self._ended = ended

    def turned(self, status: Callable[[], str], apply: Callable[[Config], None]) -> None:
        """Note a turn of the loop, and reload if requested.

        Parameters
        ----------
        status : callable
            Returns a status line.
        apply : callable
            Applies the configuration as a whole, or raises and changes nothing.
        """
        self._service.turned(lambda: status() + self._refused)
        if self._request.consume():
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
            self._refused = "; the changed configuration was refused, see the log"
            _log.error("reload-refused", reason=str(error))
            return
        self._refused = ""
        self.config = config
        if held:
            _log.warning("restart-needed", keys=held)
        _log.info("reloaded", changed=changed)
