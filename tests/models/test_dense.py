"""The student is what its shape says, and scores as its layers do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import checkpoint
from models.beatgan import initialise
from models.dense import DenseGenerator
from models.scoring import Scorer
from models.shape import BeatGanShape, DenseShape, shape_of
from models.windows import scale


def seeded(shape):
    generator = DenseGenerator(shape)
    initialise(generator, torch.Generator().manual_seed(0))
    generator(torch.randn(16, shape.leads, 320))  # moves the batch-norm statistics off their start
    return generator.eval()


@settings(deadline=None, max_examples=10)
@given(leads=st.integers(1, 3), width=st.integers(1, 6), latent=st.integers(1, 9))
def test_checkpoints_are_checked_against_the_tensors_that_students_have(leads, width, latent):
    shape = DenseShape(leads, width, latent)
    generator = DenseGenerator(shape)
    state = {k: tuple(v.shape) for k, v in generator.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert state == shape.tensors
    assert sum(p.numel() for p in generator.parameters()) == shape.parameters
    matrices = [m.weight.numel() for m in generator.modules() if isinstance(m, torch.nn.Linear)]
    assert sum(matrices) == shape.multiply_adds


def test_a_student_takes_a_small_part_of_the_published_generator():
    assert BeatGanShape().multiply_adds > 80 * DenseShape().multiply_adds


def test_teacher_and_student_show_the_same_stages():
    ticks = [feature.shape[-1] for feature in seeded(DenseShape(width=3, latent=2)).observed(torch.zeros(1, 1, 320))[2]]
    assert ticks == [20, 10, 10, 20]


def test_a_stored_student_scores_as_it_did_before(made_up_score, tmp_path):
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
    assert np.allclose(found.score(windows_mv).error, expected, rtol=1e-5)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(ValueError, match="no architecture 'transformer'; expected beatgan or dense"):
        shape_of("transformer", leads=1, width=1, latent=1)
