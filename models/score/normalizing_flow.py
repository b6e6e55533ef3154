"""How probable some numbers are together, given the shape that they go with: a conditional normalizing flow.

The flow is a chain of affine couplings (Dinh et al., "Density estimation using Real NVP", ICLR 2017): each leaves half of the
numbers alone and shifts and stretches the others by amounts that a small network makes of the first
half and of the condition.  The result is a normal distribution in disguise, so the density of the
numbers is exact.  The condition is the outline of the beat's window, by its leading principal
components: an RR interval or a distance that is usual for one shape of beat is not for another.

torch fits a flow; a compiled loop evaluates it, because the monitor does without torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from ecgmon.models.features import OUTLINE

if TYPE_CHECKING:
    from numpy.typing import NDArray

COMPONENTS: Final = 16
"""Principal components of the outline that condition the density."""

COUPLINGS: Final = 4
"""Affine couplings in the chain."""

HIDDEN: Final = 96
"""Units in either hidden layer of a coupling's network."""

EPOCHS: Final = 10
"""Passes over the beats in :meth:`Density.fit`."""

NOISE: Final = 0.1
"""Standard deviation of the noise added to each standardised number while fitting, so that no beat is learnt by heart."""

LEAST: Final = 1000
"""Beats that a fit needs: four batches an epoch."""

_LOW, _HIGH = -4.0, 8.0  # standard scores that the numbers are limited to; wider above, where the odd ones lie
CONDITION_LIMIT: Final = 5.0  # standard scores that the components are limited to
STRETCH: Final = 3.0  # most that a coupling stretches, in either direction, as a logarithm
SLOPE: Final = 0.01  # of the leaky ReLU below zero

_BATCH: Final = 256
_LEARNING_RATE: Final = 2e-3  # highest of the one-cycle schedule
_WEIGHT_DECAY: Final = 1e-2
_DROPOUT: Final = 0.05
_STEADY: Final = 1.0  # norm that gradients are limited to

_ARRAYS: Final = {
    "mean": np.float32,
    "scale": np.float32,
    "basis": np.float32,
    "order": np.int32,
    "into": np.float32,
    "into_bias": np.float32,
    "within": np.float32,
    "within_bias": np.float32,
    "out": np.float32,
    "out_bias": np.float32,
}


class DensityError(Exception):
    """A density that cannot be fitted, or stored arrays that are none."""


@dataclass(frozen=True, slots=True, eq=False)
class Density:
    """A fitted density of ``d`` numbers given an outline.

    Attributes
    ----------
    mean, scale : ndarray of float32, shape (d,)
        What standardises the numbers.
    basis : ndarray of float32, shape (OUTLINE, COMPONENTS)
        Takes an outline without its mean to standardised components.
    order : ndarray of int32, shape (couplings, d)
        How each coupling reorders the numbers before it halves them.
    into, into_bias, within, within_bias, out, out_bias : ndarray of float32
        The networks of the couplings, stacked along the first axis.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    basis: NDArray[np.float32]
    order: NDArray[np.int32]
    into: NDArray[np.float32]
    into_bias: NDArray[np.float32]
    within: NDArray[np.float32]
    within_bias: NDArray[np.float32]
    out: NDArray[np.float32]
    out_bias: NDArray[np.float32]

    def __post_init__(self) -> None:
        d, couplings, hidden = len(self.mean), len(self.order), self.into_bias.shape[-1]
        expected = {
            "mean": (d,),
            "scale": (d,),
            "basis": (OUTLINE, COMPONENTS),
            "order": (couplings, d),
            "into": (couplings, d // 2 + COMPONENTS, hidden),
            "into_bias": (couplings, hidden),
            "within": (couplings, hidden, hidden),
            "within_bias": (couplings, hidden),
            "out": (couplings, hidden, 2 * (d - d // 2)),
            "out_bias": (couplings, 2 * (d - d // 2)),
        }
        for name, shape in expected.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != _ARRAYS[name] or not np.isfinite(array).all():
                raise DensityError(
                    f"the array '{name}' of a density is {array.dtype} of shape {array.shape}, or not finite; "
                    f"expected {np.dtype(_ARRAYS[name])} of shape {shape}"
                )
            own = np.ascontiguousarray(array).view()
            own.flags.writeable = False  # fitted or loaded: a loop is compiled again for every kind of array
            object.__setattr__(self, name, own)
        if not (np.sort(self.order, axis=1) == np.arange(d)).all() or not (self.scale > 0).all():
            raise DensityError("a density reorders by what is no permutation, or scales by what is not positive")

    def surprisal(self, numbers: NDArray[np.float32], outline: NDArray[np.float32]) -> NDArray[np.float32]:
        """Find how improbable the numbers are: minus the log of their density, in nats, up to a constant.

        Parameters
        ----------
        numbers : ndarray of float32, shape (n, d)
        outline : ndarray of float32, shape (n, OUTLINE)

        Returns
        -------
        ndarray of float32, shape (n,)
            NaN where a number or the outline is.  A beat's value does not depend, even in its last
            bit, on the beats beside it.
        """
        from ecgmon.models.kernels import coupling  # compiled: those who only hold a model need no compiler

        surprisal = np.empty(len(numbers), np.float32)
        x, given = np.ascontiguousarray(self._standardised(numbers)), np.ascontiguousarray(outline, np.float32)
        coupling.run(
            x, given, self.basis, self.order, self.into, self.into_bias, self.within, self.within_bias, self.out,
            self.out_bias, np.float32(CONDITION_LIMIT), np.float32(STRETCH), np.float32(SLOPE), surprisal,
        )  # fmt: skip
        return surprisal

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name, for storing."""
        return {name: getattr(self, name) for name in _ARRAYS}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Self:
        """Make a density from :meth:`to_arrays`'s answer.

        Raises
        ------
        DensityError
            If an array is missing, has another shape or type, or is not finite.
        """
        try:
            return cls(**{name: arrays[name] for name in _ARRAYS})
        except (KeyError, IndexError, TypeError) as error:
            raise DensityError(f"the stored density lacks an array, or has one without an axis: {error!r}") from error

    @classmethod
    def fit(cls, numbers: NDArray[np.float32], outline: NDArray[np.float32], *, blur: float, seed: int = 0) -> Self:
        """Fit a density to normal beats by maximum likelihood.

        Parameters
        ----------
        numbers : ndarray of float32, shape (n, d)
            Of beats where all are known; ``d`` at least 2.
        outline : ndarray of float32, shape (n, OUTLINE)
        blur : float
            Standard deviation of the noise added to each standardised component of the outline while fitting.  Little of
            it lets the density know patients by the shape of their beats; much makes it hold for others.
        seed : int
            Decides the first weights, the order of the beats and the noise.

        Raises
        ------
        DensityError
            If there are fewer than :data:`LEAST` beats, or values that are not finite or do not vary.

        Notes
        -----
        Takes about half a second per thousand beats on one core.
        """
        import torch

        if len(numbers) < LEAST:
            raise DensityError(f"{len(numbers)} beats are too few to fit a density to; expected at least {LEAST}")
        if not (np.isfinite(numbers).all() and np.isfinite(outline).all()):
            raise DensityError("a beat to fit a density to has a value that is not finite")
        mean, scale = numbers.mean(axis=0), numbers.std(axis=0)
        if not (scale > 0).all():
            raise DensityError("a number to fit a density to is the same for all beats; expected ones that vary")
        d = numbers.shape[1]
        random = np.random.default_rng(seed)
        order = np.stack([random.permutation(d) for _ in range(COUPLINGS)])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            networks = [_network(d) for _ in range(COUPLINGS)]
            unfitted = cls(mean, scale, _components(outline), order.astype(np.int32), *_weights(networks))
            x = torch.from_numpy(unfitted._standardised(numbers))
            given = torch.from_numpy(unfitted._condition(outline))
            steps = len(x) // _BATCH
            parameters = [p for network in networks for p in network.parameters()]
            optimiser = torch.optim.AdamW(parameters, _LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _LEARNING_RATE, total_steps=EPOCHS * steps)
            for _ in range(EPOCHS):
                shuffled = torch.randperm(len(x))
                for k in range(steps):
                    now = shuffled[k * _BATCH : (k + 1) * _BATCH]
                    noisy = x[now] + NOISE * torch.randn(len(now), d)
                    blurred = given[now] + blur * torch.randn(len(now), COMPONENTS)
                    loss = _surprisal(networks, order, noisy, blurred).mean()
                    optimiser.zero_grad()
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(parameters, _STEADY)
                    optimiser.step()
                    schedule.step()
            return cls(mean, scale, unfitted.basis, unfitted.order, *_weights(networks))

    def _standardised(self, numbers: NDArray[np.float32]) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):  # what is too large is limited
            standardised: NDArray[np.float32] = (numbers - self.mean) / self.scale
        return standardised.clip(np.float32(_LOW), np.float32(_HIGH))

    def _condition(self, outline: NDArray[np.float32]) -> NDArray[np.float32]:
        centred = outline - outline.mean(axis=1, keepdims=True)
        components: NDArray[np.float32] = (centred[:, None] @ self.basis)[:, 0]
        return components.clip(-np.float32(CONDITION_LIMIT), np.float32(CONDITION_LIMIT))


def _components(outline: NDArray[np.float32]) -> NDArray[np.float32]:
    """Find the leading principal components of outlines, scaled to standard deviation 1."""
    centred = (outline - outline.mean(axis=1, keepdims=True)).astype(np.float64)
    power, directions = np.linalg.eigh(centred.T @ centred / len(centred))
    leading = directions[:, ::-1][:, :COMPONENTS] / np.sqrt(np.maximum(power[::-1][:COMPONENTS], 1e-12))
    # About the origin, not the mean: the mean outline is a component like any other, divided by its size.
    spread = (centred @ leading).std(axis=0)
    return np.asarray(leading / np.maximum(spread, 1e-6), np.float32)


def _network(d: int) -> Any:  # noqa: ANN401 - torch is imported where it is used
    """Make the network of a coupling: from the kept half and the condition to stretches and shifts."""
    from torch import nn

    last = nn.Linear(HIDDEN, 2 * (d - d // 2))
    nn.init.normal_(last.weight, 0.0, 1e-3)  # begins near the identity, where the couplings do no harm
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Linear(d // 2 + COMPONENTS, HIDDEN),
        nn.LeakyReLU(SLOPE),
        nn.Dropout(_DROPOUT),
        nn.Linear(HIDDEN, HIDDEN),
        nn.LeakyReLU(SLOPE),
        last,
    )


def _surprisal(networks: list[Any], order: NDArray[np.int64], x: Any, given: Any) -> Any:  # noqa: ANN401 - torch, likewise
    """Do in torch what :meth:`Density.surprisal` does, on standardised values."""
    import torch

    half = x.shape[1] // 2
    logarithm = torch.zeros(len(x))
    for network, permutation in zip(networks, order, strict=True):
        x = x[:, permutation]
        kept, moved = x[:, :half], x[:, half:]
        stretch, shift = network(torch.cat([kept, given], 1)).split(moved.shape[1], 1)
        stretch = torch.tanh(stretch / STRETCH) * STRETCH
        x = torch.cat([kept, moved * stretch.exp() + shift], 1)
        logarithm = logarithm + stretch.sum(1)
    return (x * x).sum(1) / 2 - logarithm


def _weights(networks: list[Any]) -> list[NDArray[np.float32]]:
    """Stack the weights of the networks, as numpy multiplies by them: one list entry an array of :class:`Density`."""
    return [
        np.stack([np.ascontiguousarray(getattr(network[layer], kind).detach().numpy().T) for network in networks])
        for layer in (0, 3, 5)
        for kind in ("weight", "bias")
    ]


def warm_up() -> None:
    """Have what is compiled ready before the first beat comes: the first time on a machine that takes seconds."""
    d, one = 2, (1, HIDDEN)
    Density(
        np.zeros(d, np.float32), np.ones(d, np.float32), np.zeros((OUTLINE, COMPONENTS), np.float32),
        np.arange(d, dtype=np.int32)[None], np.zeros((1, d // 2 + COMPONENTS, HIDDEN), np.float32),
        np.zeros(one, np.float32), np.zeros((*one, HIDDEN), np.float32), np.zeros(one, np.float32),
        np.zeros((*one, 2), np.float32), np.zeros((1, 2), np.float32),
    ).surprisal(np.zeros((1, d), np.float32), np.zeros((1, OUTLINE), np.float32))  # fmt: skip
