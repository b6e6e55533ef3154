"""A self-teacher: a two-way feature pyramid over the stages of its student, the generator.

It follows FRSKD (Ji et al., CVPR 2021), in one dimension.  The pyramid refines the encoder's and
decoder's stages of 20 and 10 ticks from coarse to fine and back, and reconstructs a window from the
finest level.  Its input bypasses the bottleneck, so its reconstruction and attention are better than
the student's, and the student learns to match them.  After training the pyramid is discarded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that every torch program uses

from ecgmon.models.networks.shape import STAGE_TICKS
from ecgmon.models.windows import LENGTH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

CHANNELS: Final = 24
"""Channels of every level of the pyramid."""


class FeaturePyramid(nn.Module):
    """The self-teacher.

    Parameters
    ----------
    channels : sequence of int
        Channels of the generator's stages, in the order in which ``observed`` shows them: encoder
        of 20 and of 10 ticks, decoder of 10 and of 20.
    leads : int
        Leads of a window.
    """

    def __init__(self, channels: Sequence[int], leads: int) -> None:
        super().__init__()
        self.leads = leads
        self.lateral = nn.ModuleList(nn.Conv1d(n, CHANNELS, kernel_size=1) for n in channels)
        self.down = nn.Sequential(nn.Conv1d(CHANNELS, CHANNELS, 3, padding=1), nn.BatchNorm1d(CHANNELS), nn.ReLU())
        self.up = nn.Sequential(nn.Conv1d(CHANNELS, CHANNELS, 3, padding=1), nn.BatchNorm1d(CHANNELS), nn.ReLU())
        self.head = nn.Conv1d(CHANNELS, leads * LENGTH // STAGE_TICKS[0], kernel_size=3, padding=1)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Refine stages and reconstruct from them.

        Parameters
        ----------
        features : sequence of Tensor of float32, shape (n, channels, ticks)
            Features of the student.  They are detached, so that the pyramid's loss trains only the pyramid.

        Returns
        -------
        reconstruction : Tensor of float32, shape (n, leads, 320)
        refined : list of Tensor of float32, shape (n, CHANNELS, ticks)
            One for every given stage, in the same order.
        """
        fine_in, coarse_in, coarse_out, fine_out = (
            lateral(feature.detach()) for lateral, feature in zip(self.lateral, features, strict=True)
        )
        coarse = coarse_in + coarse_out
        fine = self.down(fine_in + fine_out + F.interpolate(coarse, scale_factor=2.0))
        coarse = self.up(coarse + F.max_pool1d(fine, 2))
        fine = fine + F.interpolate(coarse, scale_factor=2.0)
        patches: Tensor = self.head(fine)  # (n, leads * samples of a tick, ticks)
        n, _, ticks = patches.shape
        x_hat = torch.tanh(patches.view(n, self.leads, -1, ticks).transpose(-1, -2).flatten(2))
        return x_hat, [fine, coarse, coarse, fine]
