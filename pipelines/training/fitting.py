"""Train a generator on the normal beats of a split, and measure how well its A(x) separates classes.

A training depends only on its settings (with the seed), the split, the data and the teacher.  The random
numbers of a step are drawn from (seed, step).  A training that was interrupted and resumed therefore
has the same weights, bit for bit, as an uninterrupted one.  On another processor or with another number
of threads, sums round differently and the weights differ.

A run is a folder: ``about.json`` (what is trained), ``state.pt`` (the state to resume from),
``log.jsonl`` (losses, one JSON object a line) and, once it is finished, ``result.json``.

Functions import torch themselves: the import takes seconds, and the command line loads this package.
"""

from __future__ import annotations

import hashlib
import json
import math
import pickle
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ecgmon.models import windows
from ecgmon.models.training.settings import Settings, completed
from ecgmon.pipelines.training.classes import BeatClass
from ecgmon.pipelines.training.separation import best_f1, scaled, separation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgmon.models.networks.generator import AnyGenerator
    from ecgmon.models.training.distillation import TeacherOutput, Training
    from ecgmon.pipelines.training.dataset import Dataset
    from ecgmon.pipelines.training.splits import Split

LOG_EVERY: Final = 50
"""Steps between two lines of the log."""

SAVE_EVERY: Final = 500
"""Steps between two saves of the state: about a minute on one core."""

_BLOCK: Final = 256  # beats in a batch without gradients

_SHUFFLING, _AUGMENTING = 0, 1  # independent random sequences under one seed


class TrainingError(Exception):
    """A training cannot be started, resumed or used."""

    __module__ = "ecgmon.errors"


def batch(
    dataset: Dataset, beats: NDArray[np.void], settings: Settings, step: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Make the batch of a step: choose and augment its beats.

    Parameters
    ----------
    dataset : Dataset
    beats : ndarray of BEAT, shape (n,)
        The training beats; an epoch uses all of them except a last incomplete batch.
    settings : Settings
    step : int
        From 0; determines the batch together with the seed.

    Returns
    -------
    x : ndarray of float32, shape (batch, 1, 320)
        Scaled windows of the first lead; the augmented ones come last.
    plain : ndarray of int64, shape (m,)
        Indices into ``beats`` of the first windows, which are not augmented.
    """
    size = settings.batch
    epoch, place = divmod(step, len(beats) // size)
    order = np.random.default_rng([settings.seed, _SHUFFLING, epoch]).permutation(len(beats))
    chosen = order[place * size : (place + 1) * size]
    random = np.random.default_rng([settings.seed, _AUGMENTING, step])
    plain = size - round(settings.augmented * size)
    augmented = np.arange(size) >= plain
    shift = np.where(augmented, random.integers(-settings.shift, settings.shift, size, endpoint=True), 0)
    warp = np.where(augmented, 1 + random.uniform(-settings.warp, settings.warp, size), 1)
    first_lead = np.zeros(size, np.int64)
    return (
        windows.scale(dataset.resampled(beats[chosen], first_lead, shift.astype(np.float64), warp)),
        chosen[:plain],
    )


class TeacherOutputs:
    """The outputs of a finished teacher for all training beats, computed once.

    Parameters
    ----------
    teacher : Generator or DenseGenerator
    dataset : Dataset
    beats : ndarray of BEAT, shape (n,)
        The training beats.
    """

    def __init__(self, teacher: AnyGenerator, dataset: Dataset, beats: NDArray[np.void]) -> None:
        import torch

        from ecgmon.models.training.distillation import TeacherOutput, teacher_output

        self._output_type = TeacherOutput
        device = next(teacher.parameters()).device
        parts = [teacher_output(teacher, torch.from_numpy(x).to(device)) for x in _scaled(dataset, beats)]
        self._reconstruction = torch.cat([part.reconstruction.cpu() for part in parts])
        self._maps = [torch.cat([part.maps[k].cpu() for part in parts]) for k in range(len(parts[0].maps))]

    def __getitem__(self, chosen: NDArray[np.int64]) -> TeacherOutput:
        """Return the outputs for some of the beats."""
        import torch

        index = torch.from_numpy(chosen)
        return self._output_type(self._reconstruction[index], [part[index] for part in self._maps])


def fit(
    dataset: Dataset,
    out: Path,
    settings: Settings,
    used: Split,
    *,
    teacher: Path | None = None,
    only_confirmed: bool = False,
    device: str = "cpu",
    threads: int = 1,
    stop_after: int | None = None,
    progress: Callable[[int, int, dict[str, float]], bool] = lambda *_: True,
) -> Training:
    """Train on the normal beats of a split; resume from the state in ``out``, if there is one.

    Parameters
    ----------
    dataset : Dataset
    out : Path
        Folder of the run: see the module's docstring.  The log has losses every :data:`LOG_EVERY` steps
        and the reconstruction of the held-out normal beats after every epoch.
    settings : Settings
    used : Split
        The split; ``train`` selects the beats.
    teacher : Path, optional
        Folder of the teacher's finished run on the same split.
    only_confirmed : bool
        Whether the split leaves out normal beats that a second detector does not confirm; stored in ``about.json``.
    device : str
        Torch device.
    threads : int
        Number of CPU threads for torch.
    stop_after : int, optional
        Step at which to stop; the learning rate is still planned for all epochs.
    progress : callable
        Called after every step with the steps done, the total number of steps and the losses of the step;
        returns False to store the state and stop.

    Returns
    -------
    Training
        Finished or stopped.  The weights to use are those of the last step: abnormal beats have no part in the
        choice.

    Raises
    ------
    TrainingError
        If there are too few beats for a batch, ``out`` holds another training, the teacher does not fit,
        or the device or the number of threads cannot be used.
    """
    from ecgmon.models.training.distillation import Training

    use_machine(device, threads)
    train = dataset.beats[used.train]
    steps_per_epoch = len(train) // settings.batch
    if steps_per_epoch == 0:
        raise TrainingError(
            f"{len(train)} normal beats do not fill one batch of {settings.batch}; prepare more records"
        )
    about = _described(dataset, settings, used, only_confirmed=only_confirmed)
    outputs = _teacher_outputs(teacher, dataset, settings, used, about, device)
    training = Training(settings, leads=1, steps=steps_per_epoch * settings.epochs, device=device)
    out.mkdir(parents=True, exist_ok=True)
    _claim(out, about)
    _set_axes(training, dataset, train)
    _resume(out, training)
    last = training.steps if stop_after is None else min(stop_after, training.steps)
    _train_until(last, training, dataset, used, outputs, out, progress)
    return training


def use_machine(device: str, threads: int) -> None:
    """Check a torch device, and set the number of CPU threads.

    Raises
    ------
    TrainingError
        If the device or the number of threads cannot be used.
    """
    import torch

    from ecgmon.models.inference.device import DeviceError, check_device

    if threads < 1:
        raise TrainingError(f"the number of threads is {threads}; expected at least 1")
    try:
        check_device(device)
    except DeviceError as error:
        raise TrainingError(str(error)) from error
    torch.set_num_threads(threads)


def _described(dataset: Dataset, settings: Settings, used: Split, *, only_confirmed: bool) -> dict[str, Any]:
    """Describe a training for ``about.json``, without its teacher."""
    return {
        "split": used.name,
        "only_confirmed": only_confirmed,
        "settings": asdict(settings),
        "data": dataset.about["sha256"],
        "beats": int(np.count_nonzero(used.train)),
        "selection": hashlib.sha256(np.flatnonzero(used.train).tobytes()).hexdigest(),
        "teacher": None,
    }


def _teacher_outputs(
    teacher: Path | None, dataset: Dataset, settings: Settings, used: Split, about: dict[str, Any], device: str
) -> TeacherOutputs | None:
    """Compute the teacher's outputs if the settings need them, and describe the teacher in ``about``.

    Raises
    ------
    TrainingError
        If the teacher is missing, is not needed, or was trained on another split or other data.
    """
    if not settings.distils or settings.self_teacher:
        if teacher is not None:
            raise TrainingError("these settings do not use a teacher; give alpha or beta, and no self-teacher")
        return None
    if teacher is None:
        raise TrainingError("these settings distil from a teacher; name the folder of its run, or use a self-teacher")
    network, theirs = trained(teacher)
    if theirs["split"] != used.name or theirs.get("selection") != about["selection"] or theirs["data"] != about["data"]:
        raise TrainingError(
            f"the teacher in {teacher} was trained on the split {theirs['split']} of its data; "
            f"this split is {used.name}: a teacher must not have seen the beats that its student is tested on"
        )
    outputs = TeacherOutputs(network.to(device), dataset, dataset.beats[used.train])
    about["teacher"] = {"settings": theirs["settings"], "weights": fingerprint(network)}
    return outputs


def _set_axes(training: Training, dataset: Dataset, train: NDArray[np.void]) -> None:
    """Set the principal axes of a dense generator from the training beats; other generators have none."""
    import torch

    from ecgmon.models.networks.dense import DenseGenerator, principal_axes

    if isinstance(training.generator, DenseGenerator):
        axes = principal_axes(map(torch.from_numpy, _scaled(dataset, train)))
        training.generator.axes.weight.data.copy_(axes)


def _resume(out: Path, training: Training) -> None:
    """Restore the stored state of a run, if there is one, and drop the log lines after it."""
    from ecgmon.models.training.distillation import ResumeError

    if (out / "state.pt").exists():
        try:
            training.restore(_load_state(out))
        except ResumeError as error:
            raise TrainingError(f"{out}: {error}") from error
    _drop_lines_after(out / "log.jsonl", training.step)


def _train_until(
    last: int,
    training: Training,
    dataset: Dataset,
    used: Split,
    outputs: TeacherOutputs | None,
    out: Path,
    progress: Callable[[int, int, dict[str, float]], bool],
) -> None:
    """Train up to step ``last``, or until ``progress`` returns False; write the log and the state to ``out``."""
    import torch

    settings = training.settings
    train, held_out = dataset.beats[used.train], dataset.beats[used.held_out]
    steps_per_epoch = len(train) // settings.batch
    with (out / "log.jsonl").open("a") as log:
        going = True
        while going and training.step < last:
            rate = training.rate
            x, plain = batch(dataset, train, settings, training.step)
            terms = training.advance(torch.from_numpy(x), outputs[plain] if outputs else None)
            entry: dict[str, float] = {}
            if training.step % LOG_EVERY == 0:
                entry |= {"rate": rate, **terms, "restarts": training.restarts}
            if training.step % steps_per_epoch == 0:
                entry["held_out_reconstruction"] = float(np.mean(ax_of(training.generator, dataset, held_out)))
            if entry:
                log.write(json.dumps({"step": training.step, "epoch": training.step / steps_per_epoch} | entry) + "\n")
                log.flush()
            going = progress(training.step, training.steps, terms)
            if not going or training.step % SAVE_EVERY == 0 or training.step == last:
                _save_state(out, training)


def trained(out: Path) -> tuple[AnyGenerator, dict[str, Any]]:
    """Load the generator of a run, finished or stopped.

    Returns
    -------
    generator : Generator or DenseGenerator
        In evaluation mode, on the CPU.
    about : dict
        Contents of ``about.json``, with ``step`` and ``steps``.

    Raises
    ------
    TrainingError
        If ``out`` has no run, or one of a later version.
    """
    from ecgmon.models.networks.generator import generator_of

    state = _load_state(out)
    about = _load_about(out)
    generator = generator_of(_settings_of(state, out).shape(state["leads"]))
    generator.load_state_dict(state["generator"])
    return generator.eval(), about | {"step": state["step"], "steps": state["steps"]}


def fingerprint(generator: AnyGenerator) -> str:
    """Return the SHA-256 of a generator's tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(generator.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def predicted(
    generator: AnyGenerator, dataset: Dataset, beats: NDArray[np.void]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Run a generator on some beats, cut at their annotations, in blocks.

    Parameters
    ----------
    generator : Generator or DenseGenerator
        Put in evaluation mode.
    dataset : Dataset
    beats : ndarray of BEAT, shape (n,)

    Yields
    ------
    ax : ndarray of float32, shape (at most 256,)
        A(x) of the first lead.
    latent : ndarray of float32, shape (at most 256, latent)
        Latent vectors.
    """
    import torch

    generator.eval()
    device = next(generator.parameters()).device
    for block in _scaled(dataset, beats):
        x = torch.from_numpy(block).to(device)
        with torch.inference_mode():
            x_hat, z = generator(x)
            ax = (x_hat - x).square().mean(dim=(1, 2))
        yield ax.cpu().numpy(), z.flatten(1).cpu().numpy()


def ax_of(generator: AnyGenerator, dataset: Dataset, beats: NDArray[np.void]) -> NDArray[np.float32]:
    """Compute A(x) of some beats, cut at their annotations; shape (n,)."""
    found = [ax for ax, _ in predicted(generator, dataset, beats)]
    return np.concatenate(found) if found else np.empty(0, np.float32)


def tested(generator: AnyGenerator, dataset: Dataset, used: Split) -> dict[str, Any]:
    """Measure how well the raw A(x) of a generator separates classes among the test beats of its split.

    This is reported only; no choice depends on it.

    Returns
    -------
    dict
        As :func:`ecgmon.pipelines.training.separation.separation`; and ``best_f1``, the highest F1 of abnormal beats
        against normal ones, with the threshold where it is reached: ``best_threshold`` on A(x) scaled to [0, 1] over
        the test beats, ``best_threshold_ax`` on A(x).  All three are NaN if the training diverged.
    """
    beats = dataset.beats[used.test]
    ax = ax_of(generator, dataset, beats)
    f1 = threshold = threshold_ax = math.nan
    if np.isfinite(ax).all():
        score, is_normal = scaled(ax), beats["aami"] == BeatClass.N
        threshold, f1 = best_f1(score[is_normal], score[~is_normal])
        threshold_ax = float(ax[score >= threshold].min())
    return separation(ax, beats["aami"]) | {
        "best_f1": f1,
        "best_threshold": threshold,
        "best_threshold_ax": threshold_ax,
    }


def _scaled(dataset: Dataset, beats: NDArray[np.void]) -> Iterator[NDArray[np.float32]]:
    """Yield scaled windows of the first lead in blocks of shape (at most 256, 1, 320)."""
    for first in range(0, len(beats), _BLOCK):
        yield windows.scale(dataset.windows(beats[first : first + _BLOCK])[:, :1])


def _claim(out: Path, about: dict[str, Any]) -> None:
    """Store the description of a run, or refuse a folder with another training."""
    path = out / "about.json"
    if path.exists():
        before = _load_about(out)
        differing = [name for name in about if name != "settings" and before.get(name) != about[name]]
        if differing:
            raise TrainingError(
                f"{out} holds a training with another {', another '.join(differing)}; "
                "give another folder to start a new training"
            )
        if before["settings"] != about["settings"]:
            return  # restoring the state reports which settings differ
    path.write_text(json.dumps(about, indent=1) + "\n")


def _load_about(out: Path) -> dict[str, Any]:
    """Load ``about.json``, with the settings of an earlier version completed."""
    try:
        about: dict[str, Any] = json.loads((out / "about.json").read_text())
        for part in filter(None, (about, about["teacher"])):
            part["settings"] = completed(part["settings"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise TrainingError(
            f"{out / 'about.json'} is missing or damaged ({error!r}); start a new training in another folder"
        ) from error
    return about


def _settings_of(state: dict[str, Any], out: Path) -> Settings:
    try:
        return Settings(**completed(state["settings"]))
    except (TypeError, ValueError) as error:  # an unknown setting, or an unknown value of one
        raise TrainingError(
            f"{out / 'state.pt'} is the state of another version of ecgmon ({error}); use that version"
        ) from error


def _load_state(out: Path) -> dict[str, Any]:
    import torch

    try:
        state: dict[str, Any] = torch.load(out / "state.pt", map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise TrainingError(f"{out} holds no training; start one with 'ecgmon train fit'") from error
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise TrainingError(
            f"{out / 'state.pt'} is damaged or not the state of a training; "
            "remove it and start a new training with 'ecgmon train fit'"
        ) from error
    return state


def _save_state(out: Path, training: Training) -> None:
    """Store the state; the file is replaced as a whole."""
    import torch

    part = out / "state.pt.part"
    torch.save(training.state(), part)
    part.replace(out / "state.pt")


def _drop_lines_after(log: Path, step: int) -> None:
    """Drop log lines after the step from which a training resumes: it will log these steps again."""
    if log.exists():
        lines = [line for line in log.read_text().splitlines(keepends=True) if json.loads(line)["step"] <= step]
        log.write_text("".join(lines))
