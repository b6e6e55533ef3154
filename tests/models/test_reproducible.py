"""Stored values must not depend on the kernels that a process chooses: any worker of any host may get a batch."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_CHAIN = """
import hashlib, sys
import numpy as np
from ecgmon.models.inference.passband import interpolation, probes
from ecgmon.models.inference.reconstruction import Scorer
from ecgmon.pipelines.offline.record import score_record
from ecgmon.pipelines.sources.finding import resolve
from ecgmon.pipelines.sources.record import open_source

scorer = Scorer()
scored = score_record(open_source(resolve(["toy"])[0], stop=90.0), scorer, keep_windows=True)
ticks = scorer.score(scored.windows[:, : scorer.info.leads]).ticks
assert len(scored.beats) > 100
for part in (interpolation(), probes(2), scored.windows, scored.beats, scored.ax, ticks, scored.score):
    print(hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest())
"""

WAYS = {
    "OpenBLAS for Haswell": {"OPENBLAS_CORETYPE": "Haswell"},
    "OpenBLAS for Prescott": {"OPENBLAS_CORETYPE": "Prescott"},
    "OpenBLAS for Skylake": {"OPENBLAS_CORETYPE": "SkylakeX"},
    "one thread": {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    "torch without AVX-512": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "a BLAS library without fused multiply-add": {"MKL_CBWR": "COMPATIBLE"},
    "numpy without AVX-512": {"NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR"},
}


def digests(**environment: str) -> list[str]:
    chosen = {
        key: value for key, value in os.environ.items() if not key.startswith(("OPENBLAS_", "MKL_", "OMP_", "NPY_"))
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _CHAIN],
        env=chosen | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture(scope="module")
def expected() -> list[str]:
    return digests()


@pytest.mark.parametrize("way", WAYS)
def test_every_stored_value_is_the_same_with_every_choice_of_kernels(way: str, expected: list[str]) -> None:
    assert digests(**WAYS[way]) == expected
