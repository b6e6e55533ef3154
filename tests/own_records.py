"""A made-up database that has nothing of MIT-BIH's: other names, sub-folders, 250 Hz, one lead, annotations of any beats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

FS = 250
SECONDS = 180
EVERY = 15  # beats from one ventricular one to the next


def record(seed: int, patient: int, seconds: float = SECONDS, fs: float = FS):
    """One lead of a patient's own beats, some early and broad: samples (n, 1) in mV, R peaks, symbols."""
    random = np.random.default_rng(seed)
    mean = 0.7 + 0.03 * patient
    intervals = mean * (1 + 0.03 * random.standard_normal(round(seconds / mean)))
    ventricular = np.arange(len(intervals)) % EVERY == EVERY - 1
    intervals[ventricular] *= 0.7
    times = 0.6 + np.cumsum(intervals)
    times, ventricular = times[times < seconds - 1], ventricular[: np.count_nonzero(times < seconds - 1)]
    clock = np.arange(round(seconds * fs)) / fs
    signal = 0.1 * np.sin(2 * np.pi * 0.25 * clock)
    own = 1 + 0.08 * np.random.default_rng(patient).standard_normal(4)
    for time, is_ventricular in zip(times, ventricular, strict=True):
        near = slice(max(0, round((time - 0.6) * fs)), round((time + 0.7) * fs))
        at = clock[near] - time
        if is_ventricular:
            signal[near] += 1.6 * np.exp(-0.5 * (at / 0.026) ** 2) - 0.5 * np.exp(-0.5 * ((at - 0.25) / 0.07) ** 2)
        else:
            for height, offset, width in (
                (0.12, -0.17, 0.02), (1.1 * own[0], 0, 0.011), (-0.2 * own[1], 0.03, 0.01), (0.25 * own[2], 0.22 * own[3], 0.04),
            ):  # fmt: skip
                signal[near] += height * np.exp(-0.5 * ((at - offset) / width) ** 2)
    samples = signal + 0.015 * random.standard_normal(len(clock))
    return samples[:, np.newaxis], np.round(times * fs).astype(np.int64), np.where(ventricular, "V", "N")


def write(folder: Path, name: str, samples, r_peaks=None, symbols=None, *, fs=FS, leads=("II",), annotator="atr"):
    """Write one record, and its annotations if there are any, with what is no beat among them."""
    import wfdb

    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    wfdb.wrsamp(
        path.name, fs, ["mV"] * len(leads), list(leads), np.asarray(samples, np.float64), fmt=["16"] * len(leads),
        adc_gain=[1000.0] * len(leads), baseline=[0] * len(leads), write_dir=str(path.parent),
    )  # fmt: skip
    if r_peaks is not None:
        sample, symbol = np.append(3, r_peaks), np.append("+", symbols)  # a change of rhythm is no beat
        wfdb.wrann(
            path.name, annotator, sample, symbol, aux_note=["(N"] + [""] * len(r_peaks), write_dir=str(path.parent)
        )


def write_database(folder: Path, *, patients: int = 6, records: int = 2, annotator: str = "atr", annotate: bool = True):
    """Write ``patient_a/rec-01`` and so on; return the beats of each record."""
    beats = {}
    for patient in range(patients):
        for number in range(records):
            name = f"patient_{'abcdefgh'[patient]}/rec-{number + 1:02d}"
            samples, r_peaks, symbols = record(10 * patient + number, patient)
            write(folder, name, samples, *((r_peaks, symbols) if annotate else ()), annotator=annotator)
            beats[name] = (r_peaks, symbols)
    return beats
