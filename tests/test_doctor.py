"""``vitfeat doctor`` says what a machine lacks for a config, and how to get it."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from vitfeat import doctor
from vitfeat.cli import main
from vitfeat.gpus import Gpu

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def study(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write a config of one folder of images, and stand beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "visible_gpus", list)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))

    def write(**more: Any) -> None:
        raw = {
            "results": "results",
            "models": ["demo-dino"],
            "datasets": {"photos": {"layout": "folder", "root": str(photos)}},
            "analyses": {"cka": {"datasets": ["photos"]}},
        }
        Path("config.yaml").write_text(yaml.safe_dump(raw | more))

    return write


def _said(capsys: pytest.CaptureFixture[str], status: int, *words: str) -> str:
    assert main(["doctor", *words]) == status
    said = capsys.readouterr()
    return said.out + said.err


def test_a_config_that_can_run_is_said_to(study: Any, capsys: pytest.CaptureFixture[str]) -> None:
    study()
    said = _said(capsys, 0)
    for line in (
        "packages   all that are needed",
        "GPU        none",
        "weights    demo-dino: built in",
        "dataset    photos: 6 images at most",
    ):
        assert line in said
    assert "disk       at most" in said


def test_weights_that_are_not_there_come_with_their_command(
    study: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    study(models=["dino-b16"], weights="kept")
    said = _said(capsys, 0)
    assert "dino-b16: absent; the workflow fetches them, or: " in said
    assert "vitfeat fetch dino-b16 --weights-folder kept\n" in said


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (
            {"datasets": {"photos": {"layout": "coco", "root": "nowhere", "split": "val2017"}}},
            "stops      dataset photos: nowhere does not exist yet; docs/analyses/regions.md",
        ),
        ({"extraction": {"device": "cuda"}}, "stops      extraction.device: found 'cuda'"),
    ],
)
def test_what_stops_jobs_ends_in_status_1(
    study: Any, more: dict[str, Any], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    study(**more)
    said = _said(capsys, 1)
    assert line in said
    assert said.splitlines()[-1] == "vitfeat: error: 1 thing to mend first, of those above"


def test_a_full_disk_stops(
    study: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10, 9, 1))
    assert "1 B free: NOT ENOUGH" in _said(capsys, 1)


def test_a_config_that_is_wrong_is_one_line(study: Any, capsys: pytest.CaptureFixture[str]) -> None:
    study(models=["dinob16"])
    assert "did you mean 'dino-b16'?" in _said(capsys, 1).splitlines()[-1]
    assert "no-such.yaml" in _said(capsys, 1, "--configfile", "no-such.yaml").splitlines()[-1]


def test_packages_that_are_missing_or_old_come_with_their_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["numpy>=2.0", "timm>=99", "no-such-package>=1.2", 'no-heic>=3; extra == "heic"']
    monkeypatch.setattr(doctor, "requires", lambda _: asked)
    monkeypatch.setattr(doctor, "visible_gpus", list)
    monkeypatch.chdir(tmp_path)
    said = _said(capsys, 1)
    assert "needed is >=99: pip install 'timm>=99'" in said
    assert "no-such-package is missing: pip install 'no-such-package>=1.2'" in said
    assert "optional   heic: no-heic is missing: pip install 'vitfeat[heic]'" in said
    assert "numpy" not in said
    assert doctor._fault(Requirement("numpy>=2.0")) is None


def test_a_gpu_that_pytorch_cannot_use_stops(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    monkeypatch.setattr(doctor, "visible_gpus", lambda: [Gpu("0", "GPU-1")])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    assert "cannot use them" in _said(capsys, 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "1 GPU; ask for them: snakemake --resources gpu=1" in _said(capsys, 0)
