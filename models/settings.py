"""What decides the weights of a trained generator, beside the data.

Apart from the training itself, so that a command line can offer the settings without loading torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Any

from models.windows import BEFORE


def _setting(default: Any, what: str) -> Any:  # noqa: ANN401 - dataclasses' own field() is no better
    return field(default=default, metadata={"help": what})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that decides the weights, with the data.  What each one is, is said beside it and in ``--help``."""

    width: int = _setting(16, "channels after the encoder's first layer (BeatGAN: 32)")
    latent: int = _setting(32, "length of the latent vector (BeatGAN: 50)")
    discriminator_width: int = _setting(8, "width of the discriminator, which is not shipped; a narrow one is fast")
    epochs: int = _setting(8, "passes over the training beats")
    batch: int = _setting(64, "beats in a step")
    rate: float = _setting(1e-3, "highest learning rate of the generator")
    discriminator_rate: float = _setting(1e-4, "learning rate of the discriminator")
    w_adv: float = _setting(1.0, "weight of feature matching against reconstruction")
    augmented: float = _setting(0.5, "share of beats that are shifted and warped")
    shift: int = _setting(5, "most samples that an augmented beat's R peak is off, as a detector's may be")
    warp: float = _setting(0.05, "most that an augmented beat's time axis is stretched or squeezed, as a share")
    seed: int = _setting(0, "decides initial weights, order of the beats and augmentation")

    def __post_init__(self) -> None:
        for name in ("width", "latent", "discriminator_width", "epochs", "batch", "rate", "discriminator_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected more than 0")
        for name, most in (("augmented", 1.0), ("warp", 0.5), ("shift", float(BEFORE)), ("w_adv", inf), ("seed", inf)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 to {most:g}")
