"""The segmenter in plain numpy: whole recordings instead of chunks, arrays instead of rings, the same sums in the same order.

Its answers equal those of the compiled stages to the last bit.  Arrays begin ``BEFORE`` samples before the recording:
there the signal has the value of its first sample, no lead is dead and envelopes are zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from ecgmon.models.windows import FS, LENGTH, RAW_AFTER, RAW_BEFORE, RAW_LENGTH, filter_raw
from ecgmon.pipelines.items import ITEM, Flag, Items, Kind, Quality
from ecgmon.pipelines.limits import RR_NEEDED, RR_REMEMBERED
from ecgmon.pipelines.segmentation import qrs, quality, stages
from ecgmon.pipelines.segmentation.resampling import Resampler
from tests.models.kernels.reference import correlate

if TYPE_CHECKING:
    from numpy.typing import NDArray

BEFORE: Final = 4 * FS


def ordered_sum(values: NDArray[np.floating]) -> float:
    """Sum from the first value to the last; numpy's own sum goes in pairs."""
    return float(np.cumsum(values)[-1]) if values.size else 0.0


def held(samples: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Hold the last value over missing samples of one lead; give values and marks, shape (2, n), as ``hold`` does."""
    with np.errstate(invalid="ignore"):
        missing = ~(np.abs(samples) <= stages.LARGEST)
    last = np.maximum.accumulate(np.where(missing, -1, np.arange(len(samples))))
    values = np.where(last >= 0, samples[last], np.float32(0))
    same = values == np.concatenate(([np.float32(0)], values[:-1]))
    changed = np.maximum.accumulate(np.where(same, -1, np.arange(len(values))))
    run = np.minimum(np.arange(len(values)) - changed, stages.LONGEST_RUN)  # a first run begins before the first sample
    return values, np.stack((missing, run)).astype(np.int32)


def resampled(signal: NDArray[np.float32], resampler: Resampler, phases: NDArray[np.float32]) -> NDArray[np.float32]:
    """Resample one lead to 360 Hz with the resampler's filter: every output is one ordered sum."""
    up, down, half = resampler.up, resampler.down, resampler.half
    floor, phase = np.divmod(np.arange(resampler.outputs_after(len(signal))) * down, up)
    under = floor[:, None] + np.arange(1 - half, half + 1)
    products = phases[phase] * signal[np.maximum(under, 0)]
    return np.cumsum(products, axis=1, dtype=np.float32)[:, -1]


def envelope_of(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """Magnitude of the correlation of one padded lead with the QRS filter; zero at both ends of the array."""
    half = qrs.GABOR_HALF
    even, odd = correlate(signal, qrs.gabor())
    envelope = np.zeros(len(signal), np.float32)
    envelope[half:-half] = np.sqrt(even * even + odd * odd)
    envelope[: BEFORE - half] = 0
    return envelope


def dead_of(run: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Mark every sample within a stretch that does not change for ``UNCHANGED`` samples; ``run`` is padded."""
    dead = run >= qrs.UNCHANGED
    for edge in np.flatnonzero(dead & ~np.concatenate(([False], dead[:-1]))):
        dead[edge - qrs.UNCHANGED : edge] = True
    return dead


def middle_mean(values: NDArray[np.float64]) -> float:
    quarter = len(values) // 4
    middle = np.sort(values)[quarter : len(values) - quarter]
    return ordered_sum(middle) / len(middle)


@dataclass
class Candidate:
    sample: int
    height: float
    around: float
    noise: float
    humps: NDArray[np.float32]
    dead: NDArray[np.bool_]


@dataclass
class Detection:
    sample: int
    ready: int
    flags: int
    restart: bool
    noise: float


@dataclass
class Detector:
    """The beat detector over a whole recording; an instant ``t`` is at ``BEFORE + t`` of its arrays, shape (leads, n)."""

    settings: qrs.QrsSettings
    signal: NDArray[np.float32]
    run: NDArray[np.int32]
    detections: list[Detection] = field(default_factory=list)
    noise_of_seconds: list[tuple[float, int]] = field(default_factory=list)  # and when it is known

    def __post_init__(self) -> None:
        leads = len(self.signal)
        self.envelope = np.stack([envelope_of(lead) for lead in self.signal])
        self.dead = np.stack([dead_of(lead) for lead in self.run])
        self.level = np.zeros(leads)
        self.noise = np.zeros(leads)
        self.heights = np.zeros((leads, qrs.REMEMBERED))
        self.intervals = np.full(qrs.REMEMBERED, 0.8 * FS)
        self.rr = 0.8 * FS
        self.candidates: list[Candidate] = []
        self.judged = 0
        self.beats = 0
        self.last_beat = -(10**9)
        self.last_height = 0.0
        self.dead_samples = 0
        self.learnt_until = 0
        self.fused_noise = 0.0

    def run_over_all(self) -> None:
        received = self.signal.shape[1] - BEFORE
        before = before_that = noisy_sum = 0.0
        t = 0
        while t + qrs.STEP + qrs.LAG <= received:
            step = slice(BEFORE + t, BEFORE + t + qrs.STEP)
            alive = ~self.dead[:, step].all(axis=1)
            if alive.any() and not (self.level[alive] > 0).any() and self.learnt_until <= t:
                if t + qrs.LEARN + qrs.LAG > received:
                    break
                self.learn(t)
            if not alive.any():
                self.dead_samples += qrs.STEP
            end = t + qrs.STEP
            ready = max(end, self.learnt_until) + qrs.LAG - 1
            around, highest = self.look_around(BEFORE + t + qrs.STEP // 2)
            self.gain = self.gains(around, highest)
            noisy = around[0] / self.level[0] if self.level[0] > 0 else 1.0
            noisy_sum += noisy * qrs.STEP / FS
            if end % FS == 0:
                self.noise_of_seconds.append((float(np.float32(noisy_sum)), ready))
                noisy_sum = 0.0
            fused = np.append([before_that, before], self.fused(step))
            weighed = self.gain > 0
            weights = ordered_sum(self.gain[weighed])
            fused_around = (
                ordered_sum((self.gain * around)[weighed] / self.level[weighed]) / weights if weights else 0.0
            )
            for j in range(qrs.STEP):
                before_that, before, now = fused[j : j + 3]
                if before > before_that and before >= now and before > qrs.FAINTEST:
                    i = BEFORE + t + j - 1
                    self.candidates.append(
                        Candidate(
                            t + j - 1,
                            before,
                            fused_around,
                            float(np.float32(noisy)),
                            self.envelope[:, i],
                            self.dead[:, i],
                        )
                    )
            before_that, before = fused[-2:]
            while self.judged < len(self.candidates) and self.candidates[self.judged].sample < t + qrs.STEP - qrs.JUDGE:
                candidate = self.candidates[self.judged]
                self.judged += 1
                if self.is_beat(candidate):
                    self.accept(candidate, 0, ready)
            if self.beats and t - self.last_beat > self.settings.search_back_rr * self.rr + qrs.JUDGE:
                missed = self.search_back(t)
                if missed is not None:
                    self.accept(missed, Flag.SEARCHED_BACK, ready)
            if t - self.last_beat - self.dead_samples > qrs.LOST and t - self.learnt_until > qrs.LOST:
                self.level[:] = 0
            t = end

    def learn(self, t: int) -> None:
        self.learnt_until = t + qrs.LEARN
        self.fused_noise = qrs.FIRST_NOISE
        stretch = slice(BEFORE + t, BEFORE + t + qrs.LEARN)
        for lead in range(len(self.level)):
            self.level[lead] = 0
            if 2 * self.dead[lead, stretch].sum() > qrs.LEARN:
                continue
            tallest = float(self.envelope[lead, stretch].max())
            if tallest > qrs.CREST * np.median(self.envelope[lead, stretch].astype(np.float64)):
                self.level[lead] = qrs.FIRST_LEVEL * tallest
                self.noise[lead] = qrs.FIRST_NOISE * self.level[lead]
                self.heights[lead] = self.level[lead]

    def look_around(self, i: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give each lead's noise around array position ``i``, and its highest hump in the usual RR interval before."""
        span = min(int(self.rr), qrs.LONGEST_SILENCE)
        before, after = qrs.AROUND
        near = self.envelope[:, i - before : i + after : qrs.AROUND_STEP][:, : sum(qrs.AROUND) // qrs.AROUND_STEP]
        farther = self.envelope[:, i - span : i - before : qrs.AROUND_STEP]
        upper_median = np.sort(near, axis=1)[:, near.shape[1] // 2]
        highest = np.concatenate((near, farther), axis=1).max(axis=1)
        return upper_median.astype(np.float64), highest.astype(np.float64)

    def gains(self, around: NDArray[np.float64], highest: NDArray[np.float64]) -> NDArray[np.float64]:
        settings, level = self.settings, self.level
        gain = np.zeros(len(level))
        known = level > 0
        calm = known & (around < settings.calm_share * highest)
        heard = (highest[calm] / level[calm]).max(initial=0.0)
        disturbed = self.noise + settings.around_weight * around + qrs.LEAST_NOISE * level
        ratio = level[known] / disturbed[known]
        gain[known] = ratio * ratio if settings.lead_power == 2 else ratio**settings.lead_power
        if heard > settings.heard_share:
            gain[known & (highest < settings.silent_share * level)] *= qrs.SILENCED
        return gain

    def fused(self, step: slice) -> NDArray[np.float64]:
        """Fused heights of a step, -1 where no lead can be read."""
        envelope, dead = self.envelope[:, step].astype(np.float64), self.dead[:, step]
        if not dead.any() and (self.gain > 0).any():
            weights = ordered_sum(self.gain)
            total = np.zeros(envelope.shape[1])
            for gain, level, humps in zip(self.gain, self.level, envelope, strict=True):
                if gain > 0:
                    total += gain / (weights * level) * np.minimum(humps, self.settings.ceiling * level)
            return total
        return np.array([self.fused_at(step.start + j) for j in range(envelope.shape[1])])

    def fused_at(self, i: int, ignored: int = -1) -> float:
        total = weights = 0.0
        for lead, gain in enumerate(self.gain):
            if gain > 0 and not self.dead[lead, i] and lead != ignored:
                total += gain * min(float(self.envelope[lead, i]) / self.level[lead], self.settings.ceiling)
                weights += gain
        return total / weights if weights > 0 else -1.0

    def is_step(self, lead: int, i: int) -> bool:
        """Tell whether the hump at array position ``i`` is the step of a baseline beside a dead stretch."""
        half = qrs.STEP_SPAN // 2
        dead, signal = self.dead[lead], self.signal[lead].astype(np.float64)
        for edge in range(i - half, i + half):
            if dead[edge] != dead[edge + 1]:
                value = signal[edge] if dead[edge] else signal[edge + 1]
                first = edge + 1 + half if dead[edge] else edge + 1 - qrs.STEP_SPAN
                mean = ordered_sum(signal[first : first + half]) / half
                away = self.signal[lead, i - half : i + half] - np.float32(value)
                if abs(mean - value) > 0.3 * float(np.abs(away).max()):
                    return True
        return False

    def is_beat(self, candidate: Candidate) -> bool:
        settings, i = self.settings, BEFORE + candidate.sample
        for lead in range(len(self.level)):
            if not self.dead[lead, i] and self.is_step(lead, i):
                candidate.height = self.fused_at(i, lead)
        since = candidate.sample - self.last_beat
        refractory = settings.refractory_seconds * FS
        if since < refractory:
            return False
        if any(
            abs(rival.sample - candidate.sample) < refractory and rival.height > candidate.height
            for rival in self.candidates[-qrs.CAPACITY :]
        ):
            return False
        needed = self.fused_noise + settings.threshold * (1 - self.fused_noise)
        needed = max(needed, settings.around_multiple * candidate.around)
        if since < settings.t_wave_seconds * FS:
            needed = max(needed, settings.t_wave_share * self.last_height)
        if candidate.height >= needed:
            return True
        self.fused_noise += settings.noise_rate * (min(max(candidate.height, 0.0), 1.0) - self.fused_noise)
        for lead, level in enumerate(self.level):
            if level > 0 and not self.dead[lead, i]:
                self.noise[lead] += settings.noise_rate * (min(float(self.envelope[lead, i]), level) - self.noise[lead])
        return False

    def search_back(self, t: int) -> Candidate | None:
        settings = self.settings
        first = max(self.last_beat + settings.search_back_seconds * FS, t - qrs.SEARCH_LIMIT)
        tallest = settings.search_back_share * (self.fused_noise + settings.threshold * (1 - self.fused_noise))
        found = None
        for candidate in self.candidates[max(0, len(self.candidates) - qrs.CAPACITY) : self.judged]:
            if candidate.sample > first and candidate.height > tallest:
                found, tallest = candidate, candidate.height
        return found

    def accept(self, candidate: Candidate, flags: int, ready: int) -> None:
        restart = self.beats == 0 or self.dead_samples > qrs.RESTART
        learning = Flag.LEARNING if candidate.sample <= self.learnt_until else 0
        self.detections.append(
            Detection(self.r_peak(candidate), ready, int(flags | learning), restart, candidate.noise)
        )
        place = self.beats % qrs.REMEMBERED
        interval = candidate.sample - self.last_beat
        if not restart and interval < qrs.LONGEST_RR:
            self.intervals[place] = interval
            self.rr = middle_mean(self.intervals)
        lowest, highest = qrs.HEIGHT_LIMITS
        for lead, level in enumerate(self.level):
            hump = float(candidate.humps[lead])
            if candidate.dead[lead]:
                continue
            if level > 0:
                self.heights[lead, place] = min(max(hump, lowest * level), highest * level)
                self.level[lead] = middle_mean(self.heights[lead])
            else:
                self.heights[lead] = hump
                self.level[lead] = hump
                self.noise[lead] = qrs.FIRST_NOISE * hump
        self.last_beat, self.last_height = candidate.sample, candidate.height
        self.beats += 1
        self.dead_samples = 0

    def r_peak(self, candidate: Candidate) -> int:
        alive = np.flatnonzero(~candidate.dead)
        signal = self.signal[alive[0] if len(alive) else 0].astype(np.float64)
        i = BEFORE + candidate.sample
        around = signal[i - qrs.BASELINE : i + qrs.BASELINE + 1]
        apart = np.abs(signal[i - qrs.REFINE : i + qrs.REFINE + 1] - ordered_sum(around) / len(around))
        best = qrs.REFINE if apart[qrs.REFINE] == apart.max() else int(apart.argmax())
        return candidate.sample - qrs.REFINE + best


@dataclass
class Judge:
    """Quality of stretches of one lead, which widen the range that later ones are compared with."""

    low: float = 0.0
    high: float = 0.0
    baseline: float = 0.0
    seconds: int = 0

    def judge(
        self, signal: NDArray[np.float32], run: NDArray[np.int32], missing: NDArray[np.bool_], noise: float
    ) -> int:
        if missing.sum() > quality.MISSING_SHARE * len(signal):
            return Quality.MISSING
        values, span = signal.astype(np.float64), self.high - self.low
        if run.max() >= quality.RAIL_RUN:
            tolerance = quality.RAIL_TOLERANCE * span
            rail = (values >= self.high - tolerance) | (values <= self.low + tolerance)
            rail &= (np.abs(values - self.baseline) > quality.RAIL_DISTANCE * span) & (self.seconds > 0)
            at_rail, elsewhere = run[rail].max(initial=0), run[~rail].max(initial=0)
            if at_rail >= quality.RAIL_RUN and at_rail >= quality.RAIL_RATIO * (elsewhere + 1):
                return Quality.SATURATED
            if run.max() >= quality.FLAT_SHARE * len(signal):
                return Quality.FLAT
        return Quality.NOISY if noise > quality.NOISY else Quality.USABLE

    def remember(self, signal: NDArray[np.float32], judged: int) -> None:
        if judged in {Quality.MISSING, Quality.FLAT}:
            return
        mean = ordered_sum(signal) / len(signal)
        if self.seconds == 0:
            self.low = self.high = float(signal[0])
            self.baseline = mean
        self.low, self.high = min(self.low, float(signal.min())), max(self.high, float(signal.max()))
        if judged != Quality.SATURATED:
            self.baseline += quality.BASELINE_RATE * (mean - self.baseline)
        self.seconds += 1


def segment(samples: NDArray[np.float32], fs: float, settings: qrs.QrsSettings | None = None) -> Items:
    """Segment a whole recording of the leads that are to be used, shape (n, leads); the items of ``Segmenter``."""
    n, leads = samples.shape
    flush = np.full((round(stages.FLUSH_SECONDS * fs), leads), np.nan, np.float32)
    lanes = [held(lead) for lead in np.concatenate((samples, flush)).T]
    signal, marks = np.stack([lane[0] for lane in lanes]), np.stack([lane[1] for lane in lanes], axis=1)
    resampler = Resampler(fs, leads, 2 * leads)
    up, down, half = resampler.up, resampler.down, resampler.half
    before_end = n
    if up != down:
        before_end = resampler.outputs_after(n)
        phases = resampler._phases
        signal = np.stack([resampled(lead, resampler, phases) for lead in signal])
        marks = marks[:, :, resampler.nearest_input(np.arange(signal.shape[1]))]
        marks[1] = marks[1].astype(np.int64) * up // down
    signal = np.concatenate((np.repeat(signal[:, :1], BEFORE, axis=1), signal), axis=1)
    marks = np.pad(marks, ((0, 0), (0, 0), (BEFORE, 0)))
    detector = Detector(settings or qrs.QrsSettings(), signal, marks[1])
    detector.run_over_all()

    judge = Judge()
    beats = [beat for beat in detector.detections if beat.sample >= 0]
    rows: list[NDArray[np.void]] = []
    windows: list[NDArray[np.float32]] = []
    intervals: list[float] = []
    second = 0
    last = -1
    end = -(-n * up // down)
    for ending in (False, True):
        limit = stages.NEVER if ending else before_end
        while True:
            second_ready = (second + 1) * FS - 1 + stages.SECOND_LOOK_AHEAD
            if ending and (second + 1) * FS > end:
                second_ready = stages.NEVER
            if ending and beats and beats[0].sample + qrs.REFINE >= end:
                beats.pop(0)
                continue
            beat_ready = max(beats[0].ready, beats[0].sample + RAW_AFTER - 1) if beats else stages.NEVER
            if min(beat_ready, second_ready) >= limit:
                break
            row = np.zeros(1, ITEM)
            row["rr"] = row["rr_ratio"] = np.nan
            if beat_ready <= second_ready:
                beat = beats.pop(0)
                under = slice(BEFORE + beat.sample - RAW_BEFORE, BEFORE + beat.sample - RAW_BEFORE + RAW_LENGTH)
                if beat.restart:
                    intervals = []
                elif windows:
                    rr = (beat.sample - last) / FS
                    row["rr"] = rr
                    recent = np.array(intervals[-RR_REMEMBERED:])
                    if len(recent) >= RR_NEEDED:
                        ring = np.empty(len(recent))  # the order of the kernel's sum
                        ring[np.arange(len(intervals) - len(recent), len(intervals)) % RR_REMEMBERED] = recent
                        row["rr_ratio"] = rr / (ordered_sum(ring) / len(ring))
                    intervals.append(rr)
                row["kind"], row["flags"], row["seq"] = Kind.BEAT, beat.flags, len(windows)
                row["sample"], row["ready"] = (2 * beat.sample * down + up) // (2 * up), beat_ready * down // up + half
                row["quality"] = judge.judge(signal[0, under], marks[1, 0, under], marks[0, 0, under] > 0, beat.noise)
                windows.append(filter_raw(signal[:, under]))
                last = beat.sample
            else:
                over = slice(BEFORE + second * FS, BEFORE + (second + 1) * FS)
                noise, known_at = (
                    detector.noise_of_seconds[second]
                    if second < len(detector.noise_of_seconds)
                    else (0.0, stages.NEVER)
                )
                judged = judge.judge(
                    signal[0, over],
                    marks[1, 0, over],
                    marks[0, 0, over] > 0,
                    noise if known_at <= second_ready else 0.0,
                )
                judge.remember(signal[0, over], judged)
                row["kind"], row["quality"], row["seq"] = Kind.SECOND, judged, second
                row["sample"], row["ready"] = -(-second * FS * down // up), second_ready * down // up + half
                second += 1
            if ending:
                row["ready"] = np.minimum(row["ready"], n - 1)
            rows.append(row)
    row = np.zeros(1, ITEM)
    row["kind"], row["seq"], row["sample"], row["ready"] = Kind.END, len(windows), n, n - 1
    row["rr"] = row["rr_ratio"] = np.nan
    shape = (len(windows), leads, LENGTH)
    return Items(np.concatenate([*rows, row]), np.array(windows, np.float32).reshape(shape))
