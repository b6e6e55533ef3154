"""Find QRS complexes in one or two leads as the samples arrive.

The method, in the order of the code:

1. *Envelope.*  Each lead is correlated with a complex Gabor function at 15 Hz, where QRS complexes stand
   out most from P and T waves, wander and muscle noise (Thakor et al. 1984; Elgendi et al. 2010).  Its
   magnitude is one smooth hump per complex, whatever the polarity or the shape of the complex.
2. *Fusion.*  Each envelope is divided by the running height of its QRS humps, so that 1 is an ordinary
   beat, and the leads are averaged with weights from their signal-to-noise ratios, the noise just before
   and after included.  A lead that does not change (torn off, held over missing samples) has no weight while
   that lasts, and one that falls silent while another one beats has next to none.
3. *Candidates.*  Every local maximum of the fused hump is a candidate, and is judged 0.7 s later, when
   what follows it is known too: it must be the highest within the refractory time on either side, pass an
   adaptive threshold between the running heights of noise and of beats (Pan & Tompkins 1985), stand out from
   the noise before and after it and, soon after a beat, be no T wave.
4. *Search-back.*  Where no beat came for 1.66 of the usual RR interval, the highest candidate since the
   last beat is taken if it passes a lower threshold (Pan & Tompkins 1985).
5. *R peak.*  The extreme of the signal near the hump, in the first lead where that can be read.

Times in this module are sample indices at 360 Hz from the stream's first sample.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Any, Final

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
"""Samples before and after an instant that the noise around it is measured in."""

AROUND_STEP: Final = 9
"""Every which sample of the envelope is looked at for that: its bandwidth is 9 Hz, so 40 Hz lose nothing."""

STEP: Final = FS // 10
"""Samples that are looked at together, on a fixed grid (0.1 s)."""

LAG: Final = round(0.36 * FS)
"""Samples that have to follow a step before it is looked at.

They hold the look-ahead of the envelope and of the surroundings, and show by then whether a lead died.
"""

JUDGE: Final = round(0.25 * FS)
"""Samples from a candidate to the judgement of it; no less than the refractory time."""

LEARN: Final = 2 * FS
"""Samples from which the height of a lead's QRS humps is learnt (2 s: two beats at 60/min)."""

STEP_SPAN: Final = FS // 5
"""Samples beside the end of a dead stretch whose mean tells a step of the baseline from a beat."""

SEARCH_LIMIT: Final = round(1.9 * FS)
"""Samples that a search looks back at most, so that no beat is more than 2.5 s late."""

LONGEST_SILENCE: Final = round(1.5 * FS)
"""Most samples that a lead's silence is looked for in, however slow the heart."""

RESTART: Final = FS // 2
"""Samples without any lead alive after which the interval to the beat before says nothing."""

LONGEST_RR: Final = 2 * FS
"""Longest RR interval that the usual one is learnt from, in samples; longer ones are pauses."""

HEIGHT_LIMITS: Final = (0.3, 2.0)
"""Least and greatest height, as a multiple of the ordinary one, that a beat counts with when heights are learnt."""

FIRST_NOISE: Final = 0.1
"""Height of noise humps before any was seen, as a share of an ordinary hump."""

FIRST_LEVEL: Final = 0.7
"""Height of an ordinary hump, as a share of the highest one, before any beat was found."""

LOST: Final = 10 * FS
"""Samples without a beat after which the heights are learnt anew."""

REFINE: Final = round(0.08 * FS)
"""Samples on either side of a hump in which its R peak is looked for."""

BASELINE: Final = round(0.2 * FS)
"""Samples on either side of a hump whose mean is the level that its R peak stands out from: wider than any complex."""

CAPACITY: Final = 64
"""Candidates kept; 2.5 s hold fewer, for humps of a filter this narrow are at least 40 ms apart."""

ENVELOPE_KEPT: Final = STEP + LAG + LONGEST_SILENCE - STEP // 2 - GABOR_HALF
"""Values of each envelope kept from one call to the next: what the next step may look back on.

Only where the step had to wait until heights could be learnt does it look back further; that is worked out from the signal anew.
"""

SIGNAL_KEPT: Final = 2 * FS
"""Least samples of signal kept before those of the current call: what envelopes and steps look back on."""

BLOCK: Final = 8192
"""Most samples in one call of the compiled loops; longer chunks are taken in blocks of this."""

TILE: Final = 512
"""Envelope values that are filtered together: they and what they need stay in the processor's nearest cache."""

LEAST_NOISE: Final = 0.01
"""Noise, as a share of an ordinary hump, that any lead is taken to have: keeps weights finite."""

SILENCED: Final = 0.02
"""What is left of the weight of a lead that has fallen silent."""

FAINTEST: Final = 0.05
"""Least height of a candidate, as a share of an ordinary beat."""

REMEMBERED: Final = 8
"""Beats over which heights and RR intervals are averaged (Pan & Tompkins 1985)."""


class QrsSettingsError(ValueError):
    """A figure of the beat detector is out of its range."""


SETTING_RANGES: Final[dict[str, tuple[float, float]]] = {
    "threshold": (0.01, 0.99),
    "refractory_seconds": (0.05, JUDGE / FS),  # a candidate is judged that much later, and must know its rivals
    "t_wave_seconds": (0.0, 1.0),
    "t_wave_share": (0.0, 1.0),
    "search_back_rr": (1.0, 10.0),  # below 1 every beat would be searched for
    "search_back_share": (0.0, 1.0),
    "search_back_seconds": (0.05, SEARCH_LIMIT / FS),
    "ceiling": (1.0, 100.0),  # below 1 an ordinary beat would be cut
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
    """Figures of the decision; one set for every stream.

    Attributes
    ----------
    threshold : float
        Height that a candidate needs, as a share of the way from noise (0) to a beat (1).
    refractory_seconds : float
        No two beats are nearer than this.
    t_wave_seconds, t_wave_share : float
        Until this long after a beat, a candidate also needs this share of that beat's height.
    search_back_rr : float
        RR intervals without a beat that start a search.
    search_back_share : float
        Share of the threshold that suffices in a search.
    search_back_seconds : float
        A search leaves out this much after a beat.
    ceiling : float
        Heights above this multiple of an ordinary beat count as this: artefacts may be very high.
    lead_power : float
        A lead's weight is its signal-to-noise ratio to this power.
    noise_rate : float
        Weight of a newly rejected candidate in the running height of noise humps.
    around_weight : float
        Weight of the noise around an instant, beside the running height of noise humps, in that ratio.
    around_multiple : float
        A candidate has at least this multiple of the noise around it.  That noise is the median of the
        envelope; two thirds of the humps of Gaussian noise stay below twice their median, few reach three times.
    silent_share, heard_share, calm_share : float
        A lead whose envelope stayed below ``silent_share`` of its ordinary hump for a usual RR interval has
        fallen silent, and is left out, if another lead meanwhile reached ``heard_share`` of its own
        in a hump that the noise around has less than ``calm_share`` of.

    Raises
    ------
    QrsSettingsError
        If a figure is not a number within :data:`SETTING_RANGES`.
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
"""What the detector remembers of a stream, but for what has a place of its own."""

CANDIDATE: Final = np.dtype(
    [
        ("sample", "i8"),
        ("height", "f8"),  # fused, 1 is an ordinary beat
        ("around", "f8"),  # fused noise around it
        ("noise", "f4"),  # noise around it in the first lead
        ("humps", "f4", (MOST_LEADS,)),  # the envelope of each lead: a search comes when that is no longer kept
        ("dead", "u1"),  # bits of the leads that are dead there
    ]
)
"""One local maximum of the fused envelope."""


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
    """Join what is remembered and what is new, with ``room`` for values before both.

    Row by row, value by value, which compiles to copies of whole rows; an assignment to a part of an array takes seven
    times as long.

    Parameters
    ----------
    history : ndarray, shape (rows, h)
    fresh : ndarray, shape (rows, n)

    Returns
    -------
    ndarray, shape (rows, room + h + n)
        Of the type of ``history``; the first ``room`` values of a row have no meaning yet.
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
    """Keep of ``whole``, shape (rows, any), the end, as much as ``history``, shape (rows, h), has room for.

    Where there is more room than that, what comes first is what ``whole`` begins with.
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
    """Put marks with a bit for each lead, shape (h,), into ``dead``, shape (leads, any), after ``room`` samples that have none."""
    for lead in range(dead.shape[0]):
        dead[lead, :room] = 0
        row = dead[lead, room:]
        for i in range(marks.size):
            row[i] = (marks[i] >> lead) & 1


@compiled
def pack(dead: NDArray[np.uint8], marks: NDArray[np.uint8]) -> None:
    """Keep of ``dead``, shape (leads, any), the end, as much as ``marks``, shape (h,), has room for: a bit for each lead."""
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
    """Mean of the middle half: as steady as a mean, as hard to mislead as a median."""
    ordered = values.copy()
    for i in range(1, ordered.size):  # by insertion: eight values are sorted before a call to sort is set up
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

    Values are tried between the bounds that earlier ones left, a guess first; how many lie below one is counted in
    vector registers, so that a few trials take a fraction of the time of sorting.

    Parameters
    ----------
    values : ndarray of float32, shape (n,)
        Without NaN.
    guess : float
        A number that the median may be near, such as the one a moment ago; it does not change the answer.
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
    return np.nan  # not reached: envelopes are numbers


@compiled
def _look_around(
    envelope: NDArray[np.float32],
    i: int,
    span: int,
    values: NDArray[np.float32],
    around: NDArray[np.float64],
    highest: NDArray[np.float64],
) -> None:
    """Measure each lead around buffer position ``i``: its noise there, and its highest hump in ``span`` samples.

    ``values`` is room to work in; ``around`` still holds the noise of the step before, which is seldom far off.
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
        around[lead] = _median(values, around[lead])  # beats take up less than half of the time and must not count
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
    """Weigh each lead by its signal-to-noise ratio; leads whose level is not known yet get nothing."""
    heard = 0.0
    for lead in range(level.size):
        if level[lead] > 0 and around[lead] < settings.calm_share * highest[lead]:
            heard = max(heard, highest[lead] / level[lead])
    for lead in range(level.size):
        gain[lead] = 0.0
        if level[lead] > 0:
            disturbed = noise[lead] + settings.around_weight * around[lead] + LEAST_NOISE * level[lead]
            ratio = level[lead] / disturbed
            gain[lead] = ratio * ratio if settings.lead_power == 2 else ratio**settings.lead_power  # noqa: PLR2004 - by default; a power takes ten times as long
            if heard > settings.heard_share and highest[lead] < settings.silent_share * level[lead]:
                gain[lead] *= SILENCED


@compiled
def _fuse(
    settings: Record,
    envelope: NDArray[np.float32],
    dead: NDArray[np.uint8],
    level: NDArray[np.float64],
    gain: NDArray[np.float64],
    i: int,
    ignored: int,
) -> float:
    """Fused height at buffer position ``i``; -1 where no lead can say anything."""
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
    """Fused heights from buffer position ``i`` on, where every lead is alive: :func:`_fuse` without its branches."""
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
    """Noise around, fused as the heights are."""
    total = 0.0
    weights = 0.0
    for lead in range(level.size):
        if gain[lead] > 0:
            total += gain[lead] * around[lead] / level[lead]
            weights += gain[lead]
    return total / weights if weights > 0 else 0.0


@compiled
def _mark_dead(unchanged: NDArray[np.int32], dead: NDArray[np.uint8]) -> None:
    """Mark, at the end of ``dead``, every sample that lies in a stretch of a lead without change."""
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
    """Tell whether the hump at ``i`` is the baseline's step where a lead dies or comes back.

    A beat beside a dead stretch returns to the level it started from; a step does not.
    """
    died = 0
    for j in range(i - STEP_SPAN // 2, i + STEP_SPAN // 2 + 1):
        died += dead[lead, j]
    if died == 0:  # nearly always: there is no edge to look for
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
    """Position of the R peak of the hump at ``i``, where ``dead`` has the bits of the leads that are dead."""
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
"""Least ratio of highest to median envelope in a stretch from which QRS heights may be learnt.

The envelope of Gaussian noise is Rayleigh distributed: its highest value in two seconds is about 2.5
medians.  Where beats can be seen it is 6 and more.
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
    """Learn the heights of QRS humps from the ``LEARN`` samples from ``i`` on; tell whether any lead showed them."""
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
    state: Record,
    candidate: Record,
    flags: int,
    ready: int,
    base: int,
    signal: NDArray[np.float32],
    level: NDArray[np.float64],
    noise: NDArray[np.float64],
    heights: NDArray[np.float64],
    intervals: NDArray[np.float64],
    detection: Record,
) -> None:
    """Take a candidate for a beat: write the detection, and learn heights and rhythm from it."""
    i = candidate.sample - base
    interval = candidate.sample - state.last_beat
    detection.sample = _r_peak(signal, candidate.dead, i) + base
    detection.ready = ready
    detection.flags = flags
    if candidate.sample <= state.learnt_until:
        detection.flags |= Flag.LEARNING.value
    detection.restart = state.beats == 0 or state.dead > RESTART
    detection.noise = candidate.noise
    if not detection.restart and interval < LONGEST_RR:
        intervals[state.beats % REMEMBERED] = interval
        state.rr = _middle_mean(intervals)
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
                noise[lead] = FIRST_NOISE * hump
    state.last_beat = candidate.sample
    state.last_height = candidate.height
    state.beats += 1
    state.dead = 0


@compiled
def _judge(
    settings: Record,
    state: Record,
    number: int,
    base: int,
    signal: NDArray[np.float32],
    envelope: NDArray[np.float32],
    dead: NDArray[np.uint8],
    level: NDArray[np.float64],
    noise: NDArray[np.float64],
    gain: NDArray[np.float64],
    candidates: Record,
) -> bool:
    """Tell whether a candidate is a beat; if not, it tells how high noise is."""
    candidate = candidates[number % CAPACITY]
    i = candidate.sample - base
    for lead in range(level.size):
        if dead[lead, i] == 0 and _steps(signal, dead, lead, i):
            candidate.height = _fuse(settings, envelope, dead, level, gain, i, lead)
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
    """Give the number of the highest candidate since the last beat that a lower threshold lets pass, or -1."""
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
    """Give the instant up to which a search that begins at ``t`` leaves candidates out."""
    first: float = max(state.last_beat + settings.search_back_seconds * FS, t - SEARCH_LIMIT)
    return first


@compiled
def undecided(all_settings: Record, states: Record, candidates: Record) -> int:
    """Give the first instant at which a beat may still be found.

    A candidate that was judged no beat counts where a search may find it: if it is above the least height that any
    search asks for.
    """
    settings = all_settings[0]
    state = states[0]
    oldest: int = state.instant - JUDGE
    first = _search_from(settings, state, state.instant)
    # What it asks for where there is no noise at all, less what rounding may take off
    least = 0.999 * settings.search_back_share * settings.threshold
    for number in range(max(0, state.added - CAPACITY), state.added):
        candidate = candidates[number % CAPACITY]
        if number >= state.judged or (candidate.sample > first and candidate.height > least):
            oldest = min(oldest, candidate.sample)
    return oldest


@compiled
def looked_back_on(states: Record) -> int:
    """Give the first sample of signal that the detector itself may still look at, but for R peaks."""
    state = states[0]
    oldest: int = state.received - SIGNAL_KEPT
    if state.instant + STEP + LAG <= state.received:  # it waits until heights can be learnt
        oldest = state.instant + STEP // 2 - LONGEST_SILENCE - 2 * GABOR_HALF
    return oldest


@compiled
def _scan(
    all_settings: Record,
    states: Record,
    signal: NDArray[np.float32],
    taps: NDArray[np.float32],
    envelope: NDArray[np.float32],
    known: int,
    dead: NDArray[np.uint8],
    level: NDArray[np.float64],
    noise: NDArray[np.float64],
    heights: NDArray[np.float64],
    intervals: NDArray[np.float64],
    candidates: Record,
    detections: Record,
    seconds: Record,
) -> tuple[int, int]:
    """Look at every step that can be looked at; return the numbers of detections and seconds written.

    The envelope has meaning from buffer position ``known`` on.
    """
    settings = all_settings[0]  # arrays of one go into a compiled function four times as fast as their records
    state = states[0]
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
            if first < known:  # it has waited for what it learns from, and the envelope was not kept so long
                started = min(max(first, -GABOR_HALF - base), known)
                envelope[:, first:started] = 0  # as before any signal
                _envelope(signal, taps, envelope, started, known - started)
                known = first
            state.learnt_until = t + LEARN
            state.noise = FIRST_NOISE
            _learn(envelope, dead, level, noise, heights, i)
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
                fused[j] = _fuse(settings, envelope, dead, level, gain, i + j, -1)
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
            if _judge(settings, state, number, base, signal, envelope, dead, level, noise, gain, candidates):
                _accept(
                    state,
                    candidates[number % CAPACITY],
                    0,
                    ready,
                    base,
                    signal,
                    level,
                    noise,
                    heights,
                    intervals,
                    detections[found],
                )
                found += 1
        if state.beats > 0 and t - state.last_beat > settings.search_back_rr * state.rr + JUDGE:
            number = _search_back(settings, state, t, candidates)
            if number >= 0:
                _accept(
                    state,
                    candidates[number % CAPACITY],
                    Flag.SEARCHED_BACK.value,
                    ready,
                    base,
                    signal,
                    level,
                    noise,
                    heights,
                    intervals,
                    detections[found],
                )
                found += 1
        if t - state.last_beat - state.dead > LOST and t - state.learnt_until > LOST:
            level[:] = 0.0
    return found, passed


@compiled
def detect(
    all_settings: Record,
    states: Record,
    signal: NDArray[np.float32],
    unchanged: NDArray[np.int32],
    taps: NDArray[np.float32],
    envelopes: NDArray[np.float32],
    deaths: NDArray[np.uint8],
    level: NDArray[np.float64],
    noise: NDArray[np.float64],
    heights: NDArray[np.float64],
    intervals: NDArray[np.float64],
    candidates: Record,
) -> tuple[Record, Record, NDArray[np.uint8]]:
    """Take the next samples.

    Parameters
    ----------
    all_settings : ndarray of one, from :func:`settings_array`
    states, level, noise, heights, intervals, candidates : ndarray
        What :func:`begin` made of zeros; brought up to date.
    signal : ndarray of float32, shape (leads, h + n)
        Samples at 360 Hz, without NaN: at least :data:`SIGNAL_KEPT` before, back to what :func:`undecided` and
        :func:`looked_back_on` say, then the next ``n``, at most :data:`BLOCK`.
    unchanged : ndarray of int32, shape (leads, n)
        For how many samples each lead has had the same value.
    taps : ndarray of float32
        From :func:`gabor`.
    envelopes : ndarray of float32, shape (leads, ENVELOPE_KEPT)
        Zeros at the beginning; brought up to date.
    deaths : ndarray of uint8, up to ``h``
        Of the samples before, from :func:`pack`; zeros before the first.

    Returns
    -------
    detections : ndarray of DETECTION, shape (m,)
        Beats that these samples decided, in order of time.
    seconds : ndarray of NOISE, shape (k,)
        Seconds that were looked at to their ends.
    dead : ndarray of uint8, shape (leads, up to h + n)
        1 where a lead is dead, to :func:`pack`; the last of ``signal``.
    """
    n = unchanged.shape[1]
    before = signal.shape[1] - n
    dead = np.empty((signal.shape[0], before + n), np.uint8)
    _unpack(deaths, dead, before - deaths.size)
    known = before - GABOR_HALF - envelopes.shape[1]
    envelope = extend(envelopes, signal[:, :n], known)  # computed below, as the end of the marks is
    states[0].received += n
    _mark_dead(unchanged, dead)
    _envelope(signal, taps, envelope, before - GABOR_HALF, n)
    detections = np.empty((n + LEARN) // 16 + 2, DETECTION)
    seconds = np.empty((n + LEARN) // FS + 2, NOISE)
    found, passed = _scan(
        all_settings,
        states,
        signal,
        taps,
        envelope,
        known,
        dead,
        level,
        noise,
        heights,
        intervals,
        candidates,
        detections,
        seconds,
    )
    remember(envelope, envelopes)
    return detections[:found], seconds[:passed], dead


def settings_array(settings: QrsSettings) -> NDArray[np.void]:
    """Give settings in the form in which compiled functions read them."""
    return np.array([astuple(settings)], _SETTINGS)


def begin(states: NDArray[np.void], intervals: NDArray[np.float64]) -> None:
    """Set what is not zero where a stream begins."""
    states["last_beat"] = -(10**9)
    states["rr"] = intervals[:] = 0.8 * FS
