"""Starts the roles as processes, starts them again when they fail, and ends them in the right order."""

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
_BACKOFF_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # waits between starts of a role that fails at once
_HEALTHY_SECONDS: Final = 30.0  # a role that ran for so long starts its waits anew
_TICK_SECONDS: Final = 0.05
_KILL_SECONDS: Final = 5.0  # beyond the drain bound, before a process that does not end is killed


class SupervisorError(Exception):
    """A role cannot be kept running; the message says which and why.

    Attributes
    ----------
    status : int
        Exit status for the whole: :data:`~ecgmon.monitor.process.exit_status.REFUSED` if the role said that it would fail again the same way.
    """

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True, eq=False)
class Role:
    """One process to keep running.

    Attributes
    ----------
    name : str
        ``monitor``, ``worker`` or ``producer``.
    process : Popen or None
    restarts : int
        Times that it was started again.
    """

    name: str
    once: bool = False
    """Whether it may come to its own end: a producer whose sources have ended."""
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
        With its folders resolved; handed to the children in the runtime folder.
    output : callable, optional
        Gets every line that a child writes to standard error; by default they go to this process's.

    Notes
    -----
    Children run in sessions of their own, so that Ctrl-C in a terminal reaches this process alone,
    which then ends them in order: producers first, while there is someone to store what they hold.
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
        """Start everything; returns when a worker has joined the monitor and the producer is on its way.

        Raises
        ------
        SupervisorError
            If the monitor or a worker ends by itself, or is not ready in time.  One that is killed is started again.
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
                self._look_after(role)
            if time.monotonic() > deadline:
                raise SupervisorError(f"the monitor and a worker were not ready within {_START_SECONDS:g} s")
            time.sleep(_TICK_SECONDS)
        if self.producer is not None and not stopping():
            self._spawn(self.producer)

    def _sweep(self) -> None:
        """Remove the configurations of supervisors that were killed."""
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
        role.process = subprocess.Popen(  # noqa: S603 - our own interpreter with arguments of our own
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
        """Look after the processes once: start again what has failed, when it is due.

        Returns
        -------
        bool
            False when the producer has come to its end and there is nothing more to come.

        Raises
        ------
        SupervisorError
            If a role says that it would fail again the same way.
        """
        for role in self.roles:
            self._look_after(role)
        return self.producer is None or self.producer.ended is None

    def _look_after(self, role: Role) -> None:
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
        """Have the roles take a changed configuration; the producer, if its sources have changed, by starting it again.

        Parameters
        ----------
        config : Config
            With the folders and addresses of the present one.
        """
        before, self._config = self._config, config
        self._write()
        for role in (self.monitor, *self.workers):
            if role.process is not None:
                role.process.send_signal(signal.SIGHUP)
        more = config.worker.count - len(self.workers)
        if more < 0:
            leaving, self.workers = self.workers[more:], self.workers[:more]
            self.end(leaving)  # its batches go to the others
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
        """Write the configuration that the roles read, so that none ever reads half of it."""
        draft = self._file.with_suffix(".new")
        made = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(made, "wb") as file:
            file.write(to_json(self._config))
        draft.replace(self._file)

    def stop(self) -> None:
        """End all processes, in order, each within the drain bound; kill what does not end."""
        for group in ([self.producer] if self.producer else [], [self.monitor], self.workers):
            self.end(group)
        for role in self.roles:
            if role.reader is not None:
                role.reader.join(timeout=1.0)
        self.client.close()
        self._file.unlink(missing_ok=True)

    def end(self, roles: list[Role]) -> None:
        """Ask some roles to end, and wait until they have."""
        running = [(role, role.process) for role in roles if role.process is not None]
        for _, process in running:
            process.terminate()
        deadline = time.monotonic() + self._config.runtime.drain_seconds + _KILL_SECONDS
        for role, process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _log.error("role-killed", role_ended=role.name, reason="it did not end within the drain bound")
                process.kill()
                process.wait()
            role.ended = process.returncode
            role.process = None
