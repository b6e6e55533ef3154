"""Vector registers for loops that are written as LLVM instructions, which numba cannot generate from Python."""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir

LANES: Final = 8
"""Values of float32 in a vector register of most processors."""

VECTOR: Final = ir.VectorType(ir.FloatType(), LANES)
"""Such a register."""

ZEROS: Final = ir.Constant(VECTOR, [0.0] * LANES)

_UNDEFINED: Final = ir.Constant(VECTOR, ir.Undefined)
_FIRST_LANE: Final = ir.Constant(ir.IntType(32), 0)
_ALL_LANES: Final = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)


def everywhere(builder: Any, data: Any, at: Any) -> Any:  # noqa: ANN401 - llvmlite ships no types
    """Load the number at an index of ``data`` into all lanes."""
    value = builder.load(builder.gep(data, [at]))
    return builder.shuffle_vector(builder.insert_element(_UNDEFINED, value, _FIRST_LANE), _UNDEFINED, _ALL_LANES)


def _place(builder: Any, data: Any, at: Any, vectors_on: int) -> Any:  # noqa: ANN401
    index = builder.add(at, ir.Constant(at.type, vectors_on * LANES))
    return builder.bitcast(builder.gep(data, [index]), VECTOR.as_pointer())


def load(builder: Any, data: Any, at: Any, vectors_on: int) -> Any:  # noqa: ANN401
    """Load the vector that lies so many vectors after an index of ``data``, which may be any."""
    return builder.load(_place(builder, data, at, vectors_on), align=4)


def store(builder: Any, vector: Any, data: Any, at: Any, vectors_on: int) -> None:  # noqa: ANN401
    """Store a vector where :func:`load` would load it from."""
    builder.store(vector, _place(builder, data, at, vectors_on), align=4)
