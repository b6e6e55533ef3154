"""Exit statuses of ``ecgmon``; a supervisor decides by them whether to restart a role."""

from __future__ import annotations

from typing import Final

DONE: Final = 0
"""Done, or drained after SIGTERM or Ctrl-C."""
FAILED: Final = 1
"""Something failed, and a message says what; a role may be restarted."""
WRONG_USAGE: Final = 2
"""The command line cannot be understood."""
REFUSED: Final = 3
"""A role cannot run, and a restart would not help: configuration, port, folder, model, keys."""
CRASHED: Final = 70
"""A bug; the traceback is in the log (EX_SOFTWARE of sysexits.h)."""
INTERRUPTED: Final = 130
"""Ctrl-C ended a command that does not drain."""
