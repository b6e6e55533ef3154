"""A made-up database unlike MIT-BIH: other names, sub-folders, 250 Hz, one lead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ecgmon.testing import synthetic_ecg

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

FS = 250
SECONDS = 180
EVERY = 15  # beats from one ventricular one to the next


def record(
    seed: int, patient: int, seconds: float = SECONDS
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.str_]]:
    """Make one lead with the heart rate of a patient: samples (n, 1) in mV, R peaks as sample indices, symbols."""
    ecg = synthetic_ecg(seconds, FS, rate=70 + 3 * patient, leads=1, ectopic=range(EVERY, 10_000, EVERY), seed=seed)
    return ecg.signal, np.round(ecg.r_peaks * FS).astype(np.int64), ecg.symbols


def write(
    folder: Path,
    name: str,
    samples: NDArray[np.float32],
    beats: tuple[NDArray[np.int64], NDArray[np.str_]] | None = None,
    *,
    leads: Sequence[str] = ("II",),
    annotator: str = "atr",
) -> None:
    """Write one record and, if there are beats, its annotations, one of which is not a beat."""
    import wfdb

    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    wfdb.wrsamp(
        path.name, FS, ["mV"] * len(leads), list(leads), samples.astype(np.float64), fmt=["16"] * len(leads),
        adc_gain=[1000.0] * len(leads), baseline=[0] * len(leads), write_dir=str(path.parent),
    )  # fmt: skip
    if beats is not None:
        sample, symbol = np.append(3, beats[0]), np.append("+", beats[1])  # a change of rhythm is not a beat
        wfdb.wrann(
            path.name, annotator, sample, symbol, aux_note=["(N", *[""] * len(beats[0])], write_dir=str(path.parent)
        )


def write_database(
    folder: Path, *, patients: int = 6, records: int = 2, annotate: bool = True
) -> dict[str, tuple[NDArray[np.int64], NDArray[np.str_]]]:
    """Write ``patient_a/rec-01`` and so on; return R peaks and symbols of each record."""
    beats = {}
    for patient in range(patients):
        for number in range(records):
            name = f"patient_{'abcdefgh'[patient]}/rec-{number + 1:02d}"
            samples, r_peaks, symbols = record(10 * patient + number, patient)
            beats[name] = (r_peaks, symbols)
            write(folder, name, samples, beats[name] if annotate else None)
    return beats
