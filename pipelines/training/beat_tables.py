"""Tables of beats, for records without annotation files."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from ecgmon.pipelines.sources.annotations import Annotations
from ecgmon.pipelines.sources.errors import AnnotationError
from ecgmon.pipelines.sources.wfdb_record import open_record
from ecgmon.pipelines.training.classes import SYMBOL_CLASSES
from ecgmon.pipelines.training.dataset import DatasetError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from ecgmon.pipelines.sources.finding import RecordRef

LABELS: Final = {"normal": "N", "abnormal": "Q", "N": "N", "S": "S", "V": "V", "F": "F", "Q": "Q"}
"""Labels of a beat, and the symbol of each one's class.  An abnormal beat without a class is unclassifiable (Q)."""

PLACES: Final = ("sample", "time")
"""Columns for the R peak of a beat, as a sample index into the record or in seconds; a table has one of them."""

KINDS: Final = ("symbol", "label")
"""Columns for the class of a beat, as a WFDB annotation symbol or one of :data:`LABELS`; a table has one of them."""


class BeatTableError(DatasetError):
    """A table of beats that cannot be read or used."""

    __module__ = "ecgmon.errors"


@dataclass(frozen=True, slots=True, eq=False)
class BeatTable:
    """Beats of some records, in any order; made by :meth:`of` and :meth:`read`.

    Attributes
    ----------
    record : ndarray of str, shape (n,)
        Record of the beat: its path inside the folder, without suffix.
    place : ndarray of float64, shape (n,)
        R peak, in samples of the record or in seconds.
    in_seconds : bool
        Whether ``place`` is in seconds.
    symbol : ndarray of str, shape (n,)
        WFDB annotation symbol.
    patients : dict of str to str
        Patient of each record; empty if the table has no patients.
    """

    record: NDArray[np.str_]
    place: NDArray[np.float64]
    in_seconds: bool
    symbol: NDArray[np.str_]
    patients: dict[str, str]

    @property
    def records(self) -> tuple[str, ...]:
        """Names of the records, in the order of their first beats."""
        return tuple(dict.fromkeys(self.record.tolist()))

    @classmethod
    def of(cls, columns: Mapping[str, ArrayLike]) -> Self:
        """Make a table from columns of equal length.

        Parameters
        ----------
        columns : mapping of str to array
            ``record``; ``sample`` or ``time`` (in seconds); ``symbol`` (WFDB annotation symbols) or ``label``
            (``normal``, ``abnormal``, or a class: N, S, V, F, Q); optionally ``patient``.  Other columns are ignored.

        Raises
        ------
        BeatTableError
            If a column is missing, the columns differ in length, or a value is not valid.

        Examples
        --------
        >>> table = BeatTable.of({"record": ["a", "a"], "time": [0.5, 1.25], "label": ["normal", "V"]})
        >>> table.records, table.symbol.tolist()
        (('a',), ['N', 'V'])
        """
        place, kind = _only(columns, PLACES), _only(columns, KINDS)
        names = ["record", place, kind, *(["patient"] if "patient" in columns else [])]
        if "record" not in columns:
            raise BeatTableError(f"the table has the columns {', '.join(columns)}; 'record' is missing")
        arrays = {name: np.asarray(columns[name]) for name in names}
        if len({array.shape for array in arrays.values()}) != 1 or arrays["record"].ndim != 1:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
            raise BeatTableError(f"the columns differ in length: {shapes}; expected one value of each for every beat")
        if not len(arrays["record"]):
            raise BeatTableError("the table has no beats")
        record = np.char.strip(arrays["record"].astype(np.str_))
        return cls(
            record,
            _numbers(arrays[place], place),
            place == "time",
            _symbols(np.char.strip(arrays[kind].astype(np.str_)), kind),
            _patients(record, np.char.strip(arrays["patient"].astype(np.str_))) if "patient" in arrays else {},
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a table from a CSV file, or from a Parquet file (``.parquet``), which needs pyarrow; see :meth:`of`.

        Raises
        ------
        BeatTableError
            If the file cannot be read, or is not such a table.
        """
        try:
            return cls.of(_parquet(path) if path.suffix.lower() in {".parquet", ".pq"} else _csv(path))
        except (OSError, ValueError, csv.Error) as error:
            raise BeatTableError(f"the table of beats {path} cannot be read: {error}") from error
        except BeatTableError as error:
            raise BeatTableError(f"{path}: {error}") from error

    def annotations(self, name: str, ref: RecordRef) -> Annotations:
        """Return the beats of one record as annotations, in order of time.

        Raises
        ------
        ecgmon.pipelines.sources.errors.SourceError
            If the record cannot be opened, a beat lies outside it, or two beats lie at the same sample.
        """
        here = self.record == name
        record = open_record(ref)
        place = self.place[here]
        sample = np.round(place * record.fs if self.in_seconds else place).astype(np.int64)
        order = np.argsort(sample, kind="stable")
        sample = sample[order]
        if sample.size and not 0 <= sample[0] <= sample[-1] < record.length:
            wrong = int(sample[0] if sample[0] < 0 else sample[-1])
            raise AnnotationError(
                f"{name}: the table has a beat at sample {wrong}, but the record has 0 to {record.length - 1}"
            )
        if (np.diff(sample) == 0).any():
            raise AnnotationError(f"{name}: the table has two beats at sample {sample[:-1][np.diff(sample) == 0][0]}")
        return Annotations(sample, self.symbol[here][order], ("",) * len(sample))

    def fingerprint(self) -> str:
        """Return the SHA-256 of the table's contents."""
        digest = hashlib.sha256(f"{self.in_seconds} {sorted(self.patients.items())}".encode())
        for array in (self.record, self.symbol):
            digest.update("\n".join(array.tolist()).encode())
        digest.update(self.place.tobytes())
        return digest.hexdigest()


def _only(columns: Mapping[str, ArrayLike], wanted: tuple[str, ...]) -> str:
    found = [name for name in wanted if name in columns]
    if len(found) != 1:
        raise BeatTableError(
            f"the table has the columns {', '.join(columns)}; expected one of {' and '.join(wanted)}, "
            f"found {' and '.join(found) or 'neither'}"
        )
    return found[0]


def _numbers(values: NDArray[Any], name: str) -> NDArray[np.float64]:
    try:
        numbers = values.astype(np.float64)
    except ValueError as error:
        raise BeatTableError(f"the column {name!r} has a value that is not a number: {error}") from error
    if not np.isfinite(numbers).all() or (numbers < 0).any():
        wrong = int(np.flatnonzero(~np.isfinite(numbers) | (numbers < 0))[0])
        raise BeatTableError(f"the column {name!r} has {numbers[wrong]:g} in row {wrong + 1}; expected 0 or more")
    return numbers


def _symbols(values: NDArray[np.str_], kind: str) -> NDArray[np.str_]:
    known = LABELS if kind == "label" else dict.fromkeys(SYMBOL_CLASSES)
    folded = {name.lower(): symbol for name, symbol in LABELS.items()}
    unknown = [
        one
        for one in np.unique(values).tolist()
        if (one.lower() not in folded if kind == "label" else one not in known)
    ]
    if unknown and kind == "label":
        raise BeatTableError(f"the label {unknown[0]!r} is not known; expected one of {', '.join(LABELS)}")
    if unknown and not np.isin(values, list(known)).any():
        raise BeatTableError(
            f"none of the symbols, such as {unknown[0]!r}, stands for a beat; expected some of {''.join(known)}"
        )
    if kind == "symbol":
        return values
    return np.array([folded[value.lower()] for value in values.tolist()])


def _patients(record: NDArray[np.str_], patient: NDArray[np.str_]) -> dict[str, str]:
    patients: dict[str, str] = {}
    for name, other in zip(record.tolist(), patient.tolist(), strict=True):
        if patients.setdefault(name, other) != other:
            raise BeatTableError(f"the record {name!r} has the patients {patients[name]!r} and {other!r}; expected one")
    return patients


def _csv(path: Path) -> dict[str, list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file, skipinitialspace=True, strict=True)
        head = [name.strip() for name in next(reader, [])]
        rows = [row for row in reader if row]
    if wrong := [number for number, row in enumerate(rows, 2) if len(row) != len(head)]:
        raise BeatTableError(f"line {wrong[0]} has more or fewer fields than the first line, which has {len(head)}")
    return {name: [row[place] for row in rows] for place, name in enumerate(head)}


def _parquet(path: Path) -> dict[str, Any]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise BeatTableError(
            "reading Parquet needs pyarrow; pip install 'ecgmon[parquet]', or give a CSV file"
        ) from error
    table = pyarrow.parquet.read_table(path)
    return {name: table.column(name).to_numpy() for name in table.column_names}
