"""Run a generator over windows: A(x), and where in the window the difference lies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from ecgmon.models.inference import passband
from ecgmon.models.inference.gpu import Resident
from ecgmon.models.weights.checkpoint import default_weights, load_generator
from ecgmon.models.windows import LENGTH

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from ecgmon.models.networks.generator import AnyGenerator

TILE: Final = 64
"""Windows that a network runs on at once, the last tile filled up.

Sums over another batch size may be taken in another order.  With one size only, a beat's answer
does not depend, even in its last bit, on which beats it happened to be scored with: that is what
makes a replay repeatable at any speed and with any number of workers.
"""

TILES: Final = (256, 128, TILE, 32, 16, 8)
"""Sizes of tiles of a dense generator, of which those are used that give the bits that :data:`TILE` gives."""

_TILE_WINDOWS: Final = 6  # the time that a tile takes whatever its size, in windows
_LARGEST_REMAINDER: Final = 2e-5  # root mean square of what sampling may miss of a scaled window


class ScoringError(Exception):
    """Windows of a shape or type that the model cannot take."""


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

    Attributes
    ----------
    multiply_adds : int
        Multiply-adds for one filtered window, in the form that runs here.
    captured : bool
        Whether it runs as a CUDA graph.

    Notes
    -----
    Answers are bit for bit the same whatever the batch, on one machine, device and number of
    threads.  Another processor may differ in the last bits.

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
        self._check(windows)
        if self._resident is not None:
            error, ticks = self._resident.score(_tensor(windows))
            return Raw(error.numpy(), ticks.numpy())
        error = torch.empty(len(windows))
        ticks = torch.empty((len(windows), LENGTH), dtype=torch.float16)
        with torch.inference_mode():
            for first in range(0, len(windows), TILES[0]):  # what is worked on stays in the processor's cache
                part = slice(first, first + TILES[0])
                scaled, unusable = self._scaled(windows[part])
                apart = self._reconstructed(scaled).sub_(scaled).square_()
                tick = apart[:, 0] if self._leads == 1 else apart.mean(1)
                torch.mean(tick, 1, out=error[part])
                ticks[part] = tick
                if unusable is not None:
                    error[part][unusable] = torch.nan
                    ticks[part][unusable] = torch.nan
        return Raw(error.numpy(), ticks.numpy())

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
            x_hat[unknown] = self._in_whole(scaled[unknown])
        return x_hat

    def _in_whole(self, x: Tensor) -> Tensor:
        """Run the whole network tile by tile, the last tile filled up with zeros."""
        x_hat = torch.empty_like(x)
        for first in range(0, len(x), TILE):
            tile = x[first : first + TILE]
            count = len(tile)
            if count < TILE:
                tile = torch.nn.functional.pad(tile, (0, 0, 0, 0, 0, TILE - count))
            x_hat[first : first + TILE] = self._network(tile)[:count]
        return x_hat


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
        probes = passband.probes(leads)
        self._probes = torch.from_numpy(probes.astype(np.float32)).t()
        # weights (outputs, inputs), bias, slope of the leaky ReLU
        layers: list[tuple[Tensor, Tensor | None, float]] = []
        for layer in network:
            if isinstance(layer, nn.Linear):
                layers.append((layer.weight.detach(), None if layer.bias is None else layer.bias.detach(), 1.0))
            elif isinstance(layer, nn.LeakyReLU):
                layers[-1] = (*layers[-1][:2], layer.negative_slope)
        weight, bias, slope = layers[0]
        whole = weight.double().numpy().reshape(-1, leads, LENGTH)
        sampled = np.einsum("oli,ij->olj", whole, passband.interpolation())  # the same bits with any number of threads
        weight = torch.from_numpy(sampled.reshape(-1, leads * count).astype(np.float32))
        layers[0] = (weight, bias, slope)
        self._layers = [(weight.t().contiguous(), bias, slope) for weight, bias, slope in layers]
        self.multiply_adds = probes.size + sum(weight.numel() for weight, _, _ in self._layers)
        # Room that is used over and over: fresh memory would cost more than a layer, and where it lies decides which
        # instructions a library takes.  A layer reads from one half and writes to the other.
        widest = max(weight.shape[1] for weight, _, _ in self._layers)
        self._given = torch.zeros((TILES[0], leads * LENGTH))
        self._samples = torch.zeros((TILES[0], leads * count))
        self._room = torch.zeros((2, TILES[0] * widest))
        self._missed = torch.zeros((TILES[0], len(probes)))
        self._limit = _LARGEST_REMAINDER * leads**0.5
        self._sizes: dict[int, tuple[int, ...]] = {}  # by number of threads, which may change the order of sums
        with torch.inference_mode():
            self._choose_sizes()  # now, so that the first beat does not wait for it

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Reconstruct scaled windows, tile by tile.

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
        sizes = self._sizes.get(torch.get_num_threads()) or self._choose_sizes()
        flat = x.flatten(1)
        x_hat = torch.empty_like(flat)
        missed = torch.empty((len(flat), self._missed.shape[1]))
        first, largest = 0, sizes[0]
        for size in (largest,) * (len(flat) // largest) + tiling(len(flat) % largest, sizes):
            part = slice(first, first + size)
            x_hat[part] = self._tile(flat[part], size, missed[part])
            first += size
        x_hat = x_hat.view(-1, *self._shape)
        if len(flat) == 0 or missed.abs_().max().item() <= self._limit:  # which most often says it of all at once
            return x_hat, None
        return x_hat, ~(missed.amax(1) <= self._limit)

    def _tile(self, tile: Tensor, size: int, missed: Tensor) -> Tensor:
        """Reconstruct one tile, filled up with what is left of those before; write down the probes."""
        count = len(tile)
        if count == size:
            given = tile
        else:
            given = self._given[:size]
            given[:count] = tile
        missed[:] = torch.mm(given, self._probes, out=self._missed[:size])[:count]
        h = torch.index_select(given, 1, self._ticks, out=self._samples[:size])
        for number, (weight, bias, slope) in enumerate(self._layers):
            room = self._room[number % 2, : size * weight.shape[1]].view(size, -1)
            h = torch.mm(h, weight, out=room) if bias is None else torch.addmm(bias, h, weight, out=room)
            if slope != 1:
                nn.functional.leaky_relu_(h, slope)
        return h[:count]

    def _choose_sizes(self) -> tuple[int, ...]:
        """Find the sizes of tiles that give the bits that tiles of :data:`TILE` give, with the threads of now.

        A library chooses the order of its sums by the shapes that it is given, so what it does with some numbers it
        does with all.
        """
        random = torch.Generator().manual_seed(0)
        x = 2 * torch.rand(self._given.shape, generator=random) - 1

        def made(size: int) -> Tensor:
            missed = torch.empty_like(self._missed)
            parts = [slice(first, first + size) for first in range(0, len(x), size)]
            tiles = [self._tile(x[part], size, missed[part]).clone() for part in parts]
            return torch.cat([torch.cat(tiles), missed], 1)

        expected = made(TILE)
        sizes = tuple(size for size in TILES if size == TILE or torch.equal(made(size), expected))
        self._sizes[torch.get_num_threads()] = sizes
        return sizes


@cache
def tiling(count: int, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Choose the tiles that windows are run in soonest; the last may be larger than what is left for it.

    Parameters
    ----------
    count : int
        Windows, fewer than the largest tile has.
    sizes : tuple of int
        Of tiles, largest first.

    Returns
    -------
    tuple of int
    """
    if count <= 0:
        return ()
    one = (min(size for size in sizes if size >= count),)
    several = [(size, *tiling(count - size, sizes)) for size in sizes if size < count]
    return min([one, *several], key=lambda tiles: sum(tiles) + _TILE_WINDOWS * len(tiles))


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
