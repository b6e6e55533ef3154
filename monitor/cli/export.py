"""``ecgmon export``: a model for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ecgmon.monitor.cli.configuration import add_config_flags, add_state_flag, load_config
from ecgmon.monitor.cli.printing import complain

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Write a generator as an ONNX model. It takes windows in mV, float32 of shape (n, leads, 320), and gives their "
        "scaled reconstruction and A(x). The score is not part of it. Needs the package onnx: pip install 'ecgmon[onnx]'."
    )
    parser.epilog = "Exit status: 0 written, 1 the model cannot be used or the file cannot be written, 2 wrong usage."
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        default="shipped",
        help="checkpoint file, or a model of the registry (default: the shipped one)",
    )
    parser.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="file to write")
    add_state_flag(parser)
    add_config_flags(parser)


def run(args: Namespace) -> int:
    """Write the file; return 1 if that fails."""
    from ecgmon.models.inference.onnx_graph import OnnxError, export_onnx
    from ecgmon.models.weights.checkpoint import CheckpointError
    from ecgmon.monitor.process.roles.setup import registry_of

    registry = registry_of(load_config(args, {"store.path": args.state}))
    try:
        info = export_onnx(registry.checkpoint(args.model), args.onnx)
    except (CheckpointError, OnnxError) as error:
        return complain(error)
    print(f"{args.onnx}: {info.name}, {info.fingerprint[:12]}, {args.onnx.stat().st_size / 1e6:.1f} MB")
    return 0
