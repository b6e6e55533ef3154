"""The monitor evaluates without torch: the compiled loop must give the density that torch fitted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgmon.models.features import OUTLINE
from ecgmon.models.kernels import coupling
from ecgmon.models.score import normalizing_flow as density
from ecgmon.models.score.normalizing_flow import COMPONENTS, Density, DensityError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def made_up_beats(n: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Make three numbers, the second of which depends on the first and the third on the shape."""
    random = np.random.default_rng(seed)
    shapes = np.sin(np.arange(1, 21)[:, None] * np.linspace(0, 3, OUTLINE)) / np.arange(1, 21)[:, None]
    weights = random.standard_normal((n, 20))
    first = random.standard_normal(n)
    second = 0.8 * first + 0.3 * random.standard_normal(n)
    third = np.sign(weights[:, 0]) + 0.2 * random.standard_normal(n)
    return np.stack([first, second, third], axis=1).astype(np.float32), (weights @ shapes).astype(np.float32)


@pytest.fixture(scope="module")
def fitted() -> Density:
    return Density.fit(*made_up_beats(3000, seed=1), blur=0.1)


def test_the_compiled_loop_evaluates_the_density_that_torch_fitted(fitted: Density) -> None:
    torch = pytest.importorskip("torch")
    numbers, outline = made_up_beats(200, seed=2)
    networks = [density._network(3).eval() for _ in fitted.order]
    for k, network in enumerate(networks):
        for layer, name in ((0, "into"), (3, "within"), (5, "out")):
            network[layer].weight.data = torch.from_numpy(getattr(fitted, name)[k].T.copy())
            network[layer].bias.data = torch.from_numpy(getattr(fitted, f"{name}_bias")[k].copy())
    x, given_shape = (torch.from_numpy(a) for a in (fitted._standardised(numbers), fitted._condition(outline)))
    with torch.inference_mode():
        expected = density._surprisal(networks, fitted.order.astype(np.int64), x, given_shape).numpy()
    assert fitted.surprisal(numbers, outline) == pytest.approx(expected, rel=1e-4, abs=1e-3)


def test_the_density_integrates_to_one(fitted: Density) -> None:
    _, outline = made_up_beats(1, seed=3)
    side = np.linspace(-3.9, 3.9, 60)  # standard scores, within the limits of the numbers
    grid = np.stack(np.meshgrid(side, side, side, indexing="ij"), axis=-1).reshape(-1, 3)
    numbers = (grid * fitted.scale + fitted.mean).astype(np.float32)
    surprisal = fitted.surprisal(numbers, np.repeat(outline, len(numbers), axis=0)).astype(np.float64)
    total = np.exp(-surprisal).sum() * (side[1] - side[0]) ** 3 / (2 * np.pi) ** 1.5
    assert total == pytest.approx(1, abs=0.1)


def test_an_unusual_combination_of_numbers_is_improbable(fitted: Density) -> None:
    numbers, outline = made_up_beats(500, seed=4)
    usual = fitted.surprisal(numbers, outline)
    swapped = numbers.copy()
    swapped[:, 1] *= -1  # each number alone is as usual as before
    assert np.median(fitted.surprisal(swapped, outline)) > np.median(usual) + 1


def test_numbers_that_do_not_fit_the_shape_are_improbable(fitted: Density) -> None:
    numbers, outline = made_up_beats(500, seed=5)
    usual = fitted.surprisal(numbers, outline)
    assert np.median(fitted.surprisal(numbers, -outline)) > np.median(usual) + 2


@settings(deadline=None, max_examples=30)
@given(start=st.integers(0, 99), count=st.integers(1, 100))
def test_surprisal_does_not_depend_on_the_other_beats(fitted: Density, start: int, count: int) -> None:
    numbers, outline = made_up_beats(200, seed=6)
    part = slice(start, start + count)
    alone = fitted.surprisal(numbers[part], outline[part])
    assert alone.tobytes() == fitted.surprisal(numbers, outline)[part].tobytes()


def test_extreme_numbers_have_a_finite_surprisal(fitted: Density) -> None:
    _, outline = made_up_beats(2, seed=7)
    wild = np.array([[1e30, -1e30, 0], [3e38, 3e38, -3e38]], np.float32)
    assert np.isfinite(fitted.surprisal(wild, outline)).all()


def test_a_beat_with_unknown_values_has_no_surprisal(fitted: Density) -> None:
    numbers, outline = made_up_beats(3, seed=8)
    numbers[1, 2] = np.nan
    outline[2, 5] = np.nan
    assert np.isnan(fitted.surprisal(numbers, outline)).tolist() == [False, True, True]


def test_the_same_seed_gives_the_same_fit() -> None:
    beats = made_up_beats(1000, seed=9)
    first, second, other = (Density.fit(*beats, blur=0.5, seed=seed) for seed in (3, 3, 4))
    assert all(
        np.array_equal(a, b) for a, b in zip(first.to_arrays().values(), second.to_arrays().values(), strict=True)
    )
    assert not np.array_equal(first.out, other.out)


def test_fitting_does_not_change_the_global_random_state() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Density.fit(*made_up_beats(1000, seed=10), blur=0.5)
    assert torch.equal(torch.rand(3), expected)


def test_a_stored_density_is_restored_unchanged(fitted: Density) -> None:
    restored = Density.from_arrays(fitted.to_arrays())
    beats = made_up_beats(50, seed=11)
    assert np.array_equal(restored.surprisal(*beats), fitted.surprisal(*beats))


def test_fitted_and_restored_densities_compile_nothing_again(fitted: Density) -> None:
    density.warm_up()
    for each in (fitted, Density.from_arrays(fitted.to_arrays())):
        for n in (0, 1, 40):
            numbers, outline = made_up_beats(n, seed=12)
            each.surprisal(numbers, outline)
            each.surprisal(np.frombuffer(numbers.tobytes(), np.float32).reshape(n, 3), outline[:, ::-1])
    assert len(vars(coupling)["run"].signatures) == 1  # a stream must not wait seconds for a compiler


@pytest.mark.parametrize(
    ("name", "spoilt"),
    [
        ("mean", np.zeros(4, np.float32)),
        ("scale", np.zeros(3, np.float32)),
        ("basis", np.full((OUTLINE, COMPONENTS), np.nan, np.float32)),
        ("order", np.zeros((4, 3), np.int32)),
        ("into", np.zeros(0, np.float32)),
        ("out", np.zeros((4, 96, 4), np.float64)),
    ],
)
def test_arrays_that_are_not_a_density_are_refused(fitted: Density, name: str, spoilt: NDArray[Any]) -> None:
    with pytest.raises(DensityError):
        Density.from_arrays(fitted.to_arrays() | {name: spoilt})


def test_a_missing_array_is_reported(fitted: Density) -> None:
    arrays = fitted.to_arrays()
    del arrays["within"]
    with pytest.raises(DensityError, match="within"):
        Density.from_arrays(arrays)


def test_beats_to_which_no_density_can_be_fitted_are_refused() -> None:
    numbers, outline = made_up_beats(1000, seed=12)
    with pytest.raises(DensityError, match="999 beats are too few"):
        Density.fit(numbers[:999], outline[:999], blur=0.1)
    with pytest.raises(DensityError, match="the same for all"):
        Density.fit(numbers * np.array([1, 0, 1], np.float32), outline, blur=0.1)
    numbers[4, 0] = np.inf
    with pytest.raises(DensityError, match="not finite"):
        Density.fit(numbers, outline, blur=0.1)
