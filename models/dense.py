"""A generator of dense layers: the student that is deployed.

An encoder-decoder like BeatGAN's generator, with one bottleneck and A(x) from its reconstruction,
made for speed where it runs: six matrix products a batch.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

from torch import nn

from models.beatgan import Reconstructing
from models.windows import LENGTH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from models.shape import DenseShape

_LEAK: Final = 0.2  # slope of the leaky ReLU, as in BeatGAN's encoder


class Half(nn.Module):
    """An encoder or a decoder: dense layers with batch norm and leaky ReLU, the last one bare.

    Parameters
    ----------
    sizes : sequence of int
        Numbers in each layer, the input included.

    Attributes
    ----------
    stages : nn.ModuleList
        All layers but the last.
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
        """Map (n, first size) to (n, last size); append what each stage makes to ``kept``."""
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
    """

    def __init__(self, shape: DenseShape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = Half(shape.sizes)
        self.decoder = Half(shape.sizes[::-1])

    def observed(self, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Reconstruct, and show what the stages made on the way: see :meth:`Reconstructing.observed`."""
        flat: list[Tensor] = []
        z = self.encoder(x.flatten(1), flat)
        x_hat = self.decoder(z, flat).tanh().unflatten(1, (self.shape.leads, LENGTH))
        # The layout of channels and ticks is a convention; what is distilled into it gives it a meaning.
        return x_hat, z.unsqueeze(-1), [feature.view(len(x), self.shape.width, -1) for feature in flat]

    def layers(self) -> list[nn.Module]:
        """Return the layers in the order in which a window goes through them."""
        layers: list[nn.Module] = [nn.Flatten()]
        for half in (self.encoder, self.decoder):
            for stage in half.stages:
                layers += stage.children()
            layers.append(half.last)
        return [*layers, nn.Tanh(), nn.Unflatten(1, (self.shape.leads, LENGTH))]
