"""A generator of dense layers: the student that is deployed.

An encoder-decoder like BeatGAN's generator, with one bottleneck and A(x) from its reconstruction.
It is fast: eight small matrix products per batch.  It projects a window onto the principal axes of
the training windows and reconstructs it from them.  Everything outside these axes is never
reconstructed and adds to A(x); a normal beat has almost nothing there.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

import torch
from torch import nn

from ecgmon.models.networks.beatgan import Reconstructing
from ecgmon.models.networks.shape import AXES
from ecgmon.models.windows import LENGTH

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from ecgmon.models.networks.shape import DenseShape

_LEAK: Final = 0.2  # slope of the leaky ReLU, as in BeatGAN's encoder


class Half(nn.Module):
    """An encoder or a decoder: dense layers with batch norm and leaky ReLU, the last layer without them.

    Parameters
    ----------
    sizes : sequence of int
        Size of each layer, including the input.

    Attributes
    ----------
    stages : nn.ModuleList
        All layers except the last.
    last : nn.Linear
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        *hidden, end = pairwise(sizes)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.LeakyReLU(_LEAK))
            for before, after in hidden
        )
        self.last = nn.Linear(*end)

    def forward(self, x: Tensor, kept: list[Tensor]) -> Tensor:
        """Map (n, first size) to (n, last size); append the output of each stage to ``kept``."""
        for stage in self.stages:
            x = stage(x)
            kept.append(x)
        out: Tensor = self.last(x)
        return out


class DenseGenerator(Reconstructing):
    """The autoencoder G whose reconstruction error is the anomaly score A(x).

    Parameters
    ----------
    shape : DenseShape

    Attributes
    ----------
    axes : nn.Linear
        From a window, flattened, to what it is along the axes, and with its transpose back.  It gets no gradient:
        see :func:`principal_axes`.
    """

    def __init__(self, shape: DenseShape) -> None:
        super().__init__()
        self.shape = shape
        self.axes = nn.Linear(shape.leads * LENGTH, shape.leads * AXES, bias=False).requires_grad_(requires_grad=False)
        self.encoder = Half(shape.sizes)
        self.decoder = Half(shape.sizes[::-1])

    def observed(self, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Reconstruct, and return the features of the stages: see :meth:`Reconstructing.observed`."""
        flat: list[Tensor] = []
        z = self.encoder(self.axes(x.flatten(1)), flat)
        x_hat = (self.decoder(z, flat) @ self.axes.weight).unflatten(1, (self.shape.leads, LENGTH))
        # The layout in channels and ticks is a convention; distillation gives it a meaning.
        return x_hat, z.unsqueeze(-1), [feature.view(len(x), self.shape.width, -1) for feature in flat]

    def layers(self) -> list[nn.Module]:
        """Return the layers in the order in which a window goes through them."""
        layers: list[nn.Module] = [nn.Flatten(), self.axes]
        for half in (self.encoder, self.decoder):
            for stage in half.stages:
                layers += stage.children()
            layers.append(half.last)
        back = nn.Linear(self.axes.out_features, self.axes.in_features, bias=False)
        back.weight = nn.Parameter(self.axes.weight.t().contiguous(), requires_grad=False)
        return [*layers, back, nn.Unflatten(1, (self.shape.leads, LENGTH))]


def principal_axes(blocks: Iterable[Tensor]) -> Tensor:
    """Compute the axes of a principal component analysis about zero.

    It is about zero and not about the mean, so that the common part of all windows lies within the axes.

    Parameters
    ----------
    blocks : iterable of Tensor of float32, shape (n, leads, 320)
        Scaled windows in blocks.

    Returns
    -------
    Tensor of float32, shape (leads * AXES, leads * 320)
        Orthonormal rows, the largest first, each with its largest number positive.

    Raises
    ------
    ValueError
        If there is no window.
    """
    moments: Tensor | None = None
    leads = 0
    for block in blocks:
        leads = block.shape[1]
        flat = block.flatten(1).double()
        moments = flat.t() @ flat if moments is None else moments.addmm_(flat.t(), flat)
    if moments is None:
        raise ValueError("there are no windows to compute principal axes from; give at least one")
    axes: Tensor = torch.linalg.eigh(moments).eigenvectors.t().flip(0)[: leads * AXES]
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    return (axes * largest.sign()).float()
