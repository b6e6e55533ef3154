"""Synthetic evidence, for tests of scores without beats."""

from __future__ import annotations

import numpy as np

from ecgmon.models.features import NAMES, OUTLINE
from ecgmon.models.score.evidence import Evidence


def normal_beats(n: int, seed: int) -> Evidence:
    """Make features of normal beats, which are partly correlated, and outlines of two kinds."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).standard_normal((len(NAMES), len(NAMES))) / 4 + np.eye(len(NAMES))
    features = random.standard_normal((n, len(NAMES))) @ mixing
    outline = np.sin(np.linspace(0, 6, OUTLINE) + random.integers(0, 2, (n, 1))) + 0.1 * random.standard_normal(
        (n, OUTLINE)
    )
    return Evidence(features.astype(np.float32), outline.astype(np.float32))
