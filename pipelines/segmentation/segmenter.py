"""Cut a stream of samples into beats and seconds, as the samples arrive.

The stages: choose the leads, hold missing samples, bring everything to 360 Hz
(:mod:`ecgmon.pipelines.segmentation.resampling`), find the beats (:mod:`ecgmon.pipelines.segmentation.qrs`), judge the signal
(:mod:`ecgmon.pipelines.segmentation.quality`), cut and filter the windows (:mod:`ecgmon.models.windows`).

Every stage depends only on the samples, not on the chunks in which they arrive: the items are the same, bit for
bit, in chunks of one sample and of a million.
"""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
import numpy as np

from ecgmon.models.windows import MOST_LEADS, PREFERRED_LEADS, taps
from ecgmon.pipelines.items import ITEM, Items, Kind
from ecgmon.pipelines.limits import FS_RANGE
from ecgmon.pipelines.segmentation import qrs
from ecgmon.pipelines.segmentation.qrs import QrsSettings
from ecgmon.pipelines.segmentation.resampling import Resampler
from ecgmon.pipelines.segmentation.stages import (
    ENVELOPE,
    FLUSH_SECONDS,
    MOST_KEPT,
    OWN,
    QRS,
    QRS_INTERVALS,
    STATE,
    Constants,
    Rate,
    bytes_of_sample,
    cut,
    hold,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

STREAMS_ALIKE: Final = 256
"""Kinds of streams (sampling frequency, leads, settings) whose constants are cached; a stream always keeps its own."""

_MAGIC: Final = b"ecgmon segmenter 6\n"
_CHECK: Final = struct.Struct("<II")  # CRC-32 of everything after it, length of the header


class SegmentationError(ValueError):
    """A stream cannot be segmented as asked, or a snapshot is not one of a segmenter."""

    __module__ = "ecgmon.errors"


class SegmentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of a segmenter.

    Attributes
    ----------
    qrs : QrsSettings
        Figures of the beat detector.
    """

    qrs: QrsSettings = QrsSettings()


DEFAULT_SETTINGS: Final = SegmentSettings()


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Header of a snapshot: the stream, the settings and the counters."""

    fs: float
    leads: list[str]
    settings: SegmentSettings
    kept: int
    samples: int
    finished: bool


class _Kind(msgspec.Struct, frozen=True):
    """Constants that streams with the same sampling frequency, leads and settings share."""

    fs: float
    names: tuple[str, ...]
    settings: SegmentSettings
    columns: NDArray[np.int64]
    leads: tuple[str, ...]
    substituted: bool
    rate: Rate
    block: int
    """Input samples that give at most one block at 360 Hz."""
    constants: Constants
    nothing: Items


def chosen_leads(names: Sequence[str]) -> tuple[int, ...]:
    """Choose the leads of a window: MLII, else II, else the first, and beside it the first of the others.

    Parameters
    ----------
    names : sequence of str
        Names of a stream's leads.

    Returns
    -------
    tuple of int
        At most :data:`MOST_LEADS` columns, the lead that is scored first.

    Examples
    --------
    >>> chosen_leads(["V5", "I", "II"])
    (2, 0)
    """
    preferred = [lead for lead in PREFERRED_LEADS if lead in names]
    first = list(names).index(preferred[0]) if preferred else 0
    others = [column for column in range(len(names)) if column != first]
    return tuple([first, *others][:MOST_LEADS])


@lru_cache(maxsize=STREAMS_ALIKE)
def _kind(fs: float, names: tuple[str, ...], settings: SegmentSettings) -> _Kind:
    """Choose the leads and compute the constants of a kind of stream.

    Raises
    ------
    SegmentationError
    """
    low, high = FS_RANGE
    if not low <= fs <= high:
        raise SegmentationError(
            f"sampling frequency {fs} Hz is outside {low:g} to {high:g} Hz; resample the source first"
        )
    if not names:
        raise SegmentationError("the stream has no leads; at least one is needed")
    columns = np.array(chosen_leads(names), np.int64)
    resampler = Resampler(fs, len(columns), 2 * len(columns))
    up, down = resampler.up, resampler.down
    return _Kind(
        fs=fs,
        names=names,
        settings=settings,
        columns=columns,
        leads=tuple(names[column] for column in columns),
        substituted=not set(PREFERRED_LEADS) & set(names),
        rate=(up, down, resampler.half),
        block=max(1, qrs.BLOCK * down // up),
        constants=(taps(), qrs.gabor(), qrs.settings_array(settings.qrs)),
        nothing=Items.empty(len(columns)),
    )


class Segmenter:
    """Segment one stream: push samples, get items.

    Parameters
    ----------
    fs : float
        Sampling frequency in Hz, within :data:`ecgmon.pipelines.limits.FS_RANGE`; it may be fractional.
    leads : sequence of str
        Names of the stream's leads, in the order of its columns.
    settings : SegmentSettings
        Settings of the methods.

    Attributes
    ----------
    lead : str
        The lead that is scored, the first of each window: MLII, else II, else the stream's first.
    leads : tuple of str
        The leads of each window: ``lead`` and, where the stream has one, a second.
    substituted : bool
        True where ``lead`` is neither MLII nor II: the model has not learnt such a lead.

    Raises
    ------
    SegmentationError
        If the rate is out of range or there is no lead.

    Notes
    -----
    *Delay.*  ``ready`` names the last input sample that an item depends on.  A beat has to wait for
    its window, 0.8 s after its R peak with the filter's margin, and for its detection, about 0.7 s; beats found by
    searching back come later.  A second comes 1 s after its end.  Resampling adds its filter's half length.

    *Missing samples.*  NaN, infinities and absurd values are replaced by the value before them; what they affect is
    marked :attr:`~ecgmon.pipelines.items.Quality.MISSING`.

    *Start and end.*  The stream is treated as if it had its first value before its first sample, so that early beats
    have windows too.  Where a stream ends within a window, its last value is held, and the beat's quality says that
    samples are missing.
    """

    __slots__ = ("_finished", "_fixed", "_kind", "_recent", "_resampler", "_samples")

    def __init__(self, fs: float, leads: Sequence[str], *, settings: SegmentSettings = DEFAULT_SETTINGS) -> None:
        self._kind = kind = _kind(float(fs), tuple(leads), settings)
        count = len(kind.columns)
        up, down, _ = kind.rate
        self._resampler = None if up == down else Resampler(fs, count, 2 * count)
        self._samples = 0  # taken, in the stream's own rate
        self._finished = False
        self._fixed = np.zeros(ENVELOPE + 4 * count * qrs.ENVELOPE_KEPT, np.uint8)
        qrs.begin(self._fixed[QRS].view(qrs.STATE), self._fixed[QRS_INTERVALS].view(np.float64))
        self._recent = np.zeros(bytes_of_sample(count) * qrs.SIGNAL_KEPT, np.uint8)

    @property
    def lead(self) -> str:
        """The lead that is scored."""
        return self._kind.leads[0]

    @property
    def leads(self) -> tuple[str, ...]:
        """The leads of each window."""
        return self._kind.leads

    @property
    def substituted(self) -> bool:
        """Whether the model has not learnt :attr:`lead`."""
        return self._kind.substituted

    def push(self, samples: NDArray[np.float32]) -> Items:
        """Take the next samples and return the items that they determine.

        Parameters
        ----------
        samples : ndarray of float32, shape (n, leads)
            In mV; NaN where a sample is missing; ``n >= 0``.

        Returns
        -------
        Items
            In the order of their ``ready``, which is below the number of samples pushed so far.

        Raises
        ------
        SegmentationError
            If the shape is wrong or the stream was finished.
        """
        leads, block = len(self._kind.names), self._kind.block
        if samples.ndim != 2 or samples.shape[1] != leads:  # noqa: PLR2004 - samples by leads
            raise SegmentationError(f"samples have shape {samples.shape}; this stream needs (n, {leads})")
        if self._finished:
            raise SegmentationError("the stream was finished; start a new segmenter for more samples")
        samples = np.asarray(samples, np.float32)
        parts = [self._take(samples[start : start + block], ending=False) for start in range(0, len(samples), block)]
        return Items.concatenate(parts) if parts else self._kind.nothing

    def finish(self) -> Items:
        """End the stream: return the remaining items, then the end.

        Returns
        -------
        Items
            The last one is of kind END.

        Raises
        ------
        SegmentationError
            If the stream was finished before.
        """
        if self._finished:
            raise SegmentationError("the stream was finished before; ask once")
        kind, n = self._kind, self._samples
        held = np.full((round(FLUSH_SECONDS * kind.fs), len(kind.names)), np.nan, np.float32)
        rest = self._take(held, ending=True)
        self._samples = n
        self._finished = True
        end = np.zeros(1, ITEM)
        end["kind"] = Kind.END
        end["seq"] = self._fixed[OWN].view(STATE)["beats"]
        end["sample"] = n
        end["ready"] = n - 1
        end["rr"] = end["rr_ratio"] = np.nan
        return Items(np.concatenate((rest.table, end)), rest.windows)

    def _take(self, samples: NDArray[np.float32], *, ending: bool) -> Items:
        """Run at most one block through all stages."""
        kind = self._kind
        leads = len(kind.columns)
        up, down, _ = kind.rate
        before = self._samples
        self._samples += len(samples)
        fresh = np.empty((leads, len(samples)), np.float32)
        marks = np.empty((2 * leads, len(samples)), np.int32)
        hold(samples, kind.columns, self._fixed, fresh, marks)
        if self._resampler is not None:
            fresh, marks = self._resampler.push(fresh, marks)
            marks[leads:] = marks[leads:].astype(np.int64) * up // down
        end = -(-before * up // down) if ending else -1
        table, windows, self._recent = cut(fresh, marks, kind.rate, kind.constants, end, self._fixed, self._recent)
        if not len(table):
            return kind.nothing
        if ending:
            np.minimum(table["ready"], before - 1, out=table["ready"])
        return Items(table, windows)

    def _everything(self) -> list[NDArray[Any]]:
        """All arrays that a snapshot holds, in a fixed order."""
        resampler = self._resampler.arrays.values() if self._resampler is not None else ()
        return [self._fixed, self._recent, *resampler]

    def snapshot(self) -> bytes:
        """Save the state, from which another process can continue.

        Returns
        -------
        bytes
            Below 100 kB.
        """
        kind = self._kind
        kept = self._recent.size // bytes_of_sample(len(kind.columns))
        header = msgspec.msgpack.encode(
            _Header(kind.fs, list(kind.names), kind.settings, kept, self._samples, self._finished)
        )
        body = header + b"".join(array.tobytes() for array in self._everything())
        length = struct.pack("<I", len(header))
        return _MAGIC + struct.pack("<I", zlib.crc32(length + body)) + length + body

    @classmethod
    def restore(cls, data: bytes) -> Self:
        """Make a segmenter from a snapshot.

        Parameters
        ----------
        data : bytes
            From :meth:`snapshot`.

        Returns
        -------
        Segmenter
            Returns the same items as the segmenter from which the snapshot was taken.

        Raises
        ------
        SegmentationError
            If ``data`` is not a snapshot of this version, or was damaged.
        """
        start = len(_MAGIC) + _CHECK.size
        if data[: len(_MAGIC)] != _MAGIC or len(data) < start:
            raise SegmentationError(
                f"{len(data)} bytes that begin with {data[:20]!r} are not a segmenter's snapshot of this version; start the stream again"
            )
        check, length = _CHECK.unpack_from(data, len(_MAGIC))
        if zlib.crc32(data[len(_MAGIC) + 4 :]) != check:
            raise SegmentationError(
                "the segmenter's snapshot is damaged: its checksum is wrong; start the stream again"
            )
        try:
            header = msgspec.msgpack.decode(data[start : start + length], type=_Header)
        except msgspec.MsgspecError as error:
            raise SegmentationError(f"the segmenter's snapshot has an unreadable header: {error}") from error
        if not qrs.SIGNAL_KEPT <= header.kept <= MOST_KEPT:
            raise SegmentationError(
                f"the segmenter's snapshot has {header.kept} samples of signal, expected {qrs.SIGNAL_KEPT} to {MOST_KEPT}"
            )
        segmenter = cls(header.fs, header.leads, settings=header.settings)
        segmenter._samples, segmenter._finished = header.samples, header.finished
        segmenter._recent = np.zeros(bytes_of_sample(len(segmenter.leads)) * header.kept, np.uint8)
        arrays = segmenter._everything()
        expected = sum(array.nbytes for array in arrays)
        at = start + length
        if len(data) - at != expected:
            raise SegmentationError(
                f"the segmenter's snapshot has {len(data) - at} bytes of state, expected {expected}"
            )
        for array in arrays:
            array[...] = np.frombuffer(data, array.dtype, array.size, at).reshape(array.shape)
            at += array.nbytes
        return segmenter
