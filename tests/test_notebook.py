"""The example notebook runs from its first cell to its last."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.conftest import CHECKOUT

if TYPE_CHECKING:
    from pathlib import Path

NOTEBOOK = CHECKOUT / "examples" / "getting-started.ipynb"
EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, kernel_name="python3", timeout=240).execute()
print(nbformat.writes(notebook))
"""


def test_the_notebook_runs_and_shows_tables_and_pictures(tmp_path: Path) -> None:
    path = os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, "-c", EXECUTE, str(NOTEBOOK)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": path, "IPYTHONDIR": str(tmp_path / "ipython")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    outputs = [output for cell in json.loads(run.stdout)["cells"] for output in cell.get("outputs", ())]
    shown = [kind for output in outputs for kind in output.get("data", {})]
    assert shown.count("image/png") == 2
    assert shown.count("text/html") == 2
    assert any("anomalous_episode" in "".join(output.get("text", "")) for output in outputs)


def test_the_notebook_is_committed_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
