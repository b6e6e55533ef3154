"""What a generator is made from, and what follows from it, without loading torch.

Whoever reads a checkpoint (the monitor, ``ecgmon --help``) has to know whether its tensors fit,
but not how to run them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from models.windows import LENGTH

KERNEL: Final = 4
"""Taps of every convolution but those at the latent vector, as in DCGAN."""

_DOUBLINGS: Final = 4  # halvings of the time axis after the first one, each doubling the channels

ENDS: Final = LENGTH >> (_DOUBLINGS + 1)
"""Samples that are left between the encoder's stages and the latent vector: 10."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a network of BeatGAN's family is made from.

    Attributes
    ----------
    leads : int
        Leads of a window.
    width : int
        Channels after the encoder's first layer (``ndf`` and ``ngf`` of the paper, which uses 32).
    latent : int
        Length of the latent vector (``nz`` of the paper, which uses 50).
    """

    leads: int = 1
    width: int = 32
    latent: int = 50

    def __post_init__(self) -> None:
        for name in ("leads", "width", "latent"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} is {value}; a network needs at least 1")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels after each of the encoder's stages, from the window to the latent vector."""
        return tuple(self.width << k for k in range(_DOUBLINGS + 1))

    @property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of a generator, as torch names them in its state.

        The counters of batches that torch keeps beside batch-norm statistics are left out: they say
        something about the training and nothing about the network.
        """
        up = self.widths
        down = up[::-1]
        tensors: dict[str, tuple[int, ...]] = {"encoder.stages.0.weight": (up[0], self.leads, KERNEL)}
        for k, (narrow, wide) in enumerate(pairwise(up)):  # convolution, batch norm, leaky ReLU
            tensors[f"encoder.stages.{3 * k + 2}.weight"] = (wide, narrow, KERNEL)
            tensors |= _batch_norm(f"encoder.stages.{3 * k + 3}", wide)
        tensors["encoder.last.weight"] = (self.latent, up[-1], ENDS)
        tensors["decoder.stages.0.weight"] = (self.latent, down[0], ENDS)
        tensors |= _batch_norm("decoder.stages.1", down[0])
        for k, (wide, narrow) in enumerate(pairwise(down)):
            tensors[f"decoder.stages.{3 * k + 3}.weight"] = (wide, narrow, KERNEL)
            tensors |= _batch_norm(f"decoder.stages.{3 * k + 4}", narrow)
        tensors["decoder.last.0.weight"] = (down[-1], self.leads, KERNEL)
        return tensors

    @property
    def parameters(self) -> int:
        """Trainable parameters of a generator."""
        return sum(math.prod(shape) for name, shape in self.tensors.items() if ".running_" not in name)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds that reconstructing one window takes.

        Only convolutions count: for inference, batch norm is folded into them.
        """
        # A convolution does its taps once for every output sample, a transposed one for every input
        # sample; the decoder mirrors the encoder and so costs the same.
        ends = ENDS * self.widths[-1] * self.latent
        stages = sum(
            KERNEL * narrow * wide * (LENGTH >> (k + 1))
            for k, (narrow, wide) in enumerate(pairwise((self.leads, *self.widths)))
        )
        return 2 * (ends + stages)


def _batch_norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
