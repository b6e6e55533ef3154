"""The terms of the losses, one function each.

A generator minimises the unified loss::

    L = err_rec + w_adv * err_adv + alpha * L_KD + beta * L_F

with :func:`reconstruction`, :func:`feature_matching`, :func:`softened_outputs` and
:func:`attention_transfer`; BeatGAN (Zhou et al., IJCAI 2019) is the case alpha = beta = 0, and the
last two come from FRSKD (Ji et al., CVPR 2021).  A discriminator minimises the sum of the two terms of
:func:`discrimination`.  Every term is a mean over the batch.  Targets (the discriminator's features of real
windows, a teacher's outputs) are detached here, so that no term trains its own target.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name that every torch program uses

from ecgmon.models.training.settings import DIVERGENCES


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


def discrimination(logit_real: Tensor, logit_fake: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy of classifying windows as real and reconstructions as fake: the discriminator's loss.

    It is computed from logits, because the cross-entropy of a saturated sigmoid would be infinite.

    Parameters
    ----------
    logit_real, logit_fake : Tensor of float32, shape (n,)

    Returns
    -------
    err_d_real, err_d_fake : Tensor of float32, shape ()
        The discriminator's loss ``err_d`` is their sum.
    """
    real = F.binary_cross_entropy_with_logits(logit_real, torch.ones_like(logit_real))
    fake = F.binary_cross_entropy_with_logits(logit_fake, torch.zeros_like(logit_fake))
    return real, fake


def softened_outputs(
    student: Tensor, teacher: Tensor, temperature: float, divergence: str = "student_teacher"
) -> Tensor:
    """Kullback-Leibler divergence between the softened outputs of student and teacher, times T^2 (``L_KD``).

    With p = softmax(student / T) and q = softmax(teacher / T), the divergence is one of

    - ``student_teacher``: KL(p || q), the formula of the FRSKD paper
    - ``teacher_student``: KL(q || p), the published code of FRSKD, and Hinton et al. (2015)

    The softmax is over the **ticks** of each lead: it says how a reconstruction spreads its height over time.  Over
    the leads, the channel axis, it would be the softmax of one number for a one-lead model: always 1, a loss of zero
    for every input, and no gradient.

    Parameters
    ----------
    student, teacher : Tensor of float32, shape (n, leads, 320)
        Reconstructions; the teacher's gets no gradient.
    temperature : float
        T, over 0.
    divergence : str
        One of :data:`ecgmon.models.training.settings.DIVERGENCES`.

    Returns
    -------
    Tensor of float32, shape ()
        Mean over windows and leads.

    Raises
    ------
    ValueError
        If there is no such divergence.
    """
    if divergence not in DIVERGENCES:
        raise ValueError(f"there is no divergence {divergence!r}; expected {' or '.join(DIVERGENCES)}")
    log_student = F.log_softmax(student / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher.detach() / temperature, dim=-1)
    if divergence == "student_teacher":
        distances = log_student.exp() * (log_student - log_teacher)
    else:
        distances = log_teacher.exp() * (log_teacher - log_student)
    return distances.sum(dim=-1).mean() * temperature**2


def attention_map(features: Tensor) -> Tensor:
    """Where in time a stage is active: the L2-normalised mean over channels of its square.

    Parameters
    ----------
    features : Tensor of float32, shape (n, channels, ticks)

    Returns
    -------
    Tensor of float32, shape (n, ticks)
        Of unit length; zero where a stage is silent.
    """
    return F.normalize(features.square().mean(dim=1), dim=-1)


def attention_transfer(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """Mean squared difference of attention maps, summed over matched stages (``L_F``).

    Only the maps have to agree in length; the number of channels is each network's own
    (Zagoruyko and Komodakis, ICLR 2017).  The mean over ticks is that of FRSKD's published code, so that values of
    beta are comparable.

    Parameters
    ----------
    student : list of Tensor of float32, shape (n, channels, ticks)
        Features of the student's stages.
    teacher : list of Tensor of float32, shape (n, ticks)
        :func:`attention_map` of the same stages of the teacher, in the same order; they get no gradient.

    Returns
    -------
    Tensor of float32, shape ()
        For each stage the mean over windows and ticks.

    Raises
    ------
    ValueError
        If the stages do not match.
    """
    if not student or [f.shape[-1] for f in student] != [f.shape[-1] for f in teacher]:
        raise ValueError(
            f"the student's stages have {[f.shape[-1] for f in student]} ticks and the teacher's "
            f"{[f.shape[-1] for f in teacher]}; expected the same, at least one"
        )
    distances = [
        (attention_map(own) - theirs.detach()).square().mean() for own, theirs in zip(student, teacher, strict=True)
    ]
    return torch.stack(distances).sum()
