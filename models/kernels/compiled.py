"""Numeric loops compiled at first use, with their types kept for the checker."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import numba

if TYPE_CHECKING:
    import numpy as np

Record: TypeAlias = Any
"""An element of a structured array, or such an array: numpy's types do not know its fields."""

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compile a function over arrays and numbers to machine code at its first call.

    Parameters
    ----------
    function : callable
        Written in the subset of Python that numba compiles.

    Returns
    -------
    callable
        With the signature of ``function``.

    Notes
    -----
    Floating point stays strict: no reassociation, no fused multiply-add.  Results therefore do not
    depend, even in their last bit, on how many samples a call is given.  The machine code is kept
    beside the source or in ``NUMBA_CACHE_DIR``; where neither can be written it is made again by
    every process, which takes some seconds.
    """
    try:
        return cast("Function", numba.njit(cache=True)(function))
    except RuntimeError:  # numba found no folder that it could keep machine code in
        return cast("Function", numba.njit(function))


def start_without_linear_algebra() -> None:
    """Start numba without scipy's linear algebra: no loop of ecgmon uses it, and its import takes 0.2 s of a start.

    For the processes of the daemon only: numba refuses functions with linear algebra afterwards.
    """
    from numba.core.registry import cpu_target

    blas = "scipy.linalg.cython_blas"
    if blas in sys.modules:
        return
    sys.modules[blas] = None  # type: ignore[assignment]  # numba takes it for a machine without scipy
    try:
        cpu_target.target_context.refresh()
    finally:
        del sys.modules[blas]


@compiled
def limited(value: np.float32, limit: np.float32) -> np.float32:
    """Limit a number to ``limit`` in either direction; NaN stays NaN, which min() and max() may lose."""
    return limit if value > limit else (-limit if value < -limit else value)  # noqa: FURB136 - as above
