"""The settings of a training, which together with the data determine the weights.

They are separate from the training code, so that a command line can offer them without loading torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, Final

from ecgmon.models.networks.shape import ARCHITECTURES, INITIAL_WEIGHTS, Shape, shape_of
from ecgmon.models.windows import BEFORE

if TYPE_CHECKING:
    from collections.abc import Mapping

DIVERGENCES: Final = ("student_teacher", "teacher_student")
"""Directions of the divergence in L_KD: the formula of the FRSKD paper, and its published code.

See :func:`ecgmon.models.training.losses.softened_outputs`.
"""

SCHEDULES: Final = ("constant", "cosine")
"""Schedules of the generator's learning rate: constant, or a rise over a tenth of the steps and a cosine to zero."""


def _setting(default: Any, what: str) -> Any:  # noqa: ANN401 - dataclasses.field() returns Any, too
    return field(default=default, metadata={"help": what})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings that determine the weights.  Each has a description, which ``--help`` shows.

    The defaults are BeatGAN's as published (Zhou et al., IJCAI 2019, without its time warping): see :data:`PAPER`.
    """

    architecture: str = _setting("beatgan", f"kind of generator: {' or '.join(ARCHITECTURES)}")
    width: int = _setting(32, "channels of the generator: see models/networks/shape.py")
    latent: int = _setting(50, "length of the latent vector")
    discriminator_width: int = _setting(32, "width of the discriminator, which is not shipped")
    epochs: int = _setting(100, "passes over the training beats")
    batch: int = _setting(64, "beats in a step")
    rate: float = _setting(1e-4, "highest learning rate of the generator")
    schedule: str = _setting("constant", f"schedule of the generator's learning rate: {' or '.join(SCHEDULES)}")
    discriminator_rate: float = _setting(1e-4, "learning rate of the discriminator")
    w_adv: float = _setting(1.0, "weight of feature matching; 0 trains without a discriminator")
    alpha: float = _setting(0.0, "weight of L_KD, the softened outputs")
    beta: float = _setting(0.0, "weight of L_F, the attention maps of the stages")
    w_output: float = _setting(0.0, "weight of the mean squared difference to the teacher's output, for comparison")
    temperature: float = _setting(4.0, "temperature T that L_KD softens outputs with")
    divergence: str = _setting(
        "student_teacher", f"direction of the Kullback-Leibler divergence in L_KD: {' or '.join(DIVERGENCES)}"
    )
    self_teacher: bool = _setting(default=False, what="distil from a feature pyramid over the generator's own stages")
    precision: str = _setting(
        "float32", "what the networks compute in: float32 or bfloat16 (where the device is fast at it)"
    )
    initial_weights: str = _setting("dcgan", f"distribution of the first weights: {' or '.join(INITIAL_WEIGHTS)}")
    augmented: float = _setting(0.0, "share of beats that are shifted and warped; a teacher is asked about the others")
    shift: int = _setting(5, "most samples that an augmented beat's R peak is off, as a detector's may be")
    warp: float = _setting(0.05, "most that an augmented beat's time axis is stretched or squeezed, as a share")
    seed: int = _setting(0, "decides initial weights, order of the beats and augmentation")

    def __post_init__(self) -> None:
        for name, choices in (
            ("architecture", ARCHITECTURES), ("precision", ("float32", "bfloat16")), ("schedule", SCHEDULES),
            ("divergence", DIVERGENCES), ("initial_weights", INITIAL_WEIGHTS),
        ):  # fmt: skip
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected {' or '.join(choices)}")
        for name in (
            "width",
            "latent",
            "discriminator_width",
            "epochs",
            "batch",
            "rate",
            "discriminator_rate",
            "temperature",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected more than 0")
        for name, most in (
            ("augmented", 1.0), ("warp", 0.5), ("shift", float(BEFORE)),
            ("w_adv", inf), ("alpha", inf), ("beta", inf), ("w_output", inf), ("seed", inf),
        ):  # fmt: skip
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 to {most:g}")

    @property
    def distils(self) -> bool:
        """Whether a term of the loss needs a teacher."""
        return self.alpha > 0 or self.beta > 0 or self.w_output > 0

    def shape(self, leads: int) -> Shape:
        """Shape of the generator for windows with ``leads`` leads."""
        return shape_of(self.architecture, leads=leads, width=self.width, latent=self.latent)


def completed(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Complete settings that an earlier version stored with what that version did.

    Earlier versions had no ``schedule``, ``divergence`` and ``initial_weights``.  They summed L_F over the 20 or 10
    ticks of a stage, so ``beta`` is restated for the mean: times 15, the number of ticks on average.

    Parameters
    ----------
    stored : mapping
        Settings by name.

    Returns
    -------
    dict of str to Any
        Settings of this version if they are complete; see :func:`is_of_earlier_version`.
    """
    if not is_of_earlier_version(stored):
        return dict(stored)
    return {
        **stored,
        "schedule": "cosine",
        "divergence": "student_teacher",
        "initial_weights": "dcgan",
        "beta": 15 * stored.get("beta", 0.0),
    }


def is_of_earlier_version(stored: Mapping[str, Any]) -> bool:
    """Whether stored settings are of a version that had other definitions of err_adv and L_F."""
    return "schedule" not in stored


PAPER: Final = Settings()
"""BeatGAN as published: 1,908,800 parameters, 100 epochs, Adam at a constant 1e-4 with betas .5 and .999: for a GPU."""

TEACHER: Final = Settings(
    width=16,
    discriminator_width=8,
    epochs=20,
    batch=128,
    rate=1e-3,
    schedule="cosine",
    discriminator_rate=2e-4,
    w_adv=0.05,
    initial_weights="dcgan",
    augmented=0.5,
)
"""A BeatGAN of half the width, which two cores can train."""

STUDENT: Final = Settings(
    architecture="dense",
    width=13,
    latent=16,
    epochs=40,
    batch=256,
    rate=2e-3,
    schedule="cosine",
    w_adv=0.0,
    alpha=0.1,
    divergence="student_teacher",
    self_teacher=True,
    initial_weights="dcgan",
    augmented=0.5,
    shift=3,
)
"""The deployed generator; its training needs no other trained generator."""
