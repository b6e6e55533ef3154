"""Run a generator on a GPU: only windows are copied to it, and only A(x) and its ticks back.

A launch or a copy costs the same for one beat as for hundreds.  Beats are therefore scored in tiles of one size, and
the steps for a tile are recorded once as a CUDA graph, which is launched as a whole.
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
"""Windows that are scored at once.  There is only one size, so that the bits of a beat do not depend on other beats."""

_AT_ONCE: Final = 16 * TILE  # windows in a copy to the device: 21 MB per lead
_WARM_UP: Final = 3  # runs before the recording: in these, libraries choose their kernels and allocate memory


class DeviceNetwork:
    """A network with its weights on a device, where it scores tiles of windows.

    Parameters
    ----------
    network : callable
        From scaled windows, shape (n, leads, 320), to their reconstruction; on ``device``.
    leads : int
        Number of leads of a window.
    device : str
        Torch device, such as ``cuda:0``.
    captured : bool
        Whether to record the steps of a tile as a CUDA graph.

    Attributes
    ----------
    captured : bool
        Whether the steps were recorded.  False on devices other than CUDA, and for a network that cannot be recorded.
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
            As ``error``.
        """
        error = torch.empty(len(windows))
        ticks = torch.empty((len(windows), LENGTH), dtype=torch.float16)
        with torch.inference_mode():
            for first in range(0, len(windows), _AT_ONCE):
                part = slice(first, first + _AT_ONCE)
                error[part], ticks[part] = self._scored(windows[part].to(self._device))
        return error, ticks

    def _scored(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Score windows that are on the device, tile by tile, without waiting for the results."""
        if len(windows) <= TILE:
            return self._tile(windows)
        tiles = []
        for tile in torch.split(windows, TILE):
            error, ticks = self._tile(tile)
            tiles.append((error.clone(), ticks.clone()))  # the next tile overwrites the results of a recorded one
        return torch.cat([error for error, _ in tiles]), torch.cat([ticks for _, ticks in tiles])

    def _tile(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Score at most one tile; the results are valid until the next call."""
        count = len(windows)
        self._given[:count] = windows  # the rest keeps older windows, which do not affect these
        if self._replay is None:
            self._error, self._ticks = self._steps()
        else:
            self._replay()
        return self._error[:count], self._ticks[:count]

    def _steps(self) -> tuple[Tensor, Tensor]:
        """Scale a tile as :func:`ecgmon.models.windows.scale`, reconstruct it, compare; no step depends on a value."""
        low = self._given.amin(-1, keepdim=True)
        span = self._given.amax(-1, keepdim=True) - low
        factor = torch.div(self._two, span)
        flat = span <= 0
        unusable = ~(flat | (span.isfinite() & factor.isfinite())).all(1)
        scaled = ((self._given - low) * factor - 1).masked_fill_(flat | unusable[:, None], 0)
        with _full_precision():
            made = self._network(scaled)
        ticks = (made - scaled).square_().mean(1)
        error = ticks.mean(1).masked_fill_(unusable[:, 0], torch.nan)
        return error, ticks.half().masked_fill_(unusable, torch.nan)

    def _capture(self) -> None:
        """Record the steps, unless the network cannot be recorded or its replay gives other results.

        Without a recording the steps run one by one: slower, with the same results.
        """
        if _failed:
            return
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device):
            stream = torch.cuda.current_stream()
            try:
                side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
                side.wait_stream(stream)
                with torch.cuda.stream(side):
                    for _ in range(_WARM_UP):
                        self._steps()
                stream.wait_stream(side)
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
                torch.cuda.set_stream(stream)  # an interrupted capture does not restore it
                return
        self._error, self._ticks, self._replay = error, ticks, graph.replay


_failed: Final[list[torch.cuda.CUDAGraph]] = []
"""Failed recordings.  They are kept, because torch still uses them to manage memory.  After one no other is started."""


@contextmanager
def _full_precision() -> Iterator[None]:
    """Make a GPU multiply with full float32 precision, not TF32 (11 bits); restore the settings at the end."""
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    convolutions.allow_tf32 = products.allow_tf32 = False
    try:
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before


def _noise(shape: torch.Size, seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))
