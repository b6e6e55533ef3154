"""Run a generator over windows: A(x), and where in the window the difference lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from ecgmon.models.inference import passband
from ecgmon.models.inference.gpu import Resident
from ecgmon.models.inference.products import ROWS, Product, row_means
from ecgmon.models.weights.checkpoint import default_weights, load_generator
from ecgmon.models.windows import LENGTH

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from ecgmon.models.networks.generator import AnyGenerator

BLOCK: Final = 256
"""Windows that are worked on at a time, so that they stay in the processor's cache; no answer depends on it."""

_LARGEST_REMAINDER: Final = 2e-5  # root mean square of what sampling may miss of a scaled window


class ScoringError(Exception):
    """Windows of a shape or type that the model cannot take."""

    __module__ = "ecgmon.errors"


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """What a generator makes of windows.

    Attributes
    ----------
    ax : ndarray of float32, shape (n,)
        A(x): mean squared difference of scaled window and reconstruction, over leads and ticks.
        NaN for a window that holds values that are not finite.
    ticks : ndarray of float16, shape (n, 320)
        Squared difference per tick, mean over leads.  NaN for such a window.
    """

    ax: NDArray[np.float32]
    ticks: NDArray[np.float16]


class Reconstructor:
    """A generator that is done with training, in the form that it runs in.

    Parameters
    ----------
    generator : Generator or DenseGenerator
        In evaluation mode, on ``device``.
    device : str
        Where torch computes, such as ``cpu`` or ``cuda:0``.

    Attributes
    ----------
    multiply_adds : int
        Multiply-adds for one filtered window, in the form that runs here.
    captured : bool
        Whether it runs as a CUDA graph.

    Notes
    -----
    On a CPU, a dense generator gives the same bits in every batch, process and thread, and on every x86-64 processor: see
    :mod:`ecgmon.models.inference.products`.  A convolutional one, which is not deployed, and a GPU give the same bits on one
    machine with one number of threads.

    A dense generator runs as :class:`Sampled` does.  A window that did not pass the window filter, so that it cannot
    be told from its samples, runs through the whole network: which way a window goes depends on that window alone.
    """

    def __init__(self, generator: AnyGenerator, *, device: str = "cpu") -> None:
        self._leads = generator.shape.leads
        self._device = device
        self._network = fused(generator)
        self._two = torch.tensor(2.0)
        self._sampled: Sampled | None = None
        self._resident: Resident | None = None
        if torch.device(device).type != "cpu":
            self._resident = Resident(self._network, self._leads, device)
        elif generator.shape.architecture == "dense":
            self._sampled = Sampled(self._network, self._leads)
        self.multiply_adds = self._sampled.multiply_adds if self._sampled else generator.shape.multiply_adds
        self.captured = self._resident is not None and self._resident.captured

    def score(self, windows: NDArray[np.float32]) -> Reconstruction:
        """Compute A(x) and its ticks.

        Parameters
        ----------
        windows : ndarray of float32, shape (n, leads, 320)
            Filtered windows in mV, as the segmenter emits them.

        Returns
        -------
        Reconstruction
            A window with a value that is not finite gets NaN and leaves the others alone.

        Raises
        ------
        ScoringError
            If the windows have another shape or type.
        """
        self._check(windows)
        if self._resident is not None:
            ax, ticks = self._resident.score(_tensor(windows))
            return Reconstruction(ax.numpy(), ticks.numpy())
        ax = torch.empty(len(windows))
        ticks = torch.empty((len(windows), LENGTH), dtype=torch.float16)
        with torch.inference_mode():
            for first in range(0, len(windows), BLOCK):
                part = slice(first, first + BLOCK)
                scaled, unusable = self._scaled(windows[part])
                apart = self._reconstructed(scaled).sub_(scaled).square_()
                tick = apart[:, 0]
                for lead in range(1, self._leads):
                    tick = tick + apart[:, lead]
                if self._leads > 1:
                    tick /= self._leads
                ax[part] = row_means(tick)
                ticks[part] = tick
                if unusable is not None:
                    ax[part][unusable] = torch.nan
                    ticks[part][unusable] = torch.nan
        return Reconstruction(ax.numpy(), ticks.numpy())

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
        self._check(windows)
        with torch.inference_mode():
            scaled, _ = self._scaled(windows)
            return scaled.numpy(), self._reconstructed(scaled).numpy()

    def _check(self, windows: NDArray[np.float32]) -> None:
        """Refuse windows of another shape or type."""
        expected = (self._leads, LENGTH)
        if windows.ndim != 3 or windows.shape[1:] != expected or windows.dtype != np.float32:  # noqa: PLR2004 - n, leads, ticks
            raise ScoringError(
                f"windows are {windows.dtype} {windows.shape}; this model takes float32 (n, {expected[0]}, {expected[1]})"
            )

    def _scaled(self, windows: NDArray[np.float32]) -> tuple[Tensor, Tensor | None]:
        """Scale windows; tell which hold values that are not finite, if any does, and put zeros for them.

        The steps of :func:`ecgmon.models.windows.scale`, to the same bits, in a third of the time.
        """
        given = _tensor(windows)
        low = given.amin(-1, keepdim=True)
        span = given.amax(-1, keepdim=True) - low
        factor = torch.div(self._two, span)  # 2 / span would be twice the reciprocal, which is rounded where it is tiny
        scaled = (given - low).mul_(factor).sub_(1)
        if len(factor) == 0 or 0 < factor.min().item() <= factor.max().item() < np.inf:
            return scaled, None
        # Some lead is flat, or so nearly that its factor overflows, or a value that is not finite makes its span so.
        flat = span <= 0
        unusable = ~(flat | (span.isfinite() & factor.isfinite())).all(1)
        scaled.masked_fill_(flat | unusable[:, None], 0)
        return scaled, unusable[:, 0]

    def _reconstructed(self, scaled: Tensor) -> Tensor:
        """Run the network over scaled windows."""
        if self._sampled is None:
            return self._in_whole(scaled.to(self._device)).cpu()
        x_hat, unknown = self._sampled(scaled)
        if unknown is not None:
            x_hat[unknown] = self._sampled.in_whole(scaled[unknown])
        return x_hat

    def _in_whole(self, x: Tensor) -> Tensor:
        """Run a network that is not dense, always over as many windows, the last ones filled up with zeros.

        Over another number of windows a library might take its sums in another order.
        """
        x_hat = torch.empty_like(x)
        for first in range(0, len(x), _CONVOLVED):
            part = x[first : first + _CONVOLVED]
            count = len(part)
            if count < _CONVOLVED:
                part = torch.nn.functional.pad(part, (0, 0, 0, 0, 0, _CONVOLVED - count))
            x_hat[first : first + _CONVOLVED] = self._network(part)[:count]
        return x_hat


_CONVOLVED: Final = 64


class Sampled:
    """A dense generator that looks at a third of the samples of a window, and makes all of its reconstruction.

    A filtered window follows from its samples at :data:`ecgmon.models.inference.passband.TICKS`, linearly, and so does what the first
    layer makes of it: the layer's weights times the interpolation are the weights of a layer that is a third as wide,
    and A(x) is the same but for rounding.

    Parameters
    ----------
    network : nn.Sequential
        As :func:`fused` makes it of a dense generator.
    leads : int

    Attributes
    ----------
    multiply_adds : int
        Multiply-adds for one window.
    """

    def __init__(self, network: nn.Sequential, leads: int) -> None:
        count = len(passband.TICKS)
        self._shape = (leads, LENGTH)
        ticks = np.concatenate([passband.TICKS + lead * LENGTH for lead in range(leads)])
        self._ticks = torch.from_numpy(ticks)
        probes = torch.from_numpy(passband.probes(leads).astype(np.float32)).t().contiguous()
        self._probes = Product(probes, None)
        self._layers = [
            Product(weight.t().contiguous(), bias)
            for weight, bias in (_weights(each) for each in network if _is_dense(each))
        ]
        self._slopes = _slopes(network)
        whole = self._layers[0].weight.t().double().numpy().reshape(-1, leads, LENGTH)
        sampled = np.einsum("oli,ij->olj", whole, passband.interpolation())  # the same bits with any number of threads
        weight = torch.from_numpy(sampled.reshape(-1, leads * count).astype(np.float32))
        self._first = Product(weight.t().contiguous(), self._layers[0].bias)
        self.multiply_adds = sum(each.weight.numel() for each in (self._probes, self._first, *self._layers[1:]))
        # Room that is used over and over: fresh memory would cost more than a layer.  A layer reads from one half and
        # writes to the other.
        widest = max(each.outputs for each in self._layers)
        self._given = torch.zeros((BLOCK, leads * LENGTH))
        self._samples = torch.zeros((BLOCK, leads * count))
        self._room = torch.zeros((2, BLOCK * widest))
        self._missed = torch.zeros((BLOCK, self._probes.outputs))
        self._limit = _LARGEST_REMAINDER * leads**0.5
        with torch.inference_mode():
            self(torch.zeros((1, *self._shape)))  # checks the library now, so that the first beat does not wait for it

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Reconstruct scaled windows as if all had passed the window filter.

        Parameters
        ----------
        x : Tensor, shape (n, leads, 320)

        Returns
        -------
        x_hat : Tensor, shape (n, leads, 320)
        unknown : Tensor of bool, shape (n,), or None
            True for a window that is not known from its samples; its reconstruction is that of another window, which
            has the same samples and could have passed the filter.  None where there is no such window.
        """
        flat = x.flatten(1)
        x_hat = torch.empty_like(flat)
        missed = torch.empty((len(flat), self._probes.outputs))
        for first in range(0, len(flat), BLOCK):
            part = slice(first, first + BLOCK)
            given, count = self._filled_up(flat[part])
            missed[part] = self._probes(given, self._missed[: len(given)])[:count]
            samples = torch.index_select(given, 1, self._ticks, out=self._samples[: len(given)])
            x_hat[part] = self._run(self._first, samples)[:count]
        x_hat = x_hat.view(-1, *self._shape)
        if len(flat) == 0 or missed.abs_().max().item() <= self._limit:  # which most often says it of all at once
            return x_hat, None
        return x_hat, ~(missed.amax(1) <= self._limit)

    def in_whole(self, x: Tensor) -> Tensor:
        """Reconstruct scaled windows, shape (n, leads, 320), from all of their samples."""
        flat = x.flatten(1)
        x_hat = torch.empty_like(flat)
        for first in range(0, len(flat), BLOCK):
            part = slice(first, first + BLOCK)
            given, count = self._filled_up(flat[part])
            x_hat[part] = self._run(self._layers[0], given)[:count]
        return x_hat.view(-1, *self._shape)

    def _filled_up(self, part: Tensor) -> tuple[Tensor, int]:
        """Bring windows to a number of rows that a product takes, with what is left of those before."""
        count = len(part)
        if count % ROWS == 0:
            return part, count
        given = self._given[: -(-count // ROWS) * ROWS]
        given[:count] = part
        return given, count

    def _run(self, first: Product, h: Tensor) -> Tensor:
        """Run the layers, the first of them as given."""
        for number, (layer, slope) in enumerate(zip((first, *self._layers[1:]), self._slopes, strict=True)):
            h = layer(h, self._room[number % 2, : len(h) * layer.outputs].view(len(h), -1))
            if slope != 1:
                nn.functional.leaky_relu_(h, slope)
        return h


def _is_dense(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear)


def _weights(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    assert isinstance(layer, nn.Linear)
    return layer.weight.detach(), None if layer.bias is None else layer.bias.detach()


def _slopes(network: nn.Sequential) -> list[float]:
    """Slopes below zero of what follows each dense layer; 1 where nothing does."""
    slopes: list[float] = []
    for layer in network:
        if isinstance(layer, nn.Linear):
            slopes.append(1.0)
        elif isinstance(layer, nn.LeakyReLU):
            slopes[-1] = layer.negative_slope
    return slopes


def _tensor(windows: NDArray[np.float32]) -> Tensor:
    """Look at windows as torch does; copy them only if torch could not."""
    return torch.from_numpy(windows if windows.flags.carray else windows.copy())


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
    ecgmon.models.weights.checkpoint.CheckpointError
        If the checkpoint cannot be used.

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
