"""A dense layer must be the product that it is called, and no beat may show in another's sums."""

from __future__ import annotations

import numpy as np
import pytest

from ecgmon.models.kernels.layer import BEATS, layer


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (19, 96), (96, 6), (96, 14), (3, 5), (7, 7), (80, 16)])
def test_a_layer_is_a_product_and_a_sum(inputs: int, outputs: int) -> None:
    random = np.random.default_rng(inputs * outputs)
    given = random.standard_normal((inputs, BEATS)).astype(np.float32)
    weights = random.standard_normal((inputs, outputs)).astype(np.float32)
    bias = random.standard_normal(outputs).astype(np.float32)
    out = np.full((outputs + 1, BEATS), 7, np.float32)
    layer(given, weights, bias, out)
    assert out[:outputs] == pytest.approx(bias[:, None] + weights.astype(np.float64).T @ given, rel=1e-5, abs=1e-5)
    assert (out[outputs:] == 7).all()  # what lies behind is another's


def test_a_beat_has_the_same_sums_in_every_lane_and_company() -> None:
    random = np.random.default_rng(0)
    weights, bias = random.standard_normal((50, 13)).astype(np.float32), np.ones(13, np.float32)
    beats = random.standard_normal((50, BEATS)).astype(np.float32)
    together, turned = np.empty((13, BEATS), np.float32), np.empty((13, BEATS), np.float32)
    layer(beats, weights, bias, together)
    for by in range(1, BEATS):
        company = np.roll(beats, by, axis=1)
        company[:, (by + 1) % BEATS] = np.nan
        layer(company, weights, bias, turned)
        assert np.array_equal(turned[:, by], together[:, 0])
