"""Run a generator over windows, and compute A(x) and the squared difference per tick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from ecgmon.models.inference import passband
from ecgmon.models.inference.gpu import DeviceNetwork
from ecgmon.models.inference.products import ROWS, Product, row_means
from ecgmon.models.weights.checkpoint import default_weights, load_generator
from ecgmon.models.windows import LENGTH

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from ecgmon.models.networks.generator import AnyGenerator

BLOCK: Final = 256
"""Windows that are processed at once, so that they stay in the processor's cache; no result depends on it."""

_LARGEST_REMAINDER: Final = 2e-5  # largest root mean square error of the interpolation of a scaled window


class ScoringError(Exception):
    """The model does not accept the shape or type of the windows."""

    __module__ = "ecgmon.errors"


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """Errors of a generator's reconstruction of windows.

    Attributes
    ----------
    ax : ndarray of float32, shape (n,)
        A(x): mean squared difference of scaled window and reconstruction, over leads and ticks.
        NaN for a window with a value that is not finite.
    ticks : ndarray of float16, shape (n, 320)
        Squared difference per tick, mean over leads.  NaN for a window with a value that is not finite.
    """

    ax: NDArray[np.float32]
    ticks: NDArray[np.float16]


class Reconstructor:
    """A trained generator in its deployed form.

    Parameters
    ----------
    generator : Generator or DenseGenerator
        In evaluation mode, on ``device``.
    device : str
        Torch device, such as ``cpu`` or ``cuda:0``.

    Attributes
    ----------
    multiply_adds : int
        Multiply-adds for one filtered window, in the deployed form.
    captured : bool
        Whether it runs as a CUDA graph.

    Notes
    -----
    On a CPU, a dense generator gives the same bits in every batch, process and thread, and on every x86-64 processor:
    see :mod:`ecgmon.models.inference.products`.  A convolutional generator, which is not deployed, and a GPU give the
    same bits on one machine with a fixed number of threads.

    On a CPU a dense generator runs as :class:`Sampled`.  A window that was not filtered cannot be interpolated from its
    samples; it runs through the whole network.  This choice depends on the window alone.
    """

    def __init__(self, generator: AnyGenerator, *, device: str = "cpu") -> None:
        self._leads = generator.shape.leads
        self._device = device
        self._network = fused(generator)
        self._two = torch.tensor(2.0)
        self._sampled: Sampled | None = None
        self._on_device: DeviceNetwork | None = None
        if torch.device(device).type != "cpu":
            self._on_device = DeviceNetwork(self._network, self._leads, device)
        elif generator.shape.architecture == "dense":
            self._sampled = Sampled(self._network, self._leads)
        self.multiply_adds = self._sampled.multiply_adds if self._sampled else generator.shape.multiply_adds
        self.captured = self._on_device is not None and self._on_device.captured

    def score(self, windows: NDArray[np.float32]) -> Reconstruction:
        """Compute A(x) and its ticks.

        Parameters
        ----------
        windows : ndarray of float32, shape (n, leads, 320)
            Filtered windows in mV, as from the segmenter.

        Returns
        -------
        Reconstruction
            NaN for a window with a value that is not finite; it does not affect the other windows.

        Raises
        ------
        ScoringError
            If the shape or type of the windows is not that of the model.
        """
        self._check(windows)
        if self._on_device is not None:
            ax, ticks = self._on_device.score(_tensor(windows))
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
        """Compute the input and the output of the generator, for pictures.

        Parameters
        ----------
        windows : ndarray of float32, shape (n, leads, 320)
            Filtered windows in mV.

        Returns
        -------
        scaled : ndarray of float32, shape (n, leads, 320)
            The windows scaled to [-1, 1]; zeros for a window with a value that is not finite.
        reconstruction : ndarray of float32, shape (n, leads, 320)

        Raises
        ------
        ScoringError
            If the shape or type of the windows is not that of the model.
        """
        self._check(windows)
        with torch.inference_mode():
            scaled, _ = self._scaled(windows)
            return scaled.numpy(), self._reconstructed(scaled).numpy()

    def _check(self, windows: NDArray[np.float32]) -> None:
        """Raise an error if the shape or type of the windows is not that of the model."""
        expected = (self._leads, LENGTH)
        if windows.ndim != 3 or windows.shape[1:] != expected or windows.dtype != np.float32:  # noqa: PLR2004 - n, leads, ticks
            raise ScoringError(
                f"windows are {windows.dtype} {windows.shape}; this model takes float32 (n, {expected[0]}, {expected[1]})"
            )

    def _scaled(self, windows: NDArray[np.float32]) -> tuple[Tensor, Tensor | None]:
        """Scale windows to the same bits as :func:`ecgmon.models.windows.scale`, in a third of the time.

        A window with a value that is not finite becomes zeros; the second result marks these windows, or is None.
        """
        given = _tensor(windows)
        low = given.amin(-1, keepdim=True)
        span = given.amax(-1, keepdim=True) - low
        factor = torch.div(self._two, span)  # not 2 / span: twice the reciprocal, which is rounded if it is tiny
        scaled = (given - low).mul_(factor).sub_(1)
        if len(factor) == 0 or 0 < factor.min().item() <= factor.max().item() < np.inf:
            return scaled, None
        # A lead is flat or so nearly flat that its factor overflows, or a value is not finite.
        flat = span <= 0
        unusable = ~(flat | (span.isfinite() & factor.isfinite())).all(1)
        scaled.masked_fill_(flat | unusable[:, None], 0)
        return scaled, unusable[:, 0]

    def _reconstructed(self, scaled: Tensor) -> Tensor:
        """Run the network over scaled windows."""
        if self._sampled is None:
            return self._run_network(scaled.to(self._device)).cpu()
        x_hat, unfiltered = self._sampled(scaled)
        if unfiltered is not None:
            x_hat[unfiltered] = self._sampled.from_all_samples(scaled[unfiltered])
        return x_hat

    def _run_network(self, x: Tensor) -> Tensor:
        """Run the network in batches of one size, the last one padded with zeros.

        With another batch size a library might add in another order.
        """
        x_hat = torch.empty_like(x)
        for first in range(0, len(x), _CONVOLVED):
            part = x[first : first + _CONVOLVED]
            count = len(part)
            if count < _CONVOLVED:
                part = torch.nn.functional.pad(part, (0, 0, 0, 0, 0, _CONVOLVED - count))
            x_hat[first : first + _CONVOLVED] = self._network(part)[:count]
        return x_hat


_CONVOLVED: Final = 64  # windows in a batch


class Sampled:
    """A dense generator that reads a third of the samples of a window and gives the whole reconstruction.

    A filtered window is a linear function of its samples at :data:`ecgmon.models.inference.passband.TICKS`.  The
    weights of the first layer times the interpolation are therefore the weights of a layer with a third of the inputs;
    A(x) is the same except for rounding.

    Parameters
    ----------
    network : nn.Sequential
        A dense generator after :func:`fused`.
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
        # Buffers that are reused: new memory would cost more time than a layer.  A layer reads from one half of the
        # room and writes to the other.
        widest = max(each.outputs for each in self._layers)
        self._given = torch.zeros((BLOCK, leads * LENGTH))
        self._samples = torch.zeros((BLOCK, leads * count))
        self._room = torch.zeros((2, BLOCK * widest))
        self._missed = torch.zeros((BLOCK, self._probes.outputs))
        self._limit = _LARGEST_REMAINDER * leads**0.5
        with torch.inference_mode():
            self(torch.zeros((1, *self._shape)))  # checks the library now, so that the first beat does not wait

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Reconstruct scaled windows as if all had passed the window filter.

        Parameters
        ----------
        x : Tensor, shape (n, leads, 320)

        Returns
        -------
        x_hat : Tensor, shape (n, leads, 320)
        unfiltered : Tensor of bool, shape (n,), or None
            True for a window that cannot be interpolated from its samples; its reconstruction is that of a filtered
            window with the same samples.  None if there is no such window.
        """
        flat = x.flatten(1)
        x_hat = torch.empty_like(flat)
        missed = torch.empty((len(flat), self._probes.outputs))
        for first in range(0, len(flat), BLOCK):
            part = slice(first, first + BLOCK)
            given, count = self._padded(flat[part])
            missed[part] = self._probes(given, self._missed[: len(given)])[:count]
            samples = torch.index_select(given, 1, self._ticks, out=self._samples[: len(given)])
            x_hat[part] = self._run(self._first, samples)[:count]
        x_hat = x_hat.view(-1, *self._shape)
        if len(flat) == 0 or missed.abs_().max().item() <= self._limit:  # usually true for all windows at once
            return x_hat, None
        return x_hat, ~(missed.amax(1) <= self._limit)

    def from_all_samples(self, x: Tensor) -> Tensor:
        """Reconstruct scaled windows, shape (n, leads, 320), from all their samples."""
        flat = x.flatten(1)
        x_hat = torch.empty_like(flat)
        for first in range(0, len(flat), BLOCK):
            part = slice(first, first + BLOCK)
            given, count = self._padded(flat[part])
            x_hat[part] = self._run(self._layers[0], given)[:count]
        return x_hat.view(-1, *self._shape)

    def _padded(self, part: Tensor) -> tuple[Tensor, int]:
        """Extend windows to a multiple of :data:`ROWS` rows, with any older windows; also return their number."""
        count = len(part)
        if count % ROWS == 0:
            return part, count
        given = self._given[: -(-count // ROWS) * ROWS]
        given[:count] = part
        return given, count

    def _run(self, first: Product, h: Tensor) -> Tensor:
        """Run all layers, with ``first`` as the first one."""
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
    """Return the negative slope of the leaky ReLU after each dense layer; 1 if there is none."""
    slopes: list[float] = []
    for layer in network:
        if isinstance(layer, nn.Linear):
            slopes.append(1.0)
        elif isinstance(layer, nn.LeakyReLU):
            slopes[-1] = layer.negative_slope
    return slopes


def _tensor(windows: NDArray[np.float32]) -> Tensor:
    """Return windows as a tensor; copy them only if torch cannot share the memory."""
    return torch.from_numpy(windows if windows.flags.carray else windows.copy())


class Scorer(Reconstructor):
    """The generator of a checkpoint.

    Parameters
    ----------
    path : Path, optional
        Checkpoint; by default the shipped one.
    device : str
        As in :class:`Reconstructor`.
    threads : int
        Number of CPU threads for torch, a setting of the whole process.

    Raises
    ------
    ecgmon.models.weights.checkpoint.CheckpointError
        If the checkpoint cannot be used.

    Attributes
    ----------
    info : ModelInfo
        Description of the model in the checkpoint, with its score.
    """

    def __init__(self, path: Path | None = None, *, device: str = "cpu", threads: int = 1) -> None:
        torch.set_num_threads(threads)
        generator, self.info = load_generator(path or default_weights(), device)
        super().__init__(generator, device=device)


def fused(network: AnyGenerator) -> nn.Sequential:
    """Chain the layers of a generator and fold every batch norm into the layer before it, to save computation."""
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
