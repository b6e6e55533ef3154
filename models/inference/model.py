"""The public class of a model: from windows to reconstructions and A(x)."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from ecgmon.models.inference.threads import threads_restored
from ecgmon.models.weights.checkpoint import default_weights
from ecgmon.models.windows import LENGTH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

    from ecgmon.models.inference.reconstruction import Scorer
    from ecgmon.models.weights.checkpoint import ModelInfo

_THREADS: Final = 1  # as in a worker; with more threads the order of sums may differ


class Model:
    """A trained generator, made by :func:`ecgmon.load_model`.

    Attributes
    ----------
    name : str
    fingerprint : str
        SHA-256 of the checkpoint, in hexadecimal; it identifies the model in stores and metrics.
    leads : int
        Number of leads that the model uses.
    device : str
        Torch device.
    info : ModelInfo
        Description of the model in the checkpoint.

    Notes
    -----
    It may be used from several threads; one of them computes at a time.  During a call torch uses one thread, as in the
    daemon's worker, so that the results have the same bits.  Afterwards torch's number of threads is restored.
    """

    __module__ = "ecgmon"

    def __init__(self, path: Path, device: str = "cpu") -> None:
        from ecgmon.models.inference.device import DeviceError, check_device
        from ecgmon.models.inference.reconstruction import Scorer

        self._lock = threading.RLock()
        try:
            check_device(device)
        except DeviceError as error:
            raise ValueError(str(error)) from error
        with self._one_thread():
            self._scorer = Scorer(path, device=device, threads=_THREADS)
        self.info: ModelInfo = self._scorer.info
        self.name = self.info.name
        self.fingerprint = self.info.fingerprint
        self.leads = self.info.leads
        self.device = device

    def __repr__(self) -> str:
        return f"<ecgmon.Model: {self.name}, {self.fingerprint[:12]}, on {self.device}>"

    def reconstruct(self, windows: ArrayLike) -> NDArray[np.float32]:
        """Reconstruct windows.

        Parameters
        ----------
        windows : array_like of float, shape (n, leads, 320) or (n, 320)
            Filtered windows in mV, as in :attr:`ecgmon.Beats.windows`.  Leads beyond those of the model are ignored.

        Returns
        -------
        ndarray of float32, shape (n, model's leads, 320) or (n, 320)
            In mV; the minimum and maximum of the window correspond to -1 and 1 of the generator's output.  NaN for a
            window with a value that is not finite.

        Raises
        ------
        ecgmon.errors.ScoringError
            If the shape of the windows is not valid.

        Examples
        --------
        >>> import ecgmon
        >>> from ecgmon.testing import synthetic_ecg
        >>> beats = ecgmon.segment(synthetic_ecg(10).signal, 360)
        >>> ecgmon.load_model().reconstruct(beats.windows).shape
        (12, 1, 320)
        """
        taken, flat = self._taken(windows)
        with self.running() as scorer:
            _, scaled = scorer.reconstruct(taken)
        finite = np.isfinite(taken).all(axis=(1, 2), keepdims=True)  # the scorer replaced other windows by zeros
        known = np.where(finite, taken, np.float32(np.nan))
        low, high = known.min(axis=-1, keepdims=True), known.max(axis=-1, keepdims=True)
        in_mv: NDArray[np.float32] = low + (scaled + np.float32(1)) * ((high - low) / np.float32(2))
        return in_mv[:, 0] if flat else in_mv

    def anomaly_score(self, windows: ArrayLike) -> NDArray[np.float32]:
        """Compute A(x): the mean squared difference of a window and its reconstruction.

        Parameters
        ----------
        windows : array_like of float, shape (n, leads, 320) or (n, 320)
            As for :meth:`reconstruct`.

        Returns
        -------
        ndarray of float32, shape (n,)
            A(x) of the windows scaled to [-1, 1], without a unit; NaN for a window with a value that is not finite.

        Raises
        ------
        ecgmon.errors.ScoringError
            If the shape of the windows is not valid.

        Examples
        --------
        >>> import ecgmon
        >>> from ecgmon.testing import synthetic_ecg
        >>> beats = ecgmon.segment(synthetic_ecg(10).signal, 360)
        >>> ax = ecgmon.load_model().anomaly_score(beats.windows)
        >>> ax.shape, bool((ax < 0.1).all())
        ((12,), True)
        """
        taken, _ = self._taken(windows)
        with self.running() as scorer:
            return scorer.score(taken).ax

    @contextmanager
    def running(self) -> Iterator[Scorer]:
        """Provide the scorer, with one torch thread during its use."""
        with self._lock, self._one_thread():
            yield self._scorer

    def _taken(self, windows: ArrayLike) -> tuple[NDArray[np.float32], bool]:
        """Select the leads that the model uses; also return whether the windows had no axis for leads."""
        from ecgmon.models.inference.reconstruction import ScoringError

        given = np.asarray(windows, np.float32)
        flat = given.ndim == 2  # noqa: PLR2004 - windows by ticks
        whole = given[:, None] if flat else given
        if whole.ndim != 3 or whole.shape[1] < self.leads or whole.shape[2] != LENGTH:  # noqa: PLR2004 - windows, leads, ticks
            raise ScoringError(
                f"the windows have shape {given.shape}; expected (n, {self.leads} or more leads, {LENGTH})"
                + (f" or (n, {LENGTH})" if self.leads == 1 else "")
            )
        return np.ascontiguousarray(whole[:, : self.leads]), flat

    @contextmanager
    def _one_thread(self) -> Iterator[None]:
        import torch

        with threads_restored():
            torch.set_num_threads(_THREADS)
            yield


def load_model(weights: Path | str | None = None, *, device: str = "cpu") -> Model:
    """Load a model.

    Parameters
    ----------
    weights : Path or str, optional
        Checkpoint, as written by :func:`ecgmon.train`; by default the shipped one, which is loaded only once.
    device : str
        Torch device, such as ``cpu`` or ``cuda``.

    Returns
    -------
    Model

    Raises
    ------
    ecgmon.errors.CheckpointError
        If the checkpoint is missing or damaged, or the file is not a checkpoint.
    ValueError
        If torch cannot use the device.

    Examples
    --------
    >>> import ecgmon
    >>> model = ecgmon.load_model()
    >>> model.leads, model.device
    (1, 'cpu')
    >>> ecgmon.load_model("nowhere.safetensors")
    Traceback (most recent call last):
        ...
    ecgmon.errors.CheckpointError: there is no checkpoint at nowhere.safetensors...
    """
    return _shipped(device) if weights is None else Model(Path(weights).expanduser(), device)


load_model.__module__ = "ecgmon"


@cache
def _shipped(device: str) -> Model:
    return Model(default_weights(), device)
