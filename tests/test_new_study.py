"""``vitfeat init`` writes what runs, and says what is wrong in one line."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.conftest import ROOT
from tests.workflow.harness import in_fork
from vitfeat.cli import main
from vitfeat.config.parsing import parse_config

MODELS = ("dinov2-b14", "clip-b16")


def _written(study: Path) -> dict[str, object]:
    raw = yaml.safe_load((study / "config.yaml").read_text("utf-8"))
    with contextlib.chdir(study):
        parse_config(raw)
    return dict(raw)


def test_a_folder_of_classes_becomes_a_config_that_plans(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "my study"
    words = ["--from-folder", str(photos), "--models", *MODELS]
    assert main(["init", str(study), *words]) == 0
    said = capsys.readouterr().out
    assert "6 images in 2 subfolders, which are taken for classes: cat, dog" in said
    assert f"cd '{study}' && snakemake" in said
    raw = _written(study)
    assert raw["models"] == list(MODELS)
    assert raw["datasets"]["photos"]["layout"] == "folder"  # type: ignore[index]
    done = in_fork(["-n"], study, {**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stdout + done.stderr
    for step in ("fetch_weights", "clustering_of_all", "cka_figures", "study"):
        assert step in done.stdout + done.stderr


def test_images_without_classes_become_a_flat_dataset(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (40, 48)).save(photos / "beside.png")
    study = tmp_path / "study"
    monkeypatch.chdir(photos)
    assert main(["init", str(study), "--from-folder", ".", "--models", "demo-dino"]) == 0
    raw = _written(study)
    assert raw["datasets"]["photos"]["layout"] == "flat"  # type: ignore[index]
    assert raw["datasets"]["photos"]["root"] == str(photos)  # type: ignore[index]
    assert "clustering" not in raw["analyses"]  # type: ignore[operator]


def test_comments_of_the_default_stay_where_models_are_named(tmp_path: Path) -> None:
    assert main(["init", str(tmp_path / "s"), "--models", *MODELS]) == 0
    ours = (ROOT / "config.yaml").read_text("utf-8")
    new = (tmp_path / "s/config.yaml").read_text("utf-8")
    before, _, behind = ours.partition("\nmodels:\n")
    assert new.startswith(before)
    assert new.endswith(behind[behind.index("\n# Models of your own") :])
    assert _written(tmp_path / "s")["models"] == list(MODELS)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--models", "dinov2b14"], "unknown model 'dinov2b14' (did you mean 'dinov2-b14'?)"),
        (["--from-folder", "nowhere", "--models", "dino-b16"], "nowhere: no such folder"),
        (["--from-folder", "{empty}", "--models", "dino-b16"], "no images in"),
        (["--from-folder", "{photos}"], "--models is missing"),
    ],
)
def test_what_cannot_be_written_is_one_line_and_leaves_nothing(
    words: list[str],
    error: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    filled = [word.format(photos=photos, empty=tmp_path / "empty") for word in words]
    assert main(["init", str(tmp_path / "study"), *filled]) == 1
    said = capsys.readouterr().err
    assert error in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "study").exists()


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("mine")
    assert main(["init", str(tmp_path)]) == 1
    assert "config.yaml is there already" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"config.yaml": "mine"}
    # Beside what is another's, it may stand.
    (tmp_path / "config.yaml").rename(tmp_path / "notes.txt")
    assert main(["init", str(tmp_path)]) == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"
