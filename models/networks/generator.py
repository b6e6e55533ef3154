"""Make the generator of a shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecgmon.models.networks.beatgan import Generator
from ecgmon.models.networks.dense import DenseGenerator
from ecgmon.models.networks.shape import BeatGanShape, DenseShape

if TYPE_CHECKING:
    from ecgmon.models.networks.shape import Shape

AnyGenerator = Generator | DenseGenerator
"""A network with ``forward``, ``observed`` and ``shape``."""


def generator_of(shape: Shape) -> AnyGenerator:
    """Make the generator of a shape, with torch's initial weights.

    Raises
    ------
    TypeError
        If there is no network for this shape.
    """
    if isinstance(shape, BeatGanShape):
        return Generator(shape)
    if isinstance(shape, DenseShape):
        return DenseGenerator(shape)
    raise TypeError(f"there is no generator for {shape!r}")
