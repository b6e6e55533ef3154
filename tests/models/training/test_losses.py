"""Each term of the unified loss has the documented value, and only the student gets its gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ecgmon.models.networks.beatgan import Generator, initialise
from ecgmon.models.networks.dense import DenseGenerator
from ecgmon.models.networks.self_teacher import FeaturePyramid
from ecgmon.models.networks.shape import BeatGanShape, DenseShape
from ecgmon.models.training import losses
from ecgmon.models.training.distillation import teacher_output
from ecgmon.models.training.settings import DIVERGENCES


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(4, 1, 320, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def student() -> DenseGenerator:
    student = DenseGenerator(DenseShape(width=2, latent=3))
    initialise(student, torch.Generator().manual_seed(1))
    return student


@pytest.fixture
def teacher(x: torch.Tensor) -> Generator:
    teacher = Generator(BeatGanShape(width=2, latent=3))
    initialise(teacher, torch.Generator().manual_seed(2))
    teacher(x)
    return teacher


def moved(network: Generator | DenseGenerator | FeaturePyramid) -> list[str]:
    return [name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]


def test_softened_outputs_agree_with_a_value_worked_out_by_hand() -> None:
    # Two ticks, T = 1: student 1/2, 1/2; teacher 3/4, 1/4.  KL(student || teacher) = 1/2 ln(2/3) + 1/2 ln 2.
    student = torch.zeros(1, 1, 2)
    teacher = torch.tensor([[[math.log(3.0), 0.0]]])
    assert losses.softened_outputs(student, teacher, 1.0).item() == pytest.approx(0.5 * math.log(4 / 3))
    # KL(teacher || student) = 3/4 ln(3/2) + 1/4 ln(1/2).
    other = losses.softened_outputs(student, teacher, 1.0, "teacher_student").item()
    assert other == pytest.approx(0.75 * math.log(1.5) - 0.25 * math.log(2))
    # At T = 2 the teacher's ratio is sqrt(3) to 1, and the square of T is a factor.
    q = math.sqrt(3) / (1 + math.sqrt(3))
    expected = 4 * 0.5 * (math.log(0.5 / q) + math.log(0.5 / (1 - q)))
    assert losses.softened_outputs(student, teacher, 2.0).item() == pytest.approx(expected, rel=1e-5)


def test_each_direction_of_the_divergence_is_that_of_its_name() -> None:
    """The reference is numpy, in double precision: windows of two leads, T = 4."""
    random = np.random.default_rng(0)
    student, teacher = random.uniform(-9, 9, (2, 5, 2, 320))
    p, q = (np.exp(x / 4) / np.exp(x / 4).sum(axis=-1, keepdims=True) for x in (student, teacher))
    expected = {
        "student_teacher": 16 * (p * np.log(p / q)).sum(axis=-1).mean(),
        "teacher_student": 16 * (q * np.log(q / p)).sum(axis=-1).mean(),
    }
    assert abs(expected["student_teacher"] / expected["teacher_student"] - 1) > 0.01
    assert set(expected) == set(DIVERGENCES)
    for name in DIVERGENCES:
        found = losses.softened_outputs(torch.tensor(student), torch.tensor(teacher), 4.0, name)
        assert found.item() == pytest.approx(expected[name], rel=1e-9)


def test_an_unknown_divergence_is_refused(x: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="there is no divergence 'both'; expected student_teacher or teacher_student"):
        losses.softened_outputs(x, x, 4.0, "both")


def test_equal_softened_outputs_have_zero_loss(x: torch.Tensor) -> None:
    assert losses.softened_outputs(x, x, 4.0).item() == pytest.approx(0, abs=1e-7)


def test_a_softmax_over_one_lead_has_no_gradient(x: torch.Tensor) -> None:
    """L_KD is over ticks, because a softmax over the leads of a one-lead model is always 1."""
    student = x.clone().requires_grad_(True)
    over_leads = torch.log_softmax(student / 4, dim=1)
    degenerate = (over_leads.exp() * (over_leads - torch.log_softmax(-x / 4, dim=1))).sum(dim=1).mean()
    degenerate.backward()
    assert degenerate.item() == 0
    assert student.grad is not None
    assert student.grad.abs().max() == 0
    student.grad = None
    again = x.clone().requires_grad_()
    over_ticks = losses.softened_outputs(again, -x, 4.0)
    over_ticks.backward()
    assert over_ticks.item() > 0
    assert again.grad is not None
    assert again.grad.abs().max() > 0


def test_an_attention_map_agrees_with_a_value_worked_out_by_hand() -> None:
    features = torch.tensor([[[3.0, 0.0], [3.0, 4.0]]])  # two channels, two ticks: means of squares 9 and 8
    expected = torch.tensor([[9.0, 8.0]]) / math.sqrt(145)
    assert torch.allclose(losses.attention_map(features), expected)
    assert losses.attention_map(torch.zeros(1, 2, 5)).abs().sum() == 0


def test_attention_transfer_agrees_with_a_value_worked_out_by_hand() -> None:
    student = [torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[2.0, 2.0]]])]
    teacher = [torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.5]]).sqrt()]
    # First stage: maps (1, 0) and (0, 1) differ by 1 at each of the two ticks; second: both at 45 degrees.
    assert losses.attention_transfer(student, teacher).item() == pytest.approx(1.0)


def test_attention_transfer_is_a_mean_over_windows_and_ticks_and_a_sum_over_stages() -> None:
    random = np.random.default_rng(0)
    features = [random.standard_normal((2, 3, channels, ticks)) for channels, ticks in ((4, 20), (7, 10), (7, 10))]
    expected, maps = 0.0, []
    for pair in features:  # student and teacher
        squares = (pair**2).mean(axis=2)
        own, theirs = squares / np.sqrt((squares**2).sum(axis=-1, keepdims=True))
        expected += ((own - theirs) ** 2).mean()
        maps.append(torch.tensor(theirs))
    found = losses.attention_transfer([torch.tensor(pair[0]) for pair in features], maps)
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_stages_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[20\] ticks and the teacher's \[10\]"):
        losses.attention_transfer([torch.zeros(1, 2, 20)], [torch.zeros(1, 10)])
    with pytest.raises(ValueError, match="at least one"):
        losses.attention_transfer([], [])


def test_every_term_has_gradients_for_the_student_and_none_for_the_teacher(
    x: torch.Tensor, student: DenseGenerator, teacher: Generator
) -> None:
    taught_hat, _, theirs = teacher.eval().observed(x)  # with a graph to the teacher, which the terms must detach
    maps = [losses.attention_map(feature) for feature in theirs]
    for name, term in {
        "l_kd": lambda: losses.softened_outputs(student.observed(x)[0], taught_hat, 4.0),
        "l_f": lambda: losses.attention_transfer(student.observed(x)[2], maps),
    }.items():
        student.zero_grad()
        term().backward()
        assert "encoder.stages.0.0.weight" in moved(student), name
        assert moved(teacher) == [], name
    everything = losses.softened_outputs(student.observed(x)[0], taught_hat, 4.0)
    student.zero_grad()
    everything.backward()
    assert moved(student) == [name for name, p in student.named_parameters() if p.requires_grad]


def test_the_teacher_output_is_computed_in_evaluation_mode_without_gradients(
    x: torch.Tensor, teacher: Generator
) -> None:
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    taught = teacher_output(teacher.train(), x)
    assert torch.equal(taught.reconstruction, teacher.eval()(x)[0])
    assert [part.shape for part in taught.maps] == [(4, 20), (4, 10), (4, 10), (4, 20)]
    assert not taught.reconstruction.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


def test_the_self_teacher_and_its_student_have_separate_gradients(x: torch.Tensor, student: DenseGenerator) -> None:
    _, _, features = student.observed(x)
    pyramid = FeaturePyramid([feature.shape[1] for feature in features], leads=1)
    refined_hat, refined = pyramid(features)
    assert refined_hat.shape == x.shape
    losses.reconstruction(x, refined_hat).backward()
    assert moved(pyramid) == [name for name, _ in pyramid.named_parameters()]
    assert moved(student) == []
    pyramid.zero_grad()
    x_hat, _, features = student.observed(x)
    maps = [losses.attention_map(feature) for feature in refined]
    (losses.softened_outputs(x_hat, refined_hat, 4.0) + losses.attention_transfer(features, maps)).backward()
    assert moved(pyramid) == []
    assert "encoder.stages.0.0.weight" in moved(student)


def test_the_feature_pyramid_gives_an_output_for_each_lead() -> None:
    features = [torch.rand(2, 3, ticks) for ticks in (20, 10, 10, 20)]
    refined_hat, _ = FeaturePyramid([3, 3, 3, 3], leads=2)(features)
    assert refined_hat.shape == (2, 2, 320)
