"""Shapes of generators, with their tensors and costs, without loading torch.

Code that only reads a checkpoint (the monitor, ``ecgmon --help``) must check whether its tensors
fit, but does not run them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Final, Protocol

from ecgmon.models.windows import LENGTH

KERNEL: Final = 4
"""Taps of every convolution except those at the latent vector, as in DCGAN."""

_DOUBLINGS: Final = 4  # halvings of the time axis after the first one, each doubling the channels

ENDS: Final = LENGTH >> (_DOUBLINGS + 1)
"""Length of the time axis after the encoder's stages, before the latent vector: 10."""


STAGE_TICKS: Final = (2 * ENDS, ENDS)
"""Ticks of the stages whose features teacher and student share, even with different architectures."""

AXES: Final = 48
"""Principal axes per lead in a dense generator: see :func:`ecgmon.models.networks.dense.principal_axes`."""

INITIAL_WEIGHTS: Final = ("dcgan", "xavier")
"""Distributions of the first weights: see :func:`ecgmon.models.networks.beatgan.initialise`."""


class Shape(Protocol):
    """The shape of a generator, and its costs."""

    @property
    def architecture(self) -> str:
        """One of :data:`ARCHITECTURES`."""

    @property
    def leads(self) -> int:
        """Leads of a window."""

    @property
    def width(self) -> int:
        """Channels of a stage; the architecture defines which stage."""

    @property
    def latent(self) -> int:
        """Length of the latent vector."""

    @property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of a generator, as torch names them in its state."""

    @property
    def parameters(self) -> int:
        """Trainable parameters of a generator."""

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds that reconstructing one window takes, batch norm folded into its neighbours."""


def _check(shape: Shape) -> None:
    for name in ("leads", "width", "latent"):
        value = getattr(shape, name)
        if value < 1:
            raise ValueError(f"{name} is {value}; a network needs at least 1")


@dataclass(frozen=True, slots=True)
class BeatGanShape:
    """Shape of a network of BeatGAN's family.

    Attributes
    ----------
    leads : int
        Leads of a window.
    width : int
        Channels after the encoder's first layer (``ndf`` and ``ngf`` of the paper, which uses 32).
    latent : int
        Length of the latent vector (``nz`` of the paper, which uses 50).
    """

    architecture: ClassVar[str] = "beatgan"

    leads: int = 1
    width: int = 32
    latent: int = 50

    def __post_init__(self) -> None:
        _check(self)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels after each of the encoder's stages, from the window to the latent vector."""
        return tuple(self.width << k for k in range(_DOUBLINGS + 1))

    @property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of a generator, as torch names them in its state.

        Without the batch counters that torch keeps with the batch-norm statistics: inference does not
        use them.
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
        return _trainable(self.tensors)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds to reconstruct one window.

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


@dataclass(frozen=True, slots=True)
class DenseShape:
    """Shape of a dense generator: principal axes, three matrices down, three up, and the axes again.

    A window has a few hundred samples, and every wave has a fixed place relative to the R peak.  A
    matrix over the whole window therefore needs fewer multiply-adds than convolutions, which search for
    the same shape everywhere, and it runs at the speed of the processor's matrix product.  The samples
    are strongly correlated, so the matrices only need the projection on the principal axes.

    Attributes
    ----------
    leads : int
        Leads of a window.
    width : int
        Channels of the hidden layers, which have 20 and 10 ticks.
    latent : int
        Length of the latent vector.
    """

    architecture: ClassVar[str] = "dense"

    leads: int = 1
    width: int = 13
    latent: int = 16

    def __post_init__(self) -> None:
        _check(self)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Size of each layer, from the projection on the axes to the latent vector."""
        return (self.leads * AXES, *(self.width * ticks for ticks in STAGE_TICKS), self.latent)

    @property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of a generator, as torch names them in its state."""
        tensors: dict[str, tuple[int, ...]] = {"axes.weight": (self.leads * AXES, self.leads * LENGTH)}
        for half, sizes in (("encoder", self.sizes), ("decoder", self.sizes[::-1])):
            pairs = list(pairwise(sizes))
            for k, (before, after) in enumerate(pairs[:-1]):
                tensors[f"{half}.stages.{k}.0.weight"] = (after, before)
                tensors |= _batch_norm(f"{half}.stages.{k}.1", after)
            tensors[f"{half}.last.weight"] = pairs[-1][::-1]
            tensors[f"{half}.last.bias"] = pairs[-1][1:]
        return tensors

    @property
    def parameters(self) -> int:
        """Trainable parameters of a generator."""
        return _trainable(self.tensors)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds that reconstructing one window takes, batch norm folded into its neighbours."""
        return 2 * sum(before * after for before, after in pairwise((self.leads * LENGTH, *self.sizes)))


_SHAPES: Final[dict[str, type[BeatGanShape | DenseShape]]] = {"beatgan": BeatGanShape, "dense": DenseShape}

ARCHITECTURES: Final = tuple(_SHAPES)
"""The kinds of generator."""


def shape_of(architecture: str, *, leads: int, width: int, latent: int) -> BeatGanShape | DenseShape:
    """Make the shape of a generator of an architecture.

    Raises
    ------
    ValueError
        If there is no such architecture, or a size is less than 1.
    """
    if architecture not in _SHAPES:
        raise ValueError(f"there is no architecture {architecture!r}; expected {' or '.join(ARCHITECTURES)}")
    return _SHAPES[architecture](leads, width, latent)


def _trainable(tensors: dict[str, tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for name, shape in tensors.items() if ".running_" not in name)


def _batch_norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
