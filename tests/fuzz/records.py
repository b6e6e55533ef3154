"""Damaged record files."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from ecgmon.pipelines.sources.errors import SourceError
from ecgmon.pipelines.sources.finding import RecordRef
from tests.fuzz.damage import AcceptedError, damage_bytes

if TYPE_CHECKING:
    import random

_SAMPLES: Final = 720
_FORMATS: Final = ("16", "24", "32", "61", "80", "160", "212", "310", "311", "8", "508", "516", "524", "0", "999", "x")
_NUMBERS: Final = (
    "0", "-1", "1", "2", "3", "360", "0.5", "100.0", "99.9", "1000", "1e3", "1e400", "nan", "inf", "-inf", "4294967296",
    "9223372036854775808", "9" * 400, "0x10", "", "1_0", "360/1000", "360/1000(5)", "½",
)  # fmt: skip
_FIELDS: Final = (
    "~", "r.dat", "r", "x.dat", "../r.dat", "/etc/passwd", "212x2", "212x0", "212x99999999", "212:5", "212:-5", "212+4",
    "212+99999999999", "16x2:1+3", "0/mV", "-0(0)/mV", "1e-9/mV", "200(5)/uV", "200(-99999999999)/V", "200/", "200()/mV", "nan/mV",
    "inf/mV", "200/mmHg", "200/\u03bcV", "r/2", "r/99999", "r/0", "~ 720", "r 720", "s 720", "r_layout 0", "12:00:00", "99:99:99",
    "31/02/2020", "MLII", "#", "# <age>: 80", "\t", "\0", "\udc80", "A" * 5000, "%s%n", "s3://x/y",
)  # fmt: skip

_GAINS: Final = (
    "0",
    "0/mV",
    "-200/mV",
    "1e-9/mV",
    "1e300/mV",
    "1e9999/mV",
    "200/mmHg",
    "200(9999999999)/mV",
    "0.5/uV",
    "1/V",
)

_SEGMENTED: Final = "r/2 2 360 1440\nr_a 720\nr_a 720\n"
_VARIABLE: Final = "r/3 2 360 1440\nr_layout 0\nr_a 720\n~ 720\n"
_LAYOUT: Final = "r_layout 2 360 0\n~ 0 200/mV 12 0 0 0 0 MLII\n~ 0 200/mV 12 0 0 0 0 V1\n"


@dataclass(frozen=True)
class _RecordFiles:
    plain: str
    samples: bytes
    annotations: bytes
    compressed_header: str
    compressed: bytes


@cache
def _record() -> _RecordFiles:
    import wfdb

    with tempfile.TemporaryDirectory() as name:
        steps = np.random.default_rng(1).integers(-400, 400, (_SAMPLES, 2))
        wfdb.wrsamp(
            "r", 360, ["mV"] * 2, ["MLII", "V1"], d_signal=steps, fmt=["212"] * 2, adc_gain=[200.0] * 2, baseline=[0] * 2,
            write_dir=name,
        )  # fmt: skip
        at = np.array([5, 50, 300, 301, 500, 719])
        notes = ["(N", "", "a longer note", "", "", ""]
        wfdb.wrann("r", "atr", at, symbol=list("+NVN|N"), aux_note=notes, fs=360, write_dir=name)
        files = Path(name)
        plain, data = (files / "r.hea").read_text(), (files / "r.dat").read_bytes()
        wfdb.wrsamp(
            "r", 360, ["mV"] * 2, ["MLII", "V1"], d_signal=steps, fmt=["516"] * 2, adc_gain=[200.0] * 2, baseline=[0] * 2,
            write_dir=name,
        )  # fmt: skip
        return _RecordFiles(
            plain,
            data,
            (files / "r.atr").read_bytes(),
            (files / "r.hea").read_text(),
            (files / "r.dat").read_bytes(),
        )


def _damaged_header(text: str, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 3))):
        lines = text.split("\n")
        at = rng.randrange(len(lines))
        what = rng.randrange(9)
        fields = lines[at].split(" ")
        if what <= 3:
            fields[rng.randrange(len(fields))] = rng.choice(rng.choice((_FIELDS, _NUMBERS, _FORMATS)))
            lines[at] = " ".join(fields)
        elif what == 4:
            del fields[rng.randrange(len(fields)) :]
            lines[at] = " ".join(fields)
        elif what == 5:
            lines[at:at] = [lines[rng.randrange(len(lines))]] * rng.choice((1, 2, 50))
        elif what == 6:
            del lines[at]
        elif what == 7:
            gain = rng.choice(_GAINS)
            lines = [re.sub(r"200\S*/mV", gain, line) for line in lines]  # of one lead alone, it would be left out
        else:
            raw = damage_bytes(text.encode("utf-8", "surrogateescape"), rng)
            lines = raw.decode("utf-8", "surrogateescape").split("\n")
        text = "\n".join(lines)
    return text.encode("utf-8", "surrogateescape")


def record_case(rng: random.Random, folder: Path) -> str:
    """Open and read one damaged record, or its annotations."""
    from ecgmon.pipelines.sources.annotations import read_annotations
    from ecgmon.pipelines.sources.wfdb_record import open_record

    good = _record()
    header, samples, annotations = good.plain.encode(), good.samples, good.annotations
    inner = layout = b""
    what = rng.randrange(12)
    if what <= 3:
        header = _damaged_header(good.plain, rng)
    elif what >= 10:
        header, samples = good.compressed_header.encode(), good.compressed
        if what == 10:
            header = _damaged_header(good.compressed_header, rng)
        else:
            samples = damage_bytes(samples, rng)
    elif what <= 5:
        header = (_SEGMENTED if what == 4 else _VARIABLE).encode()
        inner, layout = good.plain.replace("r 2", "r_a 2", 1).encode(), _LAYOUT.encode()
        chosen = rng.randrange(3)
        if chosen == 0:
            header = _damaged_header(header.decode(), rng)
        elif chosen == 1:
            inner = _damaged_header(inner.decode(), rng)
        else:
            layout = _damaged_header(layout.decode(), rng)
    elif what == 6:
        samples = damage_bytes(samples, rng)
    else:
        annotations = damage_bytes(annotations, rng)
    for name, data in {
        "r.hea": header, "r.dat": samples, "r.atr": annotations, "r_a.hea": inner, "r_layout.hea": layout,
    }.items():  # fmt: skip
        (folder / name).write_bytes(data)
    ref = RecordRef("r", folder / "r")
    try:
        if 7 <= what <= 9:
            found = read_annotations(ref)
            if not len(found.sample) == len(found.symbol) == len(found.note):
                raise AcceptedError("annotations of unequal length")
            return "accepted"
        record = open_record(ref)
        if not (100 <= record.fs <= 1000 and record.leads and record.length > 0):
            raise AcceptedError("an impossible record")
        stop = min(record.length, 2 * _SAMPLES)
        block = record.read(max(0, stop - 400), stop)
        if block.shape[1] != len(record.leads) or np.isinf(block).any():
            raise AcceptedError("impossible samples")
    except SourceError as error:
        return type(error).__name__
    return "accepted"
