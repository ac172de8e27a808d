"""What is planned of figures of tasks, and of all tasks together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.workflow.harness import Workflow

SPLITS = {"digits": "test", "digits-train": "train"}
CONFIG: dict[str, Any] = {
    "models": ["demo-dino", "demo-mae"],
    "datasets": {
        **{n: {"layout": "digits", "split": s, "limit": 40} for n, s in SPLITS.items()},
        "pairs": {"layout": "spair", "root": "embedded", "split": "test"},
    },
    "analyses": {
        "knn": {"datasets": ["digits"], "train": {"digits": "digits-train"}},
        "linear_probe": {"datasets": ["digits"], "train": {"digits": "digits-train"}},
        "keypoints": {"datasets": ["pairs"]},
    },
    "figures": {"sets": {"one": ["demo-mae"]}},
}


@pytest.fixture
def workflow(root: Path, tmp_path: Path) -> Workflow:
    return Workflow(root, tmp_path, CONFIG)


def test_every_task_has_its_figures_and_all_are_collected(workflow: Workflow) -> None:
    planned = workflow.planned()
    for name in CONFIG["analyses"]:
        assert planned[f"{name}_figures"] == 1
    assert planned["collect"] == 1


def test_a_figure_can_be_named(workflow: Workflow) -> None:
    folder = f"{workflow.results}/keypoints/pairs/sets/one"
    planned = workflow.planned(f"{folder}/groups.png", f"{folder}/details.csv")
    assert planned["keypoints_figures"] == 1
    assert planned["keypoints_of_all"] == 1
    assert "collect" not in planned
