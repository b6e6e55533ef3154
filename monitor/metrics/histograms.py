"""A Prometheus histogram that takes many observations in one call.

``prometheus_client.Histogram.observe`` takes one value, searches its buckets in Python and checks an exemplar each time.
With thousands of beats per second, this cost the monitor more than scoring them.  This collector first counts all values
of a commit by bucket.  Its exposition is the same as that of the client's histogram, byte for byte.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections import Counter
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from prometheus_client.core import Exemplar, HistogramMetricFamily, Sample
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from prometheus_client import CollectorRegistry


_FEW: Final = 16  # up to this number of values, single look-ups are faster


class Observations:
    """The observations with one set of label values; :meth:`Histogram.labels` returns them.

    Parameters
    ----------
    bounds : sequence of float
        Upper bounds of the buckets, ascending, the last infinite.
    clock : callable
        Returns the time in seconds since 1970.
    """

    def __init__(self, bounds: Sequence[float], clock: Callable[[], float]) -> None:
        self._bounds, self._clock = bounds, clock
        self._lock = Lock()  # metrics are read by the threads of the HTTP server
        self._counts = [0] * len(bounds)
        self._sum = 0.0
        self._exemplars: dict[int, Exemplar] = {}
        self._created = clock()

    def observe(self, value: float) -> None:
        """Observe one value, not NaN."""
        bucket = bisect_left(self._bounds, value)
        with self._lock:
            self._sum += value
            self._counts[bucket] += 1

    def observe_all(
        self,
        values: Sequence[float] | NDArray[np.floating[Any]],
        exemplar: Callable[[int], Mapping[str, str]] | None = None,
    ) -> None:
        """Observe several values; the result is the same as with single calls.

        Parameters
        ----------
        values : sequence of float or ndarray, shape (n,)
            None of them NaN.
        exemplar : callable, optional
            Returns the labels of the exemplar for the value with an index; called only for the last value in each
            bucket, because later exemplars replace earlier ones.  At most 128 characters in all (OpenMetrics).
        """
        if not len(values):
            return
        if len(values) <= _FEW:
            buckets = [bisect_left(self._bounds, value) for value in values]
            counts = dict(Counter(buckets))
            total = float(sum(values))
        else:
            array = np.asarray(values, np.float64)
            found = np.searchsorted(self._bounds, array)
            buckets = found.tolist()
            counts = dict(enumerate(np.bincount(found).tolist()))
            total = float(array.sum())
        last = dict(zip(buckets, range(len(values)), strict=True))
        exemplars: dict[int, Exemplar] = {}
        if exemplar is not None:
            now = self._clock()
            for bucket, index in last.items():
                exemplars[bucket] = Exemplar(dict(exemplar(index)), float(values[index]), now)
        with self._lock:
            self._sum += total
            for bucket in last:
                self._counts[bucket] += counts[bucket]
            self._exemplars.update(exemplars)

    def state(self) -> tuple[list[int], float, dict[int, Exemplar], float]:
        """Return the buckets' counts, the sum, the exemplars by bucket, and the creation time, all of one moment."""
        with self._lock:
            return self._counts.copy(), self._sum, self._exemplars.copy(), self._created


class Histogram(Collector):
    """A histogram like :class:`prometheus_client.Histogram`, through the client's interface for custom collectors.

    Parameters
    ----------
    name, documentation : str
    labelnames : iterable of str
    buckets : iterable of float
        Upper bounds, ascending, not negative; infinity is added.
    registry : CollectorRegistry, optional
        Registry in which it registers itself.
    clock : callable
        Returns the time in seconds since 1970, for exemplars and for the creation time of a series.

    Raises
    ------
    ValueError
        If the bounds are not valid, or a label is named ``le``.

    Notes
    -----
    As in the client, the environment variable ``PROMETHEUS_DISABLE_CREATED_SERIES`` leaves out the ``_created`` series.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: Iterable[str] = (),
        *,
        buckets: Iterable[float],
        registry: CollectorRegistry | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        finite = [float(bound) for bound in buckets]
        if not finite or finite != sorted(set(finite)) or not 0 <= finite[0] <= finite[-1] < float("inf"):
            raise ValueError(
                f"{name}: buckets {finite} are not valid; expected finite numbers of at least 0, ascending"
            )
        self._name, self._documentation, self._clock = name, documentation, clock
        self._labelnames = tuple(labelnames)
        if "le" in self._labelnames:
            raise ValueError(f"{name}: a label is named le; this name is reserved for the bounds of the buckets")
        self._bounds = (*finite, float("inf"))
        self._shown_bounds = [floatToGoString(bound) for bound in self._bounds]  # type: ignore[no-untyped-call]
        self._has_created = os.environ.get("PROMETHEUS_DISABLE_CREATED_SERIES", "").lower() not in {"true", "1", "t"}
        self._lock = Lock()
        self._series: dict[tuple[str, ...], Observations] = {}
        if not self._labelnames:
            self.labels()
        if registry is not None:
            registry.register(self)

    def labels(self, *values: str) -> Observations:
        """Return the observations with some label values, given in the order of the label names.

        Raises
        ------
        ValueError
            If the number of values is not the number of labels.
        """
        if len(values) != len(self._labelnames):
            raise ValueError(f"{self._name}: label values {values}, expected one for each of {self._labelnames}")
        with self._lock:
            found = self._series.get(values)
            if found is None:
                found = self._series[values] = Observations(self._bounds, self._clock)
            return found

    def observe(self, value: float) -> None:
        """Observe one value, not NaN, in a histogram without labels."""
        self.labels().observe(value)

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """Yield the name and the type, which a registry needs."""
        yield self._family()

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the current state of all series."""
        with self._lock:
            series = list(self._series.items())
        family = self._family()
        for values, observations in series:
            counts, total, exemplars, created = observations.state()
            family.add_metric(values, self._cumulated(counts, exemplars), total)
            if self._has_created:
                labels = dict(zip(self._labelnames, values, strict=True))
                family.samples.append(Sample(f"{self._name}_created", labels, created))
        yield family

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._name, self._documentation, labels=self._labelnames)

    def _cumulated(
        self, counts: Sequence[int], exemplars: Mapping[int, Exemplar]
    ) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
        """Turn the buckets' counts into the cumulative counts that the client takes."""
        buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
        below = 0
        for number, (bound, count) in enumerate(zip(self._shown_bounds, counts, strict=True)):
            below += count
            exemplar = exemplars.get(number)
            buckets.append((bound, below) if exemplar is None else (bound, below, exemplar))
        return buckets


def observe_all(
    observations: Observations,
    values: Sequence[float] | NDArray[np.floating[Any]],
    exemplar: Callable[[int], Mapping[str, str]] | None = None,
) -> None:
    """Observe values: see :meth:`Observations.observe_all`."""
    observations.observe_all(values, exemplar)
