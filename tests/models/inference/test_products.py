"""The score of a beat does not depend on the processor, the kernel of the library or the batch."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ecgmon.models.inference import products
from ecgmon.models.inference.products import ROWS, Product, row_means
from ecgmon.models.inference.reconstruction import Reconstructor
from ecgmon.models.weights.checkpoint import default_weights, load_generator
from ecgmon.models.windows import LENGTH

FLOATS = st.floats(-(2.0**40), 2.0**40, width=32, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 2.0**-40)


def made(inputs: int, outputs: int, *, bias: bool) -> Product:
    random = np.random.default_rng(inputs + outputs)
    weight = random.standard_normal((inputs, outputs), np.float32)
    added = random.standard_normal(outputs, np.float32)
    return Product(torch.from_numpy(weight), torch.from_numpy(added) if bias else None)


def rows(count: int, inputs: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(count).standard_normal((count, inputs), np.float32))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("inputs", "outputs"), [(104, 48), (260, 130), (16, 130), (130, 16), (320, 4), (640, 7), (7, 300)]
)
def test_a_library_gives_the_defined_sums(inputs: int, outputs: int, bias: bool) -> None:
    product = made(inputs, outputs, bias=bias)
    for count in (ROWS, 3 * ROWS, 256):
        h = rows(count, inputs)
        found = product(h, torch.empty((count, outputs))).numpy()
        assert np.array_equal(found[::17], product.step_by_step(h.numpy()[::17]))
        expected = h.double() @ product.weight.double() + (0 if product.bias is None else product.bias.double())
        assert found == pytest.approx(expected.numpy(), abs=1e-4)


def test_with_a_library_of_other_sums_the_results_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = np.random.default_rng(0).standard_normal((12, 1, LENGTH)).astype(np.float32).cumsum(axis=-1)
    generator, _ = load_generator(default_weights())
    expected = Reconstructor(generator).score(windows)
    monkeypatch.setattr(products, "_library_is_exact", lambda *_: False)
    monkeypatch.setattr(Product, "by_library", lambda *_: pytest.fail("the library was called"))
    found = Reconstructor(generator).score(windows)
    assert found.ax.tobytes() == expected.ax.tobytes()
    assert found.ticks.tobytes() == expected.ticks.tobytes()


def test_a_library_with_other_sums_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    by_library = Product.by_library

    def without_fused(self: Product, h: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """Round each product before it is added, as a processor without fused multiply-add does."""
        out[:] = 0 if self.bias is None else self.bias
        for term in range(self.inputs):
            out += h[:, term, None] * self.weight[term]
        return out

    is_exact = products._library_is_exact.__wrapped__
    assert is_exact(104, 48, torch.get_num_threads())
    monkeypatch.setattr(Product, "by_library", without_fused)
    assert not is_exact(104, 48, torch.get_num_threads())
    monkeypatch.setattr(Product, "by_library", lambda self, h, out: by_library(self, h.flip(1), out))
    assert not is_exact(104, 48, torch.get_num_threads())


@given(FLOATS, FLOATS, FLOATS)
def test_fused_multiply_add_rounds_once(a: float, b: float, c: float) -> None:
    found = products._fused(*(np.array([x], np.float32) for x in (a, b, c)))[0]
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    apart = abs(Fraction(float(found)) - exact)
    for neighbour in (np.nextafter(found, np.float32(np.inf)), np.nextafter(found, np.float32(-np.inf))):
        other = abs(Fraction(float(neighbour)) - exact)
        assert apart <= other
        if apart == other:  # halfway: the even one
            assert found.view(np.int32) % 2 == 0


@given(arrays(np.float32, st.tuples(st.integers(1, 20), st.integers(1, 330)), elements=st.floats(0, 4, width=32)))
def test_the_mean_of_a_row_does_not_depend_on_other_rows(x: np.ndarray) -> None:
    means = row_means(torch.from_numpy(x)).numpy()
    assert means == pytest.approx(x.mean(axis=1, dtype=np.float64), rel=1e-5, abs=1e-30)
    alone = [row_means(torch.from_numpy(row[None])).numpy()[0] for row in x]
    assert means.tolist() == alone
