"""The terms of BeatGAN's losses, one small function each.

The generator minimises ``err_rec + w_adv * err_adv``; the discriminator minimises
:func:`discrimination`.  Terms are means over all elements, so their weights do not depend on the
batch size, the number of leads or the network's width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name that every torch program uses


def reconstruction(x: Tensor, x_hat: Tensor) -> Tensor:
    """Mean squared difference between windows and their reconstructions (``err_rec``).

    Parameters
    ----------
    x, x_hat : Tensor of float32, shape (n, leads, 320)

    Returns
    -------
    Tensor of float32, shape ()
    """
    return F.mse_loss(x_hat, x)


def feature_matching(features_real: Tensor, features_fake: Tensor) -> Tensor:
    """Mean squared difference between the discriminator's features (``err_adv``).

    The real features are a target and get no gradient (Salimans et al., NeurIPS 2016).

    Parameters
    ----------
    features_real, features_fake : Tensor of float32, shape (n, channels, 10)

    Returns
    -------
    Tensor of float32, shape ()
    """
    return F.mse_loss(features_fake, features_real.detach())


def discrimination(logit_real: Tensor, logit_fake: Tensor) -> Tensor:
    """Binary cross-entropy of taking windows for real and reconstructions for not: the discriminator's loss.

    Computed from logits: the cross-entropy of a saturated sigmoid would be infinite.

    Parameters
    ----------
    logit_real, logit_fake : Tensor of float32, shape (n,)

    Returns
    -------
    Tensor of float32, shape ()
    """
    real = F.binary_cross_entropy_with_logits(logit_real, torch.ones_like(logit_real))
    fake = F.binary_cross_entropy_with_logits(logit_fake, torch.zeros_like(logit_fake))
    return real + fake
