"""The processes of one round: starts, kills, freezes and releases them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ecgmon.monitor.config.reading import to_json
from ecgmon.monitor.process.control import Client, NotRunningError
from tests.torture.faults import VICTIMS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ecgmon.monitor.config.schema import Config
    from ecgmon.monitor.core.status import Status

CHECKOUT: Final = Path(__file__).resolve().parents[2]

_RESTART_SECONDS: Final = 0.1  # between the end of a process and its next start
_END_SECONDS: Final = 10.0  # beyond the drain bound
_ENDING: Final = (signal.SIGINT, signal.SIGTERM)
_ASK_SECONDS: Final = 0.1  # longest wait for the monitor's status
_LOG_TAIL: Final = 2000  # characters shown of a log


class FailedError(Exception):
    """Something happened that must not happen; the message says what."""


@dataclass(slots=True, eq=False)
class Process:
    """One of the processes of a round.

    Attributes
    ----------
    ended : int or None
        Exit status of a process that was not killed here.
    """

    name: str
    log: Path
    running: subprocess.Popen[bytes] | None = None
    due: float = 0.0
    starts: int = 0
    frozen: bool = False
    ended: int | None = None

    @property
    def role(self) -> str:
        """``monitor``, ``worker`` or ``producer``."""
        return self.name.partition(" ")[0]

    @property
    def joined(self) -> bool:
        """Whether it has joined, or another role has joined it, since its last start."""
        return b'joined"' in self.log.read_bytes()

    def tail(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-_LOG_TAIL:]


@contextmanager
def _signals_held() -> Iterator[None]:
    """Delay Ctrl-C and SIGTERM: between its start and its registration a process would be left behind."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for late in came:
            signal.raise_signal(late)


@dataclass(slots=True)
class Roles:
    """The processes of one state folder.

    Parameters
    ----------
    config : Config
        Configuration, with the folders of the round.
    folder : Path
        Folder for their logs and the configuration file.
    """

    config: Config
    folder: Path
    processes: dict[str, Process] = field(init=False)
    client: Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = Client(Path(self.config.runtime.dir))
        self.processes = {name: Process(name, self.folder / f"{name.replace(' ', '-')}.log") for name in VICTIMS}
        (self.folder / "config.json").write_bytes(to_json(self.config))

    def _start(self, process: Process) -> None:
        with process.log.open("wb") as log, _signals_held():
            process.running = subprocess.Popen(
                [
                    sys.executable, "-m", "ecgmon", process.role,
                    "--resolved", str(self.folder / "config.json"), "--parent", str(os.getpid()),
                ],
                cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        process.starts += 1
        process.frozen = False

    def look(self) -> list[Process]:
        """Start the processes that are due and return them.

        Raises
        ------
        FailedError
            If a process ended that was not killed, except a producer with exit status 0.
        """
        now, started = time.monotonic(), []
        for process in self.processes.values():
            if process.running is not None:
                status = process.running.poll()
                if status is None:
                    continue
                process.running = None
                process.ended = status
                if process.role != "producer" or status != 0:
                    raise FailedError(f"the {process.name} ended with exit status {status}; its log:\n{process.tail()}")
            elif process.ended is None and now >= process.due:
                self._start(process)
                started.append(process)
        return started

    @property
    def done(self) -> bool:
        """Whether the producer has ended because everything is stored."""
        return self.processes["producer"].ended == 0

    def kill(self, process: Process) -> bool:
        """Kill a process; return False if it had already ended by itself."""
        assert process.running is not None
        process.running.kill()
        if process.running.wait() != -signal.SIGKILL:
            return False  # look() handles it
        process.running = None
        process.due = time.monotonic() + _RESTART_SECONDS
        return True

    def freeze(self, process: Process) -> None:
        """Stop a process with SIGSTOP."""
        assert process.running is not None
        process.running.send_signal(signal.SIGSTOP)
        process.frozen = True

    def release(self, process: Process) -> None:
        """Continue a frozen process."""
        if process.running is not None and process.frozen:
            process.running.send_signal(signal.SIGCONT)
        process.frozen = False

    def status(self) -> Status | None:
        """Return the monitor's status, if it answers at once."""
        monitor = self.processes["monitor"]
        if monitor.running is None or monitor.frozen:
            return None
        try:
            return self.client.status(timeout=_ASK_SECONDS)
        except NotRunningError:
            return None

    def end(self) -> None:
        """Ask all processes to end.

        Raises
        ------
        FailedError
            If a process does not end in time, or ends with another exit status than 0.
        """
        for role in ("producer", "monitor", "worker"):
            ending = [p for p in self.processes.values() if p.role == role and p.running is not None]
            for process in ending:
                assert process.running is not None
                joined = process.joined
                process.running.terminate()
                try:
                    status = process.running.wait(self.config.runtime.drain_seconds + _END_SECONDS)
                except subprocess.TimeoutExpired:
                    raise FailedError(f"the {process.name} does not end; its log:\n{process.tail()}") from None
                process.running = None
                if status != 0 and joined:  # a process that is still starting may have no signal handler yet
                    raise FailedError(f"the {process.name} ended with exit status {status}; its log:\n{process.tail()}")

    def close(self) -> None:
        """Kill the processes that still run: only those started here, by their ids."""
        for process in self.processes.values():
            if process.running is not None:
                process.running.kill()
                process.running.wait()
                process.running = None
        self.client.close()
