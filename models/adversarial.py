"""BeatGAN's adversarial training, one step at a time.

Knows nothing of files, data sets or clocks: windows in, losses out.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, Self

import torch

from models import losses
from models.beatgan import Discriminator, Generator, initialise
from models.shape import Shape

if TYPE_CHECKING:
    from torch import Tensor

    from models.settings import Settings

BETAS: Final = (0.5, 0.999)
"""Adam's, for both networks, as in DCGAN and BeatGAN."""

COLLAPSE: Final = 5e-6
"""Loss of the discriminator under which it has won for good and starts again from fresh weights, as in BeatGAN."""

WARM_UP: Final = 0.1
"""Share of the steps in which the generator's learning rate rises, before it falls along a cosine."""


class ResumeError(Exception):
    """A stored training that is not this one."""


class Training:
    """Both networks, their optimisers and how far they are.

    Parameters
    ----------
    settings : Settings
    leads : int
        Leads of a window.
    steps : int
        Steps of the whole training: the learning rate depends on it.
    device : str
        Where torch computes.
    """

    def __init__(self, settings: Settings, *, leads: int, steps: int, device: str = "cpu") -> None:
        self.settings = settings
        self.steps = steps
        self.device = device
        self.step = 0
        self.restarts = 0
        self.random = torch.Generator().manual_seed(settings.seed)
        self.generator = Generator(Shape(leads, settings.width, settings.latent))
        self.discriminator = Discriminator(Shape(leads, settings.discriminator_width))
        initialise(self.generator, self.random)
        initialise(self.discriminator, self.random)
        self.generator.to(device)
        self.discriminator.to(device)
        self._generator_adam = torch.optim.Adam(self.generator.parameters(), settings.rate, BETAS)
        self._discriminator_adam = self._fresh_discriminator_adam()

    def advance(self, x: Tensor) -> dict[str, float]:
        """Do one step on one batch.

        Parameters
        ----------
        x : Tensor of float32, shape (batch, leads, 320)
            Scaled windows of normal beats.

        Returns
        -------
        dict of str to float
            The terms of both losses.
        """
        x = x.to(self.device)
        self.generator.train()
        self.discriminator.train()
        x_hat, _ = self.generator(x)

        logit_real, features_real = self.discriminator(x)
        logit_fake, _ = self.discriminator(x_hat.detach())
        discrimination = losses.discrimination(logit_real, logit_fake)
        self._discriminator_adam.zero_grad()
        discrimination.backward()  # type: ignore[no-untyped-call]
        self._discriminator_adam.step()

        # The discriminator is only looked through here; gradients of its weights would be thrown away.
        # The real features are those from before its step: computing them again would change little.
        self.discriminator.requires_grad_(requires_grad=False)
        terms = {
            "reconstruction": (1.0, losses.reconstruction(x, x_hat)),
            "feature_matching": (
                self.settings.w_adv,
                losses.feature_matching(features_real, self.discriminator.features(x_hat)),
            ),
        }
        for group in self._generator_adam.param_groups:
            group["lr"] = self.rate
        self._generator_adam.zero_grad()
        torch.stack([weight * term for weight, term in terms.values()]).sum().backward()  # type: ignore[no-untyped-call]
        self._generator_adam.step()
        self.discriminator.requires_grad_(requires_grad=True)

        if discrimination.item() < COLLAPSE:
            initialise(self.discriminator, self.random)
            self._discriminator_adam = self._fresh_discriminator_adam()
            self.restarts += 1
        self.step += 1
        return {"discrimination": discrimination.item()} | {name: term.item() for name, (_, term) in terms.items()}

    @property
    def rate(self) -> float:
        """The generator's learning rate at this step: a rise, then a cosine to zero (Smith, 2018)."""
        warm_up = max(1.0, WARM_UP * self.steps)
        if self.step < warm_up:
            return self.settings.rate * (self.step + 1) / (warm_up + 1)
        part = (self.step - warm_up) / max(1.0, self.steps - warm_up)
        return self.settings.rate * 0.5 * (1 + math.cos(math.pi * part))

    def state(self) -> dict[str, Any]:
        """All that :meth:`restore` needs to go on from here."""
        return {
            "settings": asdict(self.settings),
            "steps": self.steps,
            "step": self.step,
            "restarts": self.restarts,
            "random": self.random.get_state(),
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "generator_adam": self._generator_adam.state_dict(),
            "discriminator_adam": self._discriminator_adam.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> Self:
        """Go on from a stored state.

        Raises
        ------
        ResumeError
            If the state is that of a training with other settings.
        """
        differing = [
            f"{name} was {state['settings'].get(name)}, is {value}"
            for name, value in asdict(self.settings).items()
            if state["settings"].get(name) != value
        ]
        if differing or state["steps"] != self.steps:
            raise ResumeError(
                f"the stored training had other settings ({'; '.join(differing) or 'another number of beats'}); "
                "give the same ones to resume it, or another folder to start afresh"
            )
        self.step = state["step"]
        self.restarts = state["restarts"]
        self.random.set_state(state["random"])
        self.generator.load_state_dict(state["generator"])
        self.discriminator.load_state_dict(state["discriminator"])
        self._generator_adam.load_state_dict(state["generator_adam"])
        self._discriminator_adam.load_state_dict(state["discriminator_adam"])
        return self

    def _fresh_discriminator_adam(self) -> torch.optim.Adam:
        return torch.optim.Adam(self.discriminator.parameters(), self.settings.discriminator_rate, BETAS)
