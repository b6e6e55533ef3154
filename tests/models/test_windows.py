"""The window filter is the published one."""

from __future__ import annotations

import numpy as np
import pytest

from ecgmon.models import windows


def test_the_filter_has_the_bits_of_the_published_filter_run_forwards_and_backwards() -> None:
    from scipy.signal import firwin

    forward = firwin(windows.FILTER_HALF + 1, windows.BAND, pass_zero=False, fs=windows.FS)
    both = windows.convolve(forward, forward[::-1])
    assert np.array_equal(windows.taps(), both.astype(np.float32))
    assert windows.impulse_response() == pytest.approx(both, abs=1e-15)
    assert np.convolve(forward, forward[::-1]) == pytest.approx(both, abs=1e-15)
