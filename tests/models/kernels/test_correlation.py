"""A correlation must be the sum that it is called, whatever its length, and the same for a filter alone and in a pair."""

from __future__ import annotations

import numpy as np
import pytest

from ecgmon.models.kernels.correlation import RUN, RUN_OF_TWO, correlate, correlate_both
from ecgmon.models.windows import PHASES
from tests.models.kernels import reference


@pytest.mark.parametrize("n", [1, RUN_OF_TWO - 1, RUN_OF_TWO, RUN_OF_TWO + 1, RUN - 1, RUN, RUN + 1, 3 * RUN + 5])
@pytest.mark.parametrize("size", [1, PHASES, 25, 76])
def test_a_correlation_is_the_ordered_sum_of_numpy(n: int, size: int) -> None:
    random = np.random.default_rng(n + size)
    signal = random.standard_normal(n + size - 1).astype(np.float32)
    pair = random.standard_normal((2, size)).astype(np.float32)
    expected = reference.correlate(signal, pair)
    alone, even, odd = np.full((3, n), 7, np.float32)
    correlate(signal, pair[0], alone)
    correlate_both(signal, pair, even, odd)
    assert np.array_equal(alone, expected[0])
    assert np.array_equal(even, expected[0])
    assert np.array_equal(odd, expected[1])
    assert alone == pytest.approx(np.correlate(signal.astype(np.float64), pair[0].astype(np.float64)), abs=1e-4)
