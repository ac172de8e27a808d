"""The wheel alone is enough: no source tree, no settings of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow


def _run(words: Sequence[str | Path], folder: Path) -> str:
    """Run a command as from a shell that knows nothing of this project."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=folder, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist of a copy of the project."""
    folder = tmp_path_factory.mktemp("build")
    left = shutil.ignore_patterns(".*", "results", "tests", "node_modules", "*.egg-info", "*.png")
    shutil.copytree(ROOT, folder / "copy", ignore=left)
    code = "import sys; from setuptools import build_meta as b; getattr(b, sys.argv[1])('..')"
    _run([sys.executable, "-c", code, "build_sdist"], folder / "copy")
    (sdist,) = folder.glob("vitfeat-*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = (path for path in folder.glob("vitfeat-*") if path.is_dir())
    _run([sys.executable, "-c", code, "build_wheel"], source)
    (built,) = folder.glob("vitfeat-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, which finds what vitfeat depends on where the tests do."""
    folder = tmp_path_factory.mktemp("environment")
    _run([sys.executable, "-m", "venv", "--without-pip", folder], folder)
    places = {"base": str(folder), "platbase": str(folder)}
    here = Path(sysconfig.get_path("purelib", "venv", places))
    # A path alone: files of links to editable installs there are not followed.
    (here / "dependencies.pth").write_text(sysconfig.get_path("purelib"), "utf-8")
    python = folder / "bin" / "python"
    install = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    _run([sys.executable, "-m", "pip", "--python", str(python), *install], folder)
    return python


def _files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts]


def test_the_wheel_has_the_workflow_as_it_is_here(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = {n: archive.read(n) for n in archive.namelist()}
    top = "vitfeat/_workflow/"
    carried = {n.removeprefix(top): data for n, data in files.items() if n.startswith(top)}
    ours = [ROOT / "Snakefile", ROOT / "config.yaml", ROOT / "environment.yml"]
    for name in ("workflow", "configs", "profiles"):
        ours += _files(ROOT / name)
    ours += (ROOT / "docs").rglob("*.md")
    expected = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in ours}
    assert carried == expected
    assert {p.relative_to(ROOT).as_posix() for p in _files(ROOT / "vitfeat")} <= files.keys()


def test_a_study_runs_from_the_wheel(python: Path, tmp_path: Path) -> None:
    said = _run([python, "-m", "vitfeat", "init", "mystudy"], tmp_path)
    study = tmp_path / "mystudy"
    assert said.splitlines()[-1] == ("next: cd mystudy && snakemake --cores 2 results/cka/all.png")
    assert (study / "config.yaml").read_bytes() == (ROOT / "config.yaml").read_bytes()
    where = "import vitfeat; from vitfeat.new_study import workflow_home as h; print(h())"
    home = Path(_run([python, "-c", where], study).strip())
    assert home.is_relative_to(python.parents[1])
    # Fewer models and images than the command takes without these.
    fewer = ["--config", "models=[demo-dino, demo-mae]"]
    shown = _run([python, "-m", "snakemake", "--cores", "2", "results/cka/all.png", *fewer], study)
    assert (study / "results/cka/all.png").stat().st_size > 1000
    assert "profiles/default" in shown
    # Lines of progress are those of vitfeat's logger.
    assert re.search(r"^(\d+) of \1 steps done in ", shown, re.M), shown
    assert "Select jobs to execute" not in shown
    # What it names when no target is: everything.
    plan = _run([python, "-m", "snakemake", "-n", *fewer], study)
    assert "\nstudy " in plan
    assert "collect" in plan


def test_doctor_finds_nothing_missing_in_it(python: Path, tmp_path: Path) -> None:
    said = _run([python, "-m", "vitfeat", "doctor"], tmp_path)
    assert "packages   all that are needed" in said
