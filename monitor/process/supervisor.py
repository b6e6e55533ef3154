"""Starts the roles as processes, restarts them when they fail, and stops them in the right order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import structlog

from ecgmon.monitor.config.reading import to_json
from ecgmon.monitor.process.control import Client, NotRunningError
from ecgmon.monitor.process.exit_status import DONE, FAILED, REFUSED

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecgmon.monitor.config.schema import Config

_log = structlog.get_logger("supervisor")

_START_SECONDS: Final = 60.0  # until the monitor answers and a worker has loaded its model
_BACKOFF_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # waits before the restarts of a role that keeps failing
_HEALTHY_SECONDS: Final = 30.0  # a role that ran this long begins with the first wait again
_TICK_SECONDS: Final = 0.05
_KILL_SECONDS: Final = 5.0  # after ``drain_seconds``, before a process that does not stop is killed


class SupervisorError(Exception):
    """A role cannot be kept running; the message says which and why.

    Attributes
    ----------
    status : int
        Exit status of the program: :data:`~ecgmon.monitor.process.exit_status.REFUSED` if a restart of the role would not help.
    """

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True, eq=False)
class Role:
    """One process that is kept running.

    Attributes
    ----------
    name : str
        ``monitor``, ``worker`` or ``producer``.
    process : Popen or None
    restarts : int
        Number of restarts.
    """

    name: str
    once: bool = False
    """Whether the process may end by itself, like a producer whose sources have ended."""
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    restarts: int = 0
    failures: int = 0
    due: float = 0.0
    ended: int | None = None
    reader: threading.Thread | None = field(default=None)


class Supervisor:
    """The three roles of a configuration, as child processes.

    Parameters
    ----------
    config : Config
        With resolved folders; the children read it from the runtime folder.
    output : callable, optional
        Called with every line that a child writes to standard error; by default the lines go to this process's.

    Notes
    -----
    Each child runs in its own session, so that Ctrl-C in a terminal reaches only this process, which then
    stops the children in order: the producer first, while the monitor can still store its items.
    """

    def __init__(self, config: Config, *, output: Callable[[str], None] | None = None) -> None:
        self._config = config
        self._runtime = Path(config.runtime.dir)
        self._output = output
        self._file = self._runtime / f"supervised-{os.getpid()}.json"
        self.monitor = Role("monitor")
        self.workers = [Role("worker") for _ in range(config.worker.count)]
        self.producer = Role("producer", once=True) if config.source else None
        self.client = Client(self._runtime)

    @property
    def roles(self) -> list[Role]:
        """All roles, in the order in which they are started."""
        return [self.monitor, *self.workers, *([self.producer] if self.producer else [])]

    def start(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Start all roles; return when a worker has joined the monitor and the producer has been started.

        Raises
        ------
        SupervisorError
            If the monitor or a worker exits by itself, or is not ready in time.  A killed one is restarted.
        """
        try:
            self._runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._sweep()
            self._write()
        except OSError as error:
            raise SupervisorError(f"cannot write in the runtime folder {self._runtime}: {error.strerror}") from error
        for role in (self.monitor, *self.workers):
            self._spawn(role)
        deadline = time.monotonic() + _START_SECONDS
        while not stopping() and not self._ready():
            for role in (self.monitor, *self.workers):
                status = None if role.process is None else role.process.poll()
                if status is not None and status >= 0:
                    raise SupervisorError(
                        f"the {role.name} ended with exit status {status}; its message is above",
                        REFUSED if status == REFUSED else FAILED,
                    )
                self._check(role)
            if time.monotonic() > deadline:
                raise SupervisorError(f"the monitor and a worker were not ready within {_START_SECONDS:g} s")
            time.sleep(_TICK_SECONDS)
        if self.producer is not None and not stopping():
            self._spawn(self.producer)

    def _sweep(self) -> None:
        """Remove the configuration files of supervisors that were killed."""
        for left in self._runtime.glob("supervised-*.*"):
            pid = left.stem.removeprefix("supervised-")
            if pid.isdecimal() and not Path("/proc", pid).exists():
                left.unlink(missing_ok=True)

    def _ready(self) -> bool:
        try:
            status = self.client.status(timeout=0.2)
        except NotRunningError:
            return False
        return bool(status.workers) or not self.workers

    def _spawn(self, role: Role) -> None:
        command = [
            sys.executable,
            "-m",
            "ecgmon",
            role.name,
            "--resolved",
            str(self._file),
            "--parent",
            str(os.getpid()),
        ]
        role.started = time.monotonic()
        role.process = subprocess.Popen(  # noqa: S603 - this interpreter with known arguments
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None if self._output is None else subprocess.PIPE,
            start_new_session=True,
        )
        if self._output is not None:
            assert role.process.stderr is not None
            role.reader = threading.Thread(target=self._forward, args=(role.process.stderr, self._output), daemon=True)
            role.reader.start()

    @staticmethod
    def _forward(stream: IO[bytes], output: Callable[[str], None]) -> None:
        with stream:
            for line in stream:
                output(line.decode(errors="replace").rstrip())

    def watch(self) -> bool:
        """Check the processes once, and restart failed ones when they are due.

        Returns
        -------
        bool
            False when the producer has ended and no more items will come.

        Raises
        ------
        SupervisorError
            If a role cannot run and a restart would not help.
        """
        for role in self.roles:
            self._check(role)
        return self.producer is None or self.producer.ended is None

    def _check(self, role: Role) -> None:
        now = time.monotonic()
        if role.process is None:
            if role.ended is None and now >= role.due:
                role.restarts += 1
                self._spawn(role)
            return
        status = role.process.poll()
        if status is None:
            return
        role.process = None
        if role.once and status in (DONE, FAILED):
            role.ended = status
            return
        if status == REFUSED:
            role.ended = status
            raise SupervisorError(f"the {role.name} cannot run; its message is above", status)
        role.failures = 0 if now - role.started > _HEALTHY_SECONDS else role.failures + 1
        wait = _BACKOFF_SECONDS[min(role.failures, len(_BACKOFF_SECONDS) - 1)]
        role.due = now + wait
        _log.error("role-ended", role_ended=role.name, exit_status=status, restart_seconds=wait)

    def reload(self, config: Config) -> None:
        """Make the roles reload a changed configuration; restart the producer if its sources have changed.

        Parameters
        ----------
        config : Config
            With the folders and addresses of the current one.
        """
        before, self._config = self._config, config
        self._write()
        for role in (self.monitor, *self.workers):
            if role.process is not None:
                role.process.send_signal(signal.SIGHUP)
        more = config.worker.count - len(self.workers)
        if more < 0:
            leaving, self.workers = self.workers[more:], self.workers[:more]
            self.end(leaving)  # their batches go to other workers
        for _ in range(more):
            self.workers.append(Role("worker"))
            self._spawn(self.workers[-1])
        if (before.source, before.producer) != (config.source, config.producer):
            if self.producer is not None:
                self.end([self.producer])
            self.producer = Role("producer", once=True) if config.source else None
            if self.producer is not None:
                self._spawn(self.producer)

    def _write(self) -> None:
        """Write the configuration for the roles atomically, so that none reads half of it."""
        draft = self._file.with_suffix(".new")
        made = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(made, "wb") as file:
            file.write(to_json(self._config))
        draft.replace(self._file)

    def stop(self) -> None:
        """Stop all processes in order, each within the drain time; kill those that do not stop."""
        for group in ([self.producer] if self.producer else [], [self.monitor], self.workers):
            self.end(group)
        for role in self.roles:
            if role.reader is not None:
                role.reader.join(timeout=1.0)
        self.client.close()
        self._file.unlink(missing_ok=True)

    def end(self, roles: list[Role]) -> None:
        """Ask some roles to stop, and wait for them."""
        running = [(role, role.process) for role in roles if role.process is not None]
        for _, process in running:
            process.terminate()
        deadline = time.monotonic() + self._config.runtime.drain_seconds + _KILL_SECONDS
        for role, process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _log.error("role-killed", role_ended=role.name, reason="it did not stop within the drain time")
                process.kill()
                process.wait()
            role.ended = process.returncode
            role.process = None
