"""A trained generator as an ONNX graph: windows in mV to scaled reconstruction and A(x).

The graph does what :meth:`ecgmon.models.inference.reconstruction.Reconstructor.score` does, with the scaling of the
windows, for programs that run without torch.  It is written layer by layer and not traced, so that it needs the package
onnx only and its bytes depend on nothing but the checkpoint.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from torch import nn

from ecgmon.models.inference.reconstruction import fused
from ecgmon.models.weights.checkpoint import load_generator
from ecgmon.models.windows import BAND, BEFORE, FS, LENGTH

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from ecgmon.models.weights.checkpoint import ModelInfo

OPSET: Final = 18
"""Version of ONNX's operators: the first in which all reductions take their axes as an input."""

_IR: Final = 8  # version of the file format that came with this opset; older runtimes refuse newer ones

_EXPLANATION: Final = """\
Anomaly score A(x) of ECG beats. `windows`: band-passed windows of 320 samples at 360 Hz in mV, 140 before the R peak.
`reconstruction`: the generator's output for the windows scaled to [-1, 1]. `ax`: mean squared difference of both.
A window with a value that is not finite gets NaN. Not a medical device."""


class OnnxError(Exception):
    """The package onnx is missing, or the graph cannot be written."""

    __module__ = "ecgmon.errors"


def export_onnx(checkpoint: Path, file: Path) -> ModelInfo:
    """Write the generator of a checkpoint as an ONNX model; the file is replaced as a whole.

    Parameters
    ----------
    checkpoint : Path
    file : Path
        Replaced if it exists.  The graph takes ``windows``, float32 of shape (n, leads, 320) in mV with any n, and gives
        ``reconstruction``, float32 of the same shape, scaled to [-1, 1], and ``ax``, A(x), float32 of shape (n,).  Both
        are NaN for a window with a value that is not finite.  The metadata have ``name``, ``fingerprint``, ``leads``,
        ``fs``, ``length``, ``before``, ``band`` and ``ecgmon_version``.

    Returns
    -------
    ModelInfo
        Description of the model.

    Raises
    ------
    OnnxError
        If the package onnx is not installed, or the file cannot be written.
    ecgmon.models.weights.checkpoint.CheckpointError
        If the checkpoint cannot be used.
    """
    generator, info = load_generator(checkpoint)
    try:
        import onnx
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise OnnxError("the export needs the package onnx, which is missing; pip install 'ecgmon[onnx]'") from error
    graph = _Graph()
    scaled = graph.scaled("windows")
    ax = graph.add("ReduceMean", graph.squared(graph.network(fused(generator), scaled), scaled), graph.axes(1, 2),
                   keepdims=0, out="ax")  # fmt: skip
    # Convolutions and ReLU may hide NaN, ax does not.
    each = graph.add("Unsqueeze", ax, graph.axes(1, 2))
    graph.add("Where", graph.add("IsNaN", each), each, _OUTPUT, out="reconstruction")
    data = graph.model(info).SerializeToString(deterministic=True)
    onnx.checker.check_model(data, full_check=True)
    part = file.with_name(f"{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(file)
    except OSError as error:
        raise OnnxError(f"{file} cannot be written: {error.strerror or error}; choose another file") from error
    finally:
        part.unlink(missing_ok=True)
    return info


_OUTPUT: Final = "output"  # of the network, before NaN is put in


class _Graph:
    """Nodes and constants of a graph in the order in which they are added; each value has a name of its own."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def add(self, kind: str, *inputs: str, out: str = "", **attributes: object) -> str:
        """Add an operator; return the name of its output, by default the operator's with a number."""
        from onnx import helper

        name = out or f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, values: NDArray[Any], name: str) -> str:
        """Add a constant, once for each name; return the name."""
        from onnx import numpy_helper

        self._constants.setdefault(name, numpy_helper.from_array(values, name))
        return name

    def number(self, value: float) -> str:
        """Add a constant of one float32."""
        return self.constant(np.array(value, np.float32), f"number_{value:g}")

    def axes(self, *numbers: int) -> str:
        """Add the numbers of axes."""
        return self.constant(np.array(numbers, np.int64), f"axes_{'_'.join(map(str, numbers))}")

    def squared(self, a: str, b: str) -> str:
        """Add the squared difference of two values."""
        apart = self.add("Sub", a, b)
        return self.add("Mul", apart, apart)

    def scaled(self, windows: str) -> str:
        """Scale windows as :func:`ecgmon.models.windows.scale` does; a window with NaN or infinity keeps a NaN."""
        low = self.add("ReduceMin", windows, self.axes(2))
        span = self.add("Sub", self.add("ReduceMax", windows, self.axes(2)), low)
        above = self.add("Sub", windows, low)
        inside = self.add("Sub", self.add("Mul", above, self.add("Div", self.number(2), span)), self.number(1))
        # `above` is zero in a flat lead, and NaN where a runtime's minimum and maximum have left a NaN out.
        return self.add("Where", self.add("LessOrEqual", span, self.number(0)), above, inside)

    def network(self, layers: nn.Sequential, x: str) -> str:
        """Add the layers of a generator, with batch norm folded in; return the name of their output."""
        for number, layer in enumerate(layers):
            out = _OUTPUT if number == len(layers) - 1 else ""
            if isinstance(layer, nn.Linear):
                x = self.add("Gemm", x, *self._weights(layer, number), transB=1, out=out)
            elif isinstance(layer, nn.Conv1d | nn.ConvTranspose1d):
                kind = "Conv" if isinstance(layer, nn.Conv1d) else "ConvTranspose"
                pads = 2 * [int(layer.padding[0])]  # at either end
                x = self.add(kind, x, *self._weights(layer, number), strides=layer.stride, pads=pads, out=out)
            elif isinstance(layer, nn.LeakyReLU):
                x = self.add("LeakyRelu", x, alpha=layer.negative_slope, out=out)
            elif isinstance(layer, nn.ReLU | nn.Tanh):
                x = self.add(type(layer).__name__.replace("ReLU", "Relu"), x, out=out)
            elif isinstance(layer, nn.Flatten):
                x = self.add("Flatten", x, axis=1, out=out)
            elif isinstance(layer, nn.Unflatten):
                shape = np.array([0, *layer.unflattened_size], np.int64)  # 0: as in the input
                x = self.add("Reshape", x, self.constant(shape, "shape"), out=out)
            else:
                raise TypeError(f"there is no operator for {layer!r}")
        return x

    def _weights(self, layer: nn.Linear | nn.Conv1d | nn.ConvTranspose1d, number: int) -> list[str]:
        tensors: dict[str, Tensor | None] = {"weight": layer.weight, "bias": layer.bias}
        return [
            self.constant(tensor.detach().numpy(), f"layer_{number}.{name}")
            for name, tensor in tensors.items()
            if tensor is not None
        ]

    def model(self, info: ModelInfo) -> Any:  # noqa: ANN401 - onnx is imported when it is used
        """Make the model, with its inputs, outputs and metadata."""
        from onnx import TensorProto, helper

        def value(name: str, *shape: int | str) -> object:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

        window = ("n", info.leads, LENGTH)
        graph = helper.make_graph(
            self._nodes, "ecgmon", [value("windows", *window)], [value("reconstruction", *window), value("ax", "n")],
            list(self._constants.values()), doc_string=_EXPLANATION,
        )  # fmt: skip
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR, producer_name="ecgmon",
            producer_version=version("ecgmon"), doc_string=_EXPLANATION,
        )  # fmt: skip
        about = {
            "name": info.name,
            "fingerprint": info.fingerprint,
            "leads": info.leads,
            "fs": FS,
            "length": LENGTH,
            "before": BEFORE,
            "band": f"{BAND[0]:g}-{BAND[1]:g}",
            "ecgmon_version": version("ecgmon"),
        }
        helper.set_model_props(model, {key: str(text) for key, text in about.items()})
        return model
