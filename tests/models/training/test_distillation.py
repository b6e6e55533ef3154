"""A training step is that of BeatGAN's published code, and the settings named as published are those of the papers.

The reference is written from the formulas in plain tensor operations: it shares no code with the package.  Both sides
compute in double precision, so that Adam, which divides by the size of a gradient, gives the same weights.
"""

from __future__ import annotations

import math
from collections import defaultdict
from copy import deepcopy
from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name that every torch program uses

from ecgmon.models.networks.beatgan import initialise
from ecgmon.models.training.distillation import COLLAPSE, ResumeError, TeacherOutput, Training
from ecgmon.models.training.settings import PAPER, STUDENT, TEACHER, Settings, completed

RATE, D_RATE, W_ADV = 1e-3, 3e-3, 0.5
SMALL = Settings(width=2, latent=3, discriminator_width=2, rate=RATE, discriminator_rate=D_RATE, w_adv=W_ADV)
STAGES = 4  # with batch norm, in each half


class Reference:
    """BeatGAN's published step, with weights copied from a training."""

    def __init__(self, training: Training) -> None:
        assert training.discriminator is not None
        self.g = {name: tensor.detach().clone() for name, tensor in training.generator.state_dict().items()}
        self.d = {name: tensor.detach().clone() for name, tensor in training.discriminator.state_dict().items()}
        self.moments: dict[str, tuple[Tensor, Tensor]] = {}
        self.t: defaultdict[str, int] = defaultdict(int)

    def batch_norm(self, p: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
        mean, variance = x.mean(dim=(0, 2)), x.var(dim=(0, 2), unbiased=False)
        n = x.shape[0] * x.shape[2]
        p[f"{name}.running_mean"] = 0.9 * p[f"{name}.running_mean"] + 0.1 * mean.detach()
        p[f"{name}.running_var"] = 0.9 * p[f"{name}.running_var"] + 0.1 * variance.detach() * n / (n - 1)
        scale, shift = p[f"{name}.weight"][:, None], p[f"{name}.bias"][:, None]
        return (x - mean[:, None]) / torch.sqrt(variance[:, None] + 1e-5) * scale + shift

    def down(self, p: dict[str, Tensor], x: Tensor) -> Tensor:
        x = F.conv1d(x, p["encoder.stages.0.weight"], stride=2, padding=1)
        x = torch.where(x > 0, x, 0.2 * x)
        for k in range(STAGES):
            x = F.conv1d(x, p[f"encoder.stages.{3 * k + 2}.weight"], stride=2, padding=1)
            x = self.batch_norm(p, f"encoder.stages.{3 * k + 3}", x)
            x = torch.where(x > 0, x, 0.2 * x)
        return x

    def generate(self, x: Tensor) -> Tensor:
        p = self.g
        x = F.conv1d(self.down(p, x), p["encoder.last.weight"])
        x = F.conv_transpose1d(x, p["decoder.stages.0.weight"])
        x = self.batch_norm(p, "decoder.stages.1", x).clamp(min=0)
        for k in range(STAGES):
            x = F.conv_transpose1d(x, p[f"decoder.stages.{3 * k + 3}.weight"], stride=2, padding=1)
            x = self.batch_norm(p, f"decoder.stages.{3 * k + 4}", x).clamp(min=0)
        return torch.tanh(F.conv_transpose1d(x, p["decoder.last.0.weight"], stride=2, padding=1))

    def discriminate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.down(self.d, x)
        return torch.sigmoid(F.conv1d(features, self.d["encoder.last.weight"])).flatten(), features

    def adam(self, which: str, p: dict[str, Tensor], loss: Tensor, rate: float) -> None:
        names = [name for name, tensor in p.items() if tensor.requires_grad]
        self.t[which] += 1
        t = self.t[which]
        for name, gradient in zip(names, torch.autograd.grad(loss, [p[name] for name in names]), strict=True):
            m, v = self.moments.get(f"{which}.{name}", (torch.zeros_like(gradient), torch.zeros_like(gradient)))
            m, v = 0.5 * m + 0.5 * gradient, 0.999 * v + 0.001 * gradient**2
            self.moments[f"{which}.{name}"] = m, v
            step = rate * (m / (1 - 0.5**t)) / (torch.sqrt(v / (1 - 0.999**t)) + 1e-8)
            p[name] = p[name].detach() - step

    @staticmethod
    def trainable(p: dict[str, Tensor]) -> None:
        for name, tensor in p.items():
            if "running" not in name and "batches" not in name:
                p[name] = tensor.detach().requires_grad_()

    def step(self, x: Tensor) -> dict[str, float]:
        """Do one step; ``err_adv_before`` is that with the features from before the discriminator's step."""
        self.trainable(self.d)
        real, features_real = self.discriminate(x)
        fake, features_fake = self.discriminate(self.generate(x).detach())
        err_d_real, err_d_fake = -torch.log(real).mean(), -torch.log(1 - fake).mean()
        before = ((features_fake - features_real) ** 2).mean()
        self.adam("d", self.d, err_d_real + err_d_fake, D_RATE)

        self.trainable(self.g)
        x_hat = self.generate(x)
        _, features_fake = self.discriminate(x_hat)
        _, features_real = self.discriminate(x)
        err_adv = ((features_fake - features_real) ** 2).mean()
        err_rec = ((x_hat - x) ** 2).mean()
        err_g = err_rec + W_ADV * err_adv
        self.adam("g", self.g, err_g, RATE)
        found = {
            "err_d": err_d_real + err_d_fake, "err_d_real": err_d_real, "err_d_fake": err_d_fake, "err_g": err_g,
            "err_rec": err_rec, "err_adv": err_adv, "err_adv_before": before,
        }  # fmt: skip
        return {name: loss.item() for name, loss in found.items()}


def windows(n: int = 6, seed: int = 0) -> Tensor:
    return torch.rand(n, 1, 320, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def in_double(training: Training) -> Training:
    training.generator.double()
    if training.discriminator is not None:
        training.discriminator.double()
    return training


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, tensor in expected.items():
        if "batches" not in name:
            torch.testing.assert_close(found[name], tensor.detach(), rtol=1e-6, atol=1e-9, msg=name)


def test_three_adversarial_steps_are_those_of_the_published_code() -> None:
    training = in_double(Training(SMALL, leads=1, steps=10))
    reference = Reference(training)
    first = {name: tensor.clone() for name, tensor in training.generator.state_dict().items()}
    for seed in range(3):
        found, expected = training.advance(windows(seed=seed)), reference.step(windows(seed=seed))
        assert found.keys() == expected.keys() - {"err_adv_before"}
        for name, value in found.items():
            assert value == pytest.approx(expected[name], rel=1e-7), (seed, name)
    assert training.discriminator is not None
    assert_same(training.generator.state_dict(), reference.g)
    assert_same(training.discriminator.state_dict(), reference.d)
    moved = (training.generator.state_dict()["encoder.last.weight"] - first["encoder.last.weight"]).abs()
    assert moved.mean() > RATE  # far above the tolerance


def test_err_adv_uses_the_features_after_the_step_of_the_discriminator() -> None:
    training = in_double(Training(SMALL, leads=1, steps=10))
    expected = Reference(training).step(windows())
    found = training.advance(windows())["err_adv"]
    assert found == pytest.approx(expected["err_adv"], rel=1e-7)
    assert abs(found / expected["err_adv_before"] - 1) > 1e-4


def test_the_loss_of_the_generator_is_the_weighted_sum_of_its_terms() -> None:
    settings = replace(SMALL, alpha=0.5, beta=2.0, w_output=0.25)
    x = windows().float()
    maps = [torch.rand(6, ticks) for ticks in (20, 10, 10, 20)]
    found = Training(settings, leads=1, steps=10).advance(x, TeacherOutput(0.5 * x, maps))
    terms = {"err_rec": 1.0, "err_adv": W_ADV, "l_kd": 0.5, "l_f": 2.0, "output": 0.25}
    assert found["err_g"] == pytest.approx(sum(weight * found[name] for name, weight in terms.items()), rel=1e-5)


@pytest.mark.parametrize("divergence", ["student_teacher", "teacher_student"])
def test_a_training_uses_the_divergence_of_its_settings(divergence: str) -> None:
    settings = replace(SMALL, w_adv=0.0, alpha=1.0, divergence=divergence)
    training = Training(settings, leads=1, steps=10)
    x = windows().float()
    training.generator.train()
    p = torch.softmax(training.generator(x)[0].double() / 4, dim=-1)
    q = torch.softmax(-x.double() / 4, dim=-1)
    if divergence == "teacher_student":
        p, q = q, p
    expected = 16 * (p * torch.log(p / q)).sum(dim=-1).mean().item()
    assert training.advance(x, TeacherOutput(-x, []))["l_kd"] == pytest.approx(expected, rel=1e-4)


def test_the_paper_s_recipe_has_a_constant_rate_and_no_augmentation() -> None:
    assert Settings() == PAPER
    assert asdict(PAPER) == {
        "architecture": "beatgan", "width": 32, "latent": 50, "discriminator_width": 32, "epochs": 100, "batch": 64,
        "rate": 1e-4, "schedule": "constant", "discriminator_rate": 1e-4, "w_adv": 1.0, "alpha": 0.0, "beta": 0.0,
        "w_output": 0.0, "temperature": 4.0, "divergence": "student_teacher", "self_teacher": False,
        "precision": "float32", "initial_weights": "dcgan", "augmented": 0.0, "shift": 5, "warp": 0.05, "seed": 0,
    }  # fmt: skip
    training = Training(replace(PAPER, width=1, discriminator_width=1, latent=1), leads=1, steps=1000)
    optimisers = (training._generator_adam, training._discriminator_adam)
    assert [optimiser.defaults["betas"] for optimiser in optimisers] == [(0.5, 0.999)] * 2
    for training.step in (0, 50, 999):
        training.advance(windows().float())
        assert [optimiser.param_groups[0]["lr"] for optimiser in optimisers] == [1e-4] * 2


def test_the_cosine_schedule_rises_over_a_tenth_and_falls_to_zero() -> None:
    training = Training(replace(SMALL, schedule="cosine"), leads=1, steps=100)
    rates = []
    for training.step in (0, 9, 10, 55, 99):
        rates.append(training.rate / RATE)
    falling = [0.5 * (1 + math.cos(math.pi * part)) for part in (0, 0.5, 89 / 90)]
    assert rates == pytest.approx([1 / 11, 10 / 11, *falling])


def test_teacher_and_student_keep_the_recipe_that_they_were_trained_with() -> None:
    common = {
        "latent": 50, "schedule": "cosine", "precision": "float32", "initial_weights": "dcgan", "augmented": 0.5,
        "warp": 0.05, "beta": 0.0, "w_output": 0.0, "divergence": "student_teacher", "temperature": 4.0, "seed": 0,
    }  # fmt: skip
    teacher = {
        "architecture": "beatgan", "width": 16, "discriminator_width": 8, "epochs": 20, "batch": 128, "rate": 1e-3,
        "discriminator_rate": 2e-4, "w_adv": 0.05, "alpha": 0.0, "self_teacher": False, "shift": 5,
    }  # fmt: skip
    student = {
        "architecture": "dense", "width": 13, "latent": 16, "discriminator_width": 32, "epochs": 40, "batch": 256,
        "rate": 2e-3, "discriminator_rate": 1e-4, "w_adv": 0.0, "alpha": 0.1, "self_teacher": True, "shift": 3,
    }  # fmt: skip
    assert asdict(TEACHER) == common | teacher
    assert asdict(STUDENT) == common | student


SEPARABLE = replace(SMALL, rate=1e-9, discriminator_width=8, discriminator_rate=3e-2)


def until_restarted(training: Training, x: Tensor) -> list[float]:
    """Train until the discriminator is drawn again; return its losses."""
    found: list[float] = []
    while training.restarts == 0:
        assert len(found) < 1000, f"the discriminator's loss is still {found[-1]}"
        found.append(training.advance(x)["err_d"])
    return found


def test_a_discriminator_that_has_won_is_drawn_again_and_the_training_goes_on() -> None:
    """Its input is trivially separable: steep waves, against the almost flat output of a generator that stays put."""
    assert COLLAPSE == 5e-6  # the published threshold
    training = Training(SEPARABLE, leads=1, steps=10)
    assert training.discriminator is not None
    x = torch.sign(windows()).float()
    stored = training.random.get_state()
    losses = until_restarted(training, x)
    assert losses[-1] < 5e-6 <= min(losses[:-1])

    expected = torch.Generator()
    expected.set_state(stored)
    again = Training(SEPARABLE, leads=1, steps=10).discriminator
    assert again is not None
    initialise(again, expected)
    fresh, trained = again.state_dict(), training.discriminator.state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in trained.items())
    assert all(p.requires_grad for p in training.discriminator.parameters())
    ages = {int(state["step"]) for state in training._discriminator_adam.state_dict()["state"].values()}
    assert ages == {len(losses)}  # the optimiser keeps its state

    state = deepcopy(training.state())
    after = [training.advance(x) for _ in range(10)]
    assert after[0]["err_d"] > 0.1 > after[-1]["err_d"]
    assert all(math.isfinite(value) for entry in after for value in entry.values())
    assert training.restarts == 1
    assert [Training(SEPARABLE, leads=1, steps=10).restore(state).advance(x)] == after[:1]


def former(settings: Settings) -> dict[str, object]:
    """Settings as versions without ``schedule``, ``divergence`` and ``initial_weights`` stored them."""
    new = ("schedule", "divergence", "initial_weights")
    return {name: value for name, value in asdict(settings).items() if name not in new}


def test_settings_of_an_earlier_version_are_completed() -> None:
    assert completed(former(STUDENT)) == asdict(STUDENT)
    assert completed(former(TEACHER)) == asdict(TEACHER)
    # Summed over 20, 10, 10 and 20 ticks, as before, is 15 times the mean of equal differences.
    assert completed(former(replace(STUDENT, beta=0.01)))["beta"] == 0.15
    assert completed(asdict(PAPER)) == asdict(PAPER)


def test_an_unfinished_training_of_an_earlier_version_resumes_only_if_its_loss_is_the_same() -> None:
    student = replace(SMALL, w_adv=0.0, alpha=0.1, self_teacher=True, schedule="cosine")
    for settings, step, is_refused in (
        (student, 1, False),
        (replace(student, beta=0.15), 1, True),
        (replace(SMALL, schedule="cosine"), 1, True),
        (replace(SMALL, schedule="cosine"), 10, False),
    ):
        training = Training(settings, leads=1, steps=10)
        state = training.state() | {"step": step, "settings": former(replace(settings, beta=settings.beta / 15))}
        if is_refused:
            with pytest.raises(ResumeError, match="an earlier version, which computed err_adv and L_F in another way"):
                training.restore(state)
        else:
            assert training.restore(state).step == step
