"""Classification with every layer as a job of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.workflow.harness import Workflow

PAIR: dict[str, Any] = {"datasets": ["digits"], "train": {"digits": "digits-train"}}
CONFIG: dict[str, Any] = {
    "models": ["demo-dino", "demo-mae"],
    "datasets": {
        "digits": {"layout": "digits", "split": "test", "limit": 40},
        "digits-train": {"layout": "digits", "split": "train", "limit": 60},
    },
    "analyses": {
        "knn": {**PAIR, "layer_jobs": True},
        "linear_probe": {**PAIR, "layer_jobs": True},
    },
}


def test_every_layer_of_every_model_is_a_job(root: Path, tmp_path: Path) -> None:
    planned = Workflow(root, tmp_path, CONFIG).planned()
    for task in ("knn", "linear_probe"):
        assert planned[f"{task}_layer"] == 2 * 6
        assert planned[f"{task}_join"] == 2
        assert task not in planned
    # Stores of both datasets, of each model.
    assert planned["extract"] == 4


def test_stored_layers_alone_are_jobs(root: Path, tmp_path: Path) -> None:
    analyses = {"knn": {**PAIR, "layer_jobs": True}, "linear_probe": PAIR}
    config = {**CONFIG, "analyses": analyses, "extraction": {"layers": ["first", 3, "last"]}}
    planned = Workflow(root, tmp_path, config).planned()
    assert planned["knn_layer"] == 2 * 3
    assert planned["linear_probe"] == 2
    assert "linear_probe_layer" not in planned
