"""The segments of a record, and how many of the promised samples the files hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ecgmon.models.windows import FS, LENGTH
from ecgmon.pipelines.sources.errors import (
    HeaderError,
    LeadError,
    RecordTooShortError,
    RecordTruncatedError,
    SignalFileError,
    SignalFormatError,
)
from ecgmon.pipelines.sources.header import NO_FILE, Header, Segment, is_file, read_header
from ecgmon.pipelines.sources.signal_files import BLOCK_BYTES, COMPRESSED, DIFFERENCES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_NO_FORMAT: Final = "0"  # format of a layout's signals, which have no samples
_PADDING: Final = 2  # a file may be this many samples longer than its record, to fill the last block


@dataclass(frozen=True, slots=True)
class Part:
    """One segment of a record that has signals; a record of one segment is one part.

    Attributes
    ----------
    header : Header
    frames : int or None
        Whole frames in its signal files; None if the number is not known before reading.
    is_layout : bool
        Whether it only describes the leads of a variable record and has no samples.
    """

    header: Header
    frames: int | None
    is_layout: bool

    @property
    def skew(self) -> int:
        """Frames by which its most delayed signal is behind the others."""
        return max(signal.skew for signal in self.header.signals)


def read_parts(header: Header, stem: Path, name: str) -> list[Part | None]:
    """Read the headers of a record's segments; None stands for a segment without signal.

    Parameters
    ----------
    header : Header
        Header of the record.
    stem : Path
        Path of the record's files without suffix.
    name : str
        Name of the record in messages.

    Raises
    ------
    SourceError
        If the header or a signal file of a segment is missing, is invalid or does not fit the record.
    """
    if not header.segments:
        return [_part(header, stem.parent, name)]
    is_fixed = header.segments[0].length > 0
    if is_fixed and any(segment.name == NO_FILE for segment in header.segments):
        raise HeaderError(
            f"{name}: a segment without signal (~) needs a first segment of length 0 that lists the leads"
        )
    parts = [
        None if segment.name == NO_FILE else _segment(segment, header, stem, f"{name}, segment {segment.name}")
        for segment in header.segments
    ]
    with_signals = [part for part in parts if part is not None]
    if not with_signals:
        raise LeadError(f"{name}: none of its {len(parts)} segments has a signal")
    fewest, first = min(len(part.header.signals) for part in with_signals), len(with_signals[0].header.signals)
    if is_fixed and fewest < first:
        raise HeaderError(f"{name}: its first segment has {first} signals, another {fewest}; they must agree")
    return parts


def readable_length(
    header: Header, parts: Sequence[Part | None], name: str
) -> tuple[int, RecordTruncatedError | None, list[str]]:
    """Compare what a header promises with what the signal files hold.

    Returns
    -------
    length : int
        Number of samples that can be read from the beginning.
    truncated : RecordTruncatedError or None
    notes : list of str

    Raises
    ------
    HeaderError
        If the header does not give the number of samples.
    RecordTooShortError
        If there are fewer samples than a window needs.
    """
    promised = header.length
    if not promised:
        raise HeaderError(
            f"{name}: the header does not give the number of samples; "
            "write the number as the fourth field of its first line"
        )
    length, notes = 0, []
    segments = [segment.length for segment in header.segments] or [promised]
    for part, wanted in zip(parts, segments, strict=True):
        if part is None or part.frames is None or part.frames >= wanted:
            length += wanted
        else:
            length += max(part.frames - part.skew, 0)  # a skewed signal lacks samples for the last frames
            break
        if part is not None and part.frames is not None and part.frames > wanted + _PADDING and len(segments) == 1:
            notes.append(f"the header says {wanted} samples, the signal file holds {part.frames}; the rest is not read")
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
        "the rest is missing: fetch the signal file again, or correct the header"
    )
    return length, truncated, notes


def _segment(segment: Segment, header: Header, stem: Path, name: str) -> Part:
    """Read the header of a segment and check that it fits the record."""
    inner = read_header(stem.with_name(segment.name), name)
    if inner.segments:
        raise HeaderError(f"{name}: a segment cannot have segments; write the record as one segment")
    if segment.length and abs(inner.fs - header.fs) > 1e-6 * header.fs:
        raise HeaderError(f"{name}: sampled at {inner.fs} Hz, the record at {header.fs} Hz; they must agree")
    if segment.length and inner.length is None:
        raise HeaderError(
            f"{name}: its header does not give the number of samples; write {segment.length}, as the record says"
        )
    return _part(inner, stem.parent, name)


def _part(header: Header, folder: Path, name: str) -> Part:
    is_layout = all(signal.file == NO_FILE for signal in header.signals)
    for signal in header.signals:
        _check_format(signal.file, signal.fmt, name, is_layout=is_layout)
    return Part(header, None if is_layout else _whole_frames(header, folder, name), is_layout)


def _check_format(file: str, fmt: str, name: str, *, is_layout: bool) -> None:
    if fmt == DIFFERENCES:
        raise SignalFormatError(
            f"{name}: {file} is in format 8, which can only be read from the beginning; convert it (xform -f)"
        )
    if fmt not in BLOCK_BYTES and fmt not in COMPRESSED and not (is_layout and fmt == _NO_FORMAT):
        known = ", ".join([*BLOCK_BYTES, *COMPRESSED])
        raise SignalFormatError(f"{name}: {file} is in the unknown format {fmt!r}, expected one of {known}")


def _whole_frames(header: Header, folder: Path, name: str) -> int | None:
    """Count the whole frames in the signal files; None if the number is not known before reading."""
    frames: list[int] = []
    for file in _distinct(signal.file for signal in header.signals):
        inside = [signal for signal in header.signals if signal.file == file]
        formats = _distinct(signal.fmt for signal in inside)
        if len(formats) > 1:
            raise SignalFormatError(f"{name}: {file} has several formats, {' and '.join(formats)}; expected one")
        path = folder / file
        if not is_file(path):
            raise SignalFileError(f"{name}: signal file {file!r} is not in {folder}; put it beside its header")
        if formats[0] in COMPRESSED:
            continue
        block_bytes, block_samples = BLOCK_BYTES[formats[0]]
        samples = (path.stat().st_size - inside[0].offset) * block_samples // block_bytes
        frames.append(max(samples, 0) // sum(signal.samples_per_frame for signal in inside))
    return min(frames) if frames else None


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
