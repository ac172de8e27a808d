"""All analyses on one pass: what is made, that tables are of the stores, what a change runs."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

import vitfeat
from tests.workflow.harness import Workflow
from vitfeat.analyses.rows import (
    read_attention,
    read_residual_cka,
    read_residual_norms,
    read_scores,
)

MODELS = ("demo-dino", "noise")
N_IMAGES, BRANCHES, MAPS = 30, 12, 2
CONFIG: dict[str, Any] = {
    "models": list(MODELS),
    "catalog": {
        "noise": {
            "source": "noise",
            "name": "small",
            "image_size": 32,
            "args": {"depth": 3, "embed_dim": 32, "num_heads": 2, "patch_size": 8},
            "family": "noise",
        }
    },
    "datasets": {"digits": {"layout": "digits", "split": "test", "per_class": 3}},
    "analyses": {
        "attention": {"datasets": ["digits"]},
        "attention_maps": {"datasets": ["digits"], "images": MAPS, "positions": ["cls", "0,1"]},
        "clustering": {"datasets": ["digits"], "seeds": 2, "n_init": 2},
        "residual": {"datasets": ["digits"], "images": BRANCHES, "tokens": ["cls", "spatial"]},
    },
    "figures": {"sets": {"trained": ["demo-dino"]}},
}


@pytest.fixture(scope="module")
def analysed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """The workflow, run once; tests may only plan on it."""
    workflow = Workflow(root, tmp_path_factory.mktemp("analyses"), CONFIG)
    done = workflow.run()
    assert done.returncode == 0, done.stdout + done.stderr
    return workflow


def changed(workflow: Workflow, analysis: str, **settings: object) -> Workflow:
    config = deepcopy(workflow.config)
    config["analyses"][analysis] |= settings
    return Workflow(workflow.root, workflow.folder, config)


def test_one_pass_served_all(analysed: Workflow) -> None:
    for model in MODELS:
        assert analysed.manifest(model)["forward_images"] == N_IMAGES
        shown = vitfeat.open(analysed.results / f"attention_maps/stores/digits/{model}.zarr")
        assert shown.attributes["forward_images"] == MAPS
    store = vitfeat.open(analysed.results / "features/digits/demo-dino.zarr")
    assert "attention" not in store
    assert len(store.rows("attn_branch/spatial")) == BRANCHES
    assert len(store.rows("residual_norms/attn_skip")) == N_IMAGES


def test_every_figure_has_its_pdf_and_its_numbers(analysed: Workflow) -> None:
    demo = analysed.results / "demo"
    figures = [p for p in analysed.results.rglob("*.png") if not p.is_relative_to(demo)]
    named = {p.relative_to(analysed.results).as_posix() for p in figures}
    assert {f"{a}/all.png" for a in ("attention", "clustering", "residual")} <= named
    for analysis, name in (("attention", "breakout"), ("clustering", "best"), ("residual", "cka")):
        assert f"{analysis}/digits/sets/trained/{name}.png" in named
    assert "attention/digits/noise/token_maps.png" in named
    of_maps = "attention_maps/digits/demo-dino/position_layer/"
    assert len({name for name in named if name.startswith(of_maps)}) == MAPS
    for path in figures:
        assert path.stat().st_size > 5_000, path
        assert path.with_suffix(".pdf").stat().st_size > 3_000, path
        assert len(path.with_suffix(".csv").read_text("utf-8").splitlines()) > 1, path


def test_attention_tables_are_of_the_stores(analysed: Workflow) -> None:
    store = vitfeat.open(analysed.results / "features/digits/demo-dino.zarr")
    rows = read_attention(analysed.results / "attention/digits/demo-dino.csv")
    on_cls = store["attention_summary/spatial_query"][:, :, :, 0].astype(np.float64)
    for row in (r for r in rows if r.metric == "spatial_to_cls"):
        found = on_cls[:, row.layer, row.head]
        assert row.mean == pytest.approx(found.mean(), rel=1e-6)
        assert row.deviation == pytest.approx(found.std(ddof=1), rel=1e-5)
        assert row.n_images == N_IMAGES
    with xarray.open_dataset(
        analysed.results / "attention/digits/demo-dino.nc", engine="scipy"
    ) as maps:
        assert maps.attrs["n_images"] == N_IMAGES
        cls = store["attention_summary/prefix_query"][:, :, :, 0].astype(np.float64)
        np.testing.assert_allclose(maps["cls_query"], cls.mean(axis=0), rtol=1e-5, atol=1e-7)
        for label, mean in zip(
            maps["class"].values, maps["cls_query_by_class"].values, strict=True
        ):
            own = cls[store.labels == label].mean(axis=0)
            np.testing.assert_allclose(mean, own, rtol=1e-5, atol=1e-7)


def test_clustering_tables_have_every_seed_and_its_chance_level(analysed: Workflow) -> None:
    rows = read_scores(analysed.results / "clustering/digits/demo-dino.csv")
    assert len(rows) == 6 * 2 * 3 * 2 * 3  # layers, features, seeds and mean, labels, scores
    assert {(r.n, r.variant) for r in rows} == {(N_IMAGES, "k=10")}

    def mean(score: str) -> float:
        return float(np.mean([r.value for r in rows if r.score == score and not r.group]))

    assert mean("ari") > mean("ari_shuffled") + 0.1


def test_residual_tables_are_of_the_stores(analysed: Workflow) -> None:
    folder = analysed.results / "residual/digits"
    store = vitfeat.open(analysed.results / "features/digits/demo-dino.zarr")
    skip, branch = (
        store[f"residual_norms/mlp_{side}"][:, :, 0].astype(np.float64)
        for side in ("skip", "branch")
    )
    for row in read_residual_norms(folder / "demo-dino.norms.csv"):
        if (row.branch, row.ratio) == ("mlp", "cls"):
            assert row.mean == pytest.approx((skip / branch)[:, row.layer].mean(), rel=1e-6)
            assert row.n_images == N_IMAGES
    cka = read_residual_cka(folder / "demo-dino.cka.csv")
    assert len(cka) == 2 * 2 * 6 * 6
    assert {row.n_images for row in cka} == {BRANCHES}


def test_noise_has_no_residual_connections_and_stops_nothing(analysed: Workflow) -> None:
    folder = analysed.results / "residual/digits"
    assert read_residual_norms(folder / "noise.norms.csv") == []
    assert read_residual_cka(folder / "noise.cka.csv") == []
    log = (analysed.results / "logs/residual/digits.log").read_text("utf-8").splitlines()
    assert "noise has no branches with skips of their own: left out" in log


def test_an_unchanged_rerun_does_nothing(analysed: Workflow) -> None:
    assert analysed.planned() == {}


@pytest.mark.parametrize(
    ("analysis", "settings", "rules"),
    [
        ("clustering", {"seeds": 3}, ("clustering_of_all", "clustering_figures", "collect")),
        (
            "attention",
            {"null_rows": "exclude"},
            ("attention_of_all", "attention_model", "attention_figures"),
        ),
        ("residual", {"tokens": ["cls"]}, ("residual_of_all", "residual_figures")),
    ],
)
def test_a_setting_runs_its_analysis_and_all_figures_of_it(
    analysed: Workflow, analysis: str, settings: dict[str, Any], rules: tuple[str, ...]
) -> None:
    planned = changed(analysed, analysis, **settings).planned()
    assert planned == {**dict.fromkeys(rules, 1), "all": 1}


def test_another_set_is_drawn_and_nothing_else(analysed: Workflow) -> None:
    config = deepcopy(analysed.config)
    config["figures"]["sets"]["both"] = list(MODELS)
    more = Workflow(analysed.root, analysed.folder, config)
    names = ("attention_figures", "clustering_figures", "residual_figures", "collect")
    figures = dict.fromkeys(names, 1)
    assert more.planned() == {**figures, "all": 1}


def test_a_job_for_a_gpu_that_is_not_there_does_not_start(analysed: Workflow) -> None:
    config = changed(analysed, "residual", tokens=["cls"]).config
    config["extraction"] = {"device": "cuda:7"}
    done = Workflow(analysed.root, analysed.folder, config).run()
    assert done.returncode == 1
    assert "extraction.device: found 'cuda:7', and this machine has" in done.stderr
    assert "residual" not in done.stderr
