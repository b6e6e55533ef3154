"""Score the samples of one stream: a segmenter and a scoring chain, with the reconstruction in the same process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecgmon.pipelines.scoring.chain import Chain
from ecgmon.pipelines.segmentation.segmenter import DEFAULT_SETTINGS, Segmenter, SegmentSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ecgmon.models.inference.reconstruction import Scorer
    from ecgmon.pipelines.scoring.chain import ScoredItems


class StreamScorer:
    """Segments and scores one stream as the daemon does.

    Parameters
    ----------
    fs : float
        Sampling frequency in Hz.
    leads : sequence of str
        Names of the columns of the samples.
    scorer : ecgmon.models.inference.reconstruction.Scorer
    settings : SegmentSettings
        The daemon's by default.

    Raises
    ------
    ecgmon.pipelines.segmentation.segmenter.SegmentationError
        If the segmenter does not support the stream.
    """

    __slots__ = ("_chain", "_scorer", "_segmenter")

    def __init__(
        self, fs: float, leads: Sequence[str], scorer: Scorer, *, settings: SegmentSettings = DEFAULT_SETTINGS
    ) -> None:
        self._segmenter = Segmenter(fs, leads, settings=settings)
        self._chain = Chain(len(self._segmenter.leads))
        self._scorer = scorer

    @property
    def leads(self) -> tuple[str, ...]:
        """Leads of the windows; the first one is scored."""
        return self._segmenter.leads

    @property
    def lead(self) -> str:
        """The lead that is scored."""
        return self._segmenter.lead

    @property
    def substituted(self) -> bool:
        """Whether the scored lead is neither MLII nor II, which the model was trained on."""
        return self._segmenter.substituted

    def push(self, samples: NDArray[np.float32]) -> ScoredItems:
        """Add the stream's next samples in mV, shape (samples, leads), and return the items that are complete."""
        return self._chain.score(self._segmenter.push(samples), self._scorer)

    def finish(self) -> ScoredItems:
        """End the stream and return the remaining items."""
        return self._chain.score(self._segmenter.finish(), self._scorer)
