"""The networks are those of the paper, and the right weights get gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ecgmon.models.networks.beatgan import Discriminator, Generator, initialise
from ecgmon.models.networks.shape import INITIAL_WEIGHTS, BeatGanShape
from ecgmon.models.training import losses

if TYPE_CHECKING:
    from torch.nn.modules.conv import Conv1d, ConvTranspose1d

PAPER = BeatGanShape(leads=1, width=32, latent=50)
Network = TypeVar("Network", Generator, Discriminator)

SMALL = BeatGanShape(leads=2, width=2, latent=3)


def seeded(network: Network, seed: int = 0) -> Network:
    initialise(network, torch.Generator().manual_seed(seed))
    return network


def test_the_full_generator_has_the_published_number_of_parameters() -> None:
    assert sum(p.numel() for p in Generator(PAPER).parameters()) == PAPER.parameters == 1_908_800


def test_the_full_generator_needs_the_published_multiply_adds() -> None:
    assert PAPER.multiply_adds == pytest.approx(20e6, rel=0.02)


def test_the_multiply_adds_are_the_sum_over_the_layers() -> None:
    spent = 0

    def count(layer: Conv1d | ConvTranspose1d, _: tuple[torch.Tensor], out: torch.Tensor) -> None:
        nonlocal spent
        ticks = out.shape[-1] if isinstance(layer, torch.nn.Conv1d) else out.shape[-1] // layer.stride[0]
        if layer.kernel_size[0] == 10:
            ticks = 1
        spent += layer.weight.numel() * ticks

    generator = Generator(SMALL)
    for layer in generator.modules():
        if isinstance(layer, torch.nn.Conv1d | torch.nn.ConvTranspose1d):
            layer.register_forward_hook(count)
    generator(torch.zeros(2, 2, 320))
    assert spent == SMALL.multiply_adds


@settings(deadline=None, max_examples=10)
@given(leads=st.integers(1, 3), width=st.integers(1, 6), latent=st.integers(1, 9))
def test_the_expected_tensors_of_a_checkpoint_are_those_of_the_networks(leads: int, width: int, latent: int) -> None:
    shape = BeatGanShape(leads, width, latent)
    generator = Generator(shape)
    state = {k: tuple(v.shape) for k, v in generator.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert state == shape.tensors
    assert sum(p.numel() for p in generator.parameters()) == shape.parameters


def test_a_reconstruction_has_the_shape_and_the_range_of_a_scaled_window() -> None:
    x_hat, z = seeded(Generator(SMALL))(torch.randn(5, 2, 320))
    assert x_hat.shape == (5, 2, 320)
    assert z.shape == (5, 3, 1)
    assert x_hat.abs().max() <= 1


def test_the_encoder_halves_the_time_axis_down_to_ten_samples() -> None:
    features = Discriminator(SMALL).features(torch.zeros(4, 2, 320))
    assert features.shape == (4, 16 * SMALL.width, 10)


def test_initial_weights_are_those_of_dcgan() -> None:
    generator = seeded(Generator(PAPER))
    weight = generator.encoder.last.weight.detach()
    assert weight.mean().abs() < 1e-3
    assert weight.std() == pytest.approx(0.02, rel=0.02)
    batch_norm = generator.decoder.stages[1]
    assert isinstance(batch_norm, nn.BatchNorm1d)
    scale = batch_norm.weight.detach()
    assert scale.mean() == pytest.approx(1.0, abs=5e-3)
    assert scale.std() == pytest.approx(0.02, rel=0.2)


def test_a_seed_determines_the_initial_weights() -> None:
    first, same, other = (seeded(Generator(SMALL), seed).encoder.last.weight for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_initialising_the_discriminator_again_resets_its_batch_norm_statistics() -> None:
    discriminator = seeded(Discriminator(SMALL))
    batch_norm = discriminator.encoder.stages[3]
    assert isinstance(batch_norm, nn.BatchNorm1d)
    discriminator(torch.randn(8, 2, 320))
    assert batch_norm.running_mean is not None
    assert batch_norm.running_mean.abs().sum() > 0
    seeded(discriminator)
    assert batch_norm.running_mean.abs().sum() == 0


@pytest.mark.parametrize("network", [Generator(PAPER), Discriminator(PAPER)], ids=["generator", "discriminator"])
@pytest.mark.parametrize("weights", INITIAL_WEIGHTS)
def test_the_first_weights_have_the_published_distribution(network: Network, weights: str) -> None:
    initialise(network, torch.Generator().manual_seed(0), weights)
    for layer in network.modules():
        if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d):
            n_in, n_out, taps = layer.in_channels, layer.out_channels, layer.kernel_size[0]
            std = 0.02 if weights == "dcgan" else (2 / (n_in * taps + n_out * taps)) ** 0.5
            mean, five_sigma = 0.0, 5 / layer.weight.numel() ** 0.5
        elif isinstance(layer, nn.BatchNorm1d):
            std, mean, five_sigma = 0.02, 1.0, 5 / layer.weight.numel() ** 0.5
            assert layer.bias.abs().max() == 0
        else:
            continue
        assert layer.weight.mean().item() == pytest.approx(mean, abs=five_sigma * std)
        assert layer.weight.std().item() == pytest.approx(std, rel=five_sigma)


@pytest.mark.parametrize("field", ["leads", "width", "latent"])
def test_a_shape_with_a_zero_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} is 0"):
        BeatGanShape(**{field: 0})


def test_every_weight_of_the_generator_gets_a_gradient_from_reconstruction() -> None:
    generator = seeded(Generator(SMALL))
    x = torch.rand(4, 2, 320)
    losses.reconstruction(x, generator(x)[0]).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in generator.parameters())


def test_feature_matching_gives_the_generator_gradients_through_the_discriminator() -> None:
    generator, discriminator = seeded(Generator(SMALL)), seeded(Discriminator(SMALL))
    x = torch.rand(4, 2, 320)
    real = discriminator.features(x)
    real.retain_grad()
    losses.feature_matching(real, discriminator.features(generator(x)[0])).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in generator.parameters())
    assert real.grad is None  # the real features are a target and get no gradient


def test_losses_agree_with_values_worked_out_by_hand() -> None:
    assert losses.reconstruction(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])).item() == 2.5
    assert losses.feature_matching(torch.tensor([1.0]), torch.tensor([3.0])).item() == 4.0
    for undecided in losses.discrimination(torch.zeros(3), torch.zeros(3)):
        assert undecided.item() == pytest.approx(0.693147, rel=1e-5)
    err_d_real, err_d_fake = losses.discrimination(torch.tensor([200.0]), torch.tensor([200.0]))
    assert err_d_real.item() == pytest.approx(0.0)
    assert err_d_fake.item() == pytest.approx(200.0)
