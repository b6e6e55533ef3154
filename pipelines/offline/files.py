"""Write scored records to files: WFDB annotations, CSV, Parquet."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecgmon.pipelines.offline.record import ScoredRecord

ANNOTATOR: Final = "ecg"
"""Suffix of the annotation files written here."""

NORMAL_SYMBOL: Final = "N"
"""WFDB symbol of a beat with a score below the threshold: normal."""

ANOMALOUS_SYMBOL: Final = "Q"
"""WFDB symbol of a beat with a score at or above the threshold: unclassifiable, because a score gives no class."""

UNSCORED_SYMBOL: Final = "?"
"""WFDB symbol of a beat without a score: not classified."""


class OutputError(Exception):
    """The results cannot be written; the message has the place and the reason."""


def write_annotations(folder: Path, scored: ScoredRecord, threshold: float) -> Path:
    """Write the beats as a WFDB annotation file, ``<stream>.ecg``.

    A beat below the threshold is ``N``, a beat at or above it ``Q``, a beat without a score ``?``.
    The auxiliary note is the score with two decimals.

    Parameters
    ----------
    folder : Path
        Made if it is missing; an existing file is replaced as a whole.
    scored : ScoredRecord
    threshold : float

    Returns
    -------
    Path
        The file; ``wfdb.rdann(str(path.with_suffix("")), "ecg")`` reads it.

    Raises
    ------
    OutputError
        If the file cannot be written, or there are no beats: WFDB has no empty annotation files.
    """
    if not len(scored.beats):
        raise OutputError(f"{scored.stream}: there are no beats to annotate; choose another format")
    table = scored.table(threshold)
    unscored = np.isnan(scored.score)
    symbol = np.where(unscored, UNSCORED_SYMBOL, np.where(table["anomalous"], ANOMALOUS_SYMBOL, NORMAL_SYMBOL))
    note = ["" if missing else f"{score:.2f}" for score, missing in zip(scored.score, unscored, strict=True)]

    def write(path: Path) -> None:
        import wfdb

        # The R peak of a complex at the beginning of the record may lie before sample 0, which WFDB cannot store.
        samples = np.maximum(table["sample"], 0)
        wfdb.wrann(
            path.stem, ANNOTATOR, samples, symbol.tolist(), aux_note=note, fs=scored.fs, write_dir=str(path.parent)
        )

    return _write(folder, scored.stream, ANNOTATOR, write)


def write_csv(folder: Path, scored: ScoredRecord, threshold: float) -> Path:
    """Write the columns of :meth:`ecgmon.pipelines.offline.record.ScoredRecord.table` as ``<stream>.csv``.

    Numbers have enough digits to restore the same bits; a missing value is an empty field,
    ``anomalous`` is 0 or 1.

    Parameters
    ----------
    folder : Path
        Made if it is missing; an existing file is replaced as a whole.
    scored : ScoredRecord
    threshold : float

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    table = scored.table(threshold)

    def text(value: Any) -> str:  # noqa: ANN401 - a scalar of any of the columns
        if isinstance(value, np.floating):
            return "" if np.isnan(value) else str(value)
        return str(int(value)) if isinstance(value, np.bool_) else str(value)

    def write(path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(table)
            writer.writerows([text(value) for value in row] for row in zip(*table.values(), strict=True))

    return _write(folder, scored.stream, "csv", write)


def write_parquet(folder: Path, scored: ScoredRecord, threshold: float, model: str) -> Path:
    """Write the columns of :meth:`ecgmon.pipelines.offline.record.ScoredRecord.table` as ``<stream>.parquet``.

    The file's metadata has ``stream``, ``fs`` (Hz), ``lead``, ``threshold`` and ``model``.

    Parameters
    ----------
    folder : Path
        Made if it is missing; an existing file is replaced as a whole.
    scored : ScoredRecord
    threshold : float
    model : str
        Fingerprint of the checkpoint.

    Raises
    ------
    OutputError
        If the file cannot be written, or pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise OutputError(
            "Parquet needs the package pyarrow, which is missing; pip install 'ecgmon[parquet]', or choose --format csv"
        ) from error
    about = {
        "stream": scored.stream,
        "fs": str(scored.fs),
        "lead": scored.lead,
        "threshold": str(threshold),
        "model": model,
    }
    table = pa.table(scored.table(threshold)).replace_schema_metadata(about)
    return _write(folder, scored.stream, "parquet", lambda path: parquet.write_table(table, path))


def _write(folder: Path, stream: str, suffix: str, write: Callable[[Path], None]) -> Path:
    """Write a temporary file, then rename it, so that no reader sees an incomplete file."""
    target = folder / f"{stream}.{suffix}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unfinished-") as own:
            unfinished = Path(own, f"beats.{suffix}")  # wfdb does not accept all names of streams
            write(unfinished)
            unfinished.replace(target)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}; choose another folder") from error
    return target
