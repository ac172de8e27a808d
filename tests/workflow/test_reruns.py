"""What a change of an analysis' settings runs, and names that Snakemake could misread."""

from __future__ import annotations

import csv
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.harness import Workflow, changed

CONFIG: dict[str, Any] = {
    "models": ["demo-dino"],
    "datasets": {"digits": {"layout": "digits", "split": "test", "per_class": 2}},
    "analyses": {
        "attention": {"datasets": ["digits"]},
        "attention_maps": {"datasets": ["digits"], "images": 2, "positions": ["cls"]},
        "clustering": {"datasets": ["digits"], "n_init": 1, "seeds": 1},
        "residual": {"datasets": ["digits"], "tokens": ["cls"], "images": 8},
    },
}


def tables(workflow: Workflow) -> list[str]:
    """Return what of each analysis is made first; figures across models are left out."""
    names = (
        "attention/digits/demo-dino.csv",
        "attention_maps/digits/demo-dino",
        "clustering/digits/demo-dino.csv",
        "residual/digits/demo-dino.norms.csv",
    )
    return [str(workflow.results / name) for name in names]


@pytest.fixture(scope="module")
def analysed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """The tables, made once; tests may only plan on them."""
    workflow = Workflow(root, tmp_path_factory.mktemp("analyses"), CONFIG)
    done = workflow.run(*tables(workflow))
    assert done.returncode == 0, done.stdout + done.stderr
    return workflow


@pytest.mark.parametrize(
    ("analysis", "key", "value", "rules"),
    [
        ("attention", "null_rows", "exclude", {"attention"}),
        ("attention", "offset_null_rows", "zero", {"attention"}),
        ("attention", "by_class", False, {"attention"}),
        ("attention", "high_norm", None, {"attention"}),
        ("attention_maps", "positions", ["diagonal"], {"attention_maps"}),
        ("attention_maps", "head", 1, {"attention_maps"}),
        # Not the stores of all images, nor what else is made from them.
        ("attention_maps", "images", 3, {"attention_maps"}),
        ("attention_maps", "images", ["test/3/0013.png"], {"attention_maps"}),
        ("attention_maps", "layers", ["first", 3], {"attention_maps"}),
        ("attention_maps", "percentile", 95, {"attention_maps"}),
        ("clustering", "seed", 1, {"clustering"}),
        ("clustering", "features", ["cls"], {"clustering"}),
        # No feature that is asked for uses it.
        ("clustering", "pattern_layers", "last", set()),
        ("residual", "tokens", ["cls", "spatial"], {"residual"}),
    ],
)
def test_a_setting_touches_its_own_analysis(
    analysed: Workflow, analysis: str, key: str, value: object, rules: set[str]
) -> None:
    config = deepcopy(analysed.config)
    config["analyses"][analysis][key] = value
    changed = Workflow(analysed.root, analysed.folder, config)
    planned = {rule.removesuffix("_of_all") for rule in changed.planned(*tables(changed))}
    assert planned == rules


def test_images_turned_by_exif_are_indexed_and_seen_anew(analysed: Workflow) -> None:
    config = deepcopy(analysed.config)
    config["datasets"]["digits"]["orientation"] = "exif"
    changed = Workflow(analysed.root, analysed.folder, config)
    assert {"index", "extract_of_all"} <= set(changed.planned(*tables(changed)))


def test_names_that_a_shell_or_snakemake_would_take_apart(
    root: Path, tmp_path: Path, photos: Path
) -> None:
    ids = ["cat/a.png", "-dog/{model} d'é.png", "-dog/-{e} $x.png"]
    (photos / "dog").rename(photos / "-dog")
    (photos / "-dog/d.png").rename(photos / ids[1])
    (photos / "-dog/e.png").rename(photos / ids[2])
    folder = photos.rename(tmp_path / "ro{dataset}\n't $HOME #1%")
    weights = tmp_path / "we{i}ghts $x#.safetensors"
    shutil.copy(root / "vitfeat/demo/weights/dino.safetensors", weights)
    entry = {
        "source": "timm",
        "name": "vit_tiny_patch16_224",
        "image_size": 32,
        "args": {"patch_size": 4, "embed_dim": 64, "depth": 6, "num_heads": 4},
        "checkpoint": str(weights),
        "normalisation": "half",
        "label": "-{mine} $x$ 'y' # %s",
    }
    settings = {"datasets": ["photos"], "images": ids, "positions": ["cls"]}
    config = {
        "models": ["mine"],
        "catalog": {"mine": entry},
        "datasets": {"photos": {"layout": "folder", "root": f"{folder}/"}},
        "analyses": {
            "attention_maps": settings,
            "cka": {"datasets": ["photos"], "tokens": ["cls"]},
        },
    }
    (tmp_path / "a 'b' $c #d%é").mkdir()
    workflow = Workflow(root, tmp_path / "a 'b' $c #d%é", config)
    done = workflow.run()
    assert done.returncode == 0, done.stdout + done.stderr
    maps = workflow.results / "attention_maps/photos/mine/head_layer"
    for place, (name, path) in enumerate(zip(ids, sorted(maps.glob("*.csv")), strict=True)):
        assert path.name.startswith(f"{place}-")
        with path.open(newline="", encoding="utf-8") as file:
            assert {row["image"] for row in csv.DictReader(file)} == {name}
    # The store does not depend on the order.
    settings["images"] = ids[::-1]
    assert workflow.planned() == {"attention_maps_of_all": 1, "all": 1}


@pytest.mark.parametrize(("layouts", "drawn"), [(["flat"], False), (["flat", "folder"], True)])
def test_classes_are_compared_only_where_some_dataset_may_have_them(
    root: Path, tmp_path: Path, photos: Path, layouts: list[str], drawn: bool
) -> None:
    config = {
        "models": ["demo-dino"],
        "datasets": {name: {"layout": name, "root": str(photos)} for name in layouts},
        "analyses": {"attention": {"datasets": layouts}},
    }
    planned = Workflow(root, tmp_path, config).run("--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "flat/demo-dino/token_maps.png" in planned.stdout
    assert ("token_map_classes" in planned.stdout) == drawn


def test_a_further_model_costs_a_cluster_its_own_submissions_and_those_of_figures(
    finished: Workflow,
) -> None:
    more = changed(finished, "models", [*finished.config["models"], "demo-clip"])
    # What is so small that a job is of all models shares one; so do all figures.
    expected = {"small": 1, "figures": 1}
    assert more.submitted("slurm", "--cores", "2") == expected
