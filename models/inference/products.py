"""Matrix products with a fixed order of summation, so that the results have the same bits on every machine.

A BLAS library chooses a kernel by the processor, and may split a long sum into pieces.  Up to :data:`TERMS` terms the
kernels of current libraries agree: each output has one accumulator, to which the terms are added in order by fused
multiply-add.  This module splits longer sums into pieces of this size.  It uses a library only after a check, at the
start of the process, that the library gives exactly these bits.  If it does not (a processor without fused
multiply-add), the same sums are computed step by step, which takes about two hundred times as long.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

TERMS: Final = 160
"""Largest number of terms in a sum that a library computes."""

ROWS: Final = 8
"""The number of rows is a multiple of this: for a single row a library may use a different kernel."""

OUTPUTS: Final = 16
"""Smallest number of outputs passed to a library, for the same reason; outputs added to reach it have zero weights."""

_CHECKED: Final = (ROWS, 256)  # numbers of rows for which a library is checked


class Product:
    """A dense layer without its nonlinearity: ``bias + h @ weight``.

    Parameters
    ----------
    weight : Tensor of float32, shape (inputs, outputs)
        Contiguous.
    bias : Tensor of float32, shape (outputs,), or None

    Notes
    -----
    The inputs are split into the smallest number of pieces of at most :data:`TERMS`, of nearly equal size.  The sum of
    a piece starts at zero; the sums of the pieces are added to the bias in order.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.inputs, self.outputs = weight.shape
        self.weight, self.bias = weight, bias
        self._missing_outputs = max(0, OUTPUTS - self.outputs)
        if self._missing_outputs:
            weight = torch.nn.functional.pad(weight, (0, self._missing_outputs))
            bias = None if bias is None else torch.nn.functional.pad(bias, (0, self._missing_outputs))
        self._weight, self._bias = weight, bias
        count = -(-self.inputs // TERMS)
        bounds = [self.inputs * piece // count for piece in range(count + 1)]
        self._pieces = [slice(first, last) for first, last in pairwise(bounds)]

    def __call__(self, h: Tensor, out: Tensor) -> Tensor:
        """Compute the product into ``out``, shape (rows, outputs); ``h`` has a multiple of :data:`ROWS` rows."""
        if not _library_is_exact(self.inputs, self.outputs, torch.get_num_threads()):
            return out.copy_(torch.from_numpy(self.step_by_step(h.numpy())))
        return self.by_library(h, out)

    def by_library(self, h: Tensor, out: Tensor) -> Tensor:
        """Compute the product with torch's library, without a check of its bits."""
        if self._missing_outputs:
            return out.copy_(self._products(h, torch.empty((len(h), OUTPUTS)))[:, : self.outputs])
        return self._products(h, out)

    def _products(self, h: Tensor, out: Tensor) -> Tensor:
        first, *others = self._pieces
        if self._bias is None:
            torch.mm(h[:, first], self._weight[first], out=out)
        else:
            torch.addmm(self._bias, h[:, first], self._weight[first], out=out)
        for piece in others:
            torch.addmm(out, h[:, piece], self._weight[piece], out=out)
        return out

    def step_by_step(self, h: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the product term by term, shape (rows, outputs): the definition with which a library must agree."""
        weight = self.weight.numpy()
        total: NDArray[np.float32] | None = None
        for piece in self._pieces:
            part = np.zeros((len(h), self.outputs), np.float32)
            for term in range(piece.start, piece.stop):
                part = _fused(h[:, term, None], weight[term], part)
            if total is not None:
                part += total
            elif self.bias is not None:
                part += self.bias.numpy()
            total = part
        assert total is not None
        return total


def _fused(a: NDArray[np.float32], b: NDArray[np.float32], c: NDArray[np.float32]) -> NDArray[np.float32]:
    """Multiply and add with one rounding.

    The product of two float32 values is exact in float64.  The sum is rounded to odd in float64; rounding that to
    float32 equals one rounding of the exact sum (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums",
    2008).
    """
    product, addend = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    total = product + addend
    seen = total - product
    missed = (product - (total - seen)) + (addend - seen)
    bits = total.view(np.int64)
    towards = np.where((missed > 0) == (total > 0), 1, -1)
    bits += np.where((missed != 0) & (bits & 1 == 0), towards, 0)
    return total.astype(np.float32)


@cache
def _library_is_exact(inputs: int, outputs: int, threads: int) -> bool:
    """Return whether a library's products of these sizes equal :meth:`Product.step_by_step`."""
    del threads  # torch's current number of threads, only a part of the cache's key
    random = np.random.default_rng(0)
    product = Product(
        torch.from_numpy(random.standard_normal((inputs, outputs), np.float32)),
        torch.from_numpy(random.standard_normal(outputs, np.float32)),
    )
    for rows in _CHECKED:
        h = random.standard_normal((rows, inputs), np.float32)
        given, out = torch.from_numpy(h), torch.empty((rows, outputs))
        product.by_library(given, out)
        few = slice(0, rows, max(1, rows // ROWS))  # each row has its own sums
        if not np.array_equal(out.numpy()[few], product.step_by_step(h[few])):
            return False
    return True


def row_means(x: Tensor) -> Tensor:
    """Average each row by adding its halves repeatedly: a fixed order, independent of libraries.

    Parameters
    ----------
    x : Tensor of float32, shape (rows, n)
        Not changed.

    Returns
    -------
    Tensor of float32, shape (rows,)
    """
    n = x.shape[1]
    total = x
    while total.shape[1] > 1:
        half, odd = divmod(total.shape[1], 2)
        added = total[:, :half] + total[:, half : 2 * half]
        if odd:
            added[:, 0] += total[:, -1]
        total = added
    return total[:, 0] / n
