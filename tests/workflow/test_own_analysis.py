"""An analysis of the user's own, as docs/extending.md has it, from its module to its figures."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import vitfeat
from tests.workflow.harness import in_fork
from vitfeat.analyses.rows import read_scores

FILE = re.compile(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", re.S)


@pytest.fixture(scope="module")
def page(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of someone who did what the page says."""
    folder = tmp_path_factory.mktemp("mine")
    text = (root / "docs/extending.md").read_text("utf-8")
    for name, content in FILE.findall(text):
        (folder / name).write_text(content)
    config = yaml.safe_load((folder / "my.yaml").read_text())
    config["datasets"]["digits"]["per_class"] = 6
    (folder / "my.yaml").write_text(yaml.safe_dump(config))
    for line in re.findall(r"^    ((?:snakemake|vitfeat) .*)$", text, re.M):
        program, *words = shlex.split(line)
        more = ["-s", str(root / "Snakefile")] if program == "snakemake" else []
        done = run(root, folder, program, *more, *words)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def run(root: Path, folder: Path, program: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", program, *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_module_is_short(root: Path) -> None:
    text = (root / "docs/extending.md").read_text("utf-8")
    assert sum(content.count("\n") for _, content in FILE.findall(text)) <= 40


def test_its_numbers_are_those_of_the_definition(page: Path) -> None:
    results = page / "results/texture"
    store = vitfeat.open(results / "features/digits/demo-mae.zarr")
    rows = read_scores(results / "texture/digits/demo-mae.csv")
    assert [row.layer for row in rows] == list(store.layers)
    for place, row in enumerate(rows):
        tokens = np.asarray(store["spatial"][:, place], dtype=np.float64).reshape(60, 64, -1)
        centred = tokens - tokens.mean(axis=(0, 1))
        shares = [
            np.square(image - image.mean(axis=0)).sum() / np.square(image).sum()
            for image in centred
        ]
        assert row.value == pytest.approx(np.mean(shares), rel=1e-9)
    by_hand = read_scores(page / "texture.csv")
    assert {row.value for row in by_hand}.isdisjoint(row.value for row in rows)


def test_it_has_the_figures_and_the_row_of_any_other(page: Path) -> None:
    results = page / "results/texture"
    for figure in ("texture/all", *(f"texture/digits/sets/all/{n}" for n in ("by_layer", "best"))):
        assert (results / f"{figure}.png").stat().st_size > 5000
    best = (results / "tasks/best.csv").read_text()
    assert "texture,digits,demo-dino,spatial" in best


def test_a_change_of_the_module_or_of_a_setting_runs_what_depends_on_it(
    page: Path, root: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(root)}
    line = ["-s", str(root / "Snakefile"), "-n", "--configfile", "my.yaml"]
    assert "Nothing to be done" in in_fork(line, page, environment).stdout
    config = (page / "my.yaml").read_text()
    (page / "my.yaml").write_text(config.replace("module:", "centred: false\n    module:"))
    planned = in_fork(line, page, environment).stdout
    (page / "my.yaml").write_text(config)
    with (page / "texture.py").open("a") as module:
        module.write("# Other arithmetic.\n")
    touched = in_fork(line, page, environment).stdout
    for said in (planned, touched):
        assert re.search(r"^texture_of_all +1$", said, re.M), said
        assert "extract" not in said
