"""The packed form of a dense network uses private functions of PyTorch."""

from __future__ import annotations

import pytest
import torch

from ecgmon.models.inference.packed import packed


def test_a_packed_network_gives_the_output_of_the_network() -> None:
    assert torch.__version__.split("+")[0] == "2.13.0", "check the private functions with this version of PyTorch"
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(320, 64), torch.nn.LeakyReLU(0.2), torch.nn.Linear(64, 320, bias=False)
    )
    x = torch.randn(5, 1, 320)
    with torch.no_grad():
        expected = network(x).view_as(x)
        assert packed(network)(x).numpy() == pytest.approx(expected.numpy(), abs=1e-5)
