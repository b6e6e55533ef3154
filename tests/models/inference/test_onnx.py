"""The ONNX graph of a model gives the reconstructions and A(x) of ``ecgmon.load_model``, computed by another program."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import ecgmon
from ecgmon.models import windows
from ecgmon.models.inference.onnx_graph import OnnxError, export_onnx
from ecgmon.models.networks.beatgan import Generator, initialise
from ecgmon.models.networks.shape import BeatGanShape
from ecgmon.models.weights.checkpoint import CheckpointError, default_weights, save

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgmon.models.score.score import Score


def session(file: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module", params=["dense", "beatgan"])
def checkpoint(request: pytest.FixtureRequest, made_up_score: Score, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model, with one lead; a small convolutional one with two."""
    if request.param == "dense":
        return default_weights()
    generator = Generator(BeatGanShape(leads=2, width=3, latent=5))
    initialise(generator, torch.Generator().manual_seed(0))
    generator(torch.randn(8, 2, 320, generator=torch.Generator().manual_seed(1)))  # changes the batch norm's statistics
    path = tmp_path_factory.mktemp("models") / "beatgan.safetensors"
    usual = np.full(windows.LENGTH, 0.01, np.float32)
    save(path, generator.eval(), name="convolutions", score=made_up_score, usual=usual, command="", data={})
    return path


@pytest.fixture(scope="module")
def graph(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    file = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(checkpoint, file)
    return session(file)


@pytest.fixture(scope="module")
def beats(checkpoint: Path) -> NDArray[np.float32]:
    """Windows of the built-in record, 300 in as many leads as the model has; the second lead is another beat's."""
    one = ecgmon.segment("toy").windows[:300, :1]
    leads = ecgmon.load_model(checkpoint).leads
    return np.concatenate([one, one[::-1]], axis=1)[:, :leads].astype(np.float32)


@pytest.mark.parametrize("count", [1, 300])
def test_reconstruction_and_ax_are_those_of_the_model(
    graph: Any, checkpoint: Path, beats: NDArray[np.float32], count: int
) -> None:
    model = ecgmon.load_model(checkpoint)
    reconstruction, ax = graph.run(None, {"windows": beats[:count]})
    assert (reconstruction.dtype, ax.dtype) == (np.float32, np.float32)
    assert ax == pytest.approx(model.anomaly_score(beats[:count]), rel=1e-4)
    with model.running() as scorer:
        assert np.abs(reconstruction - scorer.reconstruct(beats[:count])[1]).max() < 1e-4


def test_flat_leads_count_as_zeros(graph: Any, checkpoint: Path, beats: NDArray[np.float32]) -> None:
    flat = beats[:3].copy()
    flat[1, 0] = 0.7
    flat[2] = 0.0
    assert graph.run(["ax"], {"windows": flat})[0] == pytest.approx(
        ecgmon.load_model(checkpoint).anomaly_score(flat), rel=1e-4
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_window_with_a_value_that_is_not_finite_gets_nan_and_does_not_affect_others(
    graph: Any, beats: NDArray[np.float32], value: float
) -> None:
    damaged = beats[:6].copy()
    damaged[2] = 0.7  # also when it is flat otherwise
    damaged[2, -1, 5] = value
    damaged[4, 0, 319] = value
    reconstruction, ax = graph.run(None, {"windows": damaged})
    assert np.isnan(ax).nonzero()[0].tolist() == [2, 4]
    assert np.isnan(reconstruction[[2, 4]]).all()
    expected = graph.run(None, {"windows": beats[:6]})
    others = [0, 1, 3, 5]
    assert np.array_equal(ax[others], expected[1][others])
    assert np.array_equal(reconstruction[others], expected[0][others])


def test_the_file_names_its_model_and_depends_on_the_checkpoint_alone(checkpoint: Path, tmp_path: Path) -> None:
    info = export_onnx(checkpoint, tmp_path / "a.onnx")
    export_onnx(checkpoint, tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    about = session(tmp_path / "a.onnx").get_modelmeta().custom_metadata_map
    assert (about["name"], about["fingerprint"], about["leads"]) == (info.name, info.fingerprint, str(info.leads))
    assert (about["fs"], about["length"], about["before"], about["band"]) == ("360", "320", "140", "3-45")
    assert about["ecgmon_version"]


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(OnnxError, match=r"needs the package onnx, which is missing; pip install 'ecgmon\[onnx\]'"):
        export_onnx(default_weights(), tmp_path / "x.onnx")
    with pytest.raises(CheckpointError):
        export_onnx(tmp_path / "nowhere", tmp_path / "x.onnx")
