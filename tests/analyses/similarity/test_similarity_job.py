"""The commands that compare models and draw their similarity, and what their jobs need."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.analyses.similarity import reference_similarity as reference
from vitfeat.analyses.base import Needs
from vitfeat.analyses.rows import read_similarity
from vitfeat.analyses.similarity import needs
from vitfeat.cli import main
from vitfeat.config.parsing import parse_config
from vitfeat.numerics.gram import gram
from vitfeat.numerics.gramfile import GramMeta, write_gram_file
from vitfeat.plan.study import Study

IDS = ("a", "b", "c")
MODELS = json.dumps([{"id": i, "label": f"Model {i}", "family": "dino"} for i in IDS])


@pytest.fixture
def features(tmp_path: Path) -> dict[str, np.ndarray]:
    """Features of three models whose Gram files are in gram/."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(60, 4))
    made = {}
    for name in IDS:
        x = shared @ rng.normal(size=(4, 8)) + rng.normal(size=(60, 8))
        made[name] = x.astype(np.float32)
        meta = GramMeta(name, "photos", "cls", "i", "f")
        one = gram(lambda start, stop, x=made[name]: x[start:stop], 60)
        write_gram_file(tmp_path / "gram" / f"{name}.safetensors", [11], [one], meta)
    return made


def compare(folder: Path, *more: str, models: Sequence[str] = IDS[:2]) -> int:
    """Run the command on models' Gram files."""
    out = f"{folder}/similarity/photos/cls/{{model}}--{{other}}.csv"
    command = ["run", "similarity", f"{folder}/gram/{{model}}.safetensors", f"--out={out}"]
    return main([*command, "--models", *models, *more])


def draw(folder: Path, *more: str) -> int:
    return main(
        [
            *("draw", "similarity", str(folder / "similarity")),
            *("--datasets", "photos", "--tokens", "cls", "--models", MODELS),
            *("--out", str(folder / "figures"), *more),
        ]
    )


def test_models_are_compared_and_drawn(features: dict[str, np.ndarray], tmp_path: Path) -> None:
    assert compare(tmp_path, "--resamples", "40", "--variance", "0.9", models=IDS) == 0
    assert len(list((tmp_path / "similarity/photos/cls").iterdir())) == 6
    rows = read_similarity(tmp_path / "similarity/photos/cls/a--c.csv")
    found = {row.measure: row for row in rows}
    assert set(found) == {"cka", "procrustes", "rsa", "mutual_knn", "svcca"}
    x, y = features["a"], features["c"]
    assert found["cka"].value == pytest.approx(reference.cka(x, y), abs=1e-5)
    assert found["mutual_knn"].value == pytest.approx(reference.mutual_knn(x, y, 10))
    assert found["svcca"].value == pytest.approx(reference.svcca(x, y, 0.9), abs=1e-5)
    assert found["rsa"].low < found["rsa"].value < found["rsa"].high
    assert draw(tmp_path) == 0
    names = ("all", "trees", "maps", "intervals")
    expected = {f"{name}.{kind}" for name in names for kind in ("png", "pdf", "csv")}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == expected
    assert draw(tmp_path, "--sets", '{"two": ["a", "c"]}') == 0
    assert {path.name for path in (tmp_path / "figures/sets/two").iterdir()} == expected


def test_flags_reach_the_comparison(features: dict[str, np.ndarray], tmp_path: Path) -> None:
    flags = "--measures mutual_knn cka --neighbours 3 --images 30 --confidence 0.8 --seed 5"
    assert compare(tmp_path, *flags.split(), "--resamples", "20") == 0
    first, second = read_similarity(tmp_path / "similarity/photos/cls/a--b.csv")
    assert (first.measure, first.setting, first.n_images) == ("mutual_knn", 3, 30)
    assert (second.measure, second.confidence) == ("cka", 0.8)
    images = [2 * i + 1 for i in range(30)]
    expected = reference.cka(features["a"][images], features["b"][images])
    assert second.value == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--measures cca", "--measures: found 'cca'"),
        ("--neighbours 60", "60 neighbours of every image, and there are 59"),
        ("--resamples 3", "3 resamples"),
        ("--images 6", "--images: found 6"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    flags: str,
    message: str,
    features: dict[str, np.ndarray],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert compare(tmp_path, *flags.split()) == 1
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "error" in x]
    assert message in line
    assert not (tmp_path / "similarity").exists()


@pytest.mark.parametrize("flags", ["--variance 0", "--variance 1.1", "--confidence 1"])
def test_shares_are_checked(flags: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(tmp_path, *flags.split()) == 1
    flag, value = flags.split()
    assert f"{flag}: found {value}" in capsys.readouterr().err


def test_bad_tables_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert draw(tmp_path) == 1
    assert "cannot read similarity table" in capsys.readouterr().err
    table = tmp_path / "similarity/photos/cls/a--a.csv"
    table.parent.mkdir(parents=True)
    table.write_text("model,value\n")
    assert draw(tmp_path) == 1
    assert f"{table} is no similarity table" in capsys.readouterr().err
    assert not (tmp_path / "figures").exists()


def test_the_job_starts_fast() -> None:
    # SciPy and Matplotlib take longer to import than a pair takes to compare.
    code = (
        "import sys, vitfeat.analyses.similarity.job; "
        "print([m for m in ('torch', 'scipy', 'matplotlib', 'zarr') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def study(n_images: int, tmp_path: Path, **settings: Any) -> Study:
    """Two models of 12 layers on so many images."""
    photos = {"layout": "folder", "root": "photos"}
    raw = {
        "results": str(tmp_path),
        "models": ["supervised-b16", "dino-b16"],
        "datasets": {"photos": photos},
        "analyses": {"similarity": {"datasets": ["photos"], **settings}},
    }
    (tmp_path / "datasets").mkdir(exist_ok=True)
    (tmp_path / "datasets/photos.csv").write_text("image\n" * (n_images + 1))
    return Study(parse_config(raw), "similarity", "photos", "supervised-b16", "dino-b16")


def test_needs_grow_with_the_images_that_are_compared(tmp_path: Path) -> None:
    def of(n: int, images: int | None) -> Needs:
        return needs(study(n, tmp_path, images=images, layers="all"))

    few, some, all_of_them = of(1000, 1000), of(20_000, 1000), of(20_000, None)
    assert few.memory_mb <= some.memory_mb < all_of_them.memory_mb
    assert few.minutes <= some.minutes < all_of_them.minutes
    assert of(1000, None) == of(1000, 5000)


def test_memory_holds_a_file_and_what_is_kept_of_layers(tmp_path: Path) -> None:
    n, m = 20_000, 5000
    found = needs(study(n, tmp_path, images=m, layers="all"))
    assert found.memory_mb > (4 * n**2 + 24 * 8 * m**2) / 2**20
    # One pair of layers of a thousand images takes seconds: little more than what every job gets.
    assert 10 <= needs(study(1000, tmp_path)).minutes <= 12
