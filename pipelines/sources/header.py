"""Read a WFDB header and check every number in it.

wfdb parses the text.  It reads a gain of zero as 200 and accepts numbers of any size.  This module raises an error for
an implausible number, so that the code that reads samples need not check it again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ecgmon.pipelines.limits import FS_RANGE
from ecgmon.pipelines.sources.errors import HeaderError, RecordNotFoundError, SamplingRateError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MAX_HEADER_BYTES: Final = 1 << 20
"""Longest header.  The header of a record of 10,000 segments has 200 kB."""

MAX_SAMPLES: Final = 2**53
"""Most samples of a record: 285,000 years at 1000 Hz.  Floats cannot hold larger integers exactly."""

MAX_SAMPLES_PER_FRAME: Final = 1000
"""Most samples of one signal in a frame: 100 kHz at the lowest frame rate."""

MAX_SKEW: Final = 100_000
"""Most frames by which a signal is delayed against the others in its file: 100 s at 1000 Hz."""

NO_FILE: Final = "~"
"""The file name of a signal without samples, and the name of a segment without signals (HEADER(5))."""

_GAIN_FIELD: Final = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_PARSER_ERRORS: Final = (ValueError, IndexError, OverflowError)
"""What wfdb 4.3 raises for text that is not a header: for lines of another form, missing lines and infinite numbers."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal, as a line of a header describes it.

    Attributes
    ----------
    name : str
        Its description, or its number if it has none.
    file : str
        Name of its signal file; :data:`NO_FILE` if it has no samples.
    fmt : str
        Format of the file, see SIGNAL(5).
    samples_per_frame : int
    skew : int
        Frames by which it is delayed against the others in the file.
    offset : int
        Bytes before the first sample in the file (samples if the file is compressed).
    gain : float
        ADC units per ``unit``, as wfdb uses it: 200 if the header has none or zero.
    written_gain : float or None
        The gain as written in the header.
    baseline : int
        ADC units at 0 V.
    unit : str or None
    """

    name: str
    file: str
    fmt: str
    samples_per_frame: int
    skew: int
    offset: int
    gain: float
    written_gain: float | None
    baseline: int
    unit: str | None


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a record, as a line of its header describes it: a record name and a number of samples."""

    name: str
    length: int


@dataclass(frozen=True, slots=True)
class Header:
    """A header.  A record of one segment has signals here, a record of several has segments.

    Attributes
    ----------
    fs : float
        Sampling frequency in Hz: frames per second.
    length : int or None
        Samples of each signal; None if the header does not say.
    signals : tuple of Signal
    segments : tuple of Segment
    """

    fs: float
    length: int | None
    signals: tuple[Signal, ...]
    segments: tuple[Segment, ...]


def read_header(stem: Path, name: str) -> Header:
    """Read a header.

    Parameters
    ----------
    stem : Path
        Path of the record's files without suffix.
    name : str
        Name of the record in messages.

    Raises
    ------
    RecordNotFoundError
        If there is no such file.
    HeaderError
        If it cannot be read, or has implausible numbers.
    """
    import wfdb

    file = stem.with_name(f"{stem.name}.hea")
    if not is_file(file):
        raise RecordNotFoundError(f"{name}: there is no header {file}; check the record's name and folder")
    text = _header_text(file, name)
    try:
        parsed = wfdb.rdheader(str(stem))
    except _PARSER_ERRORS as error:
        raise HeaderError(
            f"{name}: {file.name} is not a WFDB header ({reason(error)}); see HEADER(5), or fetch it again"
        ) from error
    label = f"{name}: {file.name}"
    segments = _segments(parsed, label) if isinstance(parsed, wfdb.MultiRecord) else ()
    signals = () if segments else _signals(parsed, text, label)
    length = None if parsed.sig_len is None else _checked(parsed.sig_len, MAX_SAMPLES, "samples", label)
    return Header(parsed.fs, length, signals, segments)


def check_fs(fs: float, name: str) -> None:
    """Refuse a sampling frequency that the resampler does not support.

    Parameters
    ----------
    fs : float
        In Hz.
    name : str
        Name of the record in the message.

    Raises
    ------
    SamplingRateError
    """
    low, high = FS_RANGE
    if not low <= fs <= high:
        raise SamplingRateError(f"{name}: sampled at {fs} Hz, expected {low:g} to {high:g} Hz; resample it beforehand")


def is_file(path: Path) -> bool:
    """Return whether the file exists; False for a name that is too long for the system."""
    try:
        return path.is_file()
    except OSError:
        return False


def reason(error: Exception) -> str:
    """Describe an exception of a library or of the system in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).splitlines()
    return lines[0] if lines and lines[0] else type(error).__name__


def _header_text(file: Path, name: str) -> str:
    try:
        size = file.stat().st_size
        if size <= MAX_HEADER_BYTES:
            return file.read_text(encoding="ascii", errors="ignore")
    except OSError as error:
        raise HeaderError(f"{name}: {file.name} cannot be read ({reason(error)}); check its permissions") from error
    raise HeaderError(f"{name}: header {file.name} has {size} bytes, expected at most {MAX_HEADER_BYTES}")


def _segments(parsed: Any, label: str) -> tuple[Segment, ...]:  # noqa: ANN401 - wfdb ships no types
    _check_count(parsed.n_seg, len(parsed.seg_name), label)
    return tuple(
        Segment(name, _checked(length, MAX_SAMPLES, "samples in a segment", label))
        for name, length in zip(parsed.seg_name, parsed.seg_len, strict=True)
    )


def _signals(parsed: Any, text: str, label: str) -> tuple[Signal, ...]:  # noqa: ANN401
    _check_count(parsed.n_sig, len(parsed.fmt or []), label)
    gains = _written_gains(text, parsed.n_sig)
    made = []
    for k in range(parsed.n_sig):
        samples = parsed.samps_per_frame[k]
        made.append(
            Signal(
                name=parsed.sig_name[k] or f"signal {k}",
                file=parsed.file_name[k],
                fmt=parsed.fmt[k],
                samples_per_frame=_checked(
                    1 if samples is None else samples, MAX_SAMPLES_PER_FRAME, "samples in a frame", label, least=1
                ),
                skew=_checked(parsed.skew[k] or 0, MAX_SKEW, "frames of skew", label),
                offset=_checked(parsed.byte_offset[k] or 0, MAX_SAMPLES, "bytes of offset", label),
                gain=parsed.adc_gain[k],
                written_gain=gains[k],
                baseline=_checked(parsed.baseline[k] or 0, MAX_SAMPLES, "as a baseline", label, least=-MAX_SAMPLES),
                unit=parsed.units[k],
            )
        )
    return tuple(made)


def _check_count(promised: int, found: int, label: str) -> None:
    if found != promised or not promised:
        raise HeaderError(
            f"{label} promises {promised} signals or segments but describes {found}; "
            "it needs one line for each, and at least one"
        )


def _checked(value: int, most: int, what: str, label: str, *, least: int = 0) -> int:
    if not least <= value <= most:
        shown = str(value) if abs(value) < 10**20 else f"{str(value)[:20]}..."
        raise HeaderError(f"{label} says {shown} {what}, expected {least} to {most}; correct it, or fetch it again")
    return value


def _written_gains(text: str, n_sig: int) -> Sequence[float | None]:
    """Gains as written in a header, in ADC units per physical unit; None for a line without a gain."""
    lines = [line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    gains: list[float | None] = []
    for line in lines[1 : 1 + n_sig]:
        fields = line.split()
        match = _GAIN_FIELD.match(fields[2]) if len(fields) > 2 else None  # noqa: PLR2004 - file, format, gain
        gains.append(float(match[0]) if match else None)
    return gains
