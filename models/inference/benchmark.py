"""Measure the speed of scoring alone: of the full BeatGAN generator and of all forms of the deployed student.

This module imports only torch, numpy and safetensors, so that it runs on a bare GPU machine.  Every form of the student
is compared with the deployed one: the difference of their A(x) is the cost of its speed.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from ecgmon.models.inference.device import check_device
from ecgmon.models.inference.gpu import DeviceNetwork
from ecgmon.models.inference.packed import packed
from ecgmon.models.inference.reconstruction import BLOCK, Sampled, Scorer, fused
from ecgmon.models.networks.generator import generator_of
from ecgmon.models.networks.shape import BeatGanShape
from ecgmon.models.weights.checkpoint import default_weights, load_generator
from ecgmon.models.windows import BEFORE, LENGTH, impulse_response, scale

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

REFERENCE_BATCH: Final = 64
"""Beats in a batch of the reference, as in BeatGAN's training and in its published speed."""

_BATCHES: Final = (1, 8, 64, 256, 1024, 4096)
_MOST_BATCH_CUDA: Final = (16_384, 65_536)
_REPEATS: Final = 5
_ROUND_SECONDS: Final = 0.2  # duration of a round at least
_REFERENCE_SECONDS: Final = 2.0
_CALLS: Final = 200  # calls in a round at most
_PARITY_BEATS: Final = 2500  # more than the largest tile of any device
_SLICES: Final = ((0, 1), (3, 10), (100, 164), (100, 165), (7, 307), (1000, 2100), (1, 2500))  # batches of these beats
_PEAK_SIZE: Final = {"cpu": 1024, "cuda": 8192}  # rows of the square matrices whose product measures the peak speed
_COPY_BYTES: Final = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Spread:
    """Repeated measurements of one thing.

    Attributes
    ----------
    values : tuple of float
    """

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median of the values."""
        return float(np.median(self.values))

    def as_dict(self) -> dict[str, float]:
        """Return median, minimum and maximum."""
        return {"median": self.median, "min": min(self.values), "max": max(self.values)}


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Set torch's number of threads; restore it at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


def machine(device: str = "cpu") -> dict[str, Any]:
    """Describe the machine, without names that would identify its owner."""
    processor = platform.processor() or platform.machine()
    try:
        with Path("/proc/cpuinfo").open(encoding="ascii", errors="replace") as file:
            processor = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    found: dict[str, Any] = {"processor": processor, "cores": cores(), "torch": torch.__version__}
    return found | {"gpu": torch.cuda.get_device_name()} if device == "cuda" else found


class Reference:
    """The full BeatGAN generator in plain PyTorch, with which speeds are compared.

    Its weights are random, because the speed does not depend on them.

    Parameters
    ----------
    device : str
    """

    def __init__(self, device: str = "cpu") -> None:
        torch.manual_seed(0)
        self.shape = BeatGanShape(leads=1, width=32, latent=50)
        self._generator = generator_of(self.shape).to(device).eval()
        self._device = device

    def score(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute A(x) of scaled windows, shape (n, 1, 320)."""
        with torch.inference_mode():
            x = torch.from_numpy(windows).to(self._device)
            error: NDArray[np.float32] = (self._generator(x)[0] - x).square().mean(dim=(1, 2)).cpu().numpy()
        return error

    def beats_per_second(self, seconds: float, *, batch: int = REFERENCE_BATCH) -> float:
        """Score batches for some seconds, half of the time on all cores and half on one; return the higher speed.

        All cores are faster on an idle machine.  If another process uses a core, the threads of a product wait for each
        other: the loss of a tenth of one core may cost nine tenths of the speed, and a ratio to that would be too good.
        """
        speeds = []
        for number in {cores(), 1}:
            with threads(number):
                speeds.append(self._speed(seconds / 2, _windows(batch)))
        return max(speeds)

    def _speed(self, seconds: float, windows: NDArray[np.float32]) -> float:
        self.score(windows)
        count, began = 0, time.perf_counter()
        while (spent := time.perf_counter() - began) < seconds:
            self.score(windows)
            count += len(windows)
        return count / spent


def _windows(beats: int) -> NDArray[np.float32]:
    """Make windows similar to beats, in mV: a QRS complex of random size in noise, filtered."""
    random = np.random.default_rng(beats)
    response = impulse_response()
    ticks = np.arange(LENGTH + len(response) - 1) - (len(response) // 2 + BEFORE)
    complexes = np.exp(-0.5 * np.square(ticks / random.uniform(4, 15, (beats, 1)))) * random.uniform(0.3, 2, (beats, 1))
    raw = complexes + 0.05 * random.standard_normal((beats, len(ticks)))
    spectrum = np.fft.rfft(raw) * np.fft.rfft(response, raw.shape[1])
    windows = np.fft.irfft(spectrum, raw.shape[1])[:, len(response) - 1 :]  # samples that do not depend on the ends
    return windows[:, None].astype(np.float32)


_Scoring = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From windows, shape (n, leads, 320), in mV, to A(x), shape (n,); both in main memory."""


def _forms(device: str, generator: Any) -> dict[str, _Scoring | str]:  # noqa: ANN401 - a network of either kind
    """Make the forms of the student; for a form that cannot be made, a text with the reason."""
    network = fused(generator)
    leads = generator.shape.leads
    example = torch.zeros((BLOCK, leads, LENGTH), device=device)
    nothing = np.zeros((BLOCK, leads, LENGTH), np.float32)
    forms: dict[str, _Scoring | str] = {}

    def attempt(name: str, make: Callable[[], Callable[[Tensor], Tensor]], *, captured: bool = False) -> None:
        try:
            score = _on_gpu(make(), leads, device, captured) if device == "cuda" else _on_cpu(make())
            score(nothing)
            forms[name] = score
        except Exception as error:  # noqa: BLE001 - any error is the reason
            forms[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"

    attempt("eager", lambda: lambda x: generator(x)[0])
    attempt("fused", lambda: network)
    if device == "cpu" and generator.shape.architecture == "dense":
        attempt("sampled", lambda: _sampled(network, leads))
        attempt("packed", lambda: packed(network))
    attempt("traced", lambda: _traced(network, example))
    attempt("compiled", lambda: torch.compile(network, dynamic=True))
    if device == "cpu":
        attempt("int8", lambda: _int8(network))
        attempt("bfloat16", lambda: _cast(network, torch.bfloat16))
    else:
        attempt("float16", lambda: _cast(network, torch.float16), captured=True)
        attempt("bfloat16", lambda: _cast(network, torch.bfloat16), captured=True)
    attempt("onnx", lambda: _onnx(network, example, device))
    return forms


def _on_cpu(form: Callable[[Tensor], Tensor]) -> _Scoring:
    """Make a scoring function from a form that reconstructs scaled windows, for a whole batch at once."""

    def score(windows: NDArray[np.float32]) -> NDArray[np.float32]:
        x = torch.from_numpy(scale(windows))
        error: NDArray[np.float32] = (form(x) - x).square().mean(dim=(1, 2)).numpy()
        return error

    return score


def _on_gpu(form: Callable[[Tensor], Tensor], leads: int, device: str, captured: bool) -> _Scoring:  # noqa: FBT001
    """Make a scoring function that uses the tiles of the deployed form, as a CUDA graph or step by step."""
    network = DeviceNetwork(form, leads, device, captured=captured)
    if captured and not network.captured:
        raise RuntimeError("cannot be captured as a CUDA graph")
    return lambda windows: network.score(torch.from_numpy(windows))[0].numpy()


def _sampled(network: torch.nn.Sequential, leads: int) -> Callable[[Tensor], Tensor]:
    """Return the deployed form of a dense network, without the whole network that unfiltered windows need."""
    made = Sampled(network, leads)
    return lambda x: made(x)[0]


def _cast(network: torch.nn.Module, kind: torch.dtype) -> Callable[[Tensor], Tensor]:
    from copy import deepcopy

    other = deepcopy(network).to(kind)
    return lambda x: other(x.to(kind)).float()


def _traced(network: torch.nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
    made: Callable[[Tensor], Tensor] = torch.jit.freeze(torch.jit.trace(network, example))  # type: ignore[no-untyped-call]
    return made


def _int8(network: torch.nn.Module) -> Callable[[Tensor], Tensor]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation warnings of torch
        made: Callable[[Tensor], Tensor] = torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
            network, {torch.nn.Linear}, dtype=torch.qint8
        )
    return made


def _onnx(network: torch.nn.Module, example: Tensor, device: str) -> Callable[[Tensor], Tensor]:
    import io

    import onnxruntime  # optional

    file: Any = io.BytesIO()
    axes = {"x": {0: "n"}, "x_hat": {0: "n"}}
    torch.onnx.export(
        network, (example,), file, input_names=["x"], output_names=["x_hat"], dynamic_axes=axes, dynamo=False
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    providers = ["CUDAExecutionProvider"] if device == "cuda" else ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=providers)
    return lambda x: torch.from_numpy(session.run(None, {"x": x.cpu().numpy()})[0]).to(x.device)


def _all_rounds(
    subjects: dict[str, _Scoring], given: dict[int, NDArray[np.float32]]
) -> dict[str, dict[int, tuple[float, list[float]]]]:
    """Measure every subject once with every batch size: beats per second and latencies."""
    return {
        name: {batch: _round(score, windows) for batch, windows in given.items()} for name, score in subjects.items()
    }


def _figures(rounds: list[dict[int, tuple[float, list[float]]]]) -> dict[str, Any]:
    """Summarise the rounds of one subject, by batch size."""
    figures = {}
    for batch in rounds[0]:
        latencies = np.concatenate([found[batch][1] for found in rounds])
        figures[str(batch)] = {
            "beats_per_second": Spread(tuple(found[batch][0] for found in rounds)).as_dict(),
            "latency_seconds": {
                "p50": float(np.percentile(latencies, 50)),
                "p99": float(np.percentile(latencies, 99)),
            },
        }
    return figures


def worker(device: str = "cpu", *, repeats: int = _REPEATS) -> dict[str, Any]:
    """Measure scoring by batch size, for the reference and for all forms of the student.

    Parameters
    ----------
    device : str
        ``cpu``, with one thread per core, or ``cuda``.
    repeats : int
        Number of rounds; each round measures everything once.

    Returns
    -------
    dict
        ``reference`` and ``forms``: by name, then by batch size, ``beats_per_second`` (median, min, max) and
        ``latency_seconds`` (p50, p99) of single calls, from windows in main memory to A(x) in main memory; for each
        form ``parity``: the largest relative difference of its A(x) from that of the deployed form; ``unavailable``:
        forms that cannot be made here, with the reason; ``best``; ``floor``.

    Raises
    ------
    ecgmon.models.inference.device.DeviceError
        If torch cannot use the device.
    """
    check_device(device)
    batches = (*_BATCHES, *_MOST_BATCH_CUDA) if device == "cuda" else _BATCHES
    with threads(cores()), torch.inference_mode():
        scorer = Scorer(default_weights(), device=device, threads=cores())
        generator, info = load_generator(default_weights(), device)
        made = _forms(device, generator)
        reference = Reference(device)

        forms: dict[str, _Scoring] = {"deployed": lambda windows: scorer.score(windows).ax}
        forms |= {name: form for name, form in made.items() if not isinstance(form, str)}
        subjects = {"reference": reference.score} | forms
        windows = np.repeat(_windows(_PARITY_BEATS), info.leads, axis=1)
        expected = forms["deployed"](windows)
        parity = {
            name: float(np.max(np.abs(score(windows) - expected) / np.maximum(expected, 1e-6)))
            for name, score in forms.items()
        }
        apart = max(
            float(np.abs(forms["deployed"](windows[first:last]) - expected[first:last]).max())
            for first, last in _SLICES
        )
        given = {batch: np.repeat(_windows(batch), info.leads, axis=1) for batch in batches}
        rounds = [
            (reference.beats_per_second(_REFERENCE_SECONDS), _all_rounds(subjects, given)) for _ in range(repeats)
        ]
        floor = _floor(device, scorer.multiply_adds, info.leads)

    of_reference = Spread(tuple(speed for speed, _ in rounds))
    figures = {name: _figures([found[name] for _, found in rounds]) for name in subjects}
    medians = {batch: float(np.median([found["deployed"][batch][0] for _, found in rounds])) for batch in batches}
    best = max(batches, key=medians.__getitem__)
    fastest = medians[best]
    return {
        "machine": machine(device),
        "device": device,
        "captured": scorer.captured,
        "model": {
            "multiply_adds": info.multiply_adds, "deployed_multiply_adds": scorer.multiply_adds,
            "parameters": info.parameters,
        },
        "reference": {
            "multiply_adds": reference.shape.multiply_adds, "parameters": reference.shape.parameters,
            "beats_per_second": of_reference.as_dict(),
            "batches": figures["reference"],
        },
        "forms": {name: {"parity": parity[name], "batches": figures[name]} for name in forms},
        "unavailable": {name: form for name, form in made.items() if isinstance(form, str)},
        "difference_between_batch_sizes": apart,
        "best": {
            "batch": best, "beats_per_second": fastest, "ratio": fastest / of_reference.median,
            "microseconds_per_beat": 1e6 / fastest, "over_floor": 1e6 / fastest / floor["microseconds_per_beat"],
        },
        "floor": floor,
        "repeats": repeats,
    }  # fmt: skip


def _round(
    score: Callable[[NDArray[np.float32]], NDArray[np.float32]], windows: NDArray[np.float32]
) -> tuple[float, list[float]]:
    """Score one batch repeatedly; return beats per second, and the duration of each call in seconds."""
    score(windows)
    calls: list[float] = []
    began = before = time.perf_counter()
    while (before - began < _ROUND_SECONDS or len(calls) < 2) and len(calls) < _CALLS:  # noqa: PLR2004 - at least two
        score(windows)
        now = time.perf_counter()
        calls.append(now - before)
        before = now
    return len(calls) * len(windows) / (before - began), calls


def _floor(device: str, multiply_adds: int, leads: int) -> dict[str, float]:
    """Calculate the time that the student's arithmetic and the copy of its windows take at least, on all cores."""
    rate, copy = peak(device)
    arithmetic = 2 * multiply_adds / rate
    size = leads * LENGTH * 4
    if device == "cuda":
        size += 4 + LENGTH * 2  # A(x) and its ticks are copied back
    data = size / copy
    return {
        "operations_per_second": rate, "bytes_per_second": copy, "operations_per_beat": 2.0 * multiply_adds,
        "bytes_per_beat": float(size), "arithmetic_microseconds_per_beat": 1e6 * arithmetic,
        "data_microseconds_per_beat": 1e6 * data, "microseconds_per_beat": 1e6 * max(arithmetic, data),
    }  # fmt: skip


def peak(device: str = "cpu") -> tuple[float, float]:
    """Measure operations per second in a large matrix product, and bytes per second in a large copy to the device."""

    def best(what: Callable[[], object]) -> float:
        least = float("inf")
        for _ in range(_REPEATS):
            began = time.perf_counter()
            what()
            if device == "cuda":
                torch.cuda.synchronize()
            least = min(least, time.perf_counter() - began)
        return least

    size = _PEAK_SIZE[device]
    a = torch.rand((size, size), device=device)
    source = torch.zeros(_COPY_BYTES // 4)
    target = torch.empty(_COPY_BYTES // 4, device=device)
    return 2 * size**3 / best(lambda: a @ a), _COPY_BYTES / best(lambda: target.copy_(source))
