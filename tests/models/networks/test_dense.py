"""The student: its size, its principal axes, and its scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgmon.models.inference.reconstruction import Scorer
from ecgmon.models.networks.beatgan import initialise
from ecgmon.models.networks.dense import DenseGenerator, principal_axes
from ecgmon.models.networks.shape import AXES, BeatGanShape, DenseShape, shape_of
from ecgmon.models.weights import checkpoint
from ecgmon.models.windows import scale

if TYPE_CHECKING:
    from pathlib import Path

    from ecgmon.models.score.score import Score


def seeded(shape: DenseShape) -> DenseGenerator:
    generator = DenseGenerator(shape)
    initialise(generator, torch.Generator().manual_seed(0))
    generator(torch.randn(16, shape.leads, 320))  # changes the batch-norm statistics from their initial values
    return generator.eval()


@settings(deadline=None, max_examples=10)
@given(leads=st.integers(1, 3), width=st.integers(1, 6), latent=st.integers(1, 9))
def test_the_expected_tensors_of_a_checkpoint_are_those_of_the_students(leads: int, width: int, latent: int) -> None:
    shape = DenseShape(leads, width, latent)
    generator = DenseGenerator(shape)
    state = {k: tuple(v.shape) for k, v in generator.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert state == shape.tensors
    assert sum(p.numel() for p in generator.parameters()) == shape.parameters
    matrices = [m.weight.numel() for m in generator.layers() if isinstance(m, torch.nn.Linear)]
    assert sum(matrices) == shape.multiply_adds


def test_a_student_needs_a_small_share_of_the_published_multiply_adds() -> None:
    assert BeatGanShape().multiply_adds > 80 * DenseShape().multiply_adds


def windows_of_a_plane(n: int, leads: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Make windows (n, leads, 320) that vary in two directions only, in one much more than in the other."""
    random = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(320 * leads, 2, generator=random))[0]
    sizes = torch.randn(n, 2, generator=random) * torch.tensor([5.0, 1.0])
    return (sizes @ directions.t()).unflatten(1, (leads, 320)), directions.t()


@pytest.mark.parametrize("leads", [1, 2])
def test_principal_axes_are_the_directions_of_the_windows(leads: int) -> None:
    windows, directions = windows_of_a_plane(500, leads)
    axes = principal_axes(windows.split(64))
    assert axes.shape == (leads * AXES, leads * 320)
    assert torch.allclose(axes @ axes.t(), torch.eye(leads * AXES), atol=1e-5)
    assert torch.allclose((axes[:2] @ directions.t()).abs(), torch.eye(2), atol=0.1)
    left = windows.flatten(1) - windows.flatten(1) @ axes[:2].t() @ axes[:2]
    assert left.abs().max() < 1e-4
    largest = axes.abs().argmax(1, keepdim=True)
    assert (axes.gather(1, largest) > 0).all()


def test_principal_axes_need_a_window() -> None:
    with pytest.raises(ValueError, match="no window"):
        principal_axes([])


def test_the_part_of_a_window_outside_the_axes_always_counts_as_error() -> None:
    generator = seeded(DenseShape(width=2, latent=3))
    generator.axes.weight.data.copy_(principal_axes([windows_of_a_plane(500)[0]]))
    beat = torch.randn(1, 320, generator=torch.Generator().manual_seed(1))
    along = beat @ generator.axes.weight.t() @ generator.axes.weight
    outside = beat - along
    with torch.inference_mode():
        error = (generator(beat[None])[0] - beat[None]).square().sum()
        of_what_is_along = (generator(along[None])[0] - along[None]).square().sum()
    assert torch.allclose(error, of_what_is_along + outside.square().sum(), rtol=1e-4)


def test_axes_get_no_gradient() -> None:
    generator = DenseGenerator(DenseShape(width=2, latent=3)).train()
    generator(torch.randn(16, 1, 320))[0].square().sum().backward()
    assert generator.axes.weight.grad is None
    assert all(p.grad is not None for name, p in generator.named_parameters() if name != "axes.weight")


def test_teacher_and_student_have_stages_of_the_same_lengths() -> None:
    ticks = [feature.shape[-1] for feature in seeded(DenseShape(width=3, latent=2)).observed(torch.zeros(1, 1, 320))[2]]
    assert ticks == [20, 10, 10, 20]


def test_a_stored_student_gives_the_same_scores(made_up_score: Score, tmp_path: Path) -> None:
    generator = seeded(DenseShape(leads=2, width=2, latent=3))
    path = tmp_path / "student.safetensors"
    checkpoint.save(
        path,
        generator,
        name="student",
        score=made_up_score,
        usual=np.ones(320, np.float32),
        command="ecgmon train",
        data={"beats": "0123"},
    )
    windows_mv = np.random.default_rng(0).standard_normal((5, 2, 320)).astype(np.float32)
    found = Scorer(path)
    assert found.info.shape == generator.shape
    assert found.info.architecture == "dense"
    x = torch.from_numpy(scale(windows_mv))
    with torch.no_grad():
        expected = (generator(x)[0] - x).square().mean(dim=(1, 2)).numpy()
    assert np.allclose(found.score(windows_mv).ax, expected, rtol=1e-5)


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match="no architecture 'transformer'; expected beatgan or dense"):
        shape_of("transformer", leads=1, width=1, latent=1)
