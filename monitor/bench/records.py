"""Default records: the built-in one, repeated on disk until it is long enough for a measurement at full speed."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from ecgmon.pipelines.sources.finding import TOY_NAMES, RecordRef
from ecgmon.pipelines.sources.wfdb_record import open_record

if TYPE_CHECKING:
    from collections.abc import Iterator

STREAMS: Final = 8
"""Number of records that are written."""

_TIMES: Final = 6  # how often each repeats the built-in one: half an hour, as in MIT-BIH
_GAIN, _BASELINE = 200.0, 1024  # units per mV, and the unit of 0 mV: as in MIT-BIH, so that no sample is rounded


@contextmanager
def written() -> Iterator[list[RecordRef]]:
    """Write the built-in record as WFDB records of format 212, each with another start; remove them afterwards.

    Raises
    ------
    SourceError
        If the built-in record is missing.
    OSError
        If the records cannot be written.
    """
    import wfdb

    record = open_record(RecordRef(TOY_NAMES[0], None))
    samples = np.round(_GAIN * record.read(0, record.length) + _BASELINE).astype(np.int64)
    with tempfile.TemporaryDirectory(prefix="ecgmon-bench-") as name:
        refs = []
        for number in range(STREAMS):
            stream = f"half_hour_{number}"
            wfdb.wrsamp(
                stream,
                fs=record.fs,
                units=["mV"] * len(record.leads),
                sig_name=list(record.leads),
                d_signal=np.tile(np.roll(samples, number * len(samples) // STREAMS, axis=0), (_TIMES, 1)),
                fmt=["212"] * len(record.leads),
                adc_gain=[_GAIN] * len(record.leads),
                baseline=[_BASELINE] * len(record.leads),
                write_dir=name,
            )
            refs.append(RecordRef(stream, Path(name, stream)))
        yield refs
