"""The example notebook runs, on the results of a fresh run of the embedded default."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient


@pytest.mark.slow
def test_the_quick_start_runs(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "notebooks"
    folder.mkdir()
    shutil.copy(root / "notebooks/quickstart.ipynb", folder)
    # What the notebook reads of the default's results.
    targets = ("features/digits/demo-dino.json", "cka/digits/cls/demo-dino--demo-mae.csv")
    command = [
        *(sys.executable, "-m", "snakemake", *(f"results/{target}" for target in targets)),
        *("--cores", "2", "--nolock"),
        *("--snakefile", str(root / "Snakefile"), "--configfile", str(root / "config.yaml")),
        *("--config", "models=[demo-dino,demo-mae]"),
    ]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    notebook = nbformat.read(folder / "quickstart.ipynb", as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    # The CKA and the map of spatial tokens.
    assert len(pictures) == 2
    last = notebook.cells[-1].outputs[0]["data"]["text/plain"]
    assert "torch.Size([64, 64])" in last
