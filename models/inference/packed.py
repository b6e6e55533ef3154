"""A dense network with its weights in oneDNN's own order, for the benchmark.

PyTorch has no public function for this.  Checked with torch 2.13, which ``pyproject.toml`` pins; the test in
``tests/models/inference/test_packed.py`` names the version again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def packed(network: torch.nn.Sequential) -> Callable[[Tensor], Tensor]:
    """Reorder the weights of linear layers, and compute each leaky ReLU together with the product before it.

    Parameters
    ----------
    network : torch.nn.Sequential
        Linear layers, each followed by a leaky ReLU or not; other layers are left out.

    Returns
    -------
    callable
        From float32, shape (n, leads, 320), to the same shape.
    """
    ops = torch.ops.mkldnn
    steps: list[tuple[Tensor, Tensor | None, str, list[float]]] = []
    for layer in network:
        if isinstance(layer, torch.nn.Linear):
            bias = None if layer.bias is None else layer.bias.detach()
            steps.append((ops._reorder_linear_weight(layer.weight.detach(), None), bias, "none", []))  # noqa: SLF001
        elif isinstance(layer, torch.nn.LeakyReLU):
            steps[-1] = (*steps[-1][:2], "leaky_relu", [layer.negative_slope])

    def run(x: Tensor) -> Tensor:
        h = x.flatten(1)
        for weight, bias, activation, slope in steps:
            h = ops._linear_pointwise(h, weight, bias, activation, slope, "")  # noqa: SLF001
        return h.view_as(x)

    return run
