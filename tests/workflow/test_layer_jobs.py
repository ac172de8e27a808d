"""Classification with several jobs that share a model's layers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.harness import Workflow, changed

# As published, so large that no job is of all models.
IMAGENET = {"layout": "imagenet", "root": "imagenet"}
PAIR: dict[str, Any] = {
    "datasets": ["val"],
    "train": {"val": "train"},
    "features": ["cls"],
    "layer_jobs": True,
}
CONFIG: dict[str, Any] = {
    "models": ["dino-b16", "mae-l16"],
    "datasets": {name: {**IMAGENET, "split": name} for name in ("val", "train")},
    "analyses": {"knn": {**PAIR}, "linear_probe": {**PAIR}},
}


@pytest.fixture
def workflow(root: Path, tmp_path: Path) -> Workflow:
    return Workflow(root, tmp_path, CONFIG)


def test_a_job_is_of_six_layers_and_their_tables_are_joined(workflow: Workflow) -> None:
    planned = workflow.planned()
    for task in ("knn", "linear_probe"):
        # Of 12 layers and of 24.
        assert planned[f"{task}_layers"] == 2 + 4
        assert planned[f"{task}_join"] == 2
        assert task not in planned
    # Stores of both datasets, of each model.
    assert planned["extract"] == 4


def test_stored_layers_alone_have_jobs(workflow: Workflow) -> None:
    some = changed(workflow, "extraction", "layers", ["first", 3, "last"])
    planned = changed(some, "analyses", "linear_probe", "layer_jobs", False).planned()
    assert planned["knn_layers"] == planned["knn_join"] == 2
    assert planned["linear_probe"] == 2
    assert "linear_probe_layers" not in planned


def test_jobs_of_layers_ask_for_a_gpu_and_what_joins_them_does_not(workflow: Workflow) -> None:
    done = workflow.run("--dry-run", "--resources", "gpu=1")
    jobs = re.split(r"^ *rule ", done.stdout, flags=re.M)[1:]
    asked = {text.partition(":")[0]: "gpu=1" in text for text in jobs}
    assert asked["knn_layers"]
    assert asked["linear_probe_layers"]
    assert not asked["knn_join"]
    assert not asked["linear_probe_join"]
