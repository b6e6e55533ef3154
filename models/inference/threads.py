"""The number of threads that torch computes with is the whole process's: whoever sets it for a while sets it back."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def threads_restored() -> Iterator[None]:
    """Set torch's number of threads back afterwards; also a decorator."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
