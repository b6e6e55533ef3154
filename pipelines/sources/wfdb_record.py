"""Open a WFDB record: check its header against its signal files and choose its leads.

wfdb reads a gain of zero as 200, trusts a header that promises more samples than its file holds, and raises the
exceptions of its parsers.  This module raises a specific error for each of these cases.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from ecgmon.pipelines.sources.errors import SignalFileError
from ecgmon.pipelines.sources.header import check_fs, read_header, reason
from ecgmon.pipelines.sources.leads import choose_leads, lead_problem
from ecgmon.pipelines.sources.memory_record import toy_record
from ecgmon.pipelines.sources.segments import read_parts, readable_length
from ecgmon.pipelines.sources.signal_files import signal_files
from ecgmon.pipelines.sources.units import millivolts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgmon.pipelines.sources.errors import RecordTruncatedError
    from ecgmon.pipelines.sources.finding import RecordRef
    from ecgmon.pipelines.sources.interfaces import Block, Record
    from ecgmon.pipelines.sources.signal_files import SignalFiles

_FILE_ERRORS: Final = (OSError, EOFError)
"""What :mod:`ecgmon.pipelines.sources.signal_files` raises if a file has been removed or has become shorter."""

_WFDB_ERRORS: Final = (OSError, ValueError, RuntimeError)
"""What ``wfdb.rdrecord`` of wfdb 4.3 raises for damaged signal files: OSError from the system, ValueError for samples that
do not fill their frames or FLAC of another resolution, RuntimeError from soundfile for damaged FLAC."""


@dataclass(frozen=True, slots=True)
class WfdbRecord:
    """A WFDB record on disk: see :class:`ecgmon.pipelines.sources.interfaces.Record`; :func:`open_record` makes it."""

    name: str
    fs: float
    leads: tuple[str, ...]
    length: int
    notes: tuple[str, ...]
    truncated: RecordTruncatedError | None
    _stem: Path = field(repr=False)
    _channels: tuple[int, ...] = field(repr=False)
    _millivolts: NDArray[np.float64] = field(repr=False)
    _files: SignalFiles | None = field(repr=False)
    """Location of the samples if they fit into 16 bits; None if wfdb reads them."""

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Read samples from disk.

        Parameters
        ----------
        start, stop : int
            Sample indices, ``0 <= start < stop <= length``.

        Returns
        -------
        ndarray of float32, shape (stop - start, leads)
            In mV, NaN where the record marks a sample as missing.

        Raises
        ------
        SignalFileError
            If the samples cannot be read.
        """
        return self.block(start, stop)[:]

    def block(self, start: int, stop: int) -> Block:
        """Read samples from disk in the form that needs the least memory.

        Parameters
        ----------
        start, stop : int
            As in :meth:`read`.

        Raises
        ------
        SignalFileError
            If the samples cannot be read.
        """
        try:
            if self._files is not None:
                return self._files.block(start, stop)
        except _FILE_ERRORS as error:
            raise self._unreadable(start, stop, reason(error)) from error
        physical = self._physical(start, stop)
        if physical.shape != (stop - start, len(self.leads)):
            raise self._unreadable(start, stop, f"{physical.shape} samples, expected {(stop - start, len(self.leads))}")
        return (physical * self._millivolts).astype(np.float32)

    def _physical(self, start: int, stop: int) -> NDArray[np.float64]:
        """Read samples with wfdb, shape (stop - start, leads), in the physical unit of each lead."""
        import wfdb

        channels = list(self._channels)
        try:
            part = wfdb.rdrecord(str(self._stem), sampfrom=start, sampto=stop, channels=channels)
        except _WFDB_ERRORS as error:
            raise self._unreadable(start, stop, reason(error)) from error
        return np.asarray(part.p_signal, np.float64)

    def _unreadable(self, start: int, stop: int, why: str) -> SignalFileError:
        return SignalFileError(
            f"{self.name}: samples {start} to {stop} cannot be read ({why}); fetch the record's files again"
        )


def open_record(ref: RecordRef, *, leads: Sequence[str] | None = None) -> Record:
    """Open a record: read its header, check it against its signal files, choose leads.

    Parameters
    ----------
    ref : RecordRef
        From :func:`ecgmon.pipelines.sources.finding.resolve`.
    leads : sequence of str, optional
        Names or numbers (from 0) of the leads to read, in order; all that hold a voltage by default.

    Returns
    -------
    Record

    Raises
    ------
    SourceError
        One of :mod:`ecgmon.pipelines.sources.errors`.

    Notes
    -----
    A lead that cannot be used (no voltage, no gain) is left out with a note.  It is an error if it
    was requested or if no other lead is left.  Signals with several samples per frame are read at the frame rate, as the mean
    of each frame.  Records of several segments are read as one.
    """
    if ref.path is None:
        choose_leads(["MLII"], [None], leads, "toy")  # refuses any other lead
        return toy_record()
    stem, name = ref.path, ref.stream
    header = read_header(stem, name)
    check_fs(header.fs, name)
    parts = read_parts(header, stem, name)
    signals = next(part for part in parts if part is not None).header.signals
    problems = [lead_problem(parts, number, name) for number in range(len(signals))]
    channels, notes = choose_leads([signal.name for signal in signals], problems, leads, name)
    length, truncated, more = readable_length(header, parts, name)
    factors = np.array([millivolts(signals[channel].unit) for channel in channels], np.float64)
    return WfdbRecord(
        name=name,
        fs=float(header.fs),
        leads=tuple(signals[channel].name for channel in channels),
        length=length,
        notes=(*notes, *more),
        truncated=truncated,
        _stem=stem,
        _channels=tuple(channels),
        _millivolts=factors,
        _files=signal_files(header, stem.parent, channels, factors),
    )
