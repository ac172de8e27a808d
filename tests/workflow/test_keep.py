"""Arrays that go when they were used: what stays, what runs again, what is said."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vitfeat
from tests.store.filled import files
from tests.workflow.harness import Workflow, changed
from vitfeat.errors import StoreError
from vitfeat.store.info import describe
from vitfeat.store.verify import verify

CONFIG: dict[str, Any] = {
    "models": ["demo-dino"],
    "datasets": {
        "digits": {"layout": "digits", "split": "test", "per_class": 2},
        "train": {"layout": "digits", "split": "train", "per_class": 2},
    },
    "extraction": {"keep": ["cls"]},
    "analyses": {
        "cka": {"datasets": ["digits"], "tokens": ["cls", "spatial", "all"]},
        "knn": {
            "datasets": ["digits"],
            "train": {"digits": "train"},
            "features": ["cls", "mean"],
            "neighbours": [2],
        },
    },
}


def arrays(workflow: Workflow) -> set[str]:
    """Return the arrays below the folder of features that have numbers."""
    return {p.parent.name for p in workflow.results.glob("features/**/c.0.0*")} - {
        "grid_shape",
        "shards",
    }


@pytest.fixture(scope="module")
def used(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """All results, and of the features what stays; tests may only plan on it."""
    workflow = Workflow(root, tmp_path_factory.mktemp("keep"), CONFIG)
    done = workflow.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "go after use" in done.stderr
    return workflow


def test_what_does_not_stay_is_gone_and_all_results_are_there(used: Workflow) -> None:
    assert arrays(used) == {"cls"}
    assert list(used.results.glob("features/*/*.transient")) == []
    for name in ("cka/all.png", "knn/digits/demo-dino.csv", "knn/all.png"):
        assert (used.results / name).stat().st_size > 0
    # As if all had stayed.
    whole = Workflow(used.root, used.folder / "whole", {**CONFIG, "extraction": {}})
    whole.folder.mkdir()
    tables = ("knn/digits/demo-dino.csv", "cka/digits/all/demo-dino--demo-dino.csv")
    assert whole.run(*(str(whole.results / name) for name in tables)).returncode == 0
    for name in tables:
        assert (used.results / name).read_bytes() == (whole.results / name).read_bytes()
    here, there = (w.results / "features/digits/demo-dino.zarr" for w in (used, whole))
    held = files(there)
    assert files(here) == {n: held[n] for n in held if not n.startswith("spatial/")}


def test_the_store_that_stays_is_whole_and_says_what_was_dropped(used: Workflow) -> None:
    path = used.results / "features/digits/demo-dino.zarr"
    store, damages = verify(path)
    assert damages == []
    assert list(store) == ["cls"]
    assert "spatial" not in store
    assert store.dropped == ("spatial",)
    assert np.isfinite(store["cls"][:]).all()
    with pytest.raises(StoreError, match=r"spatial was dropped after use, as extraction\.keep say"):
        store["spatial"]
    with pytest.raises(StoreError, match="dropped after use"):
        store.tokens(0)
    assert list(store.to_xarray().data_vars) == ["cls"]
    assert any(line.startswith("spatial  dropped after use") for line in describe(store))
    assert "spatial" in json.loads(path.with_suffix(".json").read_text())["arrays"]


def test_nothing_runs_when_nothing_changed(used: Workflow) -> None:
    assert used.planned() == {}


def test_a_kind_of_tokens_less_runs_no_gram_job_which_would_extract_anew(used: Workflow) -> None:
    fewer = changed(used, "analyses", "cka", "tokens", ["cls", "all"])
    # Tables of a pair are made together, and from fewer files.
    assert set(fewer.planned()) == {"cka_of_all", "cka_figures", "all"}


def test_an_analysis_of_what_stayed_extracts_nothing(used: Workflow) -> None:
    settings = {"datasets": ["digits"], "n_init": 1, "seeds": 1, "features": ["cls"]}
    planned = changed(used, "analyses", "clustering", settings).planned()
    assert planned.pop("clustering_of_all") == 1
    assert not {"extract", "gram", "knn"} & planned.keys()


def test_an_analysis_of_what_was_dropped_extracts_anew_and_the_plan_says_so(
    used: Workflow,
) -> None:
    settings = {"datasets": ["digits"], "n_init": 1, "seeds": 1, "features": ["mean"]}
    more = changed(used, "analyses", "clustering", settings)
    # The training images are not needed again for it, but k-NN reads both stores.
    assert more.planned()["extract"] >= 1
    plan = more.run("-n")
    assert (
        "extracted anew, since what was dropped after use (extraction.keep) is needed again: "
        "digits demo-dino" in plan.stdout
    )


def test_another_model_is_all_that_is_extracted(used: Workflow) -> None:
    more = changed(used, "models", ["demo-dino", "demo-mae"])
    planned = more.planned()
    assert planned["extract"] == 2
    assert planned["knn"] == 1
    # What stays and what goes, apart.
    assert (planned["gram_cls_of_all"], planned["gram_spatial_all"]) == (1, 1)
    assert planned["cka_of_all"] == 1
    assert "demo-dino.transient" not in more.run("--dry-run").stdout


def test_what_a_failed_run_left_is_used_and_then_goes(root: Path, tmp_path: Path) -> None:
    config = deepcopy(CONFIG)
    del config["analyses"]["knn"], config["datasets"]["train"]
    workflow = Workflow(root, tmp_path, config)
    table = str(workflow.results / "cka/digits/all/demo-dino--demo-dino.csv")
    in_the_way = workflow.results / "cka/gram/digits/all/demo-dino.safetensors"
    in_the_way.mkdir(parents=True)
    assert workflow.run(table).returncode != 0
    assert arrays(workflow) == {"cls", "spatial"}
    transient = workflow.results / "features/digits/demo-dino.transient"
    assert [p.name for p in transient.iterdir() if p.is_dir()] == ["spatial"]
    store = vitfeat.open(transient.with_suffix(".zarr"))
    assert set(store) == {"cls", "spatial"}
    assert verify(store.path)[1] == []
    in_the_way.rmdir()
    assert "extract" not in workflow.planned(table)
    done = workflow.run(table)
    assert done.returncode == 0, done.stderr
    assert arrays(workflow) == {"cls"}
    # All of it is extracted again where all is to stay.
    everything = changed(workflow, "extraction", "keep", None)
    assert everything.run(table).returncode == 0
    assert set(vitfeat.open(store.path)) == {"cls", "spatial"}
    assert everything.planned(table) == {}
