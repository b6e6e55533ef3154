"""What is known of a beat when it is scored: its reconstruction, its rhythm, and how it compares with the beats before.

A(x) says how much a beat differs from all normal beats.  It does not say that a beat differs from those of its own
patient, or that it came early, and both are typical of a premature beat.  A bounded
:class:`ecgmon.models.score.history.History` of the stream measures that, from earlier beats only.  These are the features:

===================  ==================================================================================
log_ax               log of A(x)
log_ax_qrs           log of the squared error over the ticks of the QRS complex
fast                 -log of the RR interval in seconds
early                how much shorter the log RR interval is than a late or usual one of the stream, in
                     units of the rhythm's irregularity
spread               log of the standard deviation of the log of the last 17 intervals, this one included
jump                 mean absolute difference of successive log intervals over the last 3, this one included
own_qrs              log of how far the QRS complex is from those remembered of the stream
own_p                the same of the stretch before the QRS complex, where the P wave is
own_qrs_2            ``own_qrs`` on the second lead
own_p_2              ``own_p`` on the second lead
qrs_over_usual       ``own_qrs`` less its mean over the stream's usual beats; ``p_over_usual``,
                     ``qrs_2_over_usual`` and ``p_2_over_usual`` in the same way
ax_over_usual        ``log_ax`` less its mean over the stream's usual beats
ax_qrs_over_usual    ``log_ax_qrs`` less its mean over the stream's usual beats
===================  ==================================================================================

In all but ``spread`` and ``jump``, a higher value is more abnormal.  No label takes part in them.  A feature that is not
known is NaN: a comparison needs some earlier beats, and a lead without signal under this beat cannot be compared.

**Usual and unusual beats.**  A beat that is early or whose QRS complex is unlike the remembered ones is unusual for its
stream (:func:`ecgmon.models.kernels.history.compare`).  Few of them are remembered, less than the
percentile of the distances looks at, and they have no part in usual values: bigeminy does not become the norm that it is
judged by.  A change that lasts becomes usual within a minute or two.

**Early.**  An interval is compared with the ninetieth percentile of the last 32, which is that of the other beats even in
bigeminy and in runs, and with the usual interval; the larger difference counts.  It is divided by a tenth plus the rhythm's
irregularity: the least median difference of log intervals one to four beats apart.  In atrial fibrillation it is
large, so that not every short interval is early; in bigeminy and trigeminy it is small.

How far a part of a beat is from the remembered ones is the thirtieth percentile of its mean squared
differences to each.  Dividing by the stream's own amplitude makes streams comparable.  The percentile, the ticks of both
parts and the limits of an unusual beat were chosen with the results on abnormal beats known: docs/model.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from ecgmon.models.features import NAMES

if TYPE_CHECKING:
    from numpy.typing import NDArray

# So that the logarithm of a perfect match is finite: far below what is measured of any real beat.
_LEAST_ERROR: Final = 1e-6


class EvidenceError(Exception):
    """Beats or a stored history that do not fit each other."""


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What is known of some beats.

    Attributes
    ----------
    features : ndarray of float32, shape (n, len(NAMES))
        NaN where not known.
    outline : ndarray of float32, shape (n, OUTLINE)
        The first lead, scaled to [-1, 1], every fourth tick: the shape that the features go with.  NaN where the
        window has a NaN.
    """

    features: NDArray[np.float32]
    outline: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.features)

    def without(self, names: tuple[str, ...]) -> Self:
        """Forget some features, as if they were not known."""
        features = self.features.copy()
        features[:, [NAMES.index(name) for name in names]] = np.nan
        return type(self)(features, self.outline)

    def __getitem__(self, part: slice | NDArray[np.bool_] | NDArray[np.intp]) -> Self:
        return type(self)(self.features[part], self.outline[part])

    @classmethod
    def concatenate(cls, parts: list[Self]) -> Self:
        """Join parts; there must be at least one."""
        return cls(np.concatenate([p.features for p in parts]), np.concatenate([p.outline for p in parts]))


def log_ax(ax: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Turn A(x), or the mean over some ticks, into the features ``log_ax`` and ``log_ax_qrs``; same shape."""
    return log(ax.astype(np.float32) + np.float32(_LEAST_ERROR))


def log(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Take natural logarithms, shape of ``x``, to the nearest float32.

    numpy's own of float32 differ in their last bit between processors; those of float64, rounded, do not.
    """
    return np.log(x.astype(np.float64)).astype(np.float32)


def ax_features(ax: NDArray[np.float32], ticks: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Find ``log_ax`` and ``log_ax_qrs``, shape (n, 2), from A(x) and the squared error at :data:`AX_TICKS`."""
    of_qrs = ticks.astype(np.float32).mean(axis=1)
    return log_ax(np.stack([ax, of_qrs], axis=1))
