"""The networks of BeatGAN (Zhou et al., IJCAI 2019), for any number of leads and any width.

The encoder repeats a convolution that halves the time axis and doubles the channels, from 320 samples
to 10.  A last convolution over those 10 gives the latent vector.  The decoder is the mirror image.
Both follow DCGAN (Radford et al., ICLR 2016): kernel 4, stride 2, no bias, batch norm everywhere
except at the ends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn

from ecgmon.models.networks.shape import ENDS, KERNEL, STAGE_TICKS, BeatGanShape

_LEAK: Final = 0.2  # slope of the leaky ReLU, as in DCGAN
_WEIGHT_STD: Final = 0.02  # initial spread of convolution weights and batch-norm scales, as in DCGAN


def _down(channels_in: int, channels_out: int) -> nn.Conv1d:
    return nn.Conv1d(channels_in, channels_out, kernel_size=KERNEL, stride=2, padding=1, bias=False)


def _up(channels_in: int, channels_out: int) -> nn.ConvTranspose1d:
    return nn.ConvTranspose1d(channels_in, channels_out, kernel_size=KERNEL, stride=2, padding=1, bias=False)


class Encoder(nn.Module):
    """Window to vector.

    Parameters
    ----------
    shape : BeatGanShape
        Leads and width; ``shape.latent`` is not used.
    out : int
        Length of the vector.

    Attributes
    ----------
    stages : nn.Sequential
        All layers except the last: (n, leads, 320) to features (n, 16 * width, 10).
    last : nn.Conv1d
        Features to (n, out, 1).
    """

    def __init__(self, shape: BeatGanShape, out: int) -> None:
        super().__init__()
        widths = shape.widths
        layers: list[nn.Module] = [_down(shape.leads, widths[0]), nn.LeakyReLU(_LEAK, inplace=True)]
        for narrow, wide in pairwise(widths):
            layers += [_down(narrow, wide), nn.BatchNorm1d(wide), nn.LeakyReLU(_LEAK, inplace=True)]
        self.stages = nn.Sequential(*layers)
        self.last = nn.Conv1d(widths[-1], out, kernel_size=ENDS, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map windows (n, leads, 320) to vectors (n, out, 1)."""
        z: Tensor = self.last(self.stages(x))
        return z


class Decoder(nn.Module):
    """Latent vector to window: the mirror image of the encoder.

    Parameters
    ----------
    shape : BeatGanShape
    """

    def __init__(self, shape: BeatGanShape) -> None:
        super().__init__()
        widths = shape.widths[::-1]
        first = nn.ConvTranspose1d(shape.latent, widths[0], kernel_size=ENDS, bias=False)
        layers: list[nn.Module] = [first, nn.BatchNorm1d(widths[0]), nn.ReLU(inplace=True)]
        for wide, narrow in pairwise(widths):
            layers += [_up(wide, narrow), nn.BatchNorm1d(narrow), nn.ReLU(inplace=True)]
        self.stages = nn.Sequential(*layers)
        self.last = nn.Sequential(_up(widths[-1], shape.leads), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        """Map latent vectors (n, latent, 1) to windows (n, leads, 320) in (-1, 1)."""
        x: Tensor = self.last(self.stages(z))
        return x


class Reconstructing(nn.Module, ABC):
    """An autoencoder G whose reconstruction error is the anomaly score A(x)."""

    @abstractmethod
    def observed(self, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Reconstruct, and return the features of the stages, too.

        Returns
        -------
        reconstruction, z : Tensor
            As in :meth:`forward`.
        features : list of Tensor of float32, shape (n, channels, ticks)
            Of the encoder's stages of 20 and 10 ticks, then of the decoder's of 10 and 20.
        """

    @abstractmethod
    def layers(self) -> list[nn.Module]:
        """Return the layers in the order in which a window goes through them."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruct scaled windows.

        Parameters
        ----------
        x : Tensor of float32, shape (n, leads, 320)
            Windows scaled to [-1, 1].

        Returns
        -------
        reconstruction : Tensor of float32, shape (n, leads, 320)
        z : Tensor of float32, shape (n, latent, 1)
        """
        x_hat, z, _ = self.observed(x)
        return x_hat, z


class Generator(Reconstructing):
    """The autoencoder G whose reconstruction error is the anomaly score A(x).

    Parameters
    ----------
    shape : BeatGanShape
    """

    def __init__(self, shape: BeatGanShape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = Encoder(shape, shape.latent)
        self.decoder = Decoder(shape)

    def observed(self, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Reconstruct, and return the features of the stages: see :meth:`Reconstructing.observed`."""
        features: list[Tensor] = []
        z = self.encoder.last(_through(self.encoder.stages, x, features))
        x_hat: Tensor = self.decoder.last(_through(self.decoder.stages, z, features))
        return x_hat, z, features

    def layers(self) -> list[nn.Module]:
        """Return the layers in the order in which a window goes through them."""
        return [*self.encoder.stages, self.encoder.last, *self.decoder.stages, *self.decoder.last]


def _through(stages: nn.Sequential, x: Tensor, kept: list[Tensor]) -> Tensor:
    """Apply the stages; append activations with a length in :data:`STAGE_TICKS` to ``kept``."""
    for layer in stages:
        x = layer(x)
        if isinstance(layer, nn.LeakyReLU | nn.ReLU) and x.shape[-1] in STAGE_TICKS:
            kept.append(x)
    return x


class Discriminator(nn.Module):
    """Distinguishes windows from reconstructions; the generator is trained to match its features.

    Parameters
    ----------
    shape : BeatGanShape
        Leads and width.
    """

    def __init__(self, shape: BeatGanShape) -> None:
        super().__init__()
        self.encoder = Encoder(shape, 1)

    def features(self, x: Tensor) -> Tensor:
        """Activations of all layers except the last, shape (n, 16 * width, 10)."""
        features: Tensor = self.encoder.stages(x)
        return features

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Classify windows as real or reconstructed.

        Returns
        -------
        logit : Tensor of float32, shape (n,)
            Its sigmoid is the paper's D(x): the probability that a window is real.
        features : Tensor of float32, shape (n, 16 * width, 10)
        """
        features = self.features(x)
        return self.encoder.last(features).flatten(), features


@torch.no_grad()
def initialise(network: nn.Module, random: torch.Generator, weights: str = "dcgan") -> None:
    """Draw fresh weights: batch-norm scales N(1, .02), shifts and statistics reset, and convolutions by ``weights``.

    Parameters
    ----------
    network : nn.Module
        Changed in place, every module in it.
    random : torch.Generator
        The only source of randomness, so that a seed determines the weights.
    weights : str
        One of :data:`ecgmon.models.networks.shape.INITIAL_WEIGHTS`, the distribution of a convolution's weights:
        ``dcgan`` is N(0, .02); ``xavier`` is normal with the variance 2 / (fan in + fan out) (Glorot and Bengio,
        2010), which BeatGAN's published code has in its place.
    """

    def draw(weight: Tensor, mean: float, std: float = _WEIGHT_STD) -> None:
        # Drawn on the CPU and copied, so that a seed gives the same weights on every device.
        weight.copy_(torch.empty(weight.shape).normal_(mean, std, generator=random))

    for module in network.modules():
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
            fans = sum(module.weight.shape[:2]) * module.weight.shape[2]
            draw(module.weight, 0.0, (2 / fans) ** 0.5 if weights == "xavier" else _WEIGHT_STD)
        elif isinstance(module, nn.Linear):  # DCGAN has none; this keeps the variance (LeCun et al., 1998)
            draw(module.weight, 0.0, module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm1d):
            module.reset_running_stats()
            draw(module.weight, 1.0)
            nn.init.zeros_(module.bias)
