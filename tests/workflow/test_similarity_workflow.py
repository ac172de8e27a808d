"""The workflow of similarity: what it makes without CKA, what it runs again, figures by name."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from tests.workflow.harness import Workflow

CONFIG: dict[str, Any] = {
    "models": ["demo-dino", "demo-mae"],
    "datasets": {"digits": {"layout": "digits", "split": "test", "limit": 24}},
    "analyses": {
        "similarity": {
            "datasets": ["digits"],
            "tokens": ["cls"],
            "measures": ["cka", "mutual_knn"],
            "neighbours": 5,
            "resamples": 20,
        }
    },
    "figures": {"sets": {"dino": ["demo-dino"]}},
}


@pytest.fixture(scope="module")
def compared(root: Any, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """The workflow, run once; tests plan on it, and may add what nothing asks for."""
    workflow = Workflow(root, tmp_path_factory.mktemp("similarity"), CONFIG)
    done = workflow.run()
    assert done.returncode == 0, done.stdout + done.stderr
    return workflow


def changed(workflow: Workflow, key: str, value: object) -> Workflow:
    config = deepcopy(workflow.config)
    config["analyses"]["similarity"][key] = value
    return Workflow(workflow.root, workflow.folder, config)


def test_tables_and_figures_are_there(compared: Workflow) -> None:
    folder = compared.results / "similarity"
    assert {path.name for path in (folder / "digits/cls").iterdir()} == {
        f"{pair}.csv"
        for pair in ("demo-dino--demo-dino", "demo-dino--demo-mae", "demo-mae--demo-mae")
    }
    for figures in (folder, folder / "sets/dino"):
        for name in ("all", "trees", "maps", "intervals"):
            assert (figures / f"{name}.png").stat().st_size > 5_000
            assert (figures / f"{name}.pdf").stat().st_size > 3_000
            assert (figures / f"{name}.csv").is_file()
    assert not (compared.results / "cka/all.png").exists()


def test_an_unchanged_rerun_does_nothing(compared: Workflow) -> None:
    assert compared.planned() == {}


def test_a_new_model_costs_its_extraction_and_one_job_of_all_pairs(compared: Workflow) -> None:
    config = {**compared.config, "models": ["demo-beit", "demo-dino", "demo-mae"]}
    assert Workflow(compared.root, compared.folder, config).planned() == {
        "extract_of_all": 1,
        "gram_of_all": 1,
        "similarity_of_all": 1,
        "similarity_figures": 1,
        "all": 1,
    }


def test_settings_touch_the_pairs_that_use_them(compared: Workflow) -> None:
    every = {
        "similarity_of_all": 1,
        "similarity_figures": 1,
        "all": 1,
    }
    assert changed(compared, "seed", 7).planned() == every
    assert changed(compared, "neighbours", 4).planned() == every
    # No measure that is asked for uses it.
    assert changed(compared, "variance", 0.5).planned() == {}


def test_without_cka_among_the_measures_there_are_matrices_alone(compared: Workflow) -> None:
    done = changed(compared, "measures", ["rsa"]).run("--dry-run")
    assert done.returncode == 0
    assert "similarity/all.png" in done.stdout
    assert "similarity/trees.png" not in done.stdout


def test_the_figure_of_a_pair_is_made_when_it_is_named(compared: Workflow) -> None:
    path = compared.results / "similarity/digits/cls/pairs/demo-mae--demo-dino.png"
    config = deepcopy(compared.config)
    config["analyses"]["cka"] = {"datasets": ["digits"], "tokens": ["cls"]}
    more = Workflow(compared.root, compared.folder, config)
    assert more.planned(str(path)) == {"cka_of_all": 1, "cka_pair_figure": 1}
    done = more.run(str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    for kind in ("png", "pdf", "csv"):
        assert path.with_suffix(f".{kind}").stat().st_size > 500
