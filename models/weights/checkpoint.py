"""The file that a trained generator is shipped in, and the refusal of one that does not fit.

A checkpoint is a safetensors file: tensors that nothing has to be unpickled for, and in the
header's metadata all that is needed to use them: the window, the normalisation, the score,
where the weights come from, and a checksum over everything.  Reading it needs no torch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from ecgmon.models import windows
from ecgmon.models.networks.shape import BeatGanShape, DenseShape, shape_of
from ecgmon.models.score.calibration import CalibrationError
from ecgmon.models.score.normalizing_flow import DensityError
from ecgmon.models.score.parts import ScoreError
from ecgmon.models.score.score import Score

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ecgmon.models.networks.generator import AnyGenerator

FORMAT: Final = 4
"""Version of the metadata; another one is refused."""

NORMALISATION: Final = "each lead of each window to [-1, 1] by its minimum and maximum"
"""What :func:`ecgmon.models.windows.scale` does, in words that are compared."""

_METADATA: Final = "ecgmon"  # key of the metadata, a JSON object
_CHECKSUM: Final = "sha256"  # key of the checksum over metadata and tensors
_SCORE_PREFIX: Final = "score/"  # prefix of the score's arrays among the tensors
_USUAL: Final = "usual"  # name of the usual errors among the tensors


class CheckpointError(Exception):
    """A checkpoint that is missing, is damaged or does not fit this version."""

    __module__ = "ecgmon.errors"


@dataclass(frozen=True, slots=True, eq=False)
class ModelInfo:
    """The metadata of a checkpoint.

    Attributes
    ----------
    name : str
        Of the model, for people.
    leads, width, latent : int
        Of the generator, see :class:`ecgmon.models.networks.shape.Shape`.
    architecture : str
        Kind of generator, one of :data:`ecgmon.models.networks.shape.ARCHITECTURES`.
    fs : int
        Sampling frequency of a window in Hz.
    length, before : int
        Samples in a window, and those before the R peak.
    band : (float, float)
        Pass band in Hz.
    normalisation : str
        How a window is scaled before the generator sees it.
    score : Score
        From what is known of a beat to its score.
    usual : ndarray of float32, shape (320,)
        Mean squared error of normal beats at each tick: what an explanation divides by.
    command : str
        Command line that reproduces the file.
    data : dict of str to str
        SHA-256 of what the weights were trained on.
    parameters : int
        Trainable parameters of the generator.
    multiply_adds : int
        Multiply-adds for one window.
    fingerprint : str
        SHA-256 of the file, in hexadecimal: tells models apart in stores and metrics.
    """

    name: str
    leads: int
    width: int
    latent: int
    architecture: str
    fs: int
    length: int
    before: int
    band: tuple[float, float]
    normalisation: str
    score: Score
    usual: NDArray[np.float32]
    command: str
    data: dict[str, str]
    parameters: int
    multiply_adds: int
    fingerprint: str

    @property
    def shape(self) -> BeatGanShape | DenseShape:
        """What the generator is made from."""
        return shape_of(self.architecture, leads=self.leads, width=self.width, latent=self.latent)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Metadata:
    """The metadata as stored."""

    format: int
    name: str
    leads: int
    width: int
    latent: int
    fs: int
    length: int
    before: int
    band: tuple[float, float]
    normalisation: str
    score: dict[str, Any]
    command: str
    data: dict[str, str]
    architecture: str = "beatgan"  # old files do not have this field

    @classmethod
    def parse(cls, plain: dict[str, Any]) -> Self:
        """Check names and types; raise ValueError for the first that does not fit.

        It uses no validation library: a GPU machine with only torch, numpy and safetensors can load a model.
        """
        known = {one.name: one for one in fields(cls)}
        if unknown := plain.keys() - known.keys():
            raise ValueError(f"the field {min(unknown)!r} is not known")
        if missing := {name for name, one in known.items() if one.default is MISSING} - plain.keys():
            raise ValueError(f"the field {min(missing)!r} is missing")
        for name, value in plain.items():
            kind = _KINDS.get(str(known[name].type))
            if kind is not None and (not isinstance(value, kind) or isinstance(value, bool)):
                raise ValueError(f"{name!r} is {value!r}; expected {known[name].type}")
        band = plain["band"]
        if not (isinstance(band, list) and len(band) == 2 and all(type(edge) in (int, float) for edge in band)):  # noqa: PLR2004 - low, high
            raise ValueError(f"'band' is {band!r}; expected two numbers")
        if not all(isinstance(value, str) for value in plain["data"].values()):
            raise ValueError("a value of 'data' is not text")
        return cls(**plain | {"band": (float(band[0]), float(band[1]))})


_KINDS: Final = {"int": int, "str": str, "dict[str, Any]": dict, "dict[str, str]": dict}


def shipped(name: str, suffix: str = ".safetensors") -> Path:
    """Path of a file that is installed with ecgmon: a checkpoint by default.

    Raises
    ------
    CheckpointError
        If the file is not installed.
    """
    path = Path(__file__).with_name(f"{name}{suffix}")
    if not path.is_file():
        raise CheckpointError(
            f"{path.name} is not among the weights that are installed, which are those of the daemon; "
            "the others are in a checkout of the repository: run it from there"
        )
    return path


def default_weights() -> Path:
    """Path of the checkpoint that the daemon uses by default."""
    return shipped("default")


def read_info(path: Path) -> ModelInfo:
    """Read the metadata of a checkpoint, and check all of the file, including its tensors.

    Parameters
    ----------
    path : Path

    Returns
    -------
    ModelInfo

    Raises
    ------
    CheckpointError
        If the file is missing or not a checkpoint, is damaged, was made for other windows, or holds
        tensors or a score that do not fit.
    """
    return _read(path)[0]


def load_generator(path: Path, device: str = "cpu") -> tuple[AnyGenerator, ModelInfo]:
    """Load a generator, ready to reconstruct (in evaluation mode).

    Parameters
    ----------
    path : Path
    device : str
        Device of torch.

    Returns
    -------
    generator : Generator or DenseGenerator
    info : ModelInfo

    Raises
    ------
    CheckpointError
        As in :func:`read_info`.
    """
    import torch

    from ecgmon.models.networks.generator import generator_of

    info, tensors = _read(path)
    generator = generator_of(info.shape)
    state = generator.state_dict()  # includes the batch counters, which are not stored
    state |= {name: torch.from_numpy(tensor.astype(np.float32)) for name, tensor in tensors.items()}
    generator.load_state_dict(state)
    return generator.to(device).eval(), info


def round_weights(generator: AnyGenerator) -> None:
    """Round the matrices of a trained generator to half precision, so that its checkpoint is half as large.

    Round before measuring anything with the generator: rounding changes A(x) by a few parts in ten thousand.
    """
    import torch

    with torch.no_grad():
        for parameter in generator.parameters():
            if parameter.ndim > 1:  # other parameters need little space and may underflow in half precision
                parameter.copy_(parameter.half().float())


def save(
    path: Path,
    generator: AnyGenerator,
    *,
    name: str,
    score: Score,
    usual: NDArray[np.float32],
    command: str,
    data: dict[str, str],
) -> ModelInfo:
    """Store a generator with everything needed to use it; the file is replaced as a whole.

    Parameters
    ----------
    path : Path
        Replaced if it exists.
    generator : Generator or DenseGenerator
    name : str
        Of the model, for people.
    score : Score
        Fitted with this generator.
    usual : ndarray of float32, shape (320,)
        See :class:`ModelInfo`.
    command : str
        Command line that reproduces the file.
    data : dict of str to str
        SHA-256 of what the generator was trained on.

    Returns
    -------
    ModelInfo
        As read back from the file.

    Raises
    ------
    CheckpointError
        If the generator cannot be used, for instance because its training diverged; ``path`` is
        then left as it was.
    """
    from safetensors.numpy import save as serialise

    state = generator.state_dict()
    tensors = {key: _compact(state[key].detach().cpu().numpy()) for key in generator.shape.tensors}
    tensors |= {_SCORE_PREFIX + key: array for key, array in score.to_arrays().items()} | {_USUAL: usual}
    metadata = {
        "format": FORMAT,
        "name": name,
        "leads": generator.shape.leads,
        "architecture": generator.shape.architecture,
        "width": generator.shape.width,
        "latent": generator.shape.latent,
        **_window(),
        "normalisation": NORMALISATION,
        "score": score.to_dict(),
        "command": command,
        "data": data,
    }
    text = json.dumps(metadata, sort_keys=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(serialise(tensors, {_METADATA: text, _CHECKSUM: _checksum(text, tensors)}))
    try:
        info = read_info(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return info


def _compact(tensor: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
    """Return a tensor in half precision if that is exact, else unchanged."""
    with np.errstate(over="ignore"):
        half = tensor.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), tensor) else tensor


def _window() -> dict[str, Any]:
    """Return this version's window properties in the form of a checkpoint's metadata."""
    return {"fs": windows.FS, "length": windows.LENGTH, "before": windows.BEFORE, "band": list(windows.BAND)}


def _checksum(text: str, tensors: dict[str, NDArray[Any]]) -> str:
    """SHA-256 over the metadata and every tensor, in the order of their names."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensors[name]).tobytes())
    return digest.hexdigest()


def _read(path: Path) -> tuple[ModelInfo, dict[str, NDArray[np.float32]]]:
    from safetensors import SafetensorError, safe_open

    try:
        fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()
        with safe_open(path, framework="numpy") as file:
            stored = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint at {path}; make one with 'ecgmon train'") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error}") from error
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({error}); expected a checkpoint as 'ecgmon train' writes it"
        ) from error
    if _METADATA not in stored or _CHECKSUM not in stored:
        raise CheckpointError(f"{path} has no ecgmon metadata; expected a checkpoint as 'ecgmon train' writes it")
    checksum = _checksum(stored[_METADATA], tensors)
    if checksum != stored[_CHECKSUM]:
        raise CheckpointError(
            f"{path} is damaged: its contents have the checksum {checksum[:12]}..., "
            f"expected {stored[_CHECKSUM][:12]}...; get the file again"
        )
    try:
        plain = json.loads(stored[_METADATA])
        if not isinstance(plain, dict):
            raise ValueError("expected a JSON object")  # noqa: TRY301, TRY004 - wrapped below
        _check_value(path, "format", plain.get("format"), FORMAT)  # first: another format may have other fields
        metadata = _Metadata.parse(plain)
        shape = shape_of(metadata.architecture, leads=metadata.leads, width=metadata.width, latent=metadata.latent)
        _check_purpose(path, metadata)
        arrays = {
            key.removeprefix(_SCORE_PREFIX): tensors.pop(key) for key in list(tensors) if key.startswith(_SCORE_PREFIX)
        }
        score = Score.restore(metadata.score, arrays)
    except (ValueError, RecursionError, CalibrationError, DensityError, ScoreError) as error:
        raise CheckpointError(f"{path} has metadata that do not fit: {error}") from error
    usual = _checked_usual(path, tensors.pop(_USUAL, None))
    _check_tensors(path, shape, tensors)
    info = ModelInfo(
        name=metadata.name,
        leads=shape.leads,
        width=shape.width,
        latent=shape.latent,
        architecture=shape.architecture,
        fs=metadata.fs,
        length=metadata.length,
        before=metadata.before,
        band=metadata.band,
        normalisation=metadata.normalisation,
        score=score,
        usual=usual,
        command=metadata.command,
        data=metadata.data,
        parameters=shape.parameters,
        multiply_adds=shape.multiply_adds,
        fingerprint=fingerprint,
    )
    return info, tensors


def _check_purpose(path: Path, metadata: _Metadata) -> None:
    """Refuse a model for other windows than those of :mod:`ecgmon.models.windows`."""
    for key, value in {**_window(), "normalisation": NORMALISATION}.items():
        found = getattr(metadata, key)
        _check_value(path, key, list(found) if isinstance(found, tuple) else found, value)


def _check_value(path: Path, key: str, found: object, expected: object) -> None:
    if found != expected:
        raise CheckpointError(
            f"{path} was made for {key} {found!r}, this version of ecgmon works with {expected!r}; train the model again"
        )


def _checked_usual(path: Path, usual: NDArray[Any] | None) -> NDArray[np.float32]:
    """Refuse usual errors that cannot be divisors."""
    if usual is None or usual.shape != (windows.LENGTH,) or usual.dtype != np.float32:
        found = "nothing" if usual is None else f"{usual.dtype} {usual.shape}"
        raise CheckpointError(f"{path} has {found} for the usual errors; expected float32 ({windows.LENGTH},)")
    if not (np.isfinite(usual) & (usual > 0)).all():
        raise CheckpointError(f"{path}: a usual error is not a positive number")
    return usual


def _check_tensors(path: Path, shape: BeatGanShape | DenseShape, tensors: dict[str, NDArray[np.float32]]) -> None:
    """Refuse tensors that do not fit a generator of this shape."""
    expected = shape.tensors
    if differing := sorted(tensors.keys() ^ expected.keys()):
        raise CheckpointError(
            f"{path} does not hold the tensors of {shape}: missing or unknown is {', '.join(differing[:3])}"
            f"{', ...' if len(differing) > 3 else ''}"  # noqa: PLR2004 - three say enough
        )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name] or tensor.dtype not in (np.float16, np.float32):
            raise CheckpointError(
                f"{path}: tensor {name} is {tensor.dtype} {tensor.shape}, expected float16 or float32 {expected[name]}"
            )
        if not np.isfinite(tensor).all():
            raise CheckpointError(f"{path}: tensor {name} has values that are not finite; its training diverged")
        if name.endswith("running_var") and (tensor < 0).any():
            raise CheckpointError(f"{path}: tensor {name} has negative variances; its training diverged")
