"""A table of the A(x) and the latent vectors of annotated beats, for analyses outside this package.

It has what ``predict`` of BeatGAN's published code returns: label, score and latent vector of every beat.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ecgmon.pipelines.training.classes import BeatClass
from ecgmon.pipelines.training.fitting import TrainingError, predicted
from ecgmon.pipelines.training.separation import scaled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgmon.models.networks.generator import AnyGenerator
    from ecgmon.pipelines.training.dataset import Dataset

PARTS: Final = ("test", "held-out", "train")
"""Parts of a split, as ``ecgmon train predict --split-part`` names them."""


def table(
    generator: AnyGenerator, dataset: Dataset, beats: NDArray[np.void], *, advance: Callable[[int], None]
) -> dict[str, NDArray[Any]]:
    """Compute the columns of the table.

    Parameters
    ----------
    generator : Generator or DenseGenerator
    dataset : Dataset
    beats : ndarray of BEAT, shape (n,)
    advance : callable
        Called with the number of beats done.

    Returns
    -------
    dict of str to ndarray, shape (n,)
        ``record``: its name; ``sample``: the annotated R peak, a sample index into the record; ``label``: the AAMI
        class, a letter; ``abnormal``: 0 for N, 1 for the others; ``ax``: A(x); ``score``: A(x) scaled to [0, 1] over
        these beats; ``latent_0`` and so on: the latent vector.
    """
    blocks = []
    done = 0
    for block in predicted(generator, dataset, beats):
        blocks.append(block)
        done += len(block[0])
        advance(done)
    ax, latent = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return {
        "record": dataset.names(beats),
        "sample": beats["sample"],
        "label": np.array([kind.name for kind in BeatClass])[beats["aami"]],
        "abnormal": (beats["aami"] != BeatClass.N).astype(np.int64),
        "ax": ax,
        "score": scaled(ax),
        **{f"latent_{k}": column for k, column in enumerate(latent.T)},
    }


def write_csv(path: Path, columns: dict[str, NDArray[Any]]) -> None:
    """Write columns as CSV; numbers have enough digits to restore the same bits.

    Parameters
    ----------
    path : Path
        Replaced as a whole.
    columns : dict of str to ndarray, shape (n,)

    Raises
    ------
    TrainingError
        If the file cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows([str(value) for value in row] for row in zip(*columns.values(), strict=True))
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise TrainingError(f"{path} cannot be written ({error}); give a file in a folder that exists") from error
