"""Pictures of scored ECG are correct, and complete for any input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from ecgmon.models.windows import LENGTH
from ecgmon.pipelines.offline.pictures import Beat, Strip, busiest_stretch, draw_strip, meaning

if TYPE_CHECKING:
    from pathlib import Path

FS = 360.0
ORANGE = np.array([0xC2, 0x41, 0x0C]) / 255


def strip(seconds: float, scores: list[float], **changes: Any) -> Strip:
    rng = np.random.default_rng(2)
    fields: dict[str, Any] = {
        "stream": "mitdb/208",
        "lead": "MLII",
        "fs": FS,
        "start": 61.5,
        "signal": rng.normal(0, 0.2, round(seconds * FS)).astype(np.float32),
        "beat_seconds": 61.5 + (np.arange(len(scores)) + 0.5) * seconds / max(len(scores), 1),
        "beat_scores": np.array(scores, np.float32),
    }
    return Strip(**{**fields, **changes})


def beat(**changes: Any) -> Beat:
    t = np.linspace(-1, 1, LENGTH, dtype=np.float32)
    fields = {
        "seq": 7, "seconds": 64.0, "score": 3.4, "ax": 0.02, "rr": 0.8, "rr_ratio": 1.1,
        "window": np.exp(-((8 * t) ** 2)), "reconstruction": 0.9 * np.exp(-((7 * t) ** 2)), "relative_error": 30 * t**2,
    }  # fmt: skip
    return Beat(**{**fields, **changes})


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the resolution: enough to test the layout, and much faster."""
    monkeypatch.setattr("ecgmon.pipelines.offline.pictures._DPI", 50)


def orange(path: Path) -> int:
    """Number of pixels of a strip in the colour of anomalous beats."""
    pixels = imread(path)[: -150 * 4, :, :3]  # without the enlarged beat, whose errors have a similar colour
    return int((np.abs(pixels - ORANGE).max(axis=-1) < 0.02).sum())


def test_only_anomalous_beats_are_marked(tmp_path: Path) -> None:
    plain, marked = tmp_path / "plain.png", tmp_path / "marked.png"
    normal = beat(score=0.5, relative_error=np.zeros(LENGTH, np.float32), ax=0.0)
    draw_strip(plain, strip(10, [0.5] * 8), normal, threshold=2)
    draw_strip(marked, strip(10, [0.5] * 4 + [2.0] * 4), normal, threshold=2)
    assert orange(plain) == 0
    assert orange(marked) > 4 * 50


@pytest.mark.parametrize(("seconds", "rows"), [(3.0, 1), (10.01, 2), (60.0, 6)])
@pytest.mark.usefixtures("coarse")
def test_a_strip_of_any_length_is_complete(tmp_path: Path, seconds: float, rows: int) -> None:
    heights = []
    for length in (10.0, seconds):
        path = tmp_path / f"{length}.png"
        flat = np.zeros(round(length * FS), np.float32)  # the height of a row depends on its signal
        draw_strip(path, strip(length, [1.0], signal=flat), beat(), threshold=2)
        heights.append(imread(path).shape[0])
    assert (heights[1] > heights[0]) == (rows > 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"score": float("nan"), "ax": float("nan"), "relative_error": np.full(LENGTH, np.nan, np.float32)},
        {"window": np.full(LENGTH, np.nan, np.float32), "reconstruction": np.full(LENGTH, np.nan, np.float32)},
        {"window": np.zeros(LENGTH, np.float32), "reconstruction": np.zeros(LENGTH, np.float32)},
        {"rr": float("nan"), "rr_ratio": float("nan")},
        {"score": 6.0, "seconds": 1e4},
        {"relative_error": np.zeros(LENGTH, np.float32), "ax": 0.0},
    ],
)
@pytest.mark.usefixtures("coarse")
def test_a_beat_with_missing_values_is_drawn(tmp_path: Path, changes: dict[str, object]) -> None:
    draw_strip(tmp_path / "a.png", strip(5, [1.0, float("nan")]), beat(**changes), threshold=2)
    assert imread(tmp_path / "a.png").shape[1] == 600


@pytest.mark.parametrize("value", [np.nan, 0.0, 1e6])
@pytest.mark.usefixtures("coarse")
def test_a_constant_signal_is_drawn(tmp_path: Path, value: float) -> None:
    signal = np.full(1800, value, np.float32)
    draw_strip(tmp_path / "a.png", strip(5, [], signal=signal), beat(), threshold=2)
    assert imread(tmp_path / "a.png").shape[1] == 600


@pytest.mark.usefixtures("coarse")
def test_an_artefact_does_not_make_the_picture_much_higher(tmp_path: Path) -> None:
    signal = strip(10, []).signal.copy()
    draw_strip(tmp_path / "a.png", strip(10, [], signal=signal), beat(), threshold=2)
    signal[100:200] = 1000.0
    draw_strip(tmp_path / "b.png", strip(10, [], signal=signal), beat(), threshold=2)
    assert imread(tmp_path / "b.png").shape[0] < 1.5 * imread(tmp_path / "a.png").shape[0]


@pytest.mark.usefixtures("coarse")
def test_a_picture_that_cannot_be_written_leaves_no_temporary_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(OSError, match=r"a\.png"):
        draw_strip(tmp_path / "a.png", strip(5, []), beat(), threshold=2)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@given(
    gaps=st.lists(st.floats(0.2, 20), min_size=1, max_size=60),
    marked=st.lists(st.booleans(), min_size=60, max_size=60),
    length=st.floats(5, 60),
)
def test_the_busiest_part_has_the_most_anomalous_beats(gaps: list[float], marked: list[bool], length: float) -> None:
    seconds = np.cumsum(gaps)
    anomalous = np.array(marked[: len(gaps)])
    start = busiest_stretch(seconds, anomalous, length)

    def count(first: float, width: float) -> int:
        return int(np.count_nonzero(anomalous & (seconds >= first) & (seconds < first + width)))

    assert start >= 0
    assert count(start, length) >= max((count(first, length - 0.5) for first in seconds), default=0)


@pytest.mark.parametrize(
    ("score", "text"),
    [
        (0.0, "About 100 % of normal beats score at least as high."),
        (0.5, "About 32 % of normal beats score at least as high."),
        (1.0, "About 1 normal beat in 10 scores at least as high."),
        (3.0, "About 1 normal beat in 1,000 scores at least as high."),
        (3.55, "About 1 normal beat in 3,500 scores at least as high."),
        (6.0, "Fewer than 1 normal beat in 1,000,000 scores as high."),
        (float("nan"), "No score: part of the signal is missing."),
    ],
)
def test_the_meaning_of_a_score_in_words(score: float, text: str) -> None:
    assert meaning(score) == text
