"""Logging: one event per line, on standard error."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

    from ecgmon.monitor.config.schema import LogSettings

_SYSLOG: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}

_FIRST: Final = ("timestamp", "level", "role", "pid", "event")  # first fields of every line


class _Line:
    """Formats an event as a line of JSON, with its priority in front for journald."""

    def __init__(self, *, prefixed: bool) -> None:
        self._prefixed = prefixed

    def __call__(self, _: WrappedLogger, level: str, event: EventDict) -> str:
        import json

        first = {key: event.pop(key) for key in _FIRST if key in event}
        text = json.dumps({**first, **event}, default=str)
        return f"<{_SYSLOG.get(level, 6)}>{text}" if self._prefixed else text


def configure(settings: LogSettings, *, role: str) -> None:
    """Set up structlog for a process.

    Parameters
    ----------
    settings : LogSettings
    role : str
        Name of the process, a field of every line.
    """
    journal = "JOURNAL_STREAM" in os.environ
    console = settings.format == "console" or (settings.format == "auto" and not journal and sys.stderr.isatty())
    last: Processor = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()) if console else _Line(prefixed=journal)

    def with_role(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["role"] = role
        event["pid"] = os.getpid()
        return event

    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        with_role,
        structlog.processors.format_exc_info,
        last,
    ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.level.upper()]),
        # one write per line, with its newline: lines of processes that share a log must not mix
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
