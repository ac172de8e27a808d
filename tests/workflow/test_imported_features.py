"""Features from elsewhere in the workflow: no extraction, and all that a vector an image allows."""

from __future__ import annotations

import csv
import os
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest

import vitfeat
from tests.workflow.harness import MINI, Workflow


@pytest.fixture(scope="module")
def workflow(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    folder = tmp_path_factory.mktemp("imported")
    np.save(folder / "digits.npy", np.random.default_rng(0).normal(size=(40, 2, 5)))
    config = deepcopy(MINI)
    config["models"] = ["demo-dino", "cnn"]
    file = str(folder / "{dataset}.npy")
    config["catalog"] = {"cnn": {"source": "features", "name": "resnet50", "features": file}}
    config["analyses"] = {
        "cka": {"datasets": ["digits"], "tokens": ["mean"], "estimators": ["debiased"]},
        "residual": {"datasets": ["digits"], "tokens": ["cls", "spatial"]},
    }
    return Workflow(root, folder, config)


def test_it_joins_the_models_of_the_config(workflow: Workflow) -> None:
    wanted = [str(workflow.results / path) for path in ("cka/all.png", "residual/all.png")]
    jobs = workflow.planned(*wanted)
    assert (jobs["import_features"], jobs["extract_of_all"]) == (1, 1)
    done = workflow.run(*wanted)
    assert done.returncode == 0, done.stderr
    stores = [vitfeat.open(workflow.results / f"features/digits/{m}.zarr") for m in MODELS]
    assert stores[0].image_fingerprint == stores[1].image_fingerprint
    with (workflow.results / "cka/digits/mean/cnn--demo-dino.csv").open() as file:
        rows = list(csv.DictReader(file))
    cnn = np.load(workflow.folder / "digits.npy")
    dino = np.asarray(stores[1]["spatial"][:], np.float64).mean((2, 3))
    for row in rows:
        x, y = cnn[:, int(row["layer_a"])], dino[:, int(row["layer_b"])]
        assert float(row["cka"]) == pytest.approx(vitfeat.cka(x, y), abs=1e-5)
    assert len(rows) == 2 * 6
    assert workflow.planned(*wanted) == {}


MODELS = ("cnn", "demo-dino")


def test_other_features_are_imported_again_and_no_image_is_pushed(workflow: Workflow) -> None:
    path = workflow.folder / "digits.npy"
    np.save(path, np.load(path) + 1)
    later = path.stat().st_mtime + 5
    os.utime(path, (later, later))
    jobs = workflow.planned(str(workflow.results / "cka/all.png"))
    assert jobs["import_features"] == 1
    assert not {"extract", "extract_of_all", "index"} & jobs.keys()
