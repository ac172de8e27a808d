"""The workflow with its results behind S3, through Snakemake's storage plugin."""

from __future__ import annotations

import json
from pathlib import Path

import boto3
import pytest

import vitfeat
from tests.store.s3 import BUCKET, S3, objects_below, point_to
from tests.workflow.harness import Workflow, changed
from vitfeat.store.verify import verify

pytest.importorskip("snakemake_storage_plugin_s3")

PLACE = f"s3://{BUCKET}/lab"
STORE = f"{PLACE}/results/features/digits/demo-dino.zarr"
CONFIG = {
    "models": ["demo-dino"],
    "datasets": {"digits": {"layout": "digits", "split": "test", "per_class": 3}},
    "analyses": {
        "cka": {"datasets": ["digits"], "tokens": ["cls"]},
        "clustering": {"datasets": ["digits"], "seeds": 1, "n_init": 1},
    },
}


class InItsFolder(Workflow):
    """Whose results have a relative name, as in the project's folder."""

    @property
    def results(self) -> Path:
        return Path("results")


@pytest.mark.slow
def test_tables_figures_and_stores_stand_behind_s3(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = S3()
    point_to(monkeypatch, server.url)
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    storage = ("--default-storage-provider", "s3", "--default-storage-prefix", PLACE)
    storage += ("--storage-s3-endpoint-url", server.url)
    try:
        workflow = InItsFolder(root, tmp_path, CONFIG)
        done = workflow.run(*storage)
        assert done.returncode == 0, done.stdout + done.stderr
        there = objects_below(f"{PLACE}/results")
        assert {"cka/all.png", "clustering/all.png", "clustering/digits/demo-dino.csv"} <= set(
            there
        )
        store, damages = verify(STORE)
        assert (store.n_images, damages) == (30, [])
        # Snakemake's copy of the manifest has gone to where the extraction has put its own.
        manifest = json.loads(there["features/digits/demo-dino.json"])
        assert manifest["fingerprint"] == store.fingerprint
        # Here are what jobs are planned from and the logs, and no store.
        here = tmp_path / "results"
        assert {path.name for path in here.iterdir()} == {"benchmarks", "datasets", "demo", "logs"}
        assert "30 images" in (here / "logs/extract/digits.log").read_text()
        # What is there is known in the next run, and made anew where other images are asked for.
        assert workflow.planned(*storage) == {}
        workflow.config = changed(workflow, "datasets", "digits", "per_class", 2).config
        done = workflow.run("results/features/digits/demo-dino.json", *storage)
        assert done.returncode == 0, done.stdout + done.stderr
        assert vitfeat.open(STORE).n_images == 20
        assert set(workflow.planned(*storage)) >= {"gram_of_all", "clustering_of_all"}
    finally:
        server.stop()
