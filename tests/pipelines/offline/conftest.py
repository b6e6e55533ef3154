"""A part of the built-in record, scored once for all tests of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ecgmon.models.inference.reconstruction import Scorer
from ecgmon.pipelines.offline.record import ScoredRecord, score_record
from ecgmon.pipelines.sources.finding import RecordRef
from ecgmon.pipelines.sources.record import open_source

if TYPE_CHECKING:
    from ecgmon.pipelines.sources.record import RecordSource


@pytest.fixture(scope="session")
def scorer() -> Scorer:
    return Scorer()


@pytest.fixture(scope="session")
def source() -> RecordSource:
    return open_source(RecordRef("toy", None), stop=90)


@pytest.fixture(scope="session")
def scored(source: RecordSource, scorer: Scorer) -> ScoredRecord:
    return score_record(source, scorer, keep_windows=True)
