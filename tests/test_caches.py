"""No home, and code that may only be read, as in containers: everything runs, and says little."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from numba.core.caching import CacheImpl

from tests.workflow.harness import Workflow
from vitfeat.caches import compiled, find_caches

# Nobody, not even root, can make a folder below a device.
NOWHERE = "/dev/null/home"
VARIABLES = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "NUMBA_CACHE_DIR", "MPLBACKEND")


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Be without a home; return the folder of temporary files."""
    for name in VARIABLES:
        # Set first, so that what is tested leaves none of them behind.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", NOWHERE)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def _double(values: np.ndarray) -> None:
    for place in range(len(values)):
        values[place] *= 2


def test_functions_are_compiled_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    # What Numba finds where neither the code's folder nor a home can be written.
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    values = np.arange(3.0)
    compiled(_double)(values)
    assert values.tolist() == [0, 2, 4]


def test_libraries_keep_their_things_among_the_temporary_files(homeless: Path) -> None:
    find_caches()
    folder = homeless / f"vitfeat-{os.getuid()}"
    assert os.environ.pop("MPLCONFIGDIR") == str(folder / "matplotlib")
    assert os.environ.pop("NUMBA_CACHE_DIR") == str(folder / "numba")
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_could_write_to_is_not_used(homeless: Path) -> None:
    folder = homeless / f"vitfeat-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    find_caches()
    assert "NUMBA_CACHE_DIR" not in os.environ


def test_a_home_is_used_where_there_is_one(
    homeless: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home/not/yet"))
    find_caches()
    assert "MPLCONFIGDIR" not in os.environ
    monkeypatch.setenv("HOME", NOWHERE)
    monkeypatch.setenv("MPLCONFIGDIR", "/mine")
    find_caches()
    assert os.environ["MPLCONFIGDIR"] == "/mine"


def test_a_workflow_without_a_home_says_nothing_of_it(
    homeless: Path, root: Path, tmp_path: Path
) -> None:
    config = {
        "models": ["demo-dino"],
        "datasets": {"digits": {"layout": "digits", "split": "test", "limit": 8}},
        "analyses": {"attention": {"datasets": ["digits"]}},
    }
    # Snakemake's own cache must be somewhere.
    environment = {"HOME": NOWHERE, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = Workflow(root, tmp_path, config, environment).run()
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("Matplotlib", "mkdir", "Traceback", "cache"):
        assert word not in done.stdout + done.stderr


def test_a_command_without_a_home(homeless: Path, photos: Path) -> None:
    words = ["attention-grid", str(photos / "cat/a.png"), "--model", "demo-dino"]
    command = [sys.executable, "-m", "vitfeat", *words, "--out", str(homeless / "grid.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Matplotlib" not in done.stderr
