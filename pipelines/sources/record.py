"""Sources of samples for producers and for the offline commands.

A source is a part of a record, cut into chunks.  It uses no clock: a caller that replays at a given
speed waits between the chunks.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol, Self

import numpy as np

from ecgmon.models.windows import FS, LENGTH
from ecgmon.pipelines.sources.errors import RangeError, RecordTooShortError, SignalFileError
from ecgmon.pipelines.sources.wfdb_record import open_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ecgmon.pipelines.sources.finding import RecordRef
    from ecgmon.pipelines.sources.interfaces import Record

CHUNK_SECONDS: Final = 0.25
"""Default length of a chunk in seconds: a typical packet of a bedside monitor."""

BLOCK_SECONDS: Final = 120.0
"""Most signal in one read from disk, in seconds, so that a day of twelve leads is never in memory."""

BLOCK_CHUNKS: Final = 8
"""Most chunks in one read from disk: a thousand streams in real time hold 2 s each in memory."""

_TIME: Final = re.compile(r"((?P<hours>\d+):(?=\d+:))?((?P<minutes>\d+):)?(?P<seconds>\d+(\.\d*)?)")


class Source(Protocol):
    """Samples of one stream, from 0 on."""

    @property
    def stream(self) -> str:
        """Stream id."""

    @property
    def fs(self) -> float:
        """Sampling frequency in Hz."""

    @property
    def leads(self) -> tuple[str, ...]:
        """Names of the leads, in the order of the samples' columns."""

    @property
    def length(self) -> int | None:
        """Samples in the whole stream; None for an endless stream."""

    def chunks(self, seconds: float = CHUNK_SECONDS) -> Iterator[NDArray[np.float32]]:
        """Yield the samples in order, shape (n, leads), in mV, NaN where missing."""

    def at(self, sample: int) -> Self:
        """Return the same stream with its chunks starting at a sample index."""


@dataclass(frozen=True, slots=True)
class RecordSource:
    """A record, or a part of it, as a stream: see :class:`Source`; :func:`open_source` makes it.

    Attributes
    ----------
    stream : str
    record : Record
    first, stop : int
        The part that is streamed, as sample indices into the record.  Sample 0 of the stream is
        sample ``first`` of the record.
    loop : int
        How many times the part is streamed, without a gap between; 0 means forever.
    position : int
        Sample index in the stream at which :meth:`chunks` begins.
    """

    stream: str
    record: Record
    first: int
    stop: int
    loop: int = 1
    position: int = 0

    @property
    def fs(self) -> float:
        """Sampling frequency in Hz."""
        return self.record.fs

    @property
    def leads(self) -> tuple[str, ...]:
        """Names of the leads, in the order of the samples' columns."""
        return self.record.leads

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user about the record, one line each."""
        return self.record.notes

    @property
    def length(self) -> int | None:
        """Samples in the whole stream, independent of ``position``; None for an endless stream."""
        return (self.stop - self.first) * self.loop or None

    def at(self, sample: int) -> Self:
        """Return the same stream with its chunks starting at a sample index; reads nothing.

        Parameters
        ----------
        sample : int
            From 0 to ``length``, inclusive.

        Raises
        ------
        RangeError
            If the index is outside the stream.
        """
        if sample < 0 or (self.length is not None and sample > self.length):
            raise RangeError(f"{self.stream}: cannot start at sample {sample}; the stream has 0 to {self.length}")
        return replace(self, position=sample)

    def chunks(self, seconds: float = CHUNK_SECONDS, *, phase: int = 0) -> Iterator[NDArray[np.float32]]:
        """Yield the samples from ``position`` on.

        Parameters
        ----------
        seconds : float
            Longest chunk; a chunk has at least one sample.
        phase : int
            Number of chunks by which the first block is shorter, modulo its length.  Streams with different phases
            read from the disk at different times.

        Yields
        ------
        ndarray of float32, shape (n, leads)
            In mV, NaN where missing.

        Raises
        ------
        RecordTruncatedError
            After the last available sample of a record whose header promises more.
        SignalFileError
            If samples cannot be read.
        """
        step = max(1, round(seconds * self.fs))
        # A block holds whole chunks, so that only the last chunk of a pass is shorter.
        block = step * max(1, min(BLOCK_CHUNKS, math.floor(BLOCK_SECONDS * self.fs / step)))
        part = self.stop - self.first
        done, offset = divmod(self.position, part)
        size = block - step * (phase % (block // step))
        while self.loop == 0 or done < self.loop:
            start = self.first + offset
            while start < self.stop:
                samples = self.record.block(start, min(start + size, self.stop))
                for begin in range(0, len(samples), step):
                    yield samples[begin : begin + step]
                start, size = start + size, block
            if self.record.truncated is not None and self.stop == self.record.length:
                raise self.record.truncated
            done, offset = done + 1, 0

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Read a part of the stream's first pass, for a picture.

        Parameters
        ----------
        start, stop : int
            Sample indices into the stream; clipped to the stream.

        Returns
        -------
        ndarray of float32, shape (n, leads)
            In mV, NaN where missing.
        """
        begin, end = self.first + max(start, 0), min(self.first + stop, self.stop)
        if begin >= end:
            return np.empty((0, len(self.leads)), np.float32)
        return self.record.read(begin, end)


def open_source(
    ref: RecordRef,
    *,
    leads: Sequence[str] | None = None,
    start: float = 0.0,
    stop: float | None = None,
    loop: int = 1,
) -> RecordSource:
    """Open a record, or a part of it, as a stream.

    Parameters
    ----------
    ref : RecordRef
        From :func:`ecgmon.pipelines.sources.finding.resolve`.
    leads : sequence of str, optional
        Names or numbers (from 0) of the leads to read; all that hold a voltage by default.
    start, stop : float
        Part of the record in seconds; ``stop`` may be beyond the end.
    loop : int
        How many times to stream the part; 0 means forever.

    Raises
    ------
    SourceError
        One of :mod:`ecgmon.pipelines.sources.errors`.
    """
    try:
        record = open_record(ref, leads=leads)
    except OSError as error:  # a folder without permission, a failing disk
        raise SignalFileError(
            f"{ref.stream}: its files cannot be read ({error.strerror or error}); check their permissions"
        ) from error
    fs, seconds = record.fs, record.length / record.fs
    if loop < 0:
        raise RangeError(
            f"{ref.stream}: cannot be repeated {loop} times; expected 1 or more, or 0 to repeat without end"
        )
    if not (0 <= start < seconds) or (stop is not None and not stop > start):
        raise RangeError(
            f"{ref.stream}: no samples from {start:g} s to {'the end' if stop is None else f'{stop:g} s'}; "
            f"the record has 0 to {seconds:.2f} s"
        )
    first = round(start * fs)
    last = record.length if stop is None else min(round(stop * fs), record.length)
    if (last - first) * FS < LENGTH * fs:
        raise RecordTooShortError(
            f"{ref.stream}: {(last - first) / fs:.2f} s from {start:g} s on is too short; "
            f"one window needs {LENGTH / FS:.2f} s, so choose a longer part"
        )
    return RecordSource(ref.stream, record, first, last, loop)


def parse_time(text: str) -> float:
    """Parse a time that a user typed.

    Parameters
    ----------
    text : str
        Seconds, ``MM:SS`` or ``HH:MM:SS``; the seconds may have a fraction.

    Returns
    -------
    float
        In seconds.

    Raises
    ------
    RangeError
        If the text has none of these forms.

    Examples
    --------
    >>> parse_time("1:30"), parse_time("90.5"), parse_time("24:00:00")
    (90.0, 90.5, 86400.0)
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise RangeError(f"{text!r} is not a time; expected seconds (90), MM:SS (1:30) or HH:MM:SS (0:01:30)")
    hours, minutes, seconds = int(match["hours"] or 0), int(match["minutes"] or 0), float(match["seconds"])
    if (match["minutes"] is not None and seconds >= 60) or (match["hours"] is not None and minutes >= 60):  # noqa: PLR2004
        raise RangeError(f"{text!r} is not a time; minutes and seconds after a colon must stay under 60")
    return 3600.0 * hours + 60.0 * minutes + seconds


def format_time(seconds: float) -> str:
    """Format a time as ``M:SS.hh`` or ``H:MM:SS.hh``, which :func:`parse_time` reads.

    Parameters
    ----------
    seconds : float
        Not negative.

    Examples
    --------
    >>> format_time(90.5), format_time(3600)
    ('1:30.50', '1:00:00.00')
    """
    minutes, hundredths = divmod(round(seconds * 100), 6000)
    hours, minutes = divmod(minutes, 60)
    tail = f"{hundredths // 100:02d}.{hundredths % 100:02d}"
    return f"{hours}:{minutes:02d}:{tail}" if hours else f"{minutes}:{tail}"
