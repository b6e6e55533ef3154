"""Many observations of a prometheus_client histogram at once.

``Histogram.observe`` takes one value, walks its buckets in Python and checks an exemplar each time: with thousands of
beats a second that cost the monitor more than scoring them.  This counts a whole commit's values per bucket first.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from prometheus_client.samples import Exemplar

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from prometheus_client import Histogram


def observe_all(
    histogram: Histogram, values: NDArray[np.floating[Any]], exemplar: Callable[[int], dict[str, str]] | None = None
) -> None:
    """Observe values, with the same effect as one by one.

    Parameters
    ----------
    histogram : Histogram
        A child, where the metric has labels.
    values : ndarray, shape (n,)
        None of them NaN.
    exemplar : callable, optional
        Gives the labels of the exemplar for the value with an index; asked for the last value in each bucket, which is
        the one that would be left.  At most 128 characters in all.

    Notes
    -----
    The client has no such call, so this uses what its own ``observe`` uses; a test holds the two together.
    """
    if not len(values):
        return
    values = values.astype(np.float64)
    buckets = np.searchsorted(histogram._upper_bounds, values)  # noqa: SLF001 - see the notes
    histogram._sum.inc(float(values.sum()))  # noqa: SLF001
    now = time.time()
    last = dict(zip(buckets.tolist(), range(len(values)), strict=True))
    for bucket, count in zip(*map(np.ndarray.tolist, np.unique(buckets, return_counts=True)), strict=True):
        counter = histogram._buckets[bucket]  # noqa: SLF001
        counter.inc(count)
        if exemplar is not None:
            index = last[bucket]
            counter.set_exemplar(Exemplar(exemplar(index), float(values[index]), now))
