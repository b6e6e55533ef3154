"""What a second of signal is said to be good for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ecgmon.pipelines.items import Kind, Quality
from ecgmon.pipelines.segmentation.segmenter import Segmenter

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

FS = 360
SECONDS = 40
SPOILT = slice(20, 30)


def qualities(signal: NDArray[np.float64]) -> tuple[NDArray[np.uint8], NDArray[np.void]]:
    segmenter = Segmenter(FS, ["II"])
    items = segmenter.push(signal.astype(np.float32)[:, None])
    return items.table["quality"][items.table["kind"] == Kind.SECOND], items.beats


def ecg(amplitude: float = 1.0) -> NDArray[np.float64]:
    """Make beats at 75/min with a little wander and noise, as a converter of 5 uV steps would give them."""
    time = np.arange(SECONDS * FS) / FS
    phase = time % 0.8
    signal = np.exp(-0.5 * ((phase - 0.3) / 0.012) ** 2) + 0.25 * np.exp(-0.5 * ((phase - 0.55) / 0.05) ** 2)
    signal += 0.1 * np.sin(2 * np.pi * 0.2 * time) + 0.01 * np.random.default_rng(0).standard_normal(len(time))
    return amplitude * np.round(signal * 200) / 200


def spoilt(signal: NDArray[np.float64], change: Callable[..., Any]) -> NDArray[np.float64]:
    first, last = SPOILT.start * FS, SPOILT.stop * FS
    signal = signal.copy()
    signal[first:last] = change(signal[first:last])
    return signal


def test_a_clean_ecg_is_usable_throughout() -> None:
    seconds, beats = qualities(ecg())
    assert (seconds == Quality.USABLE).all()
    assert (beats["quality"] == Quality.USABLE).all()


CHANGES = {
    "missing": (Quality.MISSING, lambda s: np.where(np.arange(len(s)) % 10 == 0, np.nan, s)),
    "flat": (Quality.FLAT, lambda s: np.full(len(s), 0.1)),
    "railed": (Quality.SATURATED, lambda s: np.full(len(s), 5.0)),
    "clipped": (Quality.SATURATED, lambda s: np.clip(20 * (s - 0.2), -5, 5)),
    "noisy": (Quality.NOISY, lambda s: s + 0.4 * np.random.default_rng(1).standard_normal(len(s))),
}


@pytest.mark.parametrize("amplitude", [0.02, 1.0, 1000.0])
@pytest.mark.parametrize("name", CHANGES)
def test_spoilt_signal_is_told_whatever_the_unit_and_clean_signal_is_not_accused(name: str, amplitude: float) -> None:
    expected, change = CHANGES[name]
    seconds, _ = qualities(amplitude * spoilt(ecg(), change))
    inside = seconds[SPOILT.start + 1 : SPOILT.stop - 1]
    assert np.mean(inside == expected) >= 0.8
    assert (seconds[: SPOILT.start] == Quality.USABLE).all()
    assert (seconds[SPOILT.stop + 2 :] == Quality.USABLE).all()


def test_a_standstill_with_faint_noise_stays_usable_so_that_asystole_can_be_raised() -> None:
    seconds, beats = qualities(
        spoilt(ecg(), lambda s: np.round(2 * np.random.default_rng(2).standard_normal(len(s))) / 200)
    )
    assert (seconds[SPOILT] == Quality.USABLE).all()
    during = (beats["sample"] > SPOILT.start * FS + 150) & (beats["sample"] < SPOILT.stop * FS - 150)
    assert not during.any()


def test_coarse_steps_of_a_quiet_signal_are_not_taken_for_saturation() -> None:
    wander = 12 * np.sin(2 * np.pi * 0.15 * np.arange(SECONDS * FS) / FS)
    noise = 0.5 * np.random.default_rng(3).standard_normal(SECONDS * FS)
    seconds, _ = qualities(np.round(wander + noise) / 200)
    assert not (seconds == Quality.SATURATED).any()
