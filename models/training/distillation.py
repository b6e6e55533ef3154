"""Train a generator on the unified loss, one step at a time.

    L = err_rec + w_adv * err_adv + alpha * L_KD + beta * L_F

A term with weight zero is not computed, and the networks that only it needs are not made: without
``w_adv`` there is no discriminator, without ``alpha`` and ``beta`` no teacher.  BeatGAN's own
training uses ``w_adv`` only; with ``w_adv``, a step is that of BeatGAN's published code.

This module uses no files, data sets or clocks.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import torch

from ecgmon.models.networks.beatgan import Discriminator, initialise
from ecgmon.models.networks.generator import AnyGenerator, generator_of
from ecgmon.models.networks.self_teacher import FeaturePyramid
from ecgmon.models.networks.shape import BeatGanShape
from ecgmon.models.training import losses
from ecgmon.models.training.settings import completed, is_of_earlier_version
from ecgmon.models.windows import LENGTH

if TYPE_CHECKING:
    from torch import Tensor

    from ecgmon.models.training.settings import Settings

ADVERSARIAL_BETAS: Final = (0.5, 0.999)
"""Adam's betas for generator and discriminator in adversarial training, as in DCGAN and BeatGAN."""

BETAS: Final = (0.9, 0.999)
"""Adam's betas without a discriminator: its defaults (Kingma and Ba, 2015)."""

COLLAPSE: Final = 5e-6
"""If the discriminator's loss is lower, its weights are drawn again, as in BeatGAN: the generator cannot recover."""

TWO_PASSES: Final = 1 - (1 - 0.1) ** 2
"""Momentum of the generator's batch norm in adversarial training, 0.19.

BeatGAN's published step runs the generator on a batch twice, for the discriminator's step and for its own.  The weights
are the same, and so are the outputs.  But the running statistics move twice, by torch's momentum of 0.1.  One pass with
this momentum moves them as far.
"""

WARM_UP: Final = 0.1
"""Share of the steps in which the generator's learning rate rises, before it falls along a cosine."""


class ResumeError(Exception):
    """The stored state belongs to another training."""


@dataclass(frozen=True, slots=True)
class TeacherOutput:
    """The outputs of a teacher for some windows.

    Attributes
    ----------
    reconstruction : Tensor of float32, shape (n, leads, 320)
    maps : list of Tensor of float32, shape (n, ticks)
        Attention maps of the stages that ``observed`` returns.
    """

    reconstruction: Tensor
    maps: list[Tensor]


@torch.no_grad()
def teacher_output(teacher: AnyGenerator, x: Tensor) -> TeacherOutput:
    """Run a finished teacher on windows, without gradients; it stays in evaluation mode.

    Parameters
    ----------
    teacher : Generator or DenseGenerator
    x : Tensor of float32, shape (n, leads, 320)
        Scaled windows on the teacher's device.
    """
    x_hat, _, features = teacher.eval().observed(x)
    return TeacherOutput(x_hat, [losses.attention_map(feature) for feature in features])


class Training:
    """The state of a training: the generator, the networks and optimisers that train it, and the step.

    Parameters
    ----------
    settings : Settings
    leads : int
        Leads of a window.
    steps : int
        Steps of the whole training: the learning rate depends on it.
    device : str
        Device of torch.
    """

    def __init__(self, settings: Settings, *, leads: int, steps: int, device: str = "cpu") -> None:
        self.settings = settings
        self.steps = steps
        self.device = device
        self.step = 0
        self.restarts = 0
        self.random = torch.Generator().manual_seed(settings.seed)
        self.generator = generator_of(settings.shape(leads))
        initialise(self.generator, self.random, settings.initial_weights)
        self.generator.to(device)
        betas = ADVERSARIAL_BETAS if settings.w_adv > 0 else BETAS
        self._generator_adam = torch.optim.Adam(self.generator.parameters(), settings.rate, betas)
        self._pyramid: FeaturePyramid | None = None
        if settings.self_teacher and settings.distils:
            self._pyramid = self._made_pyramid(leads)
            self._pyramid_adam = torch.optim.Adam(self._pyramid.parameters(), settings.rate, BETAS)
        self.discriminator: Discriminator | None = None
        if settings.w_adv > 0:
            self.discriminator = Discriminator(BeatGanShape(leads, settings.discriminator_width))
            initialise(self.discriminator, self.random, settings.initial_weights)
            self.discriminator.to(device)
            self._discriminator_adam = torch.optim.Adam(
                self.discriminator.parameters(), settings.discriminator_rate, ADVERSARIAL_BETAS
            )
            for layer in self.generator.modules():
                if isinstance(layer, torch.nn.BatchNorm1d):
                    layer.momentum = TWO_PASSES

    def advance(self, x: Tensor, taught: TeacherOutput | None = None) -> dict[str, float]:
        """Do one step on one batch.

        Parameters
        ----------
        x : Tensor of float32, shape (batch, leads, 320)
            Scaled windows of normal beats.
        taught : TeacherOutput, optional
            What the teacher says about the first windows of the batch; needed where the settings
            distil and there is no self-teacher.

        Returns
        -------
        dict of str to float
            ``err_g``, the generator's loss; its terms, each before its weight: ``err_rec``, and ``err_adv``, ``l_kd``,
            ``l_f`` and ``output`` where their weight is not zero; with a discriminator its loss ``err_d`` and the two
            terms ``err_d_real`` and ``err_d_fake``; with a self-teacher its loss ``pyramid``.
        """
        x = x.to(self.device)
        self.generator.train()
        reported: dict[str, Tensor] = {}
        with self._autocast():
            x_hat, _, features = self.generator.observed(x)
            terms = {"err_rec": (1.0, losses.reconstruction(x, x_hat))}
        if self.discriminator is not None:
            reported |= self._train_discriminator(self.discriminator, x, x_hat)
            terms["err_adv"] = (self.settings.w_adv, self._feature_matching(self.discriminator, x, x_hat))
        if self._pyramid is not None:
            with self._autocast():
                refined_hat, refined = self._pyramid(features)
                reported["pyramid"] = losses.reconstruction(x, refined_hat)
            taught = TeacherOutput(refined_hat, [losses.attention_map(feature) for feature in refined])
        if self.settings.distils:
            if taught is None:
                raise ValueError("these settings distil from a teacher; give its output for the windows")
            terms |= self._taught(x_hat, features, taught)

        for group in self._generator_adam.param_groups:
            group["lr"] = self.rate
        self._generator_adam.zero_grad()
        err_g = torch.stack([weight * term for weight, term in terms.values()]).sum()
        err_g.backward()  # type: ignore[no-untyped-call]
        self._generator_adam.step()
        if self._pyramid is not None:
            for group in self._pyramid_adam.param_groups:
                group["lr"] = self.rate
            self._pyramid_adam.zero_grad()
            reported["pyramid"].backward()  # type: ignore[no-untyped-call]
            self._pyramid_adam.step()
        if self.discriminator is not None:
            self.discriminator.requires_grad_(requires_grad=True)
            if reported["err_d"].item() < COLLAPSE:  # its optimiser keeps its moments, as in BeatGAN's published code
                initialise(self.discriminator, self.random, self.settings.initial_weights)
                self.restarts += 1
        self.step += 1
        every = {"err_g": err_g, **{name: term for name, (_, term) in terms.items()}, **reported}
        return {name: loss.item() for name, loss in every.items()}

    def _taught(self, x_hat: Tensor, features: list[Tensor], taught: TeacherOutput) -> dict[str, tuple[float, Tensor]]:
        """Compute the weights and values of the terms that compare with a teacher."""
        settings = self.settings
        n = len(taught.reconstruction)
        theirs = taught.reconstruction.to(self.device)
        terms: dict[str, tuple[float, Tensor]] = {}
        if settings.alpha > 0:
            l_kd = losses.softened_outputs(x_hat[:n], theirs, settings.temperature, settings.divergence)
            terms["l_kd"] = (settings.alpha, l_kd)
        if settings.beta > 0:
            maps = [part.to(self.device) for part in taught.maps]
            terms["l_f"] = (settings.beta, losses.attention_transfer([feature[:n] for feature in features], maps))
        if settings.w_output > 0:
            terms["output"] = (settings.w_output, losses.reconstruction(theirs.detach(), x_hat[:n]))
        return terms

    def _train_discriminator(self, discriminator: Discriminator, x: Tensor, x_hat: Tensor) -> dict[str, Tensor]:
        """Train the discriminator by one step, and return its loss and the two terms of it."""
        discriminator.train()
        with self._autocast():
            logit_real, _ = discriminator(x)
            logit_fake, _ = discriminator(x_hat.detach())
            err_d_real, err_d_fake = losses.discrimination(logit_real, logit_fake)
        err_d = err_d_real + err_d_fake
        self._discriminator_adam.zero_grad()
        err_d.backward()  # type: ignore[no-untyped-call]
        self._discriminator_adam.step()
        return {"err_d": err_d, "err_d_real": err_d_real, "err_d_fake": err_d_fake}

    def _feature_matching(self, discriminator: Discriminator, x: Tensor, x_hat: Tensor) -> Tensor:
        """Compute err_adv with the features of the trained discriminator, which stays in training mode.

        As in BeatGAN's published code, batch norm uses the statistics of the batch.
        """
        discriminator.requires_grad_(requires_grad=False)  # only the generator needs gradients of this term
        with self._autocast():
            features_fake = discriminator.features(x_hat)
            return losses.feature_matching(discriminator.features(x), features_fake)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            torch.device(self.device).type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"
        )

    @property
    def rate(self) -> float:
        """The generator's learning rate at this step: constant, or a rise, then a cosine to zero (Smith, 2018)."""
        if self.settings.schedule == "constant":
            return self.settings.rate
        warm_up = max(1.0, WARM_UP * self.steps)
        if self.step < warm_up:
            return self.settings.rate * (self.step + 1) / (warm_up + 1)
        part = (self.step - warm_up) / max(1.0, self.steps - warm_up)
        return self.settings.rate * 0.5 * (1 + math.cos(math.pi * part))

    def state(self) -> dict[str, Any]:
        """Return the state that :meth:`restore` needs to continue, without the teacher."""
        state: dict[str, Any] = {
            "settings": asdict(self.settings),
            "leads": self.generator.shape.leads,
            "steps": self.steps,
            "step": self.step,
            "restarts": self.restarts,
            "random": self.random.get_state(),
        }
        return state | {name: part.state_dict() for name, part in self._parts().items()}

    def restore(self, state: dict[str, Any]) -> Self:
        """Continue from a stored state.

        Raises
        ------
        ResumeError
            If the state is from a training with other settings; or from an unfinished training of an earlier version
            that computed a term of this loss in another way.
        """
        before = completed(state["settings"])
        differing = [
            f"{name} was {before.get(name)}, is {value}"
            for name, value in asdict(self.settings).items()
            if before.get(name) != value
        ]
        if differing or state["steps"] != self.steps:
            raise ResumeError(
                f"the stored training had other settings ({'; '.join(differing) or 'another number of beats'}); "
                "give the same ones to resume it, or another folder to start afresh"
            )
        if (
            is_of_earlier_version(state["settings"])
            and state["step"] < state["steps"]
            and (self.settings.w_adv > 0 or self.settings.beta > 0)
        ):
            raise ResumeError(
                "the stored training is of an earlier version, which computed err_adv and L_F in another way; "
                "start a new training in another folder"
            )
        self.step = state["step"]
        self.restarts = state["restarts"]
        self.random.set_state(state["random"])
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        return self

    def _parts(self) -> dict[str, Any]:
        """Return all parts that have a state."""
        parts: dict[str, Any] = {"generator": self.generator, "generator_adam": self._generator_adam}
        if self.discriminator is not None:
            parts |= {"discriminator": self.discriminator, "discriminator_adam": self._discriminator_adam}
        if self._pyramid is not None:
            parts |= {"pyramid": self._pyramid, "pyramid_adam": self._pyramid_adam}
        return parts

    def _made_pyramid(self, leads: int) -> FeaturePyramid:
        """Make a self-teacher for this generator; its initial weights follow the seed."""
        self.generator.eval()
        with torch.no_grad():
            _, _, features = self.generator.observed(torch.zeros(1, leads, LENGTH, device=self.device))
        pyramid = FeaturePyramid([feature.shape[1] for feature in features], leads)
        for layer in pyramid.modules():
            if isinstance(layer, torch.nn.Conv1d):  # torch's default would draw from its global generator
                std = (2 / layer.weight[0].numel()) ** 0.5  # He et al. (2015)
                layer.weight.data = torch.empty(layer.weight.shape).normal_(0, std, generator=self.random)
                assert layer.bias is not None
                torch.nn.init.zeros_(layer.bias)
        return pyramid.to(self.device)
