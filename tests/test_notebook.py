"""The example notebooks run from nothing, and show what their saved results show."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def _shown(notebook: nbformat.NotebookNode) -> list[set[str]]:
    """Return which kinds of results each cell shows."""
    return [
        {kind for output in cell.get("outputs", []) for kind in output.get("data", {})}
        for cell in notebook.cells
    ]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    saved = nbformat.read(path, as_version=4)
    run = nbformat.read(path, as_version=4)
    NotebookClient(run, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    # As anybody sees them who opens the file: the store as a table, curves, pictures.
    assert _shown(run) == _shown(saved)
    tables = [
        o["data"]["text/html"]
        for c in run.cells
        for o in c.get("outputs", [])
        if "data" in o and "text/html" in o["data"]
    ]
    assert any('class="vitfeat-store"' in table for table in tables)
    assert sum("image/png" in kinds for kinds in _shown(run)) >= 3


def test_there_is_a_notebook_of_each_kind() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["attention", "features", "similarity"]
