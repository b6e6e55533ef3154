"""A checkpoint that is damaged or made for another purpose is refused before it scores a beat."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from ecgmon.models import windows
from ecgmon.models.networks.beatgan import Generator, initialise
from ecgmon.models.networks.shape import BeatGanShape
from ecgmon.models.weights import checkpoint
from ecgmon.models.weights.checkpoint import CheckpointError, default_weights, load_generator, read_info

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgmon.models.score.score import Score

SHAPE = BeatGanShape(leads=2, width=2, latent=3)
USUAL = np.linspace(0.001, 0.01, windows.LENGTH, dtype=np.float32)


@pytest.fixture(scope="module")
def about(made_up_score: Score) -> dict[str, Any]:
    data = {"beats": "0123"}
    return {"name": "small", "score": made_up_score, "usual": USUAL, "command": "ecgmon train all", "data": data}


@pytest.fixture(scope="module")
def generator() -> Generator:
    generator = Generator(SHAPE)
    initialise(generator, torch.Generator().manual_seed(0))
    generator(torch.randn(8, 2, 320))  # changes the batch-norm statistics from their initial values
    return generator.eval()


@pytest.fixture(scope="module")
def good(generator: Generator, about: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "model.safetensors"
    checkpoint.save(path, generator, **about)
    return path


def rewritten(
    good: Path,
    folder: Path,
    *,
    metadata: dict[str, Any] | tuple[()] = (),
    tensors: dict[str, NDArray[Any] | None] | tuple[()] = (),
) -> Path:
    """Write a checkpoint with changed contents and a matching checksum."""
    data = good.read_bytes()
    length = int.from_bytes(data[:8], "little")
    about = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["ecgmon"]) | dict(metadata)
    changed = load(data) | dict(tensors)
    contents = {name: tensor for name, tensor in changed.items() if tensor is not None}
    text = json.dumps(about)
    path = folder / "changed.safetensors"
    path.write_bytes(save(contents, {"ecgmon": text, "sha256": checkpoint._checksum(text, contents)}))
    return path


def test_a_checkpoint_restores_the_generator_bit_for_bit(good: Path, generator: Generator) -> None:
    loaded, info = load_generator(good)
    x = torch.randn(3, 2, 320)
    with torch.no_grad():
        assert torch.equal(loaded(x)[0], generator(x)[0])
    assert info.shape == SHAPE
    assert info.parameters == SHAPE.parameters
    assert (info.name, info.command, info.data) == ("small", "ecgmon train all", {"beats": "0123"})
    assert (info.fs, info.length, info.before, info.band) == (360, 320, 140, (3.0, 45.0))


def test_rounded_weights_take_half_the_space_and_are_restored_bit_for_bit(
    good: Path, generator: Generator, about: dict[str, Any], tmp_path: Path
) -> None:
    rounded = Generator(SHAPE).eval()
    rounded.load_state_dict(generator.state_dict())
    checkpoint.round_weights(rounded)
    path = tmp_path / "rounded.safetensors"
    checkpoint.save(path, rounded, **about)
    loaded, _ = load_generator(path)
    x = torch.randn(3, 2, 320)
    with torch.no_grad():
        assert torch.equal(loaded(x)[0], rounded(x)[0])
        assert torch.allclose(loaded(x)[0], generator(x)[0], atol=0.01)
    matrices = sum(p.numel() for p in generator.parameters() if p.ndim > 1)
    assert good.stat().st_size - path.stat().st_size == pytest.approx(2 * matrices, rel=0.1)


def test_a_rewritten_checkpoint_without_changes_is_accepted(good: Path, tmp_path: Path) -> None:
    assert read_info(rewritten(good, tmp_path)).name == "small"


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_byte_anywhere_is_refused(good: Path, tmp_path: Path, data: st.DataObject) -> None:
    contents = bytearray(good.read_bytes())
    place = data.draw(st.integers(0, len(contents) - 1))
    contents[place] ^= 0xFF
    path = tmp_path / "flipped.safetensors"
    path.write_bytes(contents)
    with pytest.raises(CheckpointError):
        read_info(path)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_truncated_file_is_refused(good: Path, tmp_path: Path, data: st.DataObject) -> None:
    contents = good.read_bytes()
    path = tmp_path / "truncated.safetensors"
    path.write_bytes(contents[: data.draw(st.integers(0, len(contents) - 1))])
    with pytest.raises(CheckpointError):
        read_info(path)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.binary(max_size=300))
def test_a_file_that_is_not_a_checkpoint_is_refused(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "something.safetensors"
    path.write_bytes(contents)
    with pytest.raises(CheckpointError):
        read_info(path)


def test_a_missing_file_and_a_folder_are_reported_as_such(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*nowhere"):
        read_info(tmp_path / "nowhere.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_info(tmp_path)


def test_weights_of_another_program_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(save({"weight": np.zeros(3, np.float32)}))
    with pytest.raises(CheckpointError, match="no ecgmon metadata"):
        read_info(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", 1),
        ("format", 2),
        ("format", 3),
        ("fs", 250),
        ("length", 256),
        ("before", 100),
        ("band", [0.5, 40.0]),
        ("normalisation", "none"),
    ],
)
def test_a_model_for_other_windows_is_refused(
    good: Path, tmp_path: Path, key: str, value: int | list[float] | str
) -> None:
    with pytest.raises(CheckpointError, match=rf"made for {key} "):
        read_info(rewritten(good, tmp_path, metadata={key: value}))


@pytest.mark.parametrize(
    "metadata",
    [{"leads": 0}, {"leads": "2"}, {"width": 1.5}, {"name": None}, {"surplus": 1}, {"score": {}}, {"data": [1]}],
)
def test_invalid_metadata_are_refused(good: Path, tmp_path: Path, metadata: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="metadata that do not fit"):
        read_info(rewritten(good, tmp_path, metadata=metadata))


def test_a_score_that_is_not_monotone_is_refused(good: Path, made_up_score: Score, tmp_path: Path) -> None:
    plain = made_up_score.to_dict()
    score = plain["parts"]["reconstruction"]["added"]["score"]
    score[len(score) // 2] = 6
    with pytest.raises(CheckpointError, match="rises and falls"):
        read_info(rewritten(good, tmp_path, metadata={"score": plain}))


@pytest.mark.parametrize("change", [None, np.zeros(3, np.float32), np.full(10_000, np.nan, np.float32)])
def test_a_score_whose_arrays_do_not_fit_is_refused(
    good: Path, tmp_path: Path, change: NDArray[np.float32] | None
) -> None:
    name = next(name for name in load(good.read_bytes()) if name.startswith("score/"))
    with pytest.raises(CheckpointError, match="metadata that do not fit"):
        read_info(rewritten(good, tmp_path, tensors={name: change}))


@pytest.mark.parametrize("usual", [None, np.ones(319, np.float32), np.ones(320), USUAL - 0.001, USUAL * np.nan])
def test_invalid_usual_errors_are_refused(good: Path, tmp_path: Path, usual: NDArray[Any] | None) -> None:
    with pytest.raises(CheckpointError, match="usual error"):
        read_info(rewritten(good, tmp_path, tensors={"usual": usual}))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (np.zeros((3, 32, 9), np.float32), r"\(3, 32, 9\), expected float16 or float32 \(3, 32, 10\)"),
        (np.zeros((3, 32, 10), np.float64), "float64"),
        (np.full((3, 32, 10), np.nan, np.float32), "not finite"),
        (np.full((3, 32, 10), np.inf, np.float32), "not finite"),
        (None, "encoder.last.weight"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    good: Path, tmp_path: Path, tensor: NDArray[Any] | None, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_info(rewritten(good, tmp_path, tensors={"encoder.last.weight": tensor}))


def test_unknown_tensors_and_negative_variances_are_refused(good: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="surplus"):
        read_info(rewritten(good, tmp_path, tensors={"surplus": np.zeros(1, np.float32)}))
    with pytest.raises(CheckpointError, match="negative variances"):
        read_info(rewritten(good, tmp_path, tensors={"decoder.stages.1.running_var": np.full(32, -1, np.float32)}))


def test_a_diverged_generator_does_not_replace_a_good_one(
    generator: Generator, about: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    fingerprint = checkpoint.save(path, generator, **about).fingerprint
    diverged = Generator(SHAPE)
    with torch.no_grad():
        diverged.encoder.last.weight.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="diverged"):
        checkpoint.save(path, diverged, **about)
    assert read_info(path).fingerprint == fingerprint
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_the_shipped_weights_are_accepted_and_name_their_origin() -> None:
    info = read_info(default_weights())
    assert info.command.startswith("ecgmon train ")
    assert set(info.data) == {"files", "beats", "signal"}
    assert info.length == windows.LENGTH
    assert info.score.beats > 8_000


def test_reading_checkpoint_metadata_does_not_load_torch() -> None:
    code = "import sys; from ecgmon.models.weights.checkpoint import *; read_info(default_weights()); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
