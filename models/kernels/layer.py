"""A dense layer for a few beats at a time, each beat in a lane of the processor's vector registers.

A library's matrix product takes its sums in an order that it chooses by the shapes and the threads that it is given.  Here
a beat's sums are its own: they run over the inputs one by one, so no beat depends, even in its last bit, on those beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numba
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from ecgmon.models.kernels.compiled import compiled
from ecgmon.models.kernels.vectors import LANES, VECTOR, everywhere, load, store

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

_VECTORS: Final = 2
_OUTPUTS: Final = 6  # whose sums stay in registers together; they, the inputs and a weight fill 15 of 16

BEATS: Final = LANES * _VECTORS
"""Beats that a layer takes at a time."""


@compiled
def layer(
    inputs: NDArray[np.float32], weights: NDArray[np.float32], bias: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    """Multiply and add: ``out[o, beat] = bias[o] + sum over i of inputs[i, beat] * weights[i, o]``.

    Parameters
    ----------
    inputs : ndarray of float32, shape (i or more, BEATS), contiguous
    weights : ndarray of float32, shape (i, o), contiguous
    bias : ndarray of float32, shape (o,), contiguous
    out : ndarray of float32, shape (o or more, BEATS), contiguous
    """
    outputs = bias.size
    for first in range(0, outputs - _OUTPUTS + 1, _OUTPUTS):
        _some_outputs(inputs, weights, bias, out, first)
    if outputs >= _OUTPUTS:
        if outputs % _OUTPUTS:
            _some_outputs(inputs, weights, bias, out, outputs - _OUTPUTS)  # gives some a second time
        return
    for output in range(outputs):
        sums = out[output]
        sums[:] = bias[output]
        for i in range(weights.shape[0]):
            for beat in range(BEATS):
                sums[beat] += inputs[i, beat] * weights[i, output]


@intrinsic  # type: ignore[untyped-decorator]
def _some_outputs(
    types: Any,  # noqa: ANN401 - numba ships no types
    inputs: Any,  # noqa: ANN401
    weights: Any,  # noqa: ANN401
    bias: Any,  # noqa: ANN401
    out: Any,  # noqa: ANN401
    first: Any,  # noqa: ANN401
) -> tuple[Any, Callable[..., Any]]:
    """Work out :data:`_OUTPUTS` outputs of :func:`layer` from ``first`` on; their sums stay in registers to the end.

    A compiled loop over inputs, outputs and beats cannot be brought to that: it keeps its sums in memory.
    """
    del types

    def generate(context: Any, builder: Any, signature: Any, values: tuple[Any, ...]) -> Any:  # noqa: ANN401
        arrays = [
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args[:4], values[:4], strict=True)
        ]
        inputs, weights, bias, out = (array.data for array in arrays)
        from_output = values[4]
        index = context.get_value_type(signature.args[4])
        size, outputs = (builder.extract_value(arrays[1].shape, axis) for axis in (0, 1))
        rows = [builder.add(from_output, ir.Constant(index, output)) for output in range(_OUTPUTS)]

        def begin(row: Any) -> Any:  # noqa: ANN401
            return builder.mul(row, ir.Constant(index, BEATS))

        sums = [[cgutils.alloca_once(builder, VECTOR) for _ in range(_VECTORS)] for _ in rows]
        for row, places in zip(rows, sums, strict=True):
            for place in places:
                builder.store(everywhere(builder, bias, row), place)
        with cgutils.for_range(builder, size) as loop:
            given = [load(builder, inputs, begin(loop.index), part) for part in range(_VECTORS)]
            first_weight = builder.mul(loop.index, outputs)
            for row, places in zip(rows, sums, strict=True):
                weight = everywhere(builder, weights, builder.add(first_weight, row))
                for value, place in zip(given, places, strict=True):
                    builder.store(builder.fadd(builder.load(place), builder.fmul(value, weight)), place)
        for row, places in zip(rows, sums, strict=True):
            for part, place in enumerate(places):
                store(builder, builder.load(place), out, begin(row), part)
        return context.get_dummy_value()

    return numba.void(inputs, weights, bias, out, first), generate
