"""Arrays as a source: samples in memory, read in the same way as a record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from ecgmon.models.windows import FS, LENGTH
from ecgmon.pipelines.limits import FS_RANGE
from ecgmon.pipelines.sources.errors import LeadError, RecordTooShortError, SamplingRateError, SignalFormatError
from ecgmon.pipelines.sources.finding import resolve
from ecgmon.pipelines.sources.memory_record import MemoryRecord
from ecgmon.pipelines.sources.record import RecordSource, open_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

ARRAY_STREAM: Final = "array"
"""Stream id of samples without a name."""

MOST_LEADS: Final = 2
"""Most leads of an array. More are not used, and many columns usually mean a transposed array."""

_DIMENSIONS: Final = (1, 2)


def source_of(
    x: ArrayLike | str | Path, fs: float | None = None, *, leads: Sequence[str] | None = None
) -> RecordSource:
    """Open samples, or a record by its name, as a source.

    Parameters
    ----------
    x : array_like of float, shape (samples,) or (samples, leads), or str or Path
        Samples in mV, NaN where missing; or the name of a record, see :mod:`ecgmon.pipelines.sources.finding`.
    fs : float, optional
        Sampling frequency in Hz.  Required for samples; refused for a record, whose header has it.
    leads : sequence of str, optional
        For samples: the name of each column, ``1``, ``2`` by default.  For a record: the leads to read.

    Raises
    ------
    SourceError
        If the samples, the rate or the names cannot be used, or the record cannot be opened.
    """
    if isinstance(x, str | Path):
        if fs is not None:
            raise SamplingRateError(
                f"{x}: fs={fs:g} was given, but the record's header has the sampling frequency; leave fs out"
            )
        refs = resolve([str(x)])
        if len(refs) != 1:
            raise SignalFormatError(f"{x}: {len(refs)} records are in this folder; name one of them")
        return open_source(refs[0], leads=leads)
    if fs is None:
        raise SamplingRateError("samples were given without their sampling frequency; give fs in Hz, such as fs=360")
    samples = np.asarray(x)
    if not np.issubdtype(samples.dtype, np.floating):
        raise SignalFormatError(f"the samples are {samples.dtype}, expected floats in mV; divide ADC units by the gain")
    if samples.ndim not in _DIMENSIONS or (samples.ndim > 1 and not 1 <= samples.shape[1] <= MOST_LEADS):
        raise SignalFormatError(
            f"the samples have shape {samples.shape}, expected (samples,) or (samples, leads) with 1 or 2 leads; "
            "transpose them, or choose the columns"
        )
    if not FS_RANGE[0] <= fs <= FS_RANGE[1]:
        raise SamplingRateError(f"fs={fs:g} Hz is out of range; expected {FS_RANGE[0]:g} to {FS_RANGE[1]:g} Hz")
    columns = samples.reshape(len(samples), -1).astype(np.float32, copy=False)
    names = tuple(f"{number + 1}" for number in range(columns.shape[1])) if leads is None else tuple(leads)
    if len(names) != columns.shape[1] or len(set(names)) != len(names):
        raise LeadError(
            f"leads={list(names)}: expected {columns.shape[1]} different names, one for each column of the samples"
        )
    if len(columns) * FS < LENGTH * fs:
        raise RecordTooShortError(
            f"{len(columns) / fs:.2f} s of samples are too short; one window needs {LENGTH / FS:.2f} s"
        )
    return RecordSource(ARRAY_STREAM, MemoryRecord(ARRAY_STREAM, float(fs), names, columns), 0, len(columns))
