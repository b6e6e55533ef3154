"""Find QRS complexes in one or two leads as the samples arrive.

The method, in the order of the code:

1. *Envelope.*  Each lead is correlated with a complex Gabor function at 15 Hz, where QRS complexes stand
   out most from P and T waves, wander and muscle noise (Thakor et al. 1984; Elgendi et al. 2010).  The
   magnitude has one smooth hump per complex, independent of the polarity and shape of the complex.
2. *Fusion.*  Each envelope is divided by the running height of its QRS humps, so that 1 is an ordinary
   beat.  The leads are averaged with weights from their signal-to-noise ratios; the noise just before and
   after counts too.  A lead that does not change (disconnected, or held over missing samples) has weight 0,
   and a lead that falls silent while another one has beats has nearly none.
3. *Candidates.*  Every local maximum of the fused envelope is a candidate.  It is judged 0.7 s later, when the
   signal after it is known: it must be the highest within the refractory time on either side, pass an
   adaptive threshold between the running heights of noise and of beats (Pan & Tompkins 1985), exceed a
   multiple of the noise around it and, soon after a beat, be too high for a T wave.
4. *Search-back.*  If no beat was found for 1.66 of the usual RR interval, the highest candidate since the
   last beat is accepted if it passes a lower threshold (Pan & Tompkins 1985).
5. *R peak.*  The extreme of the signal near the hump, in the first lead that is not dead.

Times in this module are sample indices at 360 Hz from the stream's first sample.  The numpy twin of the detector is in
``tests/pipelines/segmentation/reference.py``.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from ecgmon.models.kernels.compiled import Record, compiled
from ecgmon.models.kernels.correlation import correlate_both
from ecgmon.models.windows import FS, MOST_LEADS
from ecgmon.pipelines.items import Flag

if TYPE_CHECKING:
    from numpy.typing import NDArray

GABOR_CENTRE: Final = 15.0
"""Centre frequency of the QRS filter in Hz."""

GABOR_WIDTH: Final = 0.035
"""Standard deviation of the QRS filter's Gaussian in seconds; its band is 15 +- 4.5 Hz."""

GABOR_HALF: Final = round(3 * GABOR_WIDTH * FS)
"""Samples on either side of an instant that its envelope depends on."""

UNCHANGED: Final = FS // 4
"""Samples without any change after which a lead counts as dead (0.25 s)."""

AROUND: Final = (round(0.5 * FS), round(0.3 * FS))
"""Samples before and after an instant between which the noise around it is measured."""

AROUND_STEP: Final = 9
"""The noise is measured on every ninth sample of the envelope: its bandwidth is 9 Hz, so 40 Hz are enough."""

STEP: Final = FS // 10
"""Samples that are processed together, on a fixed grid (0.1 s)."""

LAG: Final = round(0.36 * FS)
"""Samples that must follow a step before it is processed.

They cover the look-ahead of the envelope and of the noise around, and are enough to see whether a lead is dead.
"""

JUDGE: Final = round(0.25 * FS)
"""Samples from a candidate to its judgement; at least the refractory time."""

LEARN: Final = 2 * FS
"""Samples from which the height of a lead's QRS humps is learnt (2 s: two beats at 60/min)."""

STEP_SPAN: Final = FS // 5
"""Samples beside the end of a dead stretch whose mean distinguishes a step of the baseline from a beat."""

SEARCH_LIMIT: Final = round(1.9 * FS)
"""Most samples that a search looks back, so that no beat is reported more than 2.5 s late."""

LONGEST_SILENCE: Final = round(1.5 * FS)
"""Most samples without a hump that are needed to call a lead silent, also at a low heart rate."""

RESTART: Final = FS // 2
"""Samples without any readable lead after which the interval to the beat before is not an RR interval."""

LONGEST_RR: Final = 2 * FS
"""Longest RR interval, in samples, from which the usual one is learnt; longer ones are pauses."""

HEIGHT_LIMITS: Final = (0.3, 2.0)
"""A new height is limited to these multiples of the ordinary one before it is averaged."""

FIRST_NOISE: Final = 0.1
"""Height of noise humps at the start, as a share of an ordinary hump."""

FIRST_LEVEL: Final = 0.7
"""Height of an ordinary hump, as a share of the highest one, before the first beat is found."""

LOST: Final = 10 * FS
"""Samples without a beat after which the heights are learnt again."""

REFINE: Final = round(0.08 * FS)
"""Samples on either side of a hump between which its R peak is searched."""

BASELINE: Final = round(0.2 * FS)
"""Samples on either side of a hump whose mean is the baseline of its R peak: wider than any complex."""

CAPACITY: Final = 64
"""Candidates kept; 2.5 s hold fewer, because the humps of a filter this narrow are at least 40 ms apart."""

ENVELOPE_KEPT: Final = STEP + LAG + LONGEST_SILENCE - STEP // 2 - GABOR_HALF
"""Values of each envelope kept between calls, on which the next step may depend.

A step that had to wait until heights could be learnt depends on earlier values; they are computed again from the signal.
"""

SIGNAL_KEPT: Final = 2 * FS
"""Least number of samples kept before those of a call; envelopes and steps depend on them."""

BLOCK: Final = 8192
"""Most samples in one call of the compiled loops; longer chunks are divided into blocks of this length."""

TILE: Final = 512
"""Envelope values that are filtered together: they and their input stay in the processor's first cache."""

LEAST_NOISE: Final = 0.01
"""Least noise of a lead, as a share of an ordinary hump: keeps weights finite."""

SILENCED: Final = 0.02
"""Factor of the weight of a lead that has fallen silent."""

FAINTEST: Final = 0.05
"""Least height of a candidate, as a share of an ordinary beat."""

REMEMBERED: Final = 8
"""Beats over which heights and RR intervals are averaged (Pan & Tompkins 1985)."""


class QrsSettingsError(ValueError):
    """A setting of the beat detector is out of its range."""


SETTING_RANGES: Final[dict[str, tuple[float, float]]] = {
    "threshold": (0.01, 0.99),
    "refractory_seconds": (0.05, JUDGE / FS),  # a candidate is judged after JUDGE, when its rivals must be known
    "t_wave_seconds": (0.0, 1.0),
    "t_wave_share": (0.0, 1.0),
    "search_back_rr": (1.0, 10.0),  # below 1 a search would precede every beat
    "search_back_share": (0.0, 1.0),
    "search_back_seconds": (0.05, SEARCH_LIMIT / FS),
    "ceiling": (1.0, 100.0),  # below 1 ordinary beats would be limited
    "lead_power": (0.0, 10.0),
    "noise_rate": (0.0, 1.0),
    "around_weight": (0.0, 100.0),
    "around_multiple": (0.0, 100.0),
    "silent_share": (0.0, 1.0),
    "heard_share": (0.0, 2.0),
    "calm_share": (0.0, 1.0),
}
"""Least and greatest value of each setting, both allowed."""


@dataclass(frozen=True)
class QrsSettings:
    """Settings of the beat detector, the same for every stream.

    Attributes
    ----------
    threshold : float
        Height that a candidate needs, as a share of the way from noise (0) to a beat (1).
    refractory_seconds : float
        Least time between two beats.
    t_wave_seconds, t_wave_share : float
        Until this long after a beat, a candidate also needs this share of that beat's height.
    search_back_rr : float
        A search starts after this multiple of the usual RR interval without a beat.
    search_back_share : float
        Share of the threshold that suffices in a search.
    search_back_seconds : float
        A search does not consider this time after a beat.
    ceiling : float
        Heights are limited to this multiple of an ordinary beat, because artefacts may be very high.
    lead_power : float
        A lead's weight is its signal-to-noise ratio to this power.
    noise_rate : float
        Weight of a newly rejected candidate in the running height of noise humps.
    around_weight : float
        Weight of the noise around an instant, beside the running height of noise humps, in that ratio.
    around_multiple : float
        A beat has at least this multiple of the noise around it.  That noise is the median of the
        envelope; two thirds of the humps of Gaussian noise stay below twice their median, few reach three times.
    silent_share, heard_share, calm_share : float
        A lead whose envelope stays below ``silent_share`` of its ordinary hump for a usual RR interval has
        fallen silent, and gets nearly no weight, if another lead meanwhile has a hump above ``heard_share`` of its
        ordinary one, with noise around it below ``calm_share`` of that hump.

    Raises
    ------
    QrsSettingsError
        If a setting is not a number within :data:`SETTING_RANGES`.
    """

    threshold: float = 0.2
    refractory_seconds: float = 0.23
    t_wave_seconds: float = 0.3
    t_wave_share: float = 0.5
    search_back_rr: float = 1.66
    search_back_share: float = 0.7
    search_back_seconds: float = 0.36
    ceiling: float = 2.0
    lead_power: float = 2.0
    noise_rate: float = 0.1
    around_weight: float = 2.0
    around_multiple: float = 3.0
    silent_share: float = 0.2
    heard_share: float = 0.7
    calm_share: float = 0.15

    def __post_init__(self) -> None:
        for name, (least, greatest) in SETTING_RANGES.items():
            value = getattr(self, name)
            if not least <= value <= greatest:  # also true of NaN
                raise QrsSettingsError(
                    f"{name} is {value}; it has to be from {least:g} to {greatest:g} (by default {type(self).__dataclass_fields__[name].default})"
                )


_SETTINGS: Final = np.dtype([(field.name, "f8") for field in fields(QrsSettings)])

DETECTION: Final = np.dtype([("sample", "i8"), ("ready", "i8"), ("flags", "u2"), ("restart", "u1"), ("noise", "f4")])
"""One detected beat.

=======  ==============================================================================================
sample   R peak
ready    last sample that the detection depends on
flags    bits of :class:`ecgmon.pipelines.items.Flag`
restart  1 where the signal was lost between this beat and the one before
noise    noise around the beat in the first lead: median of the envelope over an ordinary QRS hump
=======  ==============================================================================================
"""

NOISE: Final = np.dtype([("second", "i8"), ("ready", "i8"), ("noise", "f4")])
"""Noise in one second of the first lead: mean of what :data:`DETECTION` calls noise, and when it is known."""

STATE: Final = np.dtype(
    [
        ("received", "i8"),  # samples so far
        ("instant", "i8"),  # beginning of the next step to look at
        ("learnt_until", "i8"),  # last sample that the present heights were learnt from
        ("last_beat", "i8"),
        ("last_height", "f8"),
        ("beats", "i8"),
        ("dead", "i8"),  # samples since the last beat at which no lead was alive
        ("noise", "f8"),  # running height of fused noise humps
        ("rr", "f8"),  # usual RR interval in samples
        ("before", "f8"),  # fused height one and two instants ago
        ("before_that", "f8"),
        ("added", "i8"),  # candidates added and judged so far
        ("judged", "i8"),
        ("noisy", "f8"),  # sum of the first lead's noise over the current second
    ]
)
"""The state of a detector that is not in arrays of its own: see :class:`Memory`."""

CANDIDATE: Final = np.dtype(
    [
        ("sample", "i8"),
        ("height", "f8"),  # fused, 1 is an ordinary beat
        ("around", "f8"),  # fused noise around it
        ("noise", "f4"),  # noise around it in the first lead
        ("humps", "f4", (MOST_LEADS,)),  # envelope of each lead: a search may come after it was dropped
        ("dead", "u1"),  # bits of the leads that are dead there
    ]
)
"""One local maximum of the fused envelope."""


class Memory(NamedTuple):
    """The state of one detector, in arrays that :func:`detect` updates."""

    states: Record
    """ndarray of STATE, shape (1,): an array of one enters a compiled function four times as fast as its record."""
    candidates: Record
    """ndarray of CANDIDATE, shape (CAPACITY,): a ring."""
    level: NDArray[np.float64]
    """Height of each lead's ordinary hump, shape (leads,); 0 where it is not known."""
    noise: NDArray[np.float64]
    """Running height of each lead's noise humps, shape (leads,)."""
    heights: NDArray[np.float64]
    """Heights of each lead's last humps, shape (leads, REMEMBERED): a ring."""
    intervals: NDArray[np.float64]
    """The last RR intervals in samples, shape (REMEMBERED,): a ring."""
    envelopes: NDArray[np.float32]
    """The last values of each lead's envelope, shape (leads, ENVELOPE_KEPT)."""


class _Buffer(NamedTuple):
    """The samples that one call works on, kept ones and new ones; each array has shape (leads, n)."""

    signal: NDArray[np.float32]
    envelope: NDArray[np.float32]
    dead: NDArray[np.uint8]
    """1 where a lead is dead."""


@cache
def gabor() -> NDArray[np.float32]:
    """Even and odd part of the QRS filter.

    Returns
    -------
    ndarray of float32, shape (2, 2 * GABOR_HALF + 1)
        Scaled to a gain of 1 at the centre frequency; the even part is free of any constant.  Not writeable.
    """
    time = np.arange(-GABOR_HALF, GABOR_HALF + 1) / FS
    bell = np.exp(-0.5 * (time / GABOR_WIDTH) ** 2)
    even = bell * np.cos(2 * np.pi * GABOR_CENTRE * time)
    even -= bell * even.sum() / bell.sum()
    odd = bell * np.sin(2 * np.pi * GABOR_CENTRE * time)
    gain = math.fsum(even * np.cos(2 * np.pi * GABOR_CENTRE * time))  # a BLAS library's sum depends on the processor
    parts = np.stack((even, odd)).astype(np.float32) / np.float32(gain)
    parts.flags.writeable = False
    return parts


@compiled
def extend(history: NDArray[Any], fresh: NDArray[Any], room: int) -> NDArray[Any]:
    """Join kept and new samples, after ``room`` for earlier values.

    Loops over single values compile to copies of whole rows; an assignment to a part of an array takes seven times as
    long.

    Parameters
    ----------
    history : ndarray, shape (rows, h)
    fresh : ndarray, shape (rows, n)

    Returns
    -------
    ndarray, shape (rows, room + h + n)
        Of the type of ``history``; the first ``room`` values of a row are not set.
    """
    rows, kept = history.shape
    n = fresh.shape[1]
    whole = np.empty((rows, room + kept + n), history.dtype)
    for k in range(rows):
        row, before, after = whole[k, room:], history[k], fresh[k]
        for i in range(kept):
            row[i] = before[i]
        row = row[kept:]
        for i in range(n):
            row[i] = after[i]
    return whole


@compiled
def remember(whole: NDArray[Any], history: NDArray[Any]) -> None:
    """Copy the end of ``whole``, shape (rows, any), to ``history``, shape (rows, h).

    If ``history`` is longer, its beginning repeats the first value of each row.
    """
    rows, kept = history.shape
    first = max(0, whole.shape[1] - kept)
    room = kept - (whole.shape[1] - first)
    for k in range(rows):
        history[k, :room] = whole[k, 0]
        row, end = history[k, room:], whole[k, first:]
        for i in range(row.size):
            row[i] = end[i]


@compiled
def _unpack(marks: NDArray[np.uint8], dead: NDArray[np.uint8], room: int) -> None:
    """Unpack marks with a bit for each lead, shape (h,), into ``dead``, shape (leads, room + h); the first ``room`` are 0."""
    for lead in range(dead.shape[0]):
        dead[lead, :room] = 0
        row = dead[lead, room:]
        for i in range(marks.size):
            row[i] = (marks[i] >> lead) & 1


@compiled
def pack(dead: NDArray[np.uint8], marks: NDArray[np.uint8]) -> None:
    """Pack the end of ``dead``, shape (leads, any), into ``marks``, shape (h,), with a bit for each lead."""
    first = max(0, dead.shape[1] - marks.size)
    end = marks[marks.size - (dead.shape[1] - first) :]
    marks[:] = 0
    for lead in range(dead.shape[0]):
        row = dead[lead, first:]
        for i in range(end.size):
            end[i] |= row[i] << lead


@compiled
def _envelope(
    signal: NDArray[np.float32], gabor: NDArray[np.float32], envelope: NDArray[np.float32], first: int, n: int
) -> None:
    """Compute ``n`` values of the envelope from buffer position ``first`` on."""
    part = np.empty((2, min(n, TILE)), np.float32)
    under = first - GABOR_HALF  # first sample under the filter of the first new value
    for lead in range(signal.shape[0]):
        for start in range(0, n, TILE):
            size = min(TILE, n - start)
            even, odd = part[0, :size], part[1, :size]
            correlate_both(signal[lead, under + start :], gabor, even, odd)
            for i in range(size):
                envelope[lead, first + start + i] = np.sqrt(even[i] * even[i] + odd[i] * odd[i])


@compiled
def _middle_mean(values: NDArray[np.float64]) -> float:
    """Mean of the middle half of the sorted values: nearly as steady as a mean, nearly as robust as a median."""
    ordered = values.copy()
    for i in range(1, ordered.size):  # insertion sort: for eight values faster than a call of sort
        value = ordered[i]
        j = i
        while j > 0 and ordered[j - 1] > value:
            ordered[j] = ordered[j - 1]
            j -= 1
        ordered[j] = value
    quarter = ordered.size // 4
    total = 0.0
    for i in range(quarter, ordered.size - quarter):
        total += ordered[i]
    return total / (ordered.size - 2 * quarter)


@compiled
def _median(values: NDArray[np.float32], guess: float) -> float:
    """Median of a few values, the upper one of an even number.

    Tries the guess, then values between the bounds that earlier trials gave.  The values below a trial are counted in
    vector registers, so the few trials take much less time than sorting.

    Parameters
    ----------
    values : ndarray of float32, shape (n,)
        Without NaN.
    guess : float
        A number near which the median may be, such as the last one; it does not change the result.
    """
    middle = values.size // 2
    low = np.float32(-np.inf)
    high = np.float32(np.inf)
    for k in range(-1, values.size):
        value = values[k] if k >= 0 else np.float32(guess)
        if not low < value < high:
            continue
        below = 0
        up_to = 0
        for j in range(values.size):
            below += values[j] < value
            up_to += values[j] <= value
        if below > middle:
            high = value
        elif up_to > middle:
            return float(value)
        else:
            low = value
    return np.nan  # not reached: envelopes have no NaN


@compiled
def _look_around(
    envelope: NDArray[np.float32],
    i: int,
    span: int,
    values: NDArray[np.float32],
    around: NDArray[np.float64],
    highest: NDArray[np.float64],
) -> None:
    """Measure each lead around buffer position ``i``: its noise, and its highest hump in the ``span`` samples before.

    ``values`` is a work array.  ``around`` holds the noise of the step before, a good guess for the new one.
    """
    before, _ = AROUND
    for lead in range(around.size):
        peak = np.float32(0)
        for j in range(values.size):
            value = envelope[lead, i - before + j * AROUND_STEP]
            values[j] = value
            peak = value if value > peak else peak  # noqa: FURB136 - compiles to one instruction; max() is slower here
        for j in range(i - span, i - before, AROUND_STEP):
            value = envelope[lead, j]
            peak = value if value > peak else peak  # noqa: FURB136 - as above
        around[lead] = _median(values, around[lead])  # the median ignores beats, which take less than half of the time
        highest[lead] = peak


@compiled
def _set_gains(
    settings: Record,
    level: NDArray[np.float64],
    noise: NDArray[np.float64],
    around: NDArray[np.float64],
    highest: NDArray[np.float64],
    gain: NDArray[np.float64],
) -> None:
    """Set each lead's weight from its signal-to-noise ratio; 0 if its level is not known yet."""
    heard = 0.0
    for lead in range(level.size):
        if level[lead] > 0 and around[lead] < settings.calm_share * highest[lead]:
            heard = max(heard, highest[lead] / level[lead])
    for lead in range(level.size):
        gain[lead] = 0.0
        if level[lead] > 0:
            disturbed = noise[lead] + settings.around_weight * around[lead] + LEAST_NOISE * level[lead]
            ratio = level[lead] / disturbed
            gain[lead] = ratio * ratio if settings.lead_power == 2 else ratio**settings.lead_power  # noqa: PLR2004 - the default; a general power takes ten times as long
            if heard > settings.heard_share and highest[lead] < settings.silent_share * level[lead]:
                gain[lead] *= SILENCED


@compiled
def _fuse(
    settings: Record,
    buffer: _Buffer,
    level: NDArray[np.float64],
    gain: NDArray[np.float64],
    i: int,
    ignored: int,
) -> float:
    """Fused height at buffer position ``i``, without the lead ``ignored``; -1 where no lead is left."""
    envelope, dead = buffer.envelope, buffer.dead
    total = 0.0
    weights = 0.0
    for lead in range(level.size):
        if gain[lead] > 0 and dead[lead, i] == 0 and lead != ignored:
            total += gain[lead] * min(envelope[lead, i] / level[lead], settings.ceiling)
            weights += gain[lead]
    return total / weights if weights > 0 else -1.0


@compiled
def _fuse_step(
    settings: Record,
    envelope: NDArray[np.float32],
    level: NDArray[np.float64],
    gain: NDArray[np.float64],
    i: int,
    fused: NDArray[np.float64],
) -> None:
    """Fused heights from buffer position ``i`` on if no lead is dead: :func:`_fuse` without its branches."""
    weights = gain.sum()
    fused[:] = 0.0
    for lead in range(level.size):
        if gain[lead] > 0:
            share = gain[lead] / (weights * level[lead])
            ceiling = settings.ceiling * level[lead]
            humps = envelope[lead, i : i + fused.size]
            for j in range(fused.size):
                value = humps[j]
                fused[j] += share * (value if value < ceiling else ceiling)  # noqa: FURB136 - min() keeps to scalars


@compiled
def _fused_noise(level: NDArray[np.float64], around: NDArray[np.float64], gain: NDArray[np.float64]) -> float:
    """Noise around an instant, fused as the heights are."""
    total = 0.0
    weights = 0.0
    for lead in range(level.size):
        if gain[lead] > 0:
            total += gain[lead] * around[lead] / level[lead]
            weights += gain[lead]
    return total / weights if weights > 0 else 0.0


@compiled
def _mark_dead(unchanged: NDArray[np.int32], dead: NDArray[np.uint8]) -> None:
    """Mark, at the end of ``dead``, every sample of a stretch in which a lead does not change."""
    n = unchanged.shape[1]
    first = dead.shape[1] - n
    for lead in range(dead.shape[0]):
        longest = 0
        for i in range(n):
            run = unchanged[lead, i]
            longest = max(longest, run)
            dead[lead, first + i] = run >= UNCHANGED
        if longest < UNCHANGED:
            continue
        for i in range(first, first + n):
            if dead[lead, i] and dead[lead, i - 1] == 0:
                for j in range(i - UNCHANGED, i):
                    dead[lead, j] = 1


@compiled
def _steps(signal: NDArray[np.float32], dead: NDArray[np.uint8], lead: int, i: int) -> bool:
    """Tell whether the hump at ``i`` is a step of the baseline at the end of a dead stretch.

    A beat beside a dead stretch returns to the level before it; a step does not.
    """
    died = 0
    for j in range(i - STEP_SPAN // 2, i + STEP_SPAN // 2 + 1):
        died += dead[lead, j]
    if died == 0:  # nearly always: there is no dead stretch
        return False
    for edge in range(i - STEP_SPAN // 2, i + STEP_SPAN // 2):
        if dead[lead, edge] != dead[lead, edge + 1]:
            held = signal[lead, edge] if dead[lead, edge] else signal[lead, edge + 1]
            first = edge + 1 + STEP_SPAN // 2 if dead[lead, edge] else edge + 1 - STEP_SPAN
            mean = 0.0
            for j in range(first, first + STEP_SPAN // 2):
                mean += signal[lead, j]
            mean /= STEP_SPAN // 2
            farthest = 0.0
            for j in range(i - STEP_SPAN // 2, i + STEP_SPAN // 2):
                farthest = max(farthest, abs(signal[lead, j] - held))
            if abs(mean - held) > 0.3 * farthest:
                return True
    return False


@compiled
def _r_peak(signal: NDArray[np.float32], dead: int, i: int) -> int:
    """Position of the R peak of the hump at ``i``; ``dead`` has the bits of the dead leads."""
    lead = 0
    for other in range(signal.shape[0] - 1, -1, -1):
        if (dead >> other) & 1 == 0:
            lead = other
    mean = 0.0
    for j in range(i - BASELINE, i + BASELINE + 1):
        mean += signal[lead, j]
    mean /= 2 * BASELINE + 1
    best = i
    for j in range(i - REFINE, i + REFINE + 1):
        if abs(signal[lead, j] - mean) > abs(signal[lead, best] - mean):
            best = j
    return best


CREST: Final = 4.0
"""Least ratio of the highest to the median envelope in a stretch from which QRS heights may be learnt.

The envelope of Gaussian noise is Rayleigh distributed: its highest value in two seconds is about 2.5
medians.  With visible beats it is 6 or more.
"""


@compiled
def _learn(
    envelope: NDArray[np.float32],
    dead: NDArray[np.uint8],
    level: NDArray[np.float64],
    noise: NDArray[np.float64],
    heights: NDArray[np.float64],
    i: int,
) -> bool:
    """Learn the heights of QRS humps from the ``LEARN`` samples from ``i`` on; tell whether any lead has them."""
    found = False
    for lead in range(level.size):
        level[lead] = 0.0
        alive = 0
        for j in range(i, i + LEARN):
            alive += 1 - dead[lead, j]
        if 2 * alive < LEARN:
            continue
        tallest = envelope[lead, i : i + LEARN].max()
        median = np.median(envelope[lead, i : i + LEARN])
        if tallest > CREST * median:
            level[lead] = FIRST_LEVEL * tallest
            noise[lead] = FIRST_NOISE * level[lead]
            heights[lead, :] = level[lead]
            found = True
    return found


@compiled
def _accept(
    memory: Memory,
    number: int,
    flags: int,
    ready: int,
    base: int,
    signal: NDArray[np.float32],
    detection: Record,
) -> None:
    """Accept a candidate as a beat: write the detection, and learn heights and rhythm from it."""
    state = memory.states[0]
    candidate = memory.candidates[number % CAPACITY]
    level, heights = memory.level, memory.heights
    interval = candidate.sample - state.last_beat
    detection.sample = _r_peak(signal, candidate.dead, candidate.sample - base) + base
    detection.ready = ready
    detection.flags = flags
    if candidate.sample <= state.learnt_until:
        detection.flags |= Flag.LEARNING.value
    detection.restart = state.beats == 0 or state.dead > RESTART
    detection.noise = candidate.noise
    if not detection.restart and interval < LONGEST_RR:
        memory.intervals[state.beats % REMEMBERED] = interval
        state.rr = _middle_mean(memory.intervals)
    lowest, highest = HEIGHT_LIMITS
    for lead in range(level.size):
        if (candidate.dead >> lead) & 1 == 0:
            hump = candidate.humps[lead]
            if level[lead] > 0:
                heights[lead, state.beats % REMEMBERED] = min(max(hump, lowest * level[lead]), highest * level[lead])
                level[lead] = _middle_mean(heights[lead])
            else:  # this lead could not be read when the others were learnt
                heights[lead, :] = hump
                level[lead] = hump
                memory.noise[lead] = FIRST_NOISE * hump
    state.last_beat = candidate.sample
    state.last_height = candidate.height
    state.beats += 1
    state.dead = 0


@compiled
def _judge(
    settings: Record,
    memory: Memory,
    number: int,
    base: int,
    buffer: _Buffer,
    gain: NDArray[np.float64],
) -> bool:
    """Tell whether a candidate is a beat; if it is not, update the running height of noise with it."""
    state = memory.states[0]
    candidates, level, noise = memory.candidates, memory.level, memory.noise
    signal, envelope, dead = buffer
    candidate = candidates[number % CAPACITY]
    i = candidate.sample - base
    for lead in range(level.size):
        if dead[lead, i] == 0 and _steps(signal, dead, lead, i):
            candidate.height = _fuse(settings, buffer, level, gain, i, lead)
    since = candidate.sample - state.last_beat
    refractory = settings.refractory_seconds * FS
    if since < refractory:
        return False
    for other in range(state.added - 1, max(0, state.added - CAPACITY) - 1, -1):
        rival = candidates[other % CAPACITY]
        if rival.sample <= candidate.sample - refractory:
            break
        if rival.sample < candidate.sample + refractory and rival.height > candidate.height:
            return False
    needed = state.noise + settings.threshold * (1 - state.noise)
    needed = max(needed, settings.around_multiple * candidate.around)
    if since < settings.t_wave_seconds * FS:
        needed = max(needed, settings.t_wave_share * state.last_height)
    if candidate.height >= needed:
        return True
    state.noise += settings.noise_rate * (min(max(candidate.height, 0.0), 1.0) - state.noise)
    for lead in range(level.size):
        if level[lead] > 0 and dead[lead, i] == 0:
            noise[lead] += settings.noise_rate * (min(envelope[lead, i], level[lead]) - noise[lead])
    return False


@compiled
def _search_back(settings: Record, state: Record, t: int, candidates: Record) -> int:
    """Return the number of the highest candidate since the last beat that passes a lower threshold, or -1."""
    chosen = -1
    tallest = settings.search_back_share * (state.noise + settings.threshold * (1 - state.noise))
    first = _search_from(settings, state, t)
    for number in range(max(0, state.added - CAPACITY), state.judged):
        candidate = candidates[number % CAPACITY]
        if candidate.sample > first and candidate.height > tallest:
            chosen = number
            tallest = candidate.height
    return chosen


@compiled
def _search_from(settings: Record, state: Record, t: int) -> float:
    """Return the instant after which a search at ``t`` considers candidates."""
    first: float = max(state.last_beat + settings.search_back_seconds * FS, t - SEARCH_LIMIT)
    return first


@compiled
def undecided(all_settings: Record, states: Record, candidates: Record) -> int:
    """Return the first instant at which a beat may still be found.

    A rejected candidate counts if a search may still accept it: if it is above the least threshold of any search.
    """
    settings = all_settings[0]
    state = states[0]
    oldest: int = state.instant - JUDGE
    first = _search_from(settings, state, state.instant)
    # The threshold without any noise, minus a margin for rounding
    least = 0.999 * settings.search_back_share * settings.threshold
    for number in range(max(0, state.added - CAPACITY), state.added):
        candidate = candidates[number % CAPACITY]
        if number >= state.judged or (candidate.sample > first and candidate.height > least):
            oldest = min(oldest, candidate.sample)
    return oldest


@compiled
def looked_back_on(states: Record) -> int:
    """Return the first sample of signal on which later steps may depend, R peaks not counted."""
    state = states[0]
    oldest: int = state.received - SIGNAL_KEPT
    if state.instant + STEP + LAG <= state.received:  # it waits until heights can be learnt
        oldest = state.instant + STEP // 2 - LONGEST_SILENCE - 2 * GABOR_HALF
    return oldest


@compiled
def _scan(
    all_settings: Record,
    memory: Memory,
    buffer: _Buffer,
    taps: NDArray[np.float32],
    known: int,
    detections: Record,
    seconds: Record,
) -> tuple[int, int]:
    """Process every step whose samples have arrived; return the numbers of detections and seconds written.

    The envelope is valid from buffer position ``known`` on.
    """
    settings = all_settings[0]
    state = memory.states[0]
    candidates, level, noise = memory.candidates, memory.level, memory.noise
    signal, envelope, dead = buffer
    leads = level.size
    base = state.received - signal.shape[1]  # sample index of buffer position 0
    around = np.zeros(leads)
    highest = np.zeros(leads)
    gain = np.zeros(leads)
    fused = np.empty(STEP)
    values = np.empty(sum(AROUND) // AROUND_STEP, np.float32)
    found = 0
    passed = 0
    while state.instant + STEP + LAG <= state.received:
        t = state.instant
        i = t - base
        alive = 0
        whole = 0
        readable = False
        for lead in range(leads):
            died = dead[lead, i : i + STEP].sum()
            whole += died == 0
            if died < STEP:
                alive += 1
                readable = readable or level[lead] > 0
        if alive and not readable and state.learnt_until <= t:
            if t + LEARN + LAG > state.received:
                break
            first = max(0, i + STEP // 2 - LONGEST_SILENCE)
            if first < known:  # it had to wait for samples to learn from, and the envelope was not kept so long
                started = min(max(first, -GABOR_HALF - base), known)
                envelope[:, first:started] = 0  # as before any signal
                _envelope(signal, taps, envelope, started, known - started)
                known = first
            state.learnt_until = t + LEARN
            state.noise = FIRST_NOISE
            _learn(envelope, dead, level, noise, memory.heights, i)
        if not alive:
            state.dead += STEP
        state.instant = t + STEP
        ready = max(t + STEP, state.learnt_until) + LAG - 1

        _look_around(envelope, i + STEP // 2, min(int(state.rr), LONGEST_SILENCE), values, around, highest)
        _set_gains(settings, level, noise, around, highest, gain)
        noisy = around[0] / level[0] if level[0] > 0 else 1.0
        state.noisy += noisy * STEP / FS
        if state.instant % FS == 0:
            seconds[passed].second = t // FS
            seconds[passed].ready = ready
            seconds[passed].noise = state.noisy
            state.noisy = 0.0
            passed += 1

        fused_around = _fused_noise(level, around, gain)
        _fuse_step(settings, envelope, level, gain, i, fused)
        if whole < leads or gain.max() <= 0:
            for j in range(STEP):
                fused[j] = _fuse(settings, buffer, level, gain, i + j, -1)
        before, before_that = state.before, state.before_that
        for j in range(STEP):
            if before > before_that and before >= fused[j] and before > FAINTEST:
                candidate = candidates[state.added % CAPACITY]
                candidate.sample = t + j - 1
                candidate.height = before
                candidate.around = fused_around
                candidate.noise = noisy
                candidate.dead = 0
                for lead in range(leads):
                    candidate.humps[lead] = envelope[lead, i + j - 1]
                    candidate.dead |= dead[lead, i + j - 1] << lead
                state.added += 1
            before_that = before
            before = fused[j]
        state.before, state.before_that = before, before_that

        while state.judged < state.added and candidates[state.judged % CAPACITY].sample < t + STEP - JUDGE:
            number = state.judged
            state.judged += 1
            if _judge(settings, memory, number, base, buffer, gain):
                _accept(memory, number, 0, ready, base, signal, detections[found])
                found += 1
        if state.beats > 0 and t - state.last_beat > settings.search_back_rr * state.rr + JUDGE:
            number = _search_back(settings, state, t, candidates)
            if number >= 0:
                _accept(memory, number, Flag.SEARCHED_BACK.value, ready, base, signal, detections[found])
                found += 1
        if t - state.last_beat - state.dead > LOST and t - state.learnt_until > LOST:
            level[:] = 0.0
    return found, passed


@compiled
def detect(
    all_settings: Record,
    memory: Memory,
    signal: NDArray[np.float32],
    unchanged: NDArray[np.int32],
    taps: NDArray[np.float32],
    deaths: NDArray[np.uint8],
) -> tuple[Record, Record, NDArray[np.uint8]]:
    """Find the beats that the next samples decide.

    Parameters
    ----------
    all_settings : ndarray of one, from :func:`settings_array`
    memory : Memory
        Zeros and :func:`begin` at the beginning; updated.
    signal : ndarray of float32, shape (leads, h + n)
        Samples at 360 Hz, without NaN: ``h`` earlier ones, at least :data:`SIGNAL_KEPT`, from the one that
        :func:`undecided` and :func:`looked_back_on` return; then the next ``n``, at most :data:`BLOCK`.
    unchanged : ndarray of int32, shape (leads, n)
        Number of samples for which each lead has had the same value.
    taps : ndarray of float32
        From :func:`gabor`.
    deaths : ndarray of uint8, up to ``h``
        Of the earlier samples, from :func:`pack`; zeros before the first.

    Returns
    -------
    detections : ndarray of DETECTION, shape (m,)
        Beats that these samples decided, in order of time.
    seconds : ndarray of NOISE, shape (k,)
        Seconds that were processed to their ends.
    dead : ndarray of uint8, shape (leads, h + n)
        1 where a lead is dead, for :func:`pack`.
    """
    n = unchanged.shape[1]
    before = signal.shape[1] - n
    dead = np.empty((signal.shape[0], before + n), np.uint8)
    _unpack(deaths, dead, before - deaths.size)
    known = before - GABOR_HALF - memory.envelopes.shape[1]
    envelope = extend(memory.envelopes, signal[:, :n], known)  # the new values are computed below, as those of dead are
    memory.states[0].received += n
    _mark_dead(unchanged, dead)
    _envelope(signal, taps, envelope, before - GABOR_HALF, n)
    detections = np.empty((n + LEARN) // 16 + 2, DETECTION)
    seconds = np.empty((n + LEARN) // FS + 2, NOISE)
    found, passed = _scan(all_settings, memory, _Buffer(signal, envelope, dead), taps, known, detections, seconds)
    remember(envelope, memory.envelopes)
    return detections[:found], seconds[:passed], dead


def settings_array(settings: QrsSettings) -> NDArray[np.void]:
    """Return settings in the form that compiled functions read."""
    return np.array([astuple(settings)], _SETTINGS)


def begin(states: NDArray[np.void], intervals: NDArray[np.float64]) -> None:
    """Set the parts of a new state that are not zero."""
    states["last_beat"] = -(10**9)
    states["rr"] = intervals[:] = 0.8 * FS
