"""Every task through the workflow: tables, figures of models and of sets, and all together."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.harness import Workflow
from vitfeat.analyses.rows import read_scores

MODEL = "demo-dino"
PAIR: dict[str, Any] = {"datasets": ["digits"], "train": {"digits": "digits-train"}}
CONFIG: dict[str, Any] = {
    "models": [MODEL],
    "datasets": {
        "digits": {"layout": "digits", "split": "test", "per_class": 4},
        "digits-train": {"layout": "digits", "split": "train", "per_class": 6},
        "coco": {"layout": "coco", "root": "embedded", "split": "val2017"},
        "revisited": {
            "layout": "revisited",
            "root": "embedded",
            "view": {"kind": "dense", "long_side": 64, "passes": "one"},
        },
        "davis": {
            "layout": "davis",
            "root": "embedded",
            "split": "val",
            "view": {"kind": "dense", "short_side": 32, "passes": "one"},
        },
        "spair": {
            "layout": "spair",
            "root": "embedded",
            "split": "test",
            "view": {"kind": "padded"},
        },
    },
    "analyses": {
        "regions": {"datasets": ["coco"], "seeds": 1, "n_init": 1},
        "saliency": {"datasets": ["coco"], "images": 2},
        "knn": {**PAIR, "neighbours": [5]},
        "linear_probe": {**PAIR, "regularisation": [0.01]},
        "retrieval": {"datasets": ["revisited"]},
        "video": {"datasets": ["davis"]},
        "keypoints": {"datasets": ["spair"]},
    },
}
TASKS = {
    "regions": "coco",
    "saliency": "coco",
    "knn": "digits",
    "linear_probe": "digits",
    "retrieval": "revisited",
    "video": "davis",
    "keypoints": "spair",
}
FIGURES = (
    f"saliency/coco/{MODEL}/masks",
    f"retrieval/revisited/{MODEL}/ranking",
    f"keypoints/spair/{MODEL}/matches",
    f"video/davis/{MODEL}/frames",
    "knn/all",
    # One of each kind: plain, with details, with groups.
    "linear_probe/digits/sets/all/best",
    "knn/digits/sets/all/details",
    "keypoints/spair/sets/all/groups",
    "tasks/sets/all/heat_map",
)


@pytest.fixture(scope="module")
def solved(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """All tasks of one model, run once; tests may only plan on it."""
    workflow = Workflow(root, tmp_path_factory.mktemp("tasks"), CONFIG)
    done = workflow.run(*targets(workflow))
    assert done.returncode == 0, done.stdout + done.stderr
    return workflow


def targets(workflow: Workflow) -> list[str]:
    tables = [f"{task}/{dataset}/{MODEL}.csv" for task, dataset in TASKS.items()]
    names = [*tables, "tasks/best.csv", *(f"{figure}.png" for figure in FIGURES)]
    return [str(workflow.results / name) for name in names]


@pytest.mark.parametrize("task", TASKS)
def test_tables_have_every_layer(solved: Workflow, task: str) -> None:
    dataset = TASKS[task]
    rows = read_scores(solved.results / f"{task}/{dataset}/{MODEL}.csv")
    assert {(row.task, row.dataset, row.model) for row in rows} == {(task, dataset, MODEL)}
    assert {row.layer for row in rows} >= set(range(6))
    assert all(row.n > 0 for row in rows)


def test_every_figure_has_its_pdf_and_its_numbers(solved: Workflow) -> None:
    for name in FIGURES:
        path = solved.results / name
        assert path.with_suffix(".png").stat().st_size > 5_000, name
        assert path.with_suffix(".pdf").stat().st_size > 3_000, name
        assert len(path.with_suffix(".csv").read_text("utf-8").splitlines()) > 1, name
    assert list((solved.results / f"video/davis/{MODEL}/masks").rglob("*.png"))


def test_one_table_has_all_tasks(solved: Workflow) -> None:
    for name in ("all", "best"):
        with (solved.results / f"tasks/{name}.csv").open(newline="") as file:
            assert {row["task"] for row in csv.DictReader(file)} == set(TASKS)


def test_an_unchanged_rerun_does_nothing(solved: Workflow) -> None:
    assert solved.planned(*targets(solved)) == {}
