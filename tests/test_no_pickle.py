"""External data is never executed: the code uses no pickle and no eval, and refuses files that hold a pickle."""

from __future__ import annotations

import ast
import json
import pickle
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.numpy import save

from ecgmon.models.weights.checkpoint import CheckpointError, load_generator, read_info
from ecgmon.monitor.config.errors import ConfigError
from ecgmon.monitor.config.reading import from_json, load
from ecgmon.pipelines import wire
from ecgmon.pipelines.evaluation.model_card import _arrays
from ecgmon.pipelines.training.dataset import DatasetError
from ecgmon.pipelines.training.dataset import load as load_dataset
from ecgmon.pipelines.training.fitting import TrainingError, _load_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from msgspec.msgpack import Decoder

CHECKOUT = Path(__file__).parents[1]

MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "yaml",
    "code",
    "codeop",
}
BUILTINS = {"eval", "exec", "compile", "__import__"}
METHODS = {"recv_pyobj", "send_pyobj", "read_pickle", "to_pickle"}

ALLOWED = {
    ("pipelines/training/fitting.py", "import of pickle"),  # to catch the UnpicklingError with which torch refuses
}
"""The risky code that there is, and why it is harmless."""


def risks(source: str) -> set[str]:
    """Name the imports and calls in some source code that could execute data."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {f"import of {name.name}" for name in node.names if name.name.partition(".")[0] in MODULES}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            found.add(f"import of {node.module}")
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if called in BUILTINS or called.rpartition(".")[2] in METHODS or called.startswith("builtins."):
                found.add(f"call of {called}")
            elif called == "torch.load" and given.get("weights_only") != "True":
                found.add("torch.load that unpickles anything")
            elif called in {"np.load", "numpy.load"} and given.get("allow_pickle") != "False":
                found.add("np.load that does not forbid pickles")
            elif given.get("allow_pickle") not in {None, "False"}:
                found.add("pickles allowed")
            elif given.get("shell") not in {None, "False"}:
                found.add("a shell")
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in {
            "pickle.loads",
            "pickle.load",
            "pickle.Unpickler",
        }:
            found.add("unpickling")
    return found


def test_no_source_file_executes_external_data() -> None:
    sources = [
        path
        for package in ("monitor", "pipelines", "models", "examples")
        for path in (CHECKOUT / package).rglob("*.py")
    ]
    assert len(sources) > 50
    found = {(str(path.relative_to(CHECKOUT)), risk) for path in sources for risk in risks(path.read_text())}
    assert found == ALLOWED


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from marshal import loads", "import yaml", "eval(x)", "exec(x)", "torch.load(p)", "np.load(p)",
        "torch.load(p, weights_only=False)", "np.load(p, allow_pickle=True)", "np.lib.format.read_array(f, allow_pickle=True)",
        "socket.recv_pyobj()", "subprocess.run(x, shell=True)", "pickle.loads(x)",
    ],
)  # fmt: skip
def test_the_search_finds_every_risky_call(source: str) -> None:
    assert risks(source)


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
        return Path.touch, (self.trace,)


@pytest.fixture
def trace(tmp_path: Path) -> Iterator[Path]:
    """The file that an unpickled bomb creates; fails if it exists at the end of the test."""
    path = tmp_path / "went-off"
    yield path
    assert not path.exists()


def test_unpickling_the_bomb_executes_it(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "trace")))
    assert (tmp_path / "trace").exists()


@pytest.mark.parametrize("decoder", [wire.from_producer, wire.to_producer, wire.from_worker, wire.to_worker])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_on_the_wire_is_refused(trace: Path, decoder: Decoder[Any], protocol: int) -> None:
    bomb = pickle.dumps(Bomb(trace), protocol)
    scores = wire.encode(wire.Scores(1, 1, 0.0))
    extension = msgspec.msgpack.encode(msgspec.msgpack.Ext(1, bomb))
    for frames in [[bomb], [bomb] * 4, [extension], [extension] * 3]:
        with pytest.raises(wire.WireError):
            wire.decode(decoder, frames)
    with pytest.raises(wire.WireError):
        wire.unpack_scores([scores, bomb, bomb], 2)
    deliver = wire.Deliver(1, [wire.Part(0, 0, 1, 0)], 0.0)
    with pytest.raises(wire.WireError):
        wire.unpack_deliver(deliver, [wire.encode(deliver), bomb, bomb, bomb], [1])


def pickled_in_every_way(trace: Path, folder: Path) -> list[Path]:
    bomb = Bomb(trace)
    files = [folder / name for name in ("plain", "torch", "old-torch", "npz", "npy", "metadata", "zip")]
    plain, modern, old, npz, npy, metadata, archive = files
    plain.write_bytes(pickle.dumps(bomb))
    torch.save({"a": bomb}, modern)
    torch.save({"a": bomb}, old, _use_new_zipfile_serialization=False)
    with npz.open("wb") as file:
        np.savez(file, score=np.array([bomb], object), aami=np.zeros(1))
    with npy.open("wb") as file:
        np.save(file, np.array([bomb], object))
    metadata.write_bytes(
        save({"a": np.zeros(1, np.float32)}, {"ecgmon": pickle.dumps(bomb, 0).decode("latin-1"), "sha256": ""})
    )
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(bomb))
    return files


@pytest.mark.parametrize("number", range(7))
def test_a_pickle_in_place_of_a_checkpoint_is_refused(trace: Path, tmp_path: Path, number: int) -> None:
    path = pickled_in_every_way(trace, tmp_path)[number]
    for read in (read_info, load_generator):
        with pytest.raises(CheckpointError):
            read(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # torch warns before it refuses
@pytest.mark.parametrize("number", range(7))
def test_a_pickle_in_place_of_a_training_state_is_refused(trace: Path, tmp_path: Path, number: int) -> None:
    pickled_in_every_way(trace, tmp_path)[number].rename(tmp_path / "state.pt")
    with pytest.raises(TrainingError):
        _load_state(tmp_path)


def test_a_pickle_in_place_of_result_arrays_is_refused(trace: Path, tmp_path: Path) -> None:
    for path in pickled_in_every_way(trace, tmp_path):
        with pytest.raises((ValueError, KeyError, OSError, TypeError)):
            _arrays(path, ("score", "aami"))


def test_a_pickle_in_place_of_a_data_set_is_refused(trace: Path, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"spans": {}, "sha256": {"beats": "", "signal": ""}}))
    for path in pickled_in_every_way(trace, tmp_path):
        for name in ("beats.npy", "signal.npy"):
            (tmp_path / name).write_bytes(path.read_bytes())
        with pytest.raises(DatasetError):
            load_dataset(tmp_path)


def test_a_pickle_in_place_of_a_configuration_is_refused(trace: Path, tmp_path: Path) -> None:
    for path in pickled_in_every_way(trace, tmp_path):
        with pytest.raises(ConfigError):
            load(path, environ={"HOME": "/"}, overrides={})
        with pytest.raises(ConfigError):
            from_json(path.read_bytes())
