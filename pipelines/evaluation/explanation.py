"""Measure whether the error per tick is largest where a beat is distorted.

A known distortion (:mod:`ecgmon.pipelines.evaluation.distortions`) is put into held-out normal beats, and the most
anomalous tenth of the ticks is compared with the ticks that were distorted.  Three ways to rank ticks are measured:

========  ==========================================================================================
error     squared difference of beat and reconstruction, as A(x) averages it
smoothed  the same, as a moving mean over :data:`ecgmon.models.inference.ticks.SMOOTHING_SECONDS`
relative  the smoothed error divided by the usual smoothed error of normal beats at that tick;
          ``ecgmon explain`` draws it
========  ==========================================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ecgmon.models.inference.ticks import relative, smooth
from ecgmon.models.windows import LENGTH
from ecgmon.pipelines.evaluation.distortions import DISTORTIONS
from ecgmon.pipelines.training.mitdb import split

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ecgmon.models.inference.reconstruction import Scorer
    from ecgmon.pipelines.training.dataset import Dataset

TOP: Final = LENGTH // 10
"""Number of ticks in the most anomalous tenth of a window."""

AIM: Final = 0.9
"""Target for the mean share of the most anomalous tenth of the ticks that lies inside the distortion."""

BEATS: Final = 2000
"""Number of beats to distort."""

RANKINGS: Final = ("error", "smoothed", "relative")
"""The ways to rank ticks; see the module's docstring."""


class ExplanationError(Exception):
    """Too few beats to evaluate explanations."""


def compare(ranking: NDArray[np.floating[Any]], distorted: NDArray[np.bool_]) -> dict[str, float]:
    """Measure how much of the most anomalous tenth of the ticks lies inside a distortion.

    Parameters
    ----------
    ranking : ndarray of float, shape (n, 320)
        The larger, the more anomalous.
    distorted : ndarray of bool, shape (n, 320)

    Returns
    -------
    dict of str to float
        ``inside``: share of the :data:`TOP` ticks that lie inside, mean over the beats, to compare with :data:`AIM`;
        ``half`` and ``all``: share of the beats that have at least half, and all, of these ticks inside.
    """
    top = np.argpartition(-ranking, TOP - 1, axis=-1)[:, :TOP]
    inside = np.take_along_axis(distorted, top, axis=-1).mean(axis=-1)
    return {
        "inside": float(inside.mean()),
        "half": float((inside >= 0.5).mean()),  # noqa: PLR2004 - a half
        "all": float((inside == 1).mean()),
    }


def measure(scorer: Scorer, normal: NDArray[np.float32], *, seed: int = 0) -> dict[str, Any]:
    """Distort normal beats and measure how many of the most anomalous ticks lie inside the distortion.

    Parameters
    ----------
    scorer : Scorer
    normal : ndarray of float32, shape (n, leads, 320)
        Filtered windows in mV to distort, with the scorer's number of leads.
    seed : int
        Seed for the sizes and places of the distortions.

    Returns
    -------
    dict
        For JSON.  ``distortions`` has for each by name: ``beats``: number of distorted beats (a beat without a P wave
        cannot lose it); ``span``: share of the window that the distortion covers, which is also the expected share of
        ticks chosen at random; ``rises``: share of the beats whose A(x) rises; and the result of :func:`compare` for
        each of :data:`RANKINGS`.  ``mean`` is the mean over the distortions.

    Raises
    ------
    ExplanationError
        If there are no beats, or none shows one of the distortions.
    """
    if not len(normal):
        raise ExplanationError("no beats to distort were given; expected at least one")
    before = scorer.score(normal).ax
    distortions: dict[str, Any] = {}
    for place, (name, distort) in enumerate(DISTORTIONS.items()):
        windows, changed = distort(normal, np.random.default_rng([seed, place]))
        shown = changed.any(axis=-1)
        if not shown.any():
            raise ExplanationError(f"none of {len(normal)} beats shows the distortion {name!r}; give more beats")
        raw = scorer.score(windows[shown])
        ticks = raw.ticks.astype(np.float32)
        rankings = {"error": ticks, "smoothed": smooth(ticks), "relative": relative(ticks, scorer.info.usual)}
        distortions[name] = {
            "beats": int(np.count_nonzero(shown)),
            "span": float(changed[shown].mean()),
            "rises": float((raw.ax > before[shown]).mean()),
            **{ranking: compare(rankings[ranking], changed[shown]) for ranking in RANKINGS},
        }
    mean = {
        ranking: {
            key: float(np.mean([found[ranking][key] for found in distortions.values()]))
            for key in ("inside", "half", "all")
        }
        for ranking in RANKINGS
    }
    return {"aim": AIM, "seed": seed, "distortions": distortions, "mean": mean}


def evaluate(scorer: Scorer, dataset: Dataset, split_name: str, *, beats: int = BEATS, seed: int = 0) -> dict[str, Any]:
    """Run :func:`measure` on held-out normal beats of a data set, chosen at random.

    Parameters
    ----------
    scorer : Scorer
    dataset : Dataset
    split_name : str
        The split that the scorer's generator was trained on; its held-out beats are used.
    beats : int
        Largest number of beats to distort; fewer if fewer are held out.
    seed : int
        Seed for the choice of the beats and for the distortions.

    Returns
    -------
    dict
        The result of :func:`measure`, with ``split`` and ``model`` (the fingerprint of the model).

    Raises
    ------
    ExplanationError, ValueError
        If too few beats are held out, or there is no such split.
    """
    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(split(dataset, split_name).held_out))[:beats]
    windows = dataset.windows(dataset.beats[drawn])[:, : scorer.info.leads]
    return {"split": split_name, "model": scorer.info.fingerprint, **measure(scorer, windows, seed=seed)}


def table(found: dict[str, Any]) -> str:
    """Format the result of :func:`measure` as a table in Markdown.

    Returns
    -------
    str
        Shares of the most anomalous tenth of the ticks that lie inside the distortion, in percent.
    """
    lines = [
        "| distortion | beats | of the window, % | A(x) rises, % | error, % | smoothed, % | relative, % | all inside, % |",
        "| --- " * 8 + "|",
    ]
    for name, row in found["distortions"].items():
        shares = [row["span"], row["rises"], *(row[ranking]["inside"] for ranking in RANKINGS), row["relative"]["all"]]
        lines.append(f"| {name} | {row['beats']:,} | " + " | ".join(f"{100 * share:.1f}" for share in shares) + " |")
    mean = found["mean"]
    shares = [*(mean[ranking]["inside"] for ranking in RANKINGS), mean["relative"]["all"]]
    lines.append("| mean | | | | " + " | ".join(f"{100 * share:.1f}" for share in shares) + " |")
    return "\n".join(lines)
