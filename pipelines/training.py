"""Train, calibrate and ship a generator: what ``ecgmon train`` does.

Each step is a function and a subcommand: :func:`pipelines.dataset.prepare` builds the data set,
:func:`fit` trains BeatGAN on normal beats, :func:`calibrate` measures which scores held-out normal
beats get and writes the checkpoint that the daemon loads.  No labelled abnormal beat is used in any
of them; :func:`judge` looks at those afterwards.

A training depends on its settings, the seed among them, and the data alone.  What is random at a
step is drawn from (seed, step), so that one that was interrupted and resumed ends in the same
weights, bit for bit, as one that was not.  On another processor or number of threads sums round
differently, and the weights drift apart.

torch takes seconds to import, and the command line mounts this module: functions import it.
"""

from __future__ import annotations

import json
import pickle
import signal
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models import windows
from models.calibration import Calibration, CalibrationError
from models.settings import Settings
from pipelines import dataset as datasets
from pipelines.dataset import BeatClass, Dataset

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from numpy.typing import NDArray

    from models.adversarial import Training
    from models.beatgan import Generator
    from models.checkpoint import ModelInfo
    from models.scoring import Scorer

LOG_EVERY: Final = 50
"""Steps between two lines of the log."""

SAVE_EVERY: Final = 500
"""Steps between two savings of the state: about a minute on one core."""

_SCORING_BATCH: Final = 256  # beats at a time where no gradient is kept

_DEALING, _AUGMENTING = 0, 1  # independent random sequences under one seed


class TrainingError(Exception):
    """A training that can not be started, resumed or used."""


def batch(dataset: Dataset, beats: NDArray[np.void], settings: Settings, step: int) -> NDArray[np.float32]:
    """Make the batch of a step: which beats, in which order, how augmented.

    Parameters
    ----------
    dataset : Dataset
    beats : ndarray of BEAT, shape (n,)
        The training beats, all of which make up an epoch but for a last part of a batch.
    settings : Settings
    step : int
        From 0; decides the batch together with the seed.

    Returns
    -------
    ndarray of float32, shape (batch, leads, 320)
        Scaled windows.
    """
    size = settings.batch
    epoch, place = divmod(step, len(beats) // size)
    order = np.random.default_rng([settings.seed, _DEALING, epoch]).permutation(len(beats))
    chosen = beats[order[place * size : (place + 1) * size]]
    random = np.random.default_rng([settings.seed, _AUGMENTING, step])
    augmented = random.random(size) < settings.augmented
    shift = np.where(augmented, random.integers(-settings.shift, settings.shift, size, endpoint=True), 0)
    warp = np.where(augmented, 1 + random.uniform(-settings.warp, settings.warp, size), 1)
    return windows.scale(dataset.resampled(chosen, shift.astype(np.float64), warp))


def fit(
    dataset: Dataset,
    out: Path,
    settings: Settings,
    *,
    device: str = "cpu",
    threads: int = 1,
    stop_after: int | None = None,
    progress: Callable[[int, int, dict[str, float]], bool] = lambda *_: True,
) -> Training:
    """Train on the normal beats that are not held out, going on from what ``out`` holds.

    Parameters
    ----------
    dataset : Dataset
    out : Path
        Folder for ``state.pt`` (resumed where it exists) and ``log.jsonl`` (losses every
        :data:`LOG_EVERY` steps; reconstruction of the held-out normal beats after every epoch).
    settings : Settings
    device : str
        Where torch computes.
    threads : int
        Threads that torch computes with.
    stop_after : int, optional
        Steps after which to stop, though the learning rate is planned for all epochs.
    progress : callable
        Called after every step with the steps done, the steps in all and the step's losses; returns
        False to stop there, with the state stored.

    Returns
    -------
    Training
        As far as it came.  The weights to use are the last ones: no measure of abnormal beats
        chooses among them.

    Raises
    ------
    TrainingError
        If there are too few beats for a batch, ``out`` holds a training with other settings, or
        torch can not compute as asked.
    """
    import torch

    from models.adversarial import ResumeError, Training

    if threads < 1:
        raise TrainingError(f"{threads} threads can not compute; give at least 1")
    torch.set_num_threads(threads)
    train = dataset.beats[dataset.normal & ~dataset.held_out]
    per_epoch = len(train) // settings.batch
    if per_epoch == 0:
        raise TrainingError(
            f"{len(train)} normal beats do not fill one batch of {settings.batch}; prepare more records"
        )
    try:
        training = Training(settings, leads=len(dataset.signal), steps=per_epoch * settings.epochs, device=device)
    except (RuntimeError, AssertionError) as error:  # torch has no name for it
        raise TrainingError(f"torch can not compute on {device!r}: {error}") from error
    out.mkdir(parents=True, exist_ok=True)
    if (out / "state.pt").exists():
        try:
            training.restore(_load_state(out))
        except ResumeError as error:
            raise TrainingError(f"{out}: {error}") from error
    _forget_after(out / "log.jsonl", training.step)
    with (out / "log.jsonl").open("a") as log:
        last = training.steps if stop_after is None else min(stop_after, training.steps)
        going = True
        while going and training.step < last:
            rate = training.rate
            terms = training.advance(torch.from_numpy(batch(dataset, train, settings, training.step)))
            entry: dict[str, float] = {}
            if training.step % LOG_EVERY == 0:
                entry |= {"rate": rate, **terms, "restarts": training.restarts}
            if training.step % per_epoch == 0:
                entry["held_out_reconstruction"] = float(np.mean(held_out_errors(training.generator, dataset)))
            if entry:
                log.write(json.dumps({"step": training.step, "epoch": training.step / per_epoch} | entry) + "\n")
                log.flush()
            going = progress(training.step, training.steps, terms)
            if not going or training.step % SAVE_EVERY == 0 or training.step == last:
                _save_state(out, training)
    return training


def trained(out: Path) -> tuple[Generator, str]:
    """Load the generator of a training, finished or stopped.

    Returns
    -------
    generator : Generator
        In evaluation mode.
    command : str
        Command line that makes the same checkpoint from the records.

    Raises
    ------
    TrainingError
        If ``out`` holds no training.
    """
    from models.beatgan import Generator
    from models.shape import Shape

    state = _load_state(out)
    settings = Settings(**state["settings"])
    leads = state["generator"]["encoder.stages.0.weight"].shape[1]
    generator = Generator(Shape(leads, settings.width, settings.latent))
    generator.load_state_dict(state["generator"])
    return generator.eval(), command_line(settings, state["step"] if state["step"] < state["steps"] else None)


def held_out_errors(generator: Generator, dataset: Dataset) -> NDArray[np.float32]:
    """Compute A(x) of the held-out normal beats, as cut at their annotations, in order."""
    return _errors(generator, dataset.windows(dataset.beats[dataset.normal & dataset.held_out]))


def calibrate(generator: Generator, windows_mv: NDArray[np.float32], rr_ratio: NDArray[np.float32]) -> Calibration:
    """Measure what the scores of a generator mean.

    Parameters
    ----------
    generator : Generator
    windows_mv : ndarray of float32, shape (n, leads, 320)
        Windows in mV of normal beats that the generator was not trained on, as a stream cuts them:
        see :func:`pipelines.dataset.streamed`.
    rr_ratio : ndarray of float32, shape (n,)
        Of the same beats.

    Raises
    ------
    TrainingError
        If the beats are too few, or have no measure to calibrate by.
    """
    try:
        return Calibration.measure(_errors(generator, windows_mv), rr_ratio)
    except CalibrationError as error:
        raise TrainingError(f"the held-out normal beats can not calibrate this generator: {error}") from error


def judge(scorer: Scorer, dataset: Dataset) -> dict[str, Any]:
    """Tell held-out normal beats from abnormal ones, for information.

    This is not the five-fold protocol that papers report: the normal beats are the held-out tenth
    only, against all abnormal beats of the same records, windows are cut at the annotations, and
    the rhythm comes from them.

    Parameters
    ----------
    scorer : Scorer
        Trained on the other nine tenths.
    dataset : Dataset

    Returns
    -------
    dict
        ``beats``: how many of each class; ``raw`` and ``score``: for A(x) and the score, ``auc`` and
        ``ap`` against all abnormal beats, and ``auc_per_class``; ``normal_share_over``: share of the
        normal beats that score over 1, 2 and 3, which is .1, .01 and .001 for a perfect calibration.
    """
    beats = dataset.beats[~dataset.normal | dataset.held_out]
    error = np.concatenate(
        [
            scorer.score(dataset.windows(beats[first : first + _SCORING_BATCH])).error
            for first in range(0, len(beats), _SCORING_BATCH)
        ]
    )
    score = scorer.info.calibration.score(error, beats["rr_ratio"])
    normal = beats["aami"] == BeatClass.N
    abnormal = [aami for aami in BeatClass if aami != BeatClass.N and (beats["aami"] == aami).any()]

    def separation(values: NDArray[np.float32]) -> dict[str, Any]:
        return {
            "auc": auc(values[normal], values[~normal]),
            "ap": average_precision(values[normal], values[~normal]),
            "auc_per_class": {aami.name: auc(values[normal], values[beats["aami"] == aami]) for aami in abnormal},
        }

    return {
        "beats": {aami.name: int(np.count_nonzero(beats["aami"] == aami)) for aami in BeatClass},
        "raw": separation(error),
        "score": separation(score),
        "normal_share_over": {level: float(np.mean(score[normal] > level)) for level in (1, 2, 3)},
    }


def auc(negative: NDArray[np.float32], positive: NDArray[np.float32]) -> float:
    """Area under the ROC curve: the chance that a positive scores over a negative, ties counting half.

    Examples
    --------
    >>> auc(np.float32([1, 2]), np.float32([2, 3]))
    0.875
    """
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left") + np.searchsorted(ordered, positive, side="right")
    return float(below.mean() / 2 / len(negative))


def average_precision(negative: NDArray[np.float32], positive: NDArray[np.float32]) -> float:
    """Mean of the precision over all recalled positives, tied scores taken together.

    Examples
    --------
    >>> average_precision(np.float32([1, 2]), np.float32([3, 1.5]))
    0.8333333333333333
    """
    # Precision at each positive's own threshold counts all that score at least as high.
    true = len(positive) - np.searchsorted(np.sort(positive), positive, side="left")
    false = len(negative) - np.searchsorted(np.sort(negative), positive, side="left")
    return float(np.mean(true / (true + false)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of ``ecgmon train`` to a parser; :func:`run` carries them out."""
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")

    prepare = steps.add_parser("prepare", help="build the data set from WFDB records")
    _add_path(prepare, "--db", "folder with the records of the MIT-BIH Arrhythmia Database")
    _add_path(prepare, "--data", "folder to store the data set in")

    fitting = steps.add_parser("fit", help="train on normal beats; resumes what it finds in --run")
    _add_path(fitting, "--data", "folder that 'prepare' filled")
    _add_path(fitting, "--run", "folder for the training's state and log")
    _add_settings(fitting)

    calibrating = steps.add_parser("calibrate", help="measure what scores mean and write the checkpoint")
    _add_path(calibrating, "--db", "folder with the records of the MIT-BIH Arrhythmia Database")
    _add_path(calibrating, "--data", "folder that 'prepare' filled")
    _add_path(calibrating, "--run", "folder that 'fit' filled")
    _add_path(calibrating, "--out", "checkpoint to write")

    everything = steps.add_parser("all", help="prepare, fit and calibrate: from records to a checkpoint")
    _add_path(everything, "--db", "folder with the records of the MIT-BIH Arrhythmia Database")
    _add_path(everything, "--work", "folder for the data set and the training, resumed where they exist")
    _add_path(everything, "--out", "checkpoint to write")
    _add_settings(everything)

    judging = steps.add_parser("judge", help="tell held-out normal beats from abnormal ones, for information")
    _add_path(judging, "--data", "folder that 'prepare' filled")
    judging.add_argument("--weights", type=Path, metavar="FILE", help="checkpoint (default: the shipped one)")
    judging.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Carry out a subcommand that :func:`add_arguments` described.

    Returns
    -------
    int
        Exit status: 0, or 130 where Ctrl-C stopped a training, whose state is then stored.
    """
    if args.step == "prepare":
        _prepare(args.db, args.data)
        return 0
    if args.step == "fit":
        return _fit(args.data, args.run, args)
    if args.step == "calibrate":
        _calibrate(args.db, args.data, args.run, args.out)
        return 0
    if args.step == "judge":
        _judge(args.data, args.weights, as_json=args.json)
        return 0
    data, training = args.work / "data", args.work / "run"
    if not (data / "dataset.json").exists():
        _prepare(args.db, data)
    status = _fit(data, training, args)
    if status == 0:
        _calibrate(args.db, data, training, args.out)
    return status


def command_line(settings: Settings, stop_after: int | None = None) -> str:
    """Spell out the command line that goes from records to a checkpoint with these settings.

    Every setting is named, so that it stays true when a default changes.
    """
    flags = [f"--{field.name.replace('_', '-')} {getattr(settings, field.name)}" for field in fields(settings)]
    stop = [] if stop_after is None else [f"--stop-after {stop_after}"]
    return " ".join(["ecgmon train all --db mitdb --work runs/default --out default.safetensors", *flags, *stop])


def _add_path(parser: argparse.ArgumentParser, flag: str, what: str) -> None:
    parser.add_argument(flag, type=Path, required=True, metavar="FILE" if flag == "--out" else "DIR", help=what)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    for field in fields(Settings):
        assert not isinstance(field.default, type)
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            default=field.default,
            metavar="N",
            help=f"{field.metadata['help']} (default: {field.default})",
        )
    parser.add_argument(
        "--stop-after", type=int, metavar="N", help="stop after N steps, with the learning rate planned for all epochs"
    )
    parser.add_argument("--device", default="cpu", help="where torch computes: cpu, cuda, cuda:1 (default: cpu)")
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="threads on a CPU (default: 1); sums, and so weights, depend on it",
    )


def _prepare(db: Path, data: Path) -> None:
    from rich.progress import Progress

    with Progress(console=_console()) as progress:
        bar = progress.add_task("Reading records", total=len(datasets.RECORDS))
        dataset = datasets.prepare(db, data, done=lambda _: progress.advance(bar))
    counts = ", ".join(f"{count} {name}" for name, count in dataset.about["counts"].items())
    print(f"{data}: {counts} beats of {len(dataset.about['records'])} records")


def _fit(data: Path, out: Path, args: argparse.Namespace) -> int:
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    try:
        settings = Settings(**{field.name: getattr(args, field.name) for field in fields(Settings)})
    except ValueError as error:
        raise TrainingError(str(error)) from error
    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        interrupted = True
        signal.signal(signal.SIGINT, before)  # a second Ctrl-C does not wait for the step

    before = signal.signal(signal.SIGINT, interrupt)
    columns = [
        *Progress.get_default_columns()[:2],
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[terms]}"),
    ]
    try:
        with Progress(*columns, console=_console()) as progress:
            bar = progress.add_task("Training", total=None, terms="")

            def step(done: int, steps: int, terms: dict[str, float]) -> bool:
                shown = " ".join(f"{name} {value:.4g}" for name, value in terms.items())
                progress.update(bar, completed=done, total=steps, terms=shown)
                return not interrupted

            training = fit(
                datasets.load(data),
                out,
                settings,
                device=args.device,
                threads=args.threads,
                stop_after=args.stop_after,
                progress=step,
            )
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupted and training.step < training.steps:
        print(f"stopped after {training.step} of {training.steps} steps; the same command goes on from there")
        return 128 + signal.SIGINT
    return 0


def _calibrate(db: Path, data: Path, run_folder: Path, out: Path) -> ModelInfo:
    from models import checkpoint

    dataset = datasets.load(data)
    generator, command = trained(run_folder)
    held_out = datasets.streamed(dataset, db, dataset.normal & dataset.held_out)
    info = checkpoint.save(
        out,
        generator,
        name=f"BeatGAN width {generator.shape.width}, latent {generator.shape.latent}",
        calibration=calibrate(generator, *held_out),
        command=command,
        data=dataset.about["sha256"],
    )
    print(f"{out}: {info.name}, {info.parameters} parameters, calibrated on {info.calibration.beats} beats")
    return info


def _judge(data: Path, weights: Path | None, *, as_json: bool) -> None:
    from models.scoring import Scorer

    verdict = judge(Scorer(weights), datasets.load(data))
    if as_json:
        print(json.dumps(verdict))
        return
    print("Held-out normal beats against all abnormal beats of the same records: not the five-fold protocol of papers.")
    for name in ("raw", "score"):
        found = verdict[name]
        classes = " ".join(f"{aami} {value:.4f}" for aami, value in found["auc_per_class"].items())
        print(f"{name:6} AUC {found['auc']:.4f}  AP {found['ap']:.4f}  AUC per class: {classes}")
    shares = ", ".join(f"over {level}: {share:.5f}" for level, share in verdict["normal_share_over"].items())
    print(f"share of normal beats scoring {shares}")


def _errors(generator: Generator, windows_mv: NDArray[np.float32]) -> NDArray[np.float32]:
    """A(x) of windows, by a generator that need not be stored yet."""
    import torch

    generator.eval()
    device = next(generator.parameters()).device
    errors = []
    with torch.inference_mode():
        for first in range(0, len(windows_mv), _SCORING_BATCH):
            x = torch.from_numpy(windows.scale(windows_mv[first : first + _SCORING_BATCH])).to(device)
            errors.append((generator(x)[0] - x).square().mean(dim=(1, 2)).cpu().numpy())
    return np.concatenate(errors)


def _load_state(out: Path) -> dict[str, Any]:
    import torch

    try:
        state: dict[str, Any] = torch.load(out / "state.pt", map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise TrainingError(f"{out} holds no training; start one with 'ecgmon train fit'") from error
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise TrainingError(
            f"{out / 'state.pt'} is damaged or no training's state; remove it and start anew with 'ecgmon train fit'"
        ) from error
    return state


def _save_state(out: Path, training: Training) -> None:
    """Store the state whole or not at all."""
    import torch

    part = out / "state.pt.part"
    torch.save(training.state(), part)
    part.replace(out / "state.pt")


def _forget_after(log: Path, step: int) -> None:
    """Drop what a training logged after the state that it is resumed from: it will log that again."""
    if log.exists():
        lines = [line for line in log.read_text().splitlines(keepends=True) if json.loads(line)["step"] <= step]
        log.write_text("".join(lines))


def _console() -> Any:  # noqa: ANN401 - rich is imported where it is used
    from rich.console import Console

    return Console(stderr=True)  # standard output is for results
