"""Run a generator over windows: A(x), and where in the window the difference lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from models.checkpoint import default_weights, load_generator
from models.windows import LENGTH, scale

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from models.distillation import AnyGenerator

TILE: Final = 64
"""Windows that the network always runs on at once, the last tile filled up with zeros.

Convolutions of another batch size may sum in another order.  With one size only, a beat's answer
does not depend, even in its last bit, on which beats it happened to be scored with: that is what
makes a replay repeatable at any speed and with any number of workers.
"""


class ScoringError(Exception):
    """Windows of a shape or type that the model can not take."""


@dataclass(frozen=True, slots=True)
class Raw:
    """What a generator makes of windows.

    Attributes
    ----------
    error : ndarray of float32, shape (n,)
        A(x): mean squared difference of scaled window and reconstruction, over leads and ticks.
        NaN for a window that holds values that are not finite.
    ticks : ndarray of float16, shape (n, 320)
        Squared difference per tick, mean over leads.  NaN for such a window.
    """

    error: NDArray[np.float32]
    ticks: NDArray[np.float16]


class Reconstructor:
    """A generator that is done with training, in the form that it runs in.

    Parameters
    ----------
    generator : Generator or DenseGenerator
        In evaluation mode, on ``device``.
    device : str
        Where torch computes, such as ``cpu`` or ``cuda:0``.

    Notes
    -----
    Answers are bit for bit the same whatever the batch, on one machine, device and number of
    threads.  Another processor may differ in the last bits.
    """

    def __init__(self, generator: AnyGenerator, *, device: str = "cpu") -> None:
        self._leads = generator.shape.leads
        self._device = device
        self._network = fused(generator)

    def score(self, windows: NDArray[np.float32]) -> Raw:
        """Compute A(x) and its ticks.

        Parameters
        ----------
        windows : ndarray of float32, shape (n, leads, 320)
            Filtered windows in mV, as the segmenter emits them.

        Returns
        -------
        Raw
            A window with a value that is not finite gets NaN and leaves the others alone.

        Raises
        ------
        ScoringError
            If the windows have another shape or type.
        """
        scaled, usable = self._scaled(windows)
        apart = self._reconstructed(scaled)
        np.subtract(scaled, apart, out=apart)
        np.square(apart, out=apart)
        tick = apart[:, 0] if self._leads == 1 else apart.mean(axis=1)
        error: NDArray[np.float32] = tick.mean(axis=-1)
        ticks = torch.from_numpy(tick).half().numpy()  # rounds as numpy does, in a fraction of the time
        error[~usable] = np.nan
        ticks[~usable] = np.nan
        return Raw(error, ticks)

    def reconstruct(self, windows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Compute what the generator sees and what it makes of it, for pictures.

        Parameters
        ----------
        windows : ndarray of float32, shape (n, leads, 320)
            Filtered windows in mV.

        Returns
        -------
        scaled : ndarray of float32, shape (n, leads, 320)
            The windows scaled to [-1, 1]; zeros for one with a value that is not finite.
        reconstruction : ndarray of float32, shape (n, leads, 320)

        Raises
        ------
        ScoringError
            If the windows have another shape or type.
        """
        scaled, _ = self._scaled(windows)
        return scaled, self._reconstructed(scaled)

    def _scaled(self, windows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Scale windows; tell which are finite, and put zeros for the others."""
        expected = (self._leads, LENGTH)
        if windows.ndim != 3 or windows.shape[1:] != expected or windows.dtype != np.float32:  # noqa: PLR2004 - n, leads, ticks
            raise ScoringError(
                f"windows are {windows.dtype} {windows.shape}; this model takes float32 (n, {expected[0]}, {expected[1]})"
            )
        with np.errstate(over="ignore", invalid="ignore"):  # the row is marked, which says more than a warning
            scaled = scale(windows)
        usable = np.logical_and.reduce(np.isfinite(windows) & np.isfinite(scaled), axis=(1, 2))
        scaled[~usable] = 0
        return scaled, usable

    def _reconstructed(self, scaled: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network tile by tile, the last tile filled up with zeros."""
        x = torch.from_numpy(scaled)
        x_hat = torch.empty_like(x)
        with torch.inference_mode():
            for first in range(0, len(x), TILE):
                tile = x[first : first + TILE]
                count = len(tile)
                if count < TILE:
                    tile = torch.nn.functional.pad(tile, (0, 0, 0, 0, 0, TILE - count))
                x_hat[first : first + TILE] = self._network(tile.to(self._device))[:count]
        return x_hat.numpy()


class Scorer(Reconstructor):
    """The generator of a checkpoint.

    Parameters
    ----------
    path : Path, optional
        Checkpoint; the shipped one where none is given.
    device : str
        As in :class:`Reconstructor`.
    threads : int
        Threads that torch computes with on a CPU.  This setting is the whole process's.

    Raises
    ------
    models.checkpoint.CheckpointError
        If the checkpoint can not be used.

    Attributes
    ----------
    info : ModelInfo
        What the checkpoint says, the score among it.
    """

    def __init__(self, path: Path | None = None, *, device: str = "cpu", threads: int = 1) -> None:
        torch.set_num_threads(threads)
        generator, self.info = load_generator(path or default_weights(), device)
        super().__init__(generator, device=device)


def fused(network: AnyGenerator) -> nn.Sequential:
    """Chain the layers of a generator and fold every batch norm into the layer before it, which leaves less to compute."""
    layers: list[nn.Module] = []
    for layer in network.layers():
        if isinstance(layer, nn.BatchNorm1d):
            before = layers.pop()
            if isinstance(before, nn.Linear):
                layers.append(fuse_linear_bn_eval(before, layer))
            else:
                assert isinstance(before, nn.Conv1d | nn.ConvTranspose1d)
                layers.append(fuse_conv_bn_eval(before, layer, transpose=isinstance(before, nn.ConvTranspose1d)))
        else:
            layers.append(layer)
    return nn.Sequential(*layers).eval()
