"""Read the annotations of a record, and refuse annotations that belong to another record."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ecgmon.pipelines.sources.errors import AnnotationError
from ecgmon.pipelines.sources.header import is_file, read_header, reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgmon.pipelines.sources.finding import RecordRef

# Codes in the upper six bits of a word (ANNOT(5)). Codes of 60 and above add to the annotation before them.
_SKIP: Final = 59
_NOTE: Final = 63

_RATE: Final = re.compile(r"## time resolution: \d+\.?\d*")
_DEFINITIONS: Final = "## annotation type definitions"
_DEFINITIONS_END: Final = "## end of definitions"

_PARSER_ERRORS: Final = (ValueError, IndexError)
"""What wfdb 4.3 raises if the definitions of annotation types have no end, or lack a number, symbol or text."""


@dataclass(frozen=True, slots=True)
class Annotations:
    """Annotations of a record, in order of their samples.

    Attributes
    ----------
    sample : ndarray of int64, shape (n,)
        Sample indices into the record.
    symbol : ndarray of str, shape (n,)
        WFDB annotation symbols, such as ``N`` and ``V``.
    note : tuple of str
        Auxiliary text of each annotation; usually empty.
    """

    sample: NDArray[np.int64]
    symbol: NDArray[np.str_]
    note: tuple[str, ...]


def read_annotations(ref: RecordRef, extension: str = "atr") -> Annotations:
    """Read the annotations of a record and check that they belong to it.

    Parameters
    ----------
    ref : RecordRef
    extension : str
        Suffix of the annotation file (WFDB: the annotator): ``atr`` for reference annotations,
        ``ecg`` for those that ``ecgmon score`` writes.

    Raises
    ------
    AnnotationError
        If the file does not exist, cannot be read, has another sampling frequency than the record, or
        has annotations outside the record.
    SourceError
        If the record's header cannot be read.
    """
    import wfdb

    if ref.path is None:
        raise AnnotationError(f"{ref.stream}: the built-in record has no annotations; name MIT-BIH 208 instead")
    header = read_header(ref.path, ref.stream)
    file = ref.path.with_name(f"{ref.path.name}.{extension}")
    label = f"{ref.stream}: annotation file {file.name}"
    if not is_file(file):
        raise AnnotationError(f"{label} is not in {file.parent}; fetch it or name another annotator")
    _check_definitions(list(_notes(_contents(file, label), label)), label)
    try:
        read = wfdb.rdann(str(ref.path), extension)
    except _PARSER_ERRORS as error:
        raise AnnotationError(f"{label} cannot be read ({reason(error)}); fetch it again") from error
    sample = np.asarray(read.sample, np.int64)
    if read.fs is not None and abs(read.fs - header.fs) > 1e-6 * header.fs:
        raise AnnotationError(f"{label} is for {read.fs} Hz, but the record has {header.fs} Hz; use that record's own")
    if sample.size and (sample.min() < 0 or (header.length and sample.max() >= header.length)):
        wrong = int(sample.min() if sample.min() < 0 else sample.max())
        raise AnnotationError(
            f"{label} has an annotation at sample {wrong}, but the record has {header.length} samples; "
            "use that record's own"
        )
    return Annotations(sample, np.asarray(read.symbol, np.str_), tuple(text.rstrip("\0") for text in read.aux_note))


def _contents(file: Path, label: str) -> bytes:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise AnnotationError(f"{label} cannot be read ({reason(error)}); check its permissions") from error
    if not data:
        raise AnnotationError(f"{label} is empty; fetch it again")
    if len(data) % 2:
        raise AnnotationError(f"{label} has {len(data)} bytes, expected an even number; fetch it again")
    return data


def _notes(data: bytes, label: str) -> Iterator[str]:
    """Yield the note of each annotation in a file, or an empty string for an annotation without one.

    Raises
    ------
    AnnotationError
        If the file ends inside an annotation, or an annotation has two notes: wfdb would add the second note
        to another annotation.
    """
    at = 0

    def code() -> int:
        if at + 1 >= len(data):
            raise AnnotationError(f"{label} has {len(data)} bytes and ends inside an annotation; fetch it again")
        return data[at + 1] >> 2

    while at < len(data) - 2:  # the last word marks the end
        while code() == _SKIP:
            at += 6
        code()
        at += 2
        note: str | None = None
        while (kind := code()) > _SKIP:
            length = data[at] if kind == _NOTE else 0
            if kind == _NOTE:
                if note is not None:
                    raise AnnotationError(f"{label} has a second note for one annotation, at byte {at}; fetch it again")
                note = data[at + 2 : at + 2 + length].decode("latin-1")
            at += 2 + length + length % 2
        yield note or ""


def _check_definitions(notes: Sequence[str], label: str) -> None:
    """Refuse notes that only look like definitions: wfdb 4.3 would search for their end in an endless loop."""
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
            raise AnnotationError(
                f"{label} cannot be read (the note {note[:40]!r} starts like a definition but is not one); fetch it again"
            )
