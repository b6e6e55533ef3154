"""The worker: announces how many batches it accepts, scores them and answers.

It holds no state of any stream.  Any worker can score any batch and gives the same answer.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from ecgmon.pipelines import wire
from ecgmon.pipelines.transport.peer import Peer
from ecgmon.pipelines.transport.rate_limit import RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ecgmon.models.inference.reconstruction import Reconstruction, Scorer
    from ecgmon.pipelines.transport.keys import ConnectionKeys

_log = structlog.get_logger("worker")

_IDLE_MS: Final = 50  # longest sleep of the loop, in milliseconds; also the longest delay of a signal


class WorkerError(Exception):
    """The monitor refuses this worker, or it cannot start; the message says why."""


class Worker:
    """Scores the batches that the monitor sends.

    Parameters
    ----------
    address : str
        ZeroMQ address of the monitor's socket for workers.
    scorer : Scorer
    device : str
        Kind of the device of the scorer, ``cpu`` or ``cuda``, for the metrics.
    credit : int
        Batches to hold at a time: one in work, the others queued so that the worker does not wait.
    keys : ConnectionKeys or None
        Keys, for a monitor on tcp.
    spare : callable or None
        Makes the scorer to use after the device has failed: the same model on the CPU.
    clock : callable
        Monotonic time in seconds.
    """

    def __init__(
        self,
        address: str,
        scorer: Scorer,
        *,
        device: wire.Device,
        credit: int,
        keys: ConnectionKeys | None = None,
        spare: Callable[[], Scorer] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scorer = scorer
        self._spare = spare
        self._failed: Scorer | None = None
        self._device: wire.Device = device
        self._degraded = ""
        self._credit = credit
        self._clock = clock
        self._rate_limit = RateLimit()
        self.name = secrets.token_hex(4)
        self._peer = Peer(address, keys=keys, greeting=self._greeting, ping=self._ping, clock=clock)
        self.scored = 0
        self._refused = False

    def _greeting(self) -> list[bytes]:
        ready = wire.Ready(
            protocol=wire.PROTOCOL,
            worker=self.name,
            model=self._scorer.info.fingerprint,
            device=self._device,
            leads=self._scorer.info.leads,
            credit=self._credit,
            degraded=self._degraded,
        )
        return [wire.encode(ready)]

    def _ping(self, epoch: int) -> list[bytes]:
        return [wire.encode(wire.WorkerPing(epoch))]

    def run(self, stopping: Callable[[], bool], turned: Callable[[Callable[[], str]], None] = lambda _: None) -> None:
        """Serve until ``stopping()`` is true; the monitor gives unanswered batches to other workers.

        Parameters
        ----------
        stopping : callable
        turned : callable
            Called at every turn of the loop with a function that returns a status line.

        Raises
        ------
        WorkerError
            If the monitor refuses this worker for good.
        """
        while not stopping():
            self._peer.tick()
            frames = self._peer.receive(_IDLE_MS)
            if frames is not None:
                self._handle(frames)
            turned(self._status)
        self._peer.leave()
        _log.info("stopped", scored=self.scored)

    def _status(self) -> str:
        away = "" if self._peer.epoch else ", waiting for the monitor"
        degraded = f", degraded: {self._degraded}" if self._degraded else ""
        return f"{self._device}, {self.scored} beats scored{away}{degraded}"

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the current model."""
        return self._scorer.info.fingerprint

    def consume_refused(self) -> bool:
        """Return whether the monitor has refused this worker for now, and forget it."""
        refused, self._refused = self._refused, False
        return refused

    def renew(self, model: Model, *, credit: int) -> None:
        """Switch to another model; the monitor sends the batches of the old one again."""
        self._scorer, self._device, self._spare = model.scorer, model.device, model.spare
        self._degraded = ""
        self._credit = credit
        if self._peer.epoch:
            self._peer.send(self._greeting())

    def close(self) -> None:
        """Close the socket."""
        self._peer.close()

    def _handle(self, frames: list[bytes]) -> None:
        try:
            message = wire.decode(wire.to_worker, frames)
        except wire.WireError as error:
            if (more := self._rate_limit.due("message-rejected")) is not None:
                _log.warning("message-rejected", reason=error.reason, detail=str(error), others_since=more)
            return
        if isinstance(message, wire.Accepted):
            self._peer.welcomed(message.epoch, message.heartbeat)
            _log.info("joined", worker=self.name)
        elif isinstance(message, wire.Batch):
            if message.epoch == self._peer.epoch:
                self._score(message, frames)
        elif isinstance(message, wire.Unknown):
            self._peer.greet_again()
        elif isinstance(message, wire.Refused):
            if not message.retry:
                raise WorkerError(f"the monitor refuses this worker: {message.reason}")
            self._refused = True
            self._peer.wait_and_greet()

    def _score(self, message: wire.Batch, frames: list[bytes]) -> None:
        began = self._clock()
        try:
            windows = wire.unpack_batch(message, frames)
            raw = self._scored(windows)
        except Exception as error:  # noqa: BLE001 - no batch may end the worker
            if (more := self._rate_limit.due("batch-failed")) is not None:
                _log.exception("batch-failed", beats=message.beats, reason=str(error), others_since=more)
            self._peer.send([wire.encode(wire.Failed(message.epoch, message.batch, _short(error)))])
            return
        self.scored += message.beats
        self._peer.send(wire.pack_scores(message.epoch, message.batch, self._clock() - began, raw.ax, raw.ticks))
        if self._degraded and self._spare is not None:
            self._spare = None
            self._peer.send(self._greeting())  # after the answer: the monitor gives unanswered batches to others

    def _scored(self, windows: NDArray[np.float32]) -> Reconstruction:
        """Score windows; switch to the spare if the device fails, because the fault may lie in the GPU."""
        try:
            return self._scorer.score(windows)
        except Exception as error:
            if self._spare is None or self._degraded:
                raise
            _log.exception("device-failed", device=self._device)
            self._degraded, self._device = _short(error), "cpu"
            self._failed = self._scorer  # keep a reference: freeing memory of a failed GPU may end the process
            self._scorer = self._spare()
            return self._scorer.score(windows)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[: wire.MAX_TEXT]


@dataclass(frozen=True, slots=True)
class Model:
    """The model and device of a worker.

    Attributes
    ----------
    scorer : Scorer
    device : str
        Kind of the device, ``cpu`` or ``cuda``.
    spare : callable or None
        Makes the scorer to use if the device fails.
    """

    scorer: Scorer
    device: wire.Device
    spare: Callable[[], Scorer] | None


def load_model(weights: Path | None, device: str, threads: int) -> Model:
    """Load a model; the device ``auto`` means a GPU if there is one.

    Raises
    ------
    WorkerError
        If the device is not available.
    ecgmon.models.weights.checkpoint.CheckpointError
        If the weights cannot be used.
    """
    import torch

    from ecgmon.models.inference.reconstruction import Scorer

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise WorkerError('no CUDA device is available; set [worker] device to "auto" or "cpu"')
    scorer = Scorer(weights, device=device, threads=threads)
    _log.info("ready", model=scorer.info.name, device=device, captured=scorer.captured)
    if device == "cpu":
        return Model(scorer, "cpu", None)
    return Model(scorer, "cuda", lambda: Scorer(weights, device="cpu", threads=threads))
