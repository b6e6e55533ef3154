"""Correlation with one filter or two, in the lanes of vector registers, every sum in one order.

Each output is a sum that runs in the order of :func:`ecgmon.models.windows.filter_raw`, so that it depends on the samples
under the filter alone, to the last bit.  The numpy twin is in ``tests/models/kernels/test_correlation.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numba
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from ecgmon.models.kernels.compiled import compiled
from ecgmon.models.kernels.vectors import LANES, VECTOR, ZEROS, everywhere, load, store
from ecgmon.models.windows import PHASES

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

VECTORS: Final = (6, 4)
"""Vector registers that the sums of one filter stay in, and those of each of two: with the signal and the taps they fill 16."""

RUN: Final = LANES * VECTORS[0]
RUN_OF_TWO: Final = LANES * VECTORS[1]
"""Outputs of a filter that are worked out together."""


@intrinsic  # type: ignore[untyped-decorator]
def _correlate_run(
    types: Any,  # noqa: ANN401 - numba ships no types
    signal: Any,  # noqa: ANN401
    filters: Any,  # noqa: ANN401
    outs: Any,  # noqa: ANN401
    start: Any,  # noqa: ANN401
) -> tuple[Any, Callable[..., Any]]:
    """Correlate with one filter or several of a length, for the outputs from ``start`` on: :data:`RUN`, or :data:`RUN_OF_TWO` of two.

    The sums stay in vector registers until the last tap, and so does the stretch of signal under them: for a tap
    :data:`LANES` further on it moves by one register, and one more is loaded.  numba does not compile a loop over taps and outputs
    to that: it keeps the sums in memory, and loads the signal again for every tap.
    The steps are multiplications and additions that are rounded one by one, in the order of :func:`correlate`.

    Parameters
    ----------
    signal : contiguous array of float32
        Has ``taps - 1`` values more than there are outputs up to the last, or still more.
    filters : tuple of contiguous arrays of float32, shape (taps,)
    outs : tuple of contiguous arrays of float32
        Of each filter.
    start : int
    """
    del types

    def generate(context: Any, builder: Any, signature: Any, values: tuple[Any, ...]) -> Any:  # noqa: ANN401
        signal_type, filters_type, outs_type, start_type = signature.args
        array = context.make_array(signal_type)(context, builder, values[0])
        filter_arrays = [
            context.make_array(filters_type.dtype)(context, builder, value)
            for value in cgutils.unpack_tuple(builder, values[1])
        ]
        out_arrays = [
            context.make_array(outs_type.dtype)(context, builder, value)
            for value in cgutils.unpack_tuple(builder, values[2])
        ]
        index = context.get_value_type(start_type)
        phases = ir.Constant(index, LANES)
        vectors = range(VECTORS[len(filter_arrays) - 1])
        sums = [[cgutils.alloca_once(builder, VECTOR) for _ in vectors] for _ in filter_arrays]
        under = [cgutils.alloca_once(builder, VECTOR) for _ in vectors]  # the signal under the sums
        for row in sums:
            for place in row:
                builder.store(ZEROS, place)
        taps = builder.extract_value(filter_arrays[0].shape, 0)
        with cgutils.for_range(builder, phases) as phase:
            for on, place in enumerate(under[1:]):
                builder.store(load(builder, array.data, builder.add(values[3], phase.index), on), place)
            with cgutils.for_range_slice(builder, phase.index, taps, phases, index) as (k, _):
                for before, place in zip(under[1:], under[:-1], strict=True):
                    builder.store(builder.load(before), place)
                builder.store(load(builder, array.data, builder.add(values[3], k), len(vectors) - 1), under[-1])
                for each, row in zip(filter_arrays, sums, strict=True):
                    tap = everywhere(builder, each.data, k)
                    for samples, place in zip(under, row, strict=True):
                        product = builder.fmul(builder.load(samples), tap)
                        builder.store(builder.fadd(builder.load(place), product), place)
        for out, row in zip(out_arrays, sums, strict=True):
            for on, place in enumerate(row):
                store(builder, builder.load(place), out.data, values[3], on)
        return context.get_dummy_value()

    return numba.void(signal, filters, outs, start), generate


@compiled
def correlate(signal: NDArray[np.float32], taps: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Correlate ``signal`` with ``taps`` into ``out``.

    Parameters
    ----------
    signal : ndarray of float32, shape (n + taps - 1,) or longer, contiguous
    taps : ndarray of float32, shape (taps,), contiguous
    out : ndarray of float32, shape (n,), contiguous
        Filled in.
    """
    n = out.shape[0]
    for start in range(0, n - RUN + 1, RUN):
        _correlate_run(signal, (taps,), (out,), start)
    if n >= RUN and n % RUN:
        _correlate_run(signal, (taps,), (out,), n - RUN)  # gives some of the outputs before a second time
    if n < RUN:
        _correlate_few(signal, taps, out)


@compiled
def _correlate_few(signal: NDArray[np.float32], taps: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Correlate for fewer outputs than fill the vector registers."""
    n = out.shape[0]
    out[:] = 0
    for phase in range(PHASES):
        for k in range(phase, taps.shape[0], PHASES):
            for i in range(n):
                out[i] += signal[i + k] * taps[k]


@compiled
def correlate_both(
    signal: NDArray[np.float32], pair: NDArray[np.float32], even: NDArray[np.float32], odd: NDArray[np.float32]
) -> None:
    """Correlate with two filters of a length, shape (2, taps): :func:`correlate` twice, in less time."""
    n = even.shape[0]
    for start in range(0, n - RUN_OF_TWO + 1, RUN_OF_TWO):
        _correlate_run(signal, (pair[0], pair[1]), (even, odd), start)
    if n >= RUN_OF_TWO and n % RUN_OF_TWO:
        _correlate_run(signal, (pair[0], pair[1]), (even, odd), n - RUN_OF_TWO)
    if n < RUN_OF_TWO:
        _correlate_few(signal, pair[0], even)
        _correlate_few(signal, pair[1], odd)
