"""The wheel holds one import package, which also works in a folder with another package ``models``."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

LARGEST = 2_000_000
SCORE = """
import models
assert models.MINE, models.__file__
import ecgmon
from ecgmon.testing import synthetic_ecg
assert {site!r} in ecgmon.__file__, ecgmon.__file__
ecg = synthetic_ecg(20, ectopic=[10])
scores = ecgmon.score(ecg.signal, ecg.fs)
assert scores.anomalous.nonzero()[0].tolist() == [10], scores.score
try:
    ecgmon.load_model(ecgmon.models.weights.checkpoint.shipped("fold0"))
except ecgmon.errors.CheckpointError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, so that the checkout stays unchanged."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for name in ("ecgmon", "models", "monitor", "pipelines"):
        shutil.copytree(CHECKOUT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, copy)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(out), str(copy)], check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_is_small_and_holds_one_import_package_with_all_code_and_the_default_weights(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    assert wheel.stat().st_size < LARGEST
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"ecgmon"}
    assert "ecgmon/py.typed" in names
    code = {
        str(Path("ecgmon", file.relative_to(CHECKOUT)))
        for folder in ("models", "monitor", "pipelines")
        for file in (CHECKOUT / folder).rglob("*.py")
    } | {str(file.relative_to(CHECKOUT)) for file in (CHECKOUT / "ecgmon").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == code
    others = {name for name in names if not name.endswith(".py") and ".dist-info/" not in name}
    assert {name for name in others if "weights" in name} == {"ecgmon/models/weights/default.safetensors"}


def bring_compiled_loops(site: Path) -> None:
    """Copy the machine code of the checkout's loops to the same sources in a wheel: compiling them takes a minute."""
    for folder in ("models", "pipelines"):
        for code in (CHECKOUT / folder).rglob("*.nb[ic]"):
            kept = site / "ecgmon" / code.relative_to(CHECKOUT)
            kept.parent.mkdir(exist_ok=True)
            shutil.copy(code, kept)
        for source in (CHECKOUT / folder).rglob("*.py"):
            shutil.copystat(source, site / "ecgmon" / source.relative_to(CHECKOUT))  # numba compares the time


def test_the_wheel_works_in_a_folder_with_another_package_models(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    (site,) = (tmp_path / "venv").glob("lib/python3*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    bring_compiled_loops(site)
    # the dependencies of this environment; its ecgmon is not used, because path files come after installed packages
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    own = tmp_path / "notebooks"
    (own / "models").mkdir(parents=True)
    (own / "models" / "__init__.py").write_text("MINE = True\n")
    run = subprocess.run(
        [str(python), "-c", SCORE.format(site=str(site))],
        cwd=own, env={"PATH": "", "HOME": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("fold0.safetensors is not among the weights that are installed")
    assert "checkout" in run.stdout
