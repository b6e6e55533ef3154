"""Plans: the lists of trainings behind the published figures, for ``ecgmon train plan``.

A plan is a list of runs.  A finished run is skipped, and a stopped run is resumed.  The result of a run is
written to its folder when it finishes (``finished.json``), so an interrupted plan has the complete
results of its finished runs.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ecgmon.models.training.settings import PAPER, STUDENT, TEACHER, Settings
from ecgmon.models.windows import LENGTH
from ecgmon.pipelines.training import fitting as training
from ecgmon.pipelines.training.mitdb import HALVES, WHOLE_NAMES
from ecgmon.pipelines.training.mitdb import split as split_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ecgmon.pipelines.training.dataset import Dataset

_FINISHED: Final = "finished.json"
_TIMED_BATCH: Final = 1024  # windows
_TIMED_REPEATS: Final = 7


@dataclass(frozen=True, slots=True)
class Run:
    """One training of a plan.

    Attributes
    ----------
    name : str
        Name of the run and of its folder.
    split : str
        One of :data:`ecgmon.pipelines.training.mitdb.NAMES`.
    settings : Settings
    teacher : str or None
        Name of the run from which it distils.
    what : str
        Description of its difference from the other runs of the plan.
    """

    name: str
    split: str
    settings: Settings
    teacher: str | None = None
    what: str = ""


def _of_every_split(kind: str, settings: Settings) -> tuple[Run, ...]:
    return tuple(Run(f"{kind}-{split}", split, settings) for split in WHOLE_NAMES)


_SHORT: Final = replace(
    STUDENT, epochs=16
)  # the same for all compared runs; two fifths of the epochs of the shipped students
_ALL_TERMS: Final = replace(_SHORT, beta=0.15)  # all terms that the ablation varies

_ALONE: Final = replace(_ALL_TERMS, alpha=0.0, beta=0.0, self_teacher=False)

VARIANTS: Final[dict[str, tuple[str, Settings]]] = {
    "none": ("no distillation", _ALONE),
    "output": ("mean squared difference to the teacher's output only", replace(_ALONE, w_output=1.0)),
    "l_kd": ("L_KD", replace(_ALL_TERMS, beta=0.0, self_teacher=False)),
    "l_f": ("L_F", replace(_ALL_TERMS, alpha=0.0, self_teacher=False)),
    "both": ("L_KD and L_F", replace(_ALL_TERMS, self_teacher=False)),
    "self_l_kd": ("L_KD from the self-teacher, as shipped", replace(_ALL_TERMS, beta=0.0)),
    "self": ("L_KD and L_F from the self-teacher", _ALL_TERMS),
    "adversarial": ("no distillation, feature matching", replace(_ALONE, w_adv=0.05, discriminator_width=8)),
    "plain": ("no distillation, no augmentation", replace(_ALONE, augmented=0.0)),
}
"""Variants of the ablation by name: a description, and the settings without the seed."""

SEEDS: Final = (0, 1, 2)
"""Seeds for each variant of the ablation."""

_HALF: Final = replace(STUDENT, epochs=20)  # the halves are only measured; half the epochs are enough

_FRONTIER_TEACHER: Final = "teacher-fold0"

WIDTHS: Final = (2, 4, 8, 13, 26, 52)
"""Widths of the students of the frontier."""


def _ablation() -> tuple[Run, ...]:
    runs = []
    for seed in SEEDS:  # seed by seed, so that an interrupted plan has all variants
        for name, (what, settings) in VARIANTS.items():
            seeded = replace(settings, seed=seed)
            teacher = "teacher-fold0" if settings.distils and not settings.self_teacher else None
            runs.append(Run(f"ablation-{name}-{seed}", "fold0", seeded, teacher, what))
    return tuple(runs)


PLANS: Final[dict[str, tuple[Run, ...]]] = {
    "teachers": _of_every_split("teacher", TEACHER),
    "students": _of_every_split("student", STUDENT),
    "halves": tuple(Run(f"half-{half}", half, _HALF) for halves in HALVES.values() for half in halves),
    "frontier": tuple(
        Run(f"size-{width}", "fold0", replace(_SHORT, width=width), what=f"width {width}") for width in WIDTHS
    ),
    "ablation": _ablation(),
    "paper": _of_every_split("paper", PAPER),
}
"""Plans by name: their runs, in order."""


def carry_out(
    runs: Sequence[Run],
    dataset: Dataset,
    folder: Path,
    *,
    device: str = "cpu",
    threads: int = 1,
    progress: Callable[[Run, int, int, dict[str, float]], bool] = lambda *_: True,
) -> bool:
    """Carry out the runs of a plan that are not finished yet.

    Parameters
    ----------
    runs : sequence of Run
    dataset : Dataset
    folder : Path
        Folder with a folder for each run, which has its result in ``finished.json``.
    device, threads
        As for :func:`ecgmon.pipelines.training.fitting.fit`.
    progress : callable
        As for :func:`ecgmon.pipelines.training.fitting.fit`, with the run as first argument.

    Returns
    -------
    bool
        Whether all runs are finished; False if ``progress`` stopped one.

    Raises
    ------
    ecgmon.pipelines.training.fitting.TrainingError
        If a run is not possible, for example because its teacher is missing.
    """
    for run in runs:
        if (folder / run.name / _FINISHED).exists():
            continue
        times: list[float] = []

        def reported(
            done: int, steps: int, terms: dict[str, float], run: Run = run, times: list[float] = times
        ) -> bool:
            times.append(time.monotonic())
            return progress(run, done, steps, terms)

        done = training.fit(
            dataset,
            folder / run.name,
            run.settings,
            split_of(dataset, run.split),
            teacher=None if run.teacher is None else folder / run.teacher,
            device=device,
            threads=threads,
            progress=reported,
        )
        if done.step < done.steps:
            return False
        _write_result(run, dataset, folder / run.name, times)
    return True


def _write_result(run: Run, dataset: Dataset, folder: Path, times: list[float]) -> None:
    """Write the result of a finished run."""
    generator, about = training.trained(folder)
    used = split_of(dataset, run.split)
    held_out = training.ax_of(generator, dataset, dataset.beats[used.held_out])
    result = {
        "name": run.name,
        "what": run.what,
        **about,
        "step_seconds": float(np.median(np.diff(times))) if len(times) > 1 else None,
        "parameters": generator.shape.parameters,
        "multiply_adds": generator.shape.multiply_adds,
        "held_out_reconstruction": float(held_out.mean()),
        "raw": training.tested(generator, dataset, used) if used.test.any() else None,
    }
    part = folder / f"{_FINISHED}.part"
    part.write_text(json.dumps(result, indent=1) + "\n")
    part.replace(folder / _FINISHED)  # last: if it exists, the run is finished


def summary(plan: str, folder: Path) -> dict[str, Any]:
    """Collect the results of the finished runs of a plan.

    Parameters
    ----------
    plan : str
        One of :data:`PLANS`.
    folder : Path
        As in :func:`carry_out`.

    Returns
    -------
    dict
        ``runs``: per split, in order; for the plan ``ablation``: ``variants``, each with its
        ``seeds`` and the ``auc`` and ``ap`` of A(x) for each seed; for ``frontier``: ``sizes`` and
        the ``teacher`` of the same fold, with ``beats_per_second`` measured in this call.  Unfinished runs
        are left out and named under ``missing``.
    """
    found = {
        run.name: json.loads(path.read_text())
        for run in PLANS[plan]
        if (path := folder / run.name / _FINISHED).exists()
    }
    missing = [run.name for run in PLANS[plan] if run.name not in found]
    if plan == "frontier":
        return {"plan": plan, "missing": missing, **_frontier(found, folder)}
    if plan != "ablation":
        rows = [
            {key: result[key] for key in ("name", "what", "split", "parameters", "multiply_adds", "raw")}
            for result in found.values()
        ]
        return {"plan": plan, "missing": missing, "runs": rows}
    variants = []
    for name, (what, _) in VARIANTS.items():
        seeds = [seed for seed in SEEDS if f"ablation-{name}-{seed}" in found]
        raw = [found[f"ablation-{name}-{seed}"]["raw"] for seed in seeds]
        variants.append(
            {"name": name, "what": what, "seeds": seeds, "auc": [r["auc"] for r in raw], "ap": [r["ap"] for r in raw]}
        )
    return {"plan": plan, "missing": missing, "variants": variants}


def _frontier(found: dict[str, dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Collect the cost and the accuracy of each size."""
    of_teacher = folder / _FRONTIER_TEACHER / _FINISHED
    speed = measured_speed(
        [folder / name for name in (*found, _FRONTIER_TEACHER) if (folder / name / "state.pt").exists()]
    )

    def row(name: str, result: dict[str, Any]) -> dict[str, Any]:
        figures = {key: result[key] for key in ("parameters", "multiply_adds")}
        raw = {key: result["raw"][key] for key in ("auc", "ap")}
        return {"name": result["what"] or name, **figures, **raw, "beats_per_second": speed.get(name)}

    return {
        "sizes": [row(name, result) for name, result in found.items()],
        "teacher": row(_FRONTIER_TEACHER, json.loads(of_teacher.read_text())) if of_teacher.exists() else None,
    }


def measured_speed(runs: Sequence[Path]) -> dict[str, float]:
    """Measure how many beats per second each generator reconstructs, on one thread, in turns.

    Parameters
    ----------
    runs : sequence of Path
        Folders of runs.

    Returns
    -------
    dict of str to float
        Beats per second by the folder's name: the median of several rounds.  Each round runs every
        generator once, so that other load on the machine affects all of them.
    """
    import torch

    from ecgmon.models.inference.reconstruction import fused

    torch.set_num_threads(1)
    networks = {run.name: fused(training.trained(run)[0]) for run in runs}
    x = torch.zeros(_TIMED_BATCH, 1, LENGTH)
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    with torch.inference_mode():
        for network in networks.values():
            network(x)
        for _ in range(_TIMED_REPEATS):
            for name, network in networks.items():
                began = time.perf_counter()
                network(x)
                seconds[name].append(time.perf_counter() - began)
    return {name: _TIMED_BATCH / float(np.median(values)) for name, values in seconds.items()}
