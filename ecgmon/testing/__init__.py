"""For tests of programs that use ecgmon: synthetic ECGs whose beats are known, and stores of them.

To use the fixtures of :mod:`ecgmon.testing.fixtures` in a folder of tests, write in its ``conftest.py``::

    pytest_plugins = ["ecgmon.testing.fixtures"]
"""

from __future__ import annotations

from ecgmon.testing.stores import store_of
from ecgmon.testing.synthetic import LEADS, SyntheticECG, synthetic_ecg

__all__ = ["LEADS", "SyntheticECG", "store_of", "synthetic_ecg"]

SyntheticECG.__module__ = store_of.__module__ = synthetic_ecg.__module__ = __name__
