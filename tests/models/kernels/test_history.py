"""The compiled loops over a stream's beats must give what plain numpy gives."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ecgmon.models.features import (
    ADMITTED,
    BEATS,
    FOLLOWED,
    INTERVALS,
    JUMP_INTERVALS,
    LAGS,
    LATE,
    LEAST_BEATS,
    LEAST_INTERVALS,
    LEAST_IRREGULARITY,
    MOST_UNUSUAL,
    NAMES,
    OUTLINE,
    P_TICKS,
    PERCENTILE,
    SPREAD_INTERVALS,
    UNUSUAL_EARLY,
    UNUSUAL_QRS,
    USUAL_BEATS,
    USUAL_INTERVALS,
)
from ecgmon.models.kernels.history import FIRST, TICKS, Compared, Kept, Memory, Replaced, compare, look, put_back

if TYPE_CHECKING:
    from numpy.typing import NDArray

P = len(P_TICKS)
NAN = float("nan")
SMALL = ("counts", "intervals", "usual", "usual_of")


def some_beats(n: int, leads: int, seed: int) -> Kept:
    """Make beats of which a seventh, and the last fifth but one, are ectopic; values of all kinds are missing."""
    random = np.random.default_rng(seed)
    ectopic = random.random(n) < 1 / 7
    ectopic[3 * n // 5 : 4 * n // 5] = True
    rr = np.where(ectopic, 0.45, 0.8) * random.uniform(0.95, 1.05, n)
    rr[random.random(n) < 0.1] = np.nan
    shape = np.random.default_rng(0).standard_normal((leads, len(TICKS)))
    shapes = shape * np.where(ectopic, -1, 1)[:, None, None] + 0.1 * random.standard_normal((n, leads, len(TICKS)))
    shapes[random.random(shapes.shape) < 0.001] = np.nan
    span = random.uniform(0.5, 2, (n, leads))
    for value in (0, np.nan):
        span[random.random(span.shape) < 0.03] = value
    log_ax = random.standard_normal((n, 2)) + ectopic[:, None]
    log_ax[random.random(n) < 0.05] = np.nan
    return Kept(
        rr.astype(np.float32),
        log_ax.astype(np.float32),
        span.astype(np.float32),
        shapes.astype(np.float16).view(np.uint16),
    )


def whole_beats(n: int, leads: int, seed: int) -> Kept:
    """Make beats as :func:`some_beats` does, but with noise for a shape."""
    random = np.random.default_rng(seed)
    shapes = random.standard_normal((n, leads, len(TICKS))).astype(np.float16)
    kept = some_beats(n, leads, seed)
    return kept._replace(shapes=shapes.view(np.uint16), rr=random.uniform(0.4, 1.2, n).astype(np.float32))


class Twin:
    """A memory of Python lists, compared by plain numpy."""

    def __init__(self) -> None:
        self.places: list[dict[str, Any]] = []
        self.beats = 0
        self.unusual_beats = 0
        self.intervals: list[float] = []
        self.usual: list[float] = [0.0] * (1 + FOLLOWED)
        self.usual_of: list[int] = [0] * (1 + FOLLOWED)

    def rhythm(self, own: float) -> tuple[float, float, float]:
        """Find ``early``, ``spread`` and ``jump``."""
        before = np.array(self.intervals[-INTERVALS:])
        if math.isnan(own) or len(before) < LEAST_INTERVALS:
            return NAN, NAN, NAN
        medians = []
        for lag in range(1, LAGS + 1):
            differences = np.sort(np.abs(before[lag:] - before[:-lag]))
            if lag == 1 or len(differences) >= LEAST_INTERVALS:
                medians.append(differences[(len(differences) - 1) // 2])
        late = np.sort(before)[round(LATE * (len(before) - 1))] - own
        if self.usual_of[0] >= LEAST_INTERVALS:
            late = max(late, self.usual[0] - own)
        with_own = np.append(before, own)
        spread = math.log(with_own[-SPREAD_INTERVALS:].std() + 5e-3)
        jump = np.abs(np.diff(with_own[-JUMP_INTERVALS:])).mean()
        return late / (min(medians) + LEAST_IRREGULARITY), spread, jump

    def distances(self, shape: NDArray[np.float64], span: NDArray[np.float64]) -> list[float]:
        """Find the distances of QRS complex and P wave on the first lead, then those on the second."""
        found = [NAN] * 4
        if len(self.places) < LEAST_BEATS:
            return found
        for lead in range(len(span)):
            spans = [place["span"][lead] for place in self.places]
            usual = sorted(math.inf if math.isnan(value) else value for value in spans)[len(spans) // 2]
            if not (1e-3 < usual < math.inf) or not span[lead] > 1e-3:
                continue
            for part, ticks in enumerate((slice(P, None), slice(P))):
                apart = [np.square(place["shape"][lead, ticks] - shape[lead, ticks]).mean() for place in self.places]
                ranked = sorted(math.inf if math.isnan(value) else float(value) for value in apart)
                value = ranked[len(ranked) * PERCENTILE // 100]
                if value < math.inf:
                    found[2 * lead + part] = math.log(value * (2 / usual) ** 2 + 1e-5)
        return found

    def average(self, which: int, value: float, most: int) -> None:
        if not math.isnan(value):
            self.usual_of[which] = min(self.usual_of[which] + 1, most)
            self.usual[which] += (value - self.usual[which]) / self.usual_of[which]

    def place(self, most: int) -> int:
        """Choose the place of the next beat, as in the description of ``compare``."""
        unusual = [at for at, place in enumerate(self.places) if place["unusual"]]
        if len(unusual) < most and len(self.places) < BEATS:
            self.places.append({})
            return len(self.places) - 1
        among = unusual if len(unusual) >= most else range(BEATS)
        return min(among, key=lambda at: self.places[at]["number"])

    def take(self, rr: float, log_ax: list[float], span: NDArray[Any], shape: NDArray[Any]) -> tuple[int, list[float]]:
        """Compare a beat and remember it; return its place and its features."""
        interval = math.log(rr) if rr > 0 else NAN
        features = list(self.rhythm(interval))
        values = [*self.distances(shape, span), *log_ax]
        usual = [mean if of >= LEAST_BEATS else NAN for mean, of in zip(self.usual, self.usual_of, strict=True)][1:]
        features += values[:4] + [value - mean for value, mean in zip(values, usual, strict=True)]
        named = dict(zip(NAMES[FIRST:], features, strict=True))
        unusual = named["early"] > UNUSUAL_EARLY or named["qrs_over_usual"] > UNUSUAL_QRS
        self.beats += 1
        self.unusual_beats += unusual
        admitted = not unusual or self.unusual_beats % ADMITTED == 0
        place = self.place(BEATS + 1 if admitted else MOST_UNUSUAL)
        self.places[place] = {"span": span, "shape": shape, "unusual": not admitted, "number": self.beats}
        if not math.isnan(interval):
            self.intervals.append(interval)
        if admitted:
            self.average(0, interval, USUAL_INTERVALS)
            for which, value in enumerate(values):
                self.average(1 + which, value, USUAL_BEATS)
        return place, features


@pytest.mark.parametrize("make", [some_beats, whole_beats])
@pytest.mark.parametrize("leads", [1, 2])
def test_features_and_memory_are_those_of_plain_numpy(leads: int, make: Any) -> None:
    n = 6 * BEATS
    kept, compared, replaced = make(n, leads, seed=leads), Compared.empty(n), Replaced.empty(n, leads)
    memory, twin = Memory.empty(leads), Twin()
    compare(memory, kept, replaced, compared)
    shapes, span = kept.shapes.view(np.float16).astype(np.float64), kept.span.astype(np.float64)
    for k in range(n):
        place, features = twin.take(float(kept.rr[k]), kept.log_ax[k].tolist(), span[k], shapes[k])
        assert replaced.place[k] == place
        assert compared.features[k] == pytest.approx(features, rel=1e-4, abs=1e-4, nan_ok=True), k
        assert compared.unusual[k] == twin.places[place]["unusual"]
        assert compared.counts[k].tolist() == [
            twin.beats, twin.unusual_beats, len(twin.intervals), len(twin.places)
        ]  # fmt: skip
        assert compared.usual[k] == pytest.approx(twin.usual, rel=1e-4, abs=1e-4)
        assert compared.usual_of[k].tolist() == twin.usual_of
        assert compared.intervals[k][(len(twin.intervals) - 1) % INTERVALS] == pytest.approx(
            twin.intervals[-1] if twin.intervals else 0, abs=1e-6
        )
    ring = [twin.intervals[at] for at in sorted(range(len(twin.intervals))[-INTERVALS:], key=lambda at: at % INTERVALS)]
    assert memory.intervals == pytest.approx(ring, abs=1e-6)
    assert memory.taken.tolist() == [place["number"] for place in twin.places]
    assert memory.unusual.tolist() == [place["unusual"] for place in twin.places]
    assert np.array_equal(memory.span.T, [place["span"] for place in twin.places], equal_nan=True)
    assert np.array_equal(
        memory.shape.view(np.float16).transpose(2, 0, 1), [place["shape"] for place in twin.places], equal_nan=True
    )
    for name in SMALL:
        assert np.array_equal(getattr(compared, name)[-1], getattr(memory, name))
    counted = np.isfinite(compared.features).sum(axis=0)
    assert (counted[: 5 if leads == 1 else 7] > n / 2).all()
    assert 0 < compared.unusual.sum() < n


@pytest.mark.parametrize(("before", "lost"), [(0, 3), (5, 20), (BEATS + 5, 3 * BEATS)])
def test_put_back_and_copies_of_the_small_arrays_restore_the_memory_to_the_last_byte(before: int, lost: int) -> None:
    memory = Memory.empty(2)
    compare(memory, some_beats(before, 2, seed=5), Replaced.empty(before, 2), Compared.empty(before))
    stood = [array.tobytes() for array in memory]
    small = {name: getattr(memory, name).copy() for name in SMALL}
    replaced = Replaced.empty(lost, 2)
    compare(memory, some_beats(lost, 2, seed=6), replaced, Compared.empty(lost))
    assert memory.span.tobytes() != stood[Memory._fields.index("span")]
    assert memory.counts[0] == before + lost
    put_back(memory, replaced)
    for name, array in small.items():
        getattr(memory, name)[:] = array
    assert [array.tobytes() for array in memory] == stood


def test_what_is_kept_of_windows_is_that_of_numpy() -> None:
    random = np.random.default_rng(3)
    windows = random.standard_normal((30, 2, 320)).astype(np.float32)
    windows.flags.writeable = False  # as in a message; numba compiles a loop for every kind of array
    span, shapes = np.empty((32, 2), np.float32), np.empty((32, 2, len(TICKS)), np.float32)
    outline = np.empty((32, OUTLINE), np.float32)
    look(windows, 2, span, shapes, outline)
    low, high = windows.min(axis=-1), windows.max(axis=-1)
    picked = windows[..., TICKS]
    centred = np.concatenate([part - part.mean(axis=-1, keepdims=True) for part in np.split(picked, [P], axis=-1)], -1)
    scaled = (windows[:, 0] - low[:, :1]) * 2 / (high - low)[:, :1] - 1
    assert np.array_equal(span[2:], high - low)
    assert shapes[2:] == pytest.approx(centred, abs=1e-6)
    assert outline[2:] == pytest.approx(scaled[:, :: 320 // OUTLINE], abs=1e-5)
