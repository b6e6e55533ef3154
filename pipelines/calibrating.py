"""Measure what the scores of a generator mean, on normal beats as a stream cuts them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from models import windows
from models.calibration import Calibration, CalibrationError
from pipelines.dataset import nearest_of
from pipelines.records import RecordRef
from pipelines.training import TrainingError
from pipelines.wfdb_files import open_record

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from models.distillation import AnyGenerator
    from pipelines.dataset import Dataset

MATCH: Final = 0.15
"""Most that a detected beat may be off an annotated one to be the same, in seconds (AAMI EC57)."""


def streamed(dataset: Dataset, db: Path, wanted: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cut annotated beats as a stream would: at detected R peaks, with the rhythm of detected beats.

    Parameters
    ----------
    dataset : Dataset
    db : Path
        Folder of the records that it was made from.
    wanted : ndarray of bool, shape (n,)
        Which of the data set's beats to cut.

    Returns
    -------
    windows : ndarray of float32, shape (m, 1, 320)
        In mV; of every detected beat within :data:`MATCH` of a wanted one, and nearer to that than
        to any other annotated beat.
    rr_ratio : ndarray of float32, shape (m,)
        As detected; NaN where not known.

    Raises
    ------
    pipelines.source_errors.SourceError
        If a record can not be read.
    """
    from pipelines.segmentation import Segmenter  # compiles its loops when it is first used

    cut, ratios = [], []
    for name in dataset.about["records"]:
        here = dataset.beats["record"] == int(name)
        annotated = dataset.beats["sample"][here].astype(np.int64)
        record = open_record(RecordRef(name, db / name))
        segmenter = Segmenter(record.fs, record.leads)
        for items in (segmenter.push(record.read(0, record.length)), segmenter.finish()):
            detected = items.beats["sample"]
            nearest = nearest_of(annotated, detected)
            taken = (np.abs(annotated[nearest] - detected) <= MATCH * windows.FS) & wanted[here][nearest]
            cut.append(items.windows[taken])
            ratios.append(items.beats["rr_ratio"][taken])
    return np.concatenate(cut), np.concatenate(ratios)


def calibrate(generator: AnyGenerator, windows_mv: NDArray[np.float32], rr_ratio: NDArray[np.float32]) -> Calibration:
    """Measure what the scores of a generator mean.

    Parameters
    ----------
    generator : Generator or DenseGenerator
    windows_mv : ndarray of float32, shape (n, 1, 320)
        Windows in mV of normal beats that the generator was not trained on, as a stream cuts them:
        see :func:`streamed`.
    rr_ratio : ndarray of float32, shape (n,)
        Of the same beats.

    Raises
    ------
    pipelines.training.TrainingError
        If the beats are too few, or have no measure to calibrate by.
    """
    import torch

    generator.eval()
    with torch.inference_mode():
        x = torch.from_numpy(windows.scale(windows_mv))
        error = torch.cat(
            [(generator(part)[0] - part).square().mean(dim=(1, 2)) for part in torch.split(x, _BLOCK)]
        ).numpy()
    try:
        return Calibration.measure(error, rr_ratio)
    except CalibrationError as error_:
        raise TrainingError(f"the held-out normal beats can not calibrate this generator: {error_}") from error_


_BLOCK: Final = 256  # beats at a time
