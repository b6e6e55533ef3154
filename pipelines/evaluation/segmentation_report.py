"""Make the tables and pictures of docs/segmentation.md.

``python -m ecgmon.pipelines.evaluation.segmentation_report DB FOLDER`` prints the tables to standard output and writes
the pictures to ``FOLDER``.  ``DB`` is the folder of the MIT-BIH Arrhythmia Database.  Without ``FOLDER``, the command
changes the settings of the detector one by one instead, which takes longer.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ecgmon.models import windows
from ecgmon.models.kernels.correlation import correlate
from ecgmon.pipelines.evaluation.ec57 import (
    BeatCounts,
    RecordResult,
    Reference,
    compare,
    evaluate_records,
    stream_record,
)
from ecgmon.pipelines.items import Kind, Quality
from ecgmon.pipelines.segmentation import qrs
from ecgmon.pipelines.segmentation.qrs import QrsSettings
from ecgmon.pipelines.segmentation.segmenter import SegmentSettings
from ecgmon.pipelines.sources.annotations import read_annotations
from ecgmon.pipelines.sources.finding import resolve
from ecgmon.pipelines.sources.memory_record import MemoryRecord
from ecgmon.pipelines.sources.wfdb_record import open_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ecgmon.pipelines.sources.interfaces import Record

NOISES: Final = ("white", "wander", "mains", "muscle")
"""Kinds of noise to add."""

SNRS: Final = (24, 18, 12, 6, 0)
"""Signal-to-noise ratios in dB, after Moody et al. 1984: the power of a QRS complex (peak-to-peak^2 / 8) over that of
the noise."""

NOISE_RECORDS: Final = ("100", "103", "106", "112", "119", "122", "200", "209", "213", "215", "219", "230")
"""Records to which noise is added: they have little noise of their own, and some have ectopic beats."""

NOISE_SECONDS: Final = 600.0
"""Length of the beginning of each of these records that is used."""

QRS_HALF_SECONDS: Final = 0.05
"""Time before and after an R peak over which the amplitude of a complex is measured."""

FACTORS: Final = (0.8, 1.25)
"""Factors by which each setting is multiplied."""

OTHER_RATES: Final = (128, 250, 257, 500)
"""Sampling rates in Hz to which records are resampled."""

WORST: Final = 10
"""Number of records in the picture of the worst records."""

PICTURE_SECONDS: Final = 4.0
"""Length of the signal shown of each of these records."""

SEED: Final = 1


def make_noise(kind: str, n: int, fs: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Make noise of unit power.

    Parameters
    ----------
    kind : str
        One of :data:`NOISES`: white; baseline wander, below 0.5 Hz; mains hum of 50 Hz; muscle-like, 20 to 120 Hz
        in bursts of some seconds.
    n : int
        Number of samples.
    fs : float
        Sampling frequency in Hz.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    frequency = np.fft.rfftfreq(n, 1 / fs)
    spectrum = np.fft.rfft(rng.standard_normal(n))
    if kind == "mains":
        noise = np.sin(2 * np.pi * 50 * np.arange(n) / fs + rng.uniform(0, 2 * np.pi))
    elif kind == "wander":
        noise = np.fft.irfft(spectrum * (frequency > 0) * (frequency < 0.5), n)  # noqa: PLR2004 - Hz
    elif kind == "muscle":
        carrier = np.fft.irfft(spectrum * (frequency > 20) * (frequency < 120), n)  # noqa: PLR2004 - Hz
        slow = np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) * (frequency < 0.2), n)  # noqa: PLR2004 - Hz
        noise = carrier * np.exp(slow / slow.std())
    else:
        noise = np.fft.irfft(spectrum, n)
    scaled: NDArray[np.float64] = noise / np.sqrt(np.mean(noise**2))
    return scaled


def add_noise(
    samples: NDArray[np.float32], r_peaks: NDArray[np.int64], fs: float, kind: str, snr: float
) -> NDArray[np.float32]:
    """Add noise to every lead, at a given signal-to-noise ratio.

    Parameters
    ----------
    samples : ndarray of float32, shape (n, leads)
        In mV.
    r_peaks : ndarray of int64, shape (beats,)
        R peaks, around which the power of the signal is measured.
    fs : float
        Sampling frequency in Hz.
    kind : str
        One of :data:`NOISES`.
    snr : float
        Signal-to-noise ratio in dB.

    Returns
    -------
    ndarray of float32, shape (n, leads)
    """
    rng = np.random.default_rng(SEED)
    half = round(QRS_HALF_SECONDS * fs)
    inside = r_peaks[(r_peaks >= half) & (r_peaks + half < len(samples))]
    complexes = samples[inside[:, None] + np.arange(-half, half + 1)]
    power = np.mean(complexes.max(axis=1) - complexes.min(axis=1), axis=0) ** 2 / 8
    noise = np.stack([make_noise(kind, len(samples), fs, rng) for _ in range(samples.shape[1])], axis=1)
    noisy: NDArray[np.float32] = (samples + noise * np.sqrt(power / 10 ** (snr / 10))).astype(np.float32)
    return noisy


@dataclass(frozen=True, slots=True)
class NoiseRow:
    """One line of the noise table.

    Attributes
    ----------
    kind, snr
        Noise that was added; ``snr`` in dB.
    counts : BeatCounts
    false_marked : float
        Share of the false beats whose quality is not usable; NaN if there are no false beats.
    true_marked : float
        Share of the true beats whose quality is not usable.
    """

    kind: str
    snr: int
    counts: BeatCounts
    false_marked: float
    true_marked: float


def noise_rows(db: Path, kinds: Sequence[str] = NOISES, snrs: Sequence[int] = SNRS) -> list[NoiseRow]:
    """Measure detection under added noise."""
    clean = []
    for name in NOISE_RECORDS:
        (ref,) = resolve([str(db / name)])
        record = open_record(ref)
        n = round(NOISE_SECONDS * record.fs)
        reference = Reference.of(read_annotations(ref), record.length)
        clean.append((record, record.read(0, n), Reference(reference.sample[reference.sample < n], reference.flutter)))
    rows = []
    for kind in kinds:
        for snr in snrs:
            counts = BeatCounts()
            false_marked = true_marked = 0
            for record, samples, reference in clean:
                noisy = add_noise(samples, reference.sample, record.fs, kind, snr)
                items, _ = stream_record(MemoryRecord(record.name, record.fs, record.leads, noisy), chunk_seconds=60)
                result = compare(items, reference, lead="", fs=record.fs)
                counts += result.counts
                marked = int(np.count_nonzero(items.beats["quality"] != Quality.USABLE))
                false_marked += result.false_of_bad_quality
                true_marked += marked - result.false_of_bad_quality
            false_share = false_marked / counts.fp if counts.fp else np.nan
            rows.append(NoiseRow(kind, snr, counts, false_share, true_marked / max(counts.tp, 1)))
    return rows


def print_noise(rows: Sequence[NoiseRow]) -> None:
    """Print the noise table as Markdown."""
    print("| noise | SNR, dB | sensitivity, % | positive predictivity, % | false beats marked | true beats marked |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in rows:
        marked = "none false" if np.isnan(row.false_marked) else f"{100 * row.false_marked:.0f} % of {row.counts.fp}"
        print(
            f"| {row.kind} | {row.snr} | {100 * (row.counts.sensitivity or 0):.2f} "
            f"| {100 * (row.counts.positive_predictivity or 0):.2f} | {marked} | {100 * row.true_marked:.1f} % |"
        )


def print_worst(results: dict[str, RecordResult]) -> list[str]:
    """Print the worst records as Markdown and return their names."""
    names = sorted(results, key=lambda name: results[name].counts.f1 or 0)[:WORST]
    print("| record | missed | false | F1, % | false beats of bad quality |")
    print("| --- | --- | --- | --- | --- |")
    for name in names:
        counts = results[name].counts
        print(
            f"| {name} | {counts.fn} | {counts.fp} | {100 * (counts.f1 or 0):.2f} "
            f"| {results[name].false_of_bad_quality} |"
        )
    return names


def variants(db: Path) -> dict[str, BeatCounts]:
    """Measure detection on one lead alone, and on records resampled to other sampling rates."""
    from fractions import Fraction

    from scipy.signal import resample_poly

    gross: dict[str, BeatCounts] = {}
    for ref in resolve([str(db)]):
        record = open_record(ref)
        samples = record.read(0, record.length)
        reference = Reference.of(read_annotations(ref), record.length)
        first = 1 if record.leads[1:] == ("MLII",) else 0
        made: dict[str, tuple[tuple[str, ...], NDArray[np.float32], float]] = {}
        made["two leads"] = (record.leads, samples, record.fs)
        for label, column in (("first lead alone", first), ("second lead alone", 1 - first)):
            made[label] = (record.leads[column : column + 1], samples[:, [column]], record.fs)
        for rate in OTHER_RATES:
            ratio = Fraction(rate) / Fraction(record.fs)
            other = resample_poly(samples.astype(np.float64), ratio.numerator, ratio.denominator, padtype="line")
            made[f"{rate} Hz"] = (record.leads, other.astype(np.float32), float(rate))
        for label, (leads, signal, fs) in made.items():
            items, _ = stream_record(MemoryRecord(record.name, fs, leads, signal), chunk_seconds=60)
            scale = fs / record.fs
            there = Reference(
                np.round(reference.sample * scale).astype(np.int64),
                np.round(reference.flutter * scale).astype(np.int64),
            )
            counts = compare(items, there, lead="", fs=fs).counts
            gross[label] = gross.get(label, BeatCounts()) + counts
    return gross


def print_variants(gross: dict[str, BeatCounts]) -> None:
    """Print the comparison of leads and rates as Markdown."""
    print("| signal | missed | false | sensitivity, % | positive predictivity, % |")
    print("| --- | --- | --- | --- | --- |")
    for label, counts in gross.items():
        print(
            f"| {label} | {counts.fn} | {counts.fp} | {100 * (counts.sensitivity or 0):.2f} "
            f"| {100 * (counts.positive_predictivity or 0):.2f} |"
        )


def print_settings(db: Path) -> None:
    """Change each setting of the detector in turn; print the wrong beats in two halves of the records as Markdown.

    This shows whether a setting is fitted to some records: its best value for one half would be bad for the other.
    """
    print("| setting | wrong in one half | wrong in the other | both |")
    print("| --- | --- | --- | --- |")
    default = asdict(QrsSettings())
    changed = {"default": default}
    for name, value in default.items():
        for factor in FACTORS:
            least, greatest = qrs.SETTING_RANGES[name]
            other = min(max(factor * value, least), greatest)
            changed[f"{name} {other:.3g}"] = {**default, name: other}
    for label, values in changed.items():
        settings = SegmentSettings(qrs=QrsSettings(**values))
        results = evaluate_records(db, settings=settings, chunk_seconds=60).values()
        wrong = [result.counts.fp + result.counts.fn for result in results]
        print(f"| {label} | {sum(wrong[::2])} | {sum(wrong[1::2])} | {sum(wrong)} |", flush=True)


def _figure(rows: int, height: float) -> tuple[Any, Any]:
    """Make a figure of ``rows`` axes below each other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, 1, squeeze=False)[:, 0]


def _draw_signal(axis: Any, record: Record, first: int, last: int) -> NDArray[np.float32]:  # noqa: ANN401
    """Draw all leads of a part of a record, one below the other."""
    samples = record.read(first, last)
    time = np.arange(first, last) / record.fs
    for lead, name in enumerate(record.leads):
        axis.plot(time, samples[:, lead] - 2.5 * lead, lw=0.8, label=name)
    axis.set_xlim(time[0], time[-1])
    axis.set_ylabel("mV, leads apart")
    return samples


def _label(axis: Any, *, columns: int) -> None:  # noqa: ANN401
    """Put the legend outside the axes, at the top right, where it covers no data."""
    axis.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=columns, fontsize=8, frameon=False)


def draw_noise(rows: Sequence[NoiseRow], file: Path) -> None:
    """Draw sensitivity, predictivity and the share of marked false beats over the signal-to-noise ratio."""
    figure, axes = _figure(3, 2.0)
    for kind in dict.fromkeys(row.kind for row in rows):
        of_kind = [row for row in rows if row.kind == kind]
        snr = [row.snr for row in of_kind]
        axes[0].plot(snr, [100 * (row.counts.sensitivity or 0) for row in of_kind], "o-", label=kind)
        axes[1].plot(snr, [100 * (row.counts.positive_predictivity or 0) for row in of_kind], "o-")
        axes[2].plot(snr, [100 * row.false_marked for row in of_kind], "o-")
    labels = ("sensitivity, %", "positive predictivity, %", "false beats\nof bad quality, %")
    for axis, label in zip(axes, labels, strict=True):
        axis.set_ylabel(label)
        axis.invert_xaxis()
        axis.grid(alpha=0.3)
    _label(axes[0], columns=len(NOISES))
    axes[2].set_xlabel("signal-to-noise ratio, dB")
    figure.savefig(file, dpi=80)


def draw_stages(db: Path, folder: Path) -> None:
    """Draw one picture for each stage, with some beats of record 208."""
    (ref,) = resolve([str(db / "208")])
    record = open_record(ref)
    first, last = round(465.5 * record.fs), round(472.0 * record.fs)
    time = np.arange(first, last) / record.fs
    items, _ = stream_record(record, chunk_seconds=60)
    beats = items.beats
    here = (beats["sample"] >= first) & (beats["sample"] < last)
    r_peaks = beats["sample"][here]

    samples = _draw_samples(record, first, last, folder)
    envelope = _draw_envelope(record, first, last, samples, folder)
    _draw_candidates(envelope, time, first, r_peaks, folder)
    _draw_windows(record, first, last, r_peaks, items.windows[here][:, 0], folder)
    _draw_quality(db, folder)


def _draw_samples(record: Record, first: int, last: int, folder: Path) -> NDArray[np.float32]:
    figure, axes = _figure(1, 2.6)
    samples = _draw_signal(axes[0], record, first, last)
    axes[0].set_title("1. The signal as it comes: MIT-BIH 208", loc="left")
    axes[0].set_xlabel("time, s")
    _label(axes[0], columns=2)
    figure.savefig(folder / "stage-1-signal.png", dpi=80)
    return samples


def _draw_envelope(
    record: Record, first: int, last: int, samples: NDArray[np.float32], folder: Path
) -> NDArray[np.float32]:
    time = np.arange(first, last) / record.fs
    half = qrs.GABOR_HALF
    raw = np.ascontiguousarray(record.read(first - half, last + half).T)
    envelope = np.empty((len(raw), last - first), np.float32)
    even, odd = np.empty(last - first, np.float32), np.empty(last - first, np.float32)
    for lead in range(len(raw)):
        correlate(raw[lead], qrs.gabor()[0], even)
        correlate(raw[lead], qrs.gabor()[1], odd)
        envelope[lead] = np.hypot(even, odd)
    figure, axes = _figure(len(raw), 1.9)
    for lead, axis in enumerate(axes):
        axis.plot(time, samples[:, lead] - np.median(samples[:, lead]), lw=0.6, color="0.6")
        axis.plot(time, envelope[lead], label=f"envelope of {record.leads[lead]}")
        _label(axis, columns=1)
        axis.set_xlim(time[0], time[-1])
        axis.set_ylabel("mV")
    axes[-1].set_xlabel("time, s")
    axes[0].set_title("2. The envelope at 15 Hz: one hump for each complex", loc="left")
    figure.savefig(folder / "stage-2-envelope.png", dpi=80)
    return envelope


def _draw_candidates(
    envelope: NDArray[np.float32], time: NDArray[np.float64], first: int, r_peaks: NDArray[np.int64], folder: Path
) -> None:
    figure, axes = _figure(1, 2.6)
    fused = (envelope / np.median(np.sort(envelope, axis=1)[:, -len(envelope[0]) // 20 :], axis=1)[:, None]).mean(
        axis=0
    )
    maxima = np.flatnonzero((fused[1:-1] > fused[:-2]) & (fused[1:-1] >= fused[2:])) + 1
    maxima = maxima[fused[maxima] > qrs.FAINTEST]
    accepted = [np.abs(maxima + first - r).min() for r in r_peaks]
    axes[0].plot(time, fused, label="leads fused (equal weights here)")
    axes[0].plot(time[maxima], fused[maxima], "o", mfc="none", color="0.4", label="candidates")
    for r, distance in zip(r_peaks, accepted, strict=True):
        if distance <= qrs.REFINE:
            nearest = maxima[np.abs(maxima + first - r).argmin()]
            axes[0].plot(time[nearest], fused[nearest], "o", color="tab:red")
    axes[0].axhline(0.2, color="0.4", ls=":", lw=1)
    axes[0].set_xlim(time[0], time[-1])
    axes[0].set_title("3. Candidates; filled: beats", loc="left")
    axes[0].set_xlabel("time, s")
    axes[0].set_ylabel("height; a beat is 1")
    _label(axes[0], columns=2)
    figure.savefig(folder / "stage-3-candidates.png", dpi=80)


def _draw_windows(
    record: Record, first: int, last: int, r_peaks: NDArray[np.int64], cut: NDArray[np.float32], folder: Path
) -> None:
    figure, axes = _figure(2, 2.2)
    _draw_signal(axes[0], record, first, last)
    for r in r_peaks:
        axes[0].axvline(r / record.fs, color="tab:red", lw=0.8)
    axes[0].set_title("4. R peaks, and the windows that are cut around them", loc="left")
    tick = (np.arange(windows.LENGTH) - windows.BEFORE) / windows.FS
    axes[1].plot(tick, cut.T, lw=0.8)
    axes[0].set_xlabel("time, s")
    axes[1].set_xlabel("time from the R peak, s")
    axes[1].set_ylabel("mV, filtered")
    figure.savefig(folder / "stage-4-windows.png", dpi=80)


def _draw_quality(db: Path, folder: Path) -> None:
    (ref,) = resolve([str(db / "104")])
    record = open_record(ref)
    first, last = round(295 * record.fs), round(325 * record.fs)
    items, _ = stream_record(record, chunk_seconds=60)
    seconds = items.table[items.table["kind"] == Kind.SECOND]
    figure, axes = _figure(1, 2.6)
    _draw_signal(axes[0], record, first, last)
    for second in seconds[(seconds["sample"] >= first) & (seconds["sample"] < last)]:
        if second["quality"] != Quality.USABLE:
            start = second["sample"] / record.fs
            axes[0].axvspan(start, start + 1, color="tab:orange", alpha=0.25, lw=0)
    axes[0].set_title("5. Quality: seconds of record 104 that are called noisy", loc="left")
    axes[0].set_xlabel("time, s")
    _label(axes[0], columns=2)
    figure.savefig(folder / "stage-5-quality.png", dpi=80)


def draw_worst(db: Path, results: dict[str, RecordResult], names: Sequence[str], file: Path) -> None:
    """Draw, for each of the worst records, the part with the most wrong beats."""
    figure, axes = _figure(len(names), 1.7)
    for axis, name in zip(axes, names, strict=True):
        (ref,) = resolve([str(db / name)])
        record = open_record(ref)
        result = results[name]
        wrong = np.sort(np.concatenate((result.missed, result.invented)))
        span = round(PICTURE_SECONDS * record.fs)
        crowd = [np.count_nonzero((wrong >= w) & (wrong < w + span // 2)) for w in wrong]
        first = max(0, int(wrong[int(np.argmax(crowd))]) - span // 4)
        last = min(first + span, record.length)
        samples = _draw_signal(axis, record, first, last)
        for sample, marker, label in ((result.missed, "v", "missed"), (result.invented, "^", "false")):
            here = sample[(sample >= first) & (sample < last)]
            axis.plot(here / record.fs, np.full(len(here), samples[:, 0].max()), marker, color="tab:red", label=label)
        axis.set_title(f"{name}: {result.counts.fn} missed, {result.counts.fp} false", loc="left", fontsize=9)
        _label(axis, columns=4)
    axes[-1].set_xlabel("time, s")
    figure.savefig(file, dpi=70)


def main(db: Path, folder: Path) -> None:
    """Print all tables and draw all pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    results = evaluate_records(db)
    print("\nWorst records\n")
    names = print_worst(results)
    draw_worst(db, results, names, folder / "worst.png")
    draw_stages(db, folder)
    print("\nLeads and rates\n")
    print_variants(variants(db))
    print("\nAdded noise\n")
    rows = noise_rows(db)
    print_noise(rows)
    draw_noise(rows, folder / "noise.png")


if __name__ == "__main__":
    if len(sys.argv) > 2:  # noqa: PLR2004 - the folder for pictures was named
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        print_settings(Path(sys.argv[1]))
