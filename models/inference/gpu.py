"""A generator on a GPU: windows go there, A(x) and its ticks come back, and all between is done there.

What a launch or a copy costs there is the same for one beat as for hundreds, so the beats are
scored in tiles of one size, and what is done to a tile is recorded once and then launched as one thing: a CUDA graph.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import torch

from ecgmon.models.windows import LENGTH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

TILE: Final = 1024
"""Windows that are scored at once.  One size only, so that a beat's bits do not depend on which beats it is scored with."""

_AT_ONCE: Final = 16 * TILE  # windows in a copy to the device: 21 MB a lead
_WARM_UP: Final = 3  # runs before one is recorded: libraries choose their ways and take their room in the first


class Resident:
    """A network that scores where it resides.

    Parameters
    ----------
    network : callable
        From scaled windows, shape (n, leads, 320), to their reconstruction; on ``device``.
    leads : int
        Leads of a window.
    device : str
        Where torch computes, such as ``cuda:0``.
    captured : bool
        Whether to record the steps of a tile as a CUDA graph.

    Attributes
    ----------
    captured : bool
        Whether the steps were recorded.  False on a device that records nothing, and for a network that cannot be.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], leads: int, device: str, *, captured: bool = True) -> None:
        self._network = network
        self._device = torch.device(device)
        self._replay: Callable[[], None] | None = None
        with torch.inference_mode():
            self._two = torch.tensor(2.0, device=self._device)
            self._given = _noise(torch.Size((TILE, leads, LENGTH)), seed=0).to(self._device)
            self._error, self._ticks = self._steps()
            if captured and self._device.type == "cuda":
                self._capture()
        self.captured = self._replay is not None

    def score(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Compute A(x) and its ticks.

        Parameters
        ----------
        windows : Tensor of float32, shape (n, leads, 320)
            Filtered windows in mV, in main memory.

        Returns
        -------
        error : Tensor of float32, shape (n,)
            In main memory; NaN for a window with a value that is not finite.
        ticks : Tensor of float16, shape (n, 320)
            Likewise.
        """
        error = torch.empty(len(windows))
        ticks = torch.empty((len(windows), LENGTH), dtype=torch.float16)
        with torch.inference_mode():
            for first in range(0, len(windows), _AT_ONCE):
                part = slice(first, first + _AT_ONCE)
                error[part], ticks[part] = self._scored(windows[part].to(self._device))
        return error, ticks

    def _scored(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Score windows that are on the device, tile by tile; nothing is waited for."""
        if len(windows) <= TILE:
            return self._tile(windows)
        tiles = []
        for tile in torch.split(windows, TILE):
            error, ticks = self._tile(tile)
            tiles.append((error.clone(), ticks.clone()))  # the next tile writes over what a recorded one made
        return torch.cat([error for error, _ in tiles]), torch.cat([ticks for _, ticks in tiles])

    def _tile(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Score at most a tile; the answers are good until the next."""
        count = len(windows)
        self._given[:count] = windows  # behind them lies what was there before: no window looks at another
        if self._replay is None:
            self._error, self._ticks = self._steps()
        else:
            self._replay()
        return self._error[:count], self._ticks[:count]

    def _steps(self) -> tuple[Tensor, Tensor]:
        """Scale a tile as :func:`ecgmon.models.windows.scale` does, reconstruct it, compare; nothing here depends on a value."""
        low = self._given.amin(-1, keepdim=True)
        span = self._given.amax(-1, keepdim=True) - low
        factor = torch.div(self._two, span)
        flat = span <= 0
        unusable = ~(flat | (span.isfinite() & factor.isfinite())).all(1)
        scaled = ((self._given - low) * factor - 1).masked_fill_(flat | unusable[:, None], 0)
        with _whole_floats():
            made = self._network(scaled)
        ticks = (made - scaled).square_().mean(1)
        error = ticks.mean(1).masked_fill_(unusable[:, 0], torch.nan)
        return error, ticks.half().masked_fill_(unusable, torch.nan)

    def _capture(self) -> None:
        """Record the steps, unless the network cannot be recorded or comes to something else when it is replayed.

        The steps one by one are slower and no worse.
        """
        if _failed:
            return
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device):
            stream = torch.cuda.current_stream()
            try:
                aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
                aside.wait_stream(stream)
                with torch.cuda.stream(aside):
                    for _ in range(_WARM_UP):
                        self._steps()
                stream.wait_stream(aside)
                with torch.cuda.graph(graph):
                    error, ticks = self._steps()
                self._given.copy_(_noise(self._given.shape, seed=1))
                graph.replay()
                expected = self._steps()
                torch.testing.assert_close(
                    (error, ticks.float()), (expected[0], expected[1].float()), rtol=1e-2, atol=1e-6
                )
            except (AssertionError, RuntimeError):
                _failed.append(graph)
                torch.cuda.set_stream(stream)  # which a capture that was broken off does not do
                return
        self._error, self._ticks, self._replay = error, ticks, graph.replay


_failed: Final[list[torch.cuda.CUDAGraph]] = []
"""Recordings that failed.  They are kept, because torch goes on asking them where memory belongs, and no other is begun."""


@contextmanager
def _whole_floats() -> Iterator[None]:
    """Have a GPU multiply what it is given, not its first eleven bits; what others compute is not touched."""
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    convolutions.allow_tf32 = products.allow_tf32 = False
    try:
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before


def _noise(shape: torch.Size, seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))
