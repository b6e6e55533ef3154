"""The exceptions of ecgmon, under the names that a traceback shows.

Every message says in one line what was wrong, what was expected and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecgmon._lazy import lazily

if TYPE_CHECKING:
    from ecgmon.models.inference.onnx_graph import OnnxError
    from ecgmon.models.inference.reconstruction import ScoringError
    from ecgmon.models.weights.checkpoint import CheckpointError
    from ecgmon.models.weights.registry import RegistryError
    from ecgmon.monitor.process.client import ConnectError
    from ecgmon.monitor.process.control import NotRunningError
    from ecgmon.monitor.store.errors import StoreError
    from ecgmon.pipelines.segmentation.segmenter import SegmentationError
    from ecgmon.pipelines.sources.errors import (
        AnnotationError,
        DownloadError,
        DuplicateStreamError,
        GainError,
        HeaderError,
        LeadError,
        RangeError,
        RecordNotFoundError,
        RecordTooShortError,
        RecordTruncatedError,
        SamplingRateError,
        SignalFileError,
        SignalFormatError,
        SourceError,
        UnsafeNameError,
    )
    from ecgmon.pipelines.training.beat_tables import BeatTableError
    from ecgmon.pipelines.training.dataset import DatasetError
    from ecgmon.pipelines.training.fitting import TrainingError
    from ecgmon.pipelines.training.own import Stopped
    from ecgmon.pipelines.training.splits import SplitError

__all__ = [
    "AnnotationError",
    "BeatTableError",
    "CheckpointError",
    "ConnectError",
    "DatasetError",
    "DownloadError",
    "DuplicateStreamError",
    "GainError",
    "HeaderError",
    "LeadError",
    "NotRunningError",
    "OnnxError",
    "RangeError",
    "RecordNotFoundError",
    "RecordTooShortError",
    "RecordTruncatedError",
    "RegistryError",
    "SamplingRateError",
    "ScoringError",
    "SegmentationError",
    "SignalFileError",
    "SignalFormatError",
    "SourceError",
    "SplitError",
    "Stopped",
    "StoreError",
    "TrainingError",
    "UnsafeNameError",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "ecgmon.models.inference.onnx_graph": ("OnnxError",),
        "ecgmon.models.inference.reconstruction": ("ScoringError",),
        "ecgmon.models.weights.checkpoint": ("CheckpointError",),
        "ecgmon.models.weights.registry": ("RegistryError",),
        "ecgmon.monitor.process.client": ("ConnectError",),
        "ecgmon.monitor.process.control": ("NotRunningError",),
        "ecgmon.monitor.store.errors": ("StoreError",),
        "ecgmon.pipelines.segmentation.segmenter": ("SegmentationError",),
        "ecgmon.pipelines.sources.errors": (
            "AnnotationError",
            "DownloadError",
            "DuplicateStreamError",
            "GainError",
            "HeaderError",
            "LeadError",
            "RangeError",
            "RecordNotFoundError",
            "RecordTooShortError",
            "RecordTruncatedError",
            "SamplingRateError",
            "SignalFileError",
            "SignalFormatError",
            "SourceError",
            "UnsafeNameError",
        ),
        "ecgmon.pipelines.training.beat_tables": ("BeatTableError",),
        "ecgmon.pipelines.training.dataset": ("DatasetError",),
        "ecgmon.pipelines.training.fitting": ("TrainingError",),
        "ecgmon.pipelines.training.own": ("Stopped",),
        "ecgmon.pipelines.training.splits": ("SplitError",),
    },
)
