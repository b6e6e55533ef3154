"""Read blocks of samples from signal files whose samples fit into 16 bits.

wfdb's ``rdrecord`` reads the header again for each block, which takes several times as long as reading 15 s of
samples.  This module therefore reads the common formats itself.  wfdb reads rare and compressed formats, and signals
that are skewed or have several samples per frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from ecgmon.pipelines.sources import pair_file, units
from ecgmon.pipelines.sources.pair_file import PairFile
from ecgmon.pipelines.sources.units import AdcUnits

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgmon.pipelines.sources.header import Header, Signal

BLOCK_BYTES: Final = {
    "16": (2, 1),
    "24": (3, 1),
    "32": (4, 1),
    "61": (2, 1),
    "80": (1, 1),
    "160": (2, 1),
    "212": (3, 2),
    "310": (4, 3),
    "311": (4, 3),
}
"""Format: bytes of a block, samples in it (WFDB Applications Guide, SIGNAL(5))."""

COMPRESSED: Final = ("508", "516", "524")
"""Formats of which only reading shows how many samples there are: FLAC."""

DIFFERENCES: Final = "8"
"""The format of first differences: a block can only be read together with all blocks before it."""

_PAIRS: Final = "212"
_WORDS: Final = {"16": "<i2", "61": ">i2", "160": "<u2"}  # numpy types; format 160 adds 2**15 to each sample
_MISSING: Final = {"16": -(2**15), "61": -(2**15), "160": -(2**15), "212": -(2**11)}  # value of a missing sample


class _File(Protocol):
    """A signal file from which some signals are read."""

    def read(self, start: int, stop: int) -> NDArray[np.int16]:
        """Read frames, shape (stop - start, signals), in ADC units."""


@dataclass(frozen=True, slots=True)
class WordFile:
    """A signal file with 16 bits per sample and without skewed signals; attributes as in :class:`PairFile`."""

    path: Path
    fmt: str
    offset: int
    frame: int
    columns: NDArray[np.int64]

    def read(self, start: int, stop: int) -> NDArray[np.int16]:
        """Read frames ``start`` to ``stop``, shape (stop - start, n), in ADC units.

        Raises
        ------
        EOFError
            If the file ends before ``stop``.
        OSError
            If it cannot be read.
        """
        count = (stop - start) * self.frame
        words = np.fromfile(self.path, _WORDS[self.fmt], count, offset=self.offset + 2 * start * self.frame)
        if words.size != count:
            raise EOFError(f"{self.path.name} has {words.size} samples where {count} were expected")
        frames = np.take(words.reshape(-1, self.frame), self.columns, axis=1)
        if frames.dtype.kind == "u":
            return (frames.astype(np.int32) - 2**15).astype(np.int16)
        return frames.astype(np.int16, copy=False)


@dataclass(frozen=True, slots=True)
class SignalFiles:
    """The signal files of a record of one segment; made by :func:`signal_files`.

    Attributes
    ----------
    files : tuple of WordFile or PairFile
    places : tuple of list of int
        For each file, the columns of its samples in a block.
    missing : ndarray of int16, shape (leads,)
    baseline, gain, millivolts : ndarray of float64, shape (leads,)
        As in :class:`ecgmon.pipelines.sources.units.AdcUnits`.
    """

    files: tuple[_File, ...]
    places: tuple[list[int], ...]
    missing: NDArray[np.int16]
    baseline: NDArray[np.float64]
    gain: NDArray[np.float64]
    millivolts: NDArray[np.float64]

    def block(self, start: int, stop: int) -> AdcUnits:
        """Read samples ``start`` to ``stop``.

        Raises
        ------
        EOFError
            If a file ends before ``stop``.
        OSError
            If one cannot be read.
        """
        if len(self.files) == 1:
            samples = self.files[0].read(start, stop)
        else:
            samples = np.empty((stop - start, len(self.missing)), np.int16)
            for file, places in zip(self.files, self.places, strict=True):
                samples[:, places] = file.read(start, stop)
        return AdcUnits(samples, self.missing, self.baseline, self.gain, self.millivolts)


def signal_files(
    header: Header, folder: Path, channels: Sequence[int], millivolts: NDArray[np.float64]
) -> SignalFiles | None:
    """Locate the samples of some signals in their files.

    Parameters
    ----------
    header : Header
        Header of one segment; all signals of a file have the same format.
    folder : Path
        Folder of the files.
    channels : sequence of int
        Numbers of the signals to read, in order.
    millivolts : ndarray of float64, shape (len(channels),)
        Millivolts per unit of each signal.

    Returns
    -------
    SignalFiles or None
        None if wfdb has to read them.
    """
    if header.segments or any(signal.skew for signal in header.signals):
        return None
    wanted = [header.signals[channel] for channel in channels]
    if not all(signal.fmt in _MISSING and signal.samples_per_frame == 1 for signal in wanted):
        return None
    files: list[_File] = []
    places: list[list[int]] = []
    for name in dict.fromkeys(signal.file for signal in wanted):
        inside = [number for number, signal in enumerate(header.signals) if signal.file == name]
        first = header.signals[inside[0]]
        begins = _begins(header.signals, inside)
        here = [place for place, channel in enumerate(channels) if channel in begins]
        columns = np.array([begins[channels[place]] for place in here], np.int64)
        frame = sum(header.signals[number].samples_per_frame for number in inside)
        path = folder.resolve() / name
        files.append(
            PairFile(path, first.offset, frame, columns)
            if first.fmt == _PAIRS
            else WordFile(path, first.fmt, first.offset, frame, columns)
        )
        places.append(here)
    return SignalFiles(
        tuple(files),
        tuple(places),
        np.array([_MISSING[signal.fmt] for signal in wanted], np.int16),
        np.array([signal.baseline for signal in wanted], np.float64),
        np.array([signal.gain for signal in wanted], np.float64),
        millivolts,
    )


def _begins(signals: Sequence[Signal], inside: Sequence[int]) -> dict[int, int]:
    """Return, for each signal of a file, the index of its first sample in a frame."""
    begins, begin = {}, 0
    for number in inside:
        begins[number] = begin
        begin += signals[number].samples_per_frame
    return begins


def warm_up() -> None:
    """Compile the reading loops now, so that no stream in real time has to wait for the compiler."""
    pair_file.warm_up()
    units.warm_up()
