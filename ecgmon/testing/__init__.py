"""For tests of programs that use ecgmon: an ECG of which the truth is known, and stores of it.

The fixtures of :mod:`ecgmon.testing.fixtures` are there for every test of a folder whose ``conftest.py`` says::

    pytest_plugins = ["ecgmon.testing.fixtures"]
"""

from __future__ import annotations

from ecgmon.testing.stores import store_of
from ecgmon.testing.synthetic import LEADS, SyntheticECG, synthetic_ecg

__all__ = ["LEADS", "SyntheticECG", "store_of", "synthetic_ecg"]

SyntheticECG.__module__ = store_of.__module__ = synthetic_ecg.__module__ = __name__
