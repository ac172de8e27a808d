"""Which datasets are so small that one job extracts all models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from vitfeat.config.config import Config
from vitfeat.config.parsing import parse_config, read_config
from vitfeat.plan.small import extracted_together, is_small

LARGE = {"source": "timm", "name": "vit_large_patch16_224", "pretrained": False, "label": "L"}


@pytest.fixture
def default(root: Path, tmp_path: Path) -> Config:
    config = yaml.safe_load((root / "config.yaml").read_text("utf-8"))
    return parse_config({**config, "results": str(tmp_path)})


def parsed(tmp_path: Path, **parts: Any) -> Config:
    digits = {"digits": {"layout": "digits", "split": "test"}}
    config = {"models": ["demo-dino"], "datasets": digits, "extraction": {"taps": ["cls"]}}
    return parse_config({**config, **parts, "results": str(tmp_path)})


def test_all_datasets_of_the_default_are_extracted_by_a_job_each(default: Config) -> None:
    assert [extracted_together(default, name) for name in default.datasets] == [True] * 7


def test_no_dataset_of_the_paper_is(root: Path) -> None:
    paper = read_config(root / "configs/paper.yaml")
    assert not any(extracted_together(paper, name) for name in paper.datasets)


def test_a_large_model_among_small_ones_has_a_job_of_its_own_and_so_have_they(
    tmp_path: Path,
) -> None:
    parts: dict[str, Any] = {"models": ["demo-dino", "large"], "catalog": {"large": LARGE}}
    config = parsed(tmp_path, **parts)
    # Its stores are small; 599 x 1.2e11 / 1e10 s of a pass are not.
    assert is_small(config, "digits")
    assert not extracted_together(config, "digits")
    two = {"digits": {"layout": "digits", "split": "test", "limit": 2}}
    assert extracted_together(parsed(tmp_path, **parts, datasets=two), "digits")


@pytest.mark.parametrize("change", [{"jobs": 2}, {"keep": ("cls",)}, {"together": False}])
def test_what_asks_for_a_job_a_model(default: Config, change: dict[str, Any]) -> None:
    config = replace(default, extraction=default.extraction.but(**change))
    assert not any(extracted_together(config, name) for name in config.datasets)


@pytest.mark.parametrize(
    "change", [{"device": "cuda"}, {"batch_size": 1}, {"workers": 3}, {"jobs": "auto"}]
)
def test_how_images_are_pushed_makes_no_other_jobs(default: Config, change: dict[str, Any]) -> None:
    config = replace(default, extraction=default.extraction.but(**change))
    assert all(extracted_together(config, name) for name in config.datasets)


def test_what_nobody_can_count_yet_is_not_small(tmp_path: Path) -> None:
    photos = {"photos": {"layout": "folder", "root": str(tmp_path / "nowhere")}}
    assert not extracted_together(parsed(tmp_path, datasets=photos), "photos")
