"""The workflow as a user runs it: what it makes, what it runs again, what it says when it fails."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import vitfeat
from tests.analysis import reference_cka
from tests.workflow.harness import Workflow

pytestmark = pytest.mark.xdist_group("workflow")


def changed(workflow: Workflow, *path: Any) -> Workflow:
    """Return the same workflow with one setting of its config changed."""
    config = deepcopy(workflow.config)
    *keys, last, value = path
    node = config
    for key in keys:
        node = node.setdefault(key, {})
    node[last] = value
    return Workflow(workflow.root, workflow.folder, config)


def test_each_image_went_through_each_model_once(finished: Workflow) -> None:
    for model in ("demo-dino", "demo-mae"):
        assert finished.manifest(model)["forward_images"] == 40


def test_tables_hold_the_cka_of_the_stored_features(finished: Workflow) -> None:
    folder = finished.results / "features/digits"
    features = {
        model: vitfeat.open(folder / f"{model}.zarr").to_xarray()
        for model in ("demo-dino", "demo-mae")
    }

    def matrix(model: str, layer: int, tokens: str) -> np.ndarray[Any, Any]:
        at = features[model].sel(layer=layer)
        kinds = ("cls",) if tokens == "cls" else ("cls", "spatial")
        return np.concatenate(
            [at[kind].values.astype(np.float64).reshape(40, -1) for kind in kinds], axis=1
        )

    for tokens in ("cls", "all"):
        path = finished.results / f"cka/digits/{tokens}/demo-dino--demo-mae.csv"
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 36
        for row in rows[::5]:
            expected = reference_cka.cka(
                matrix(row["model_a"], int(row["layer_a"]), tokens),
                matrix(row["model_b"], int(row["layer_b"]), tokens),
                reference_cka.hsic1,
            )
            assert float(row["cka"]) == pytest.approx(expected, abs=1e-5)
            assert (row["estimator"], row["tokens"], row["n_images"]) == ("debiased", tokens, "40")


def test_figures_are_there(finished: Workflow) -> None:
    for name in ("all", "last_layer"):
        for kind in ("png", "pdf"):
            assert (finished.results / f"cka/{name}.{kind}").stat().st_size > 10_000


def test_an_unchanged_rerun_does_nothing(finished: Workflow) -> None:
    assert finished.planned() == {}


def test_the_default_plans_one_extraction_a_model(root: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((root / "config.yaml").read_text("utf-8"))
    planned = Workflow(root, tmp_path, config).planned()
    assert planned["extract"] == 7
    assert planned["cka_pair"] == 3 * 7 * 8 // 2


def test_a_new_model_costs_one_extraction_and_its_pairs(finished: Workflow) -> None:
    more = changed(finished, "models", ["demo-beit", "demo-dino", "demo-mae"])
    assert more.planned() == {
        "extract": 1,
        # The Gram matrix of all tokens is made from that of the spatial ones.
        "gram": 2,
        "gram_all_tokens": 1,
        # Three pairs for cls and three for all.
        "cka_pair": 6,
        "cka_figures": 1,
        "all": 1,
    }


def test_the_order_of_models_touches_the_figures_alone(finished: Workflow) -> None:
    other = changed(finished, "models", ["demo-mae", "demo-dino"])
    assert other.planned() == {"cka_figures": 1, "all": 1}


def test_an_estimator_touches_pairs_alone(finished: Workflow) -> None:
    other = changed(finished, "analyses", "cka", "estimators", ["biased"])
    assert other.planned() == {"cka_pair": 6, "cka_figures": 1, "all": 1}


def test_settings_of_unused_estimators_touch_nothing(finished: Workflow) -> None:
    assert changed(finished, "analyses", "cka", "seed", 7).planned() == {}
    assert changed(finished, "analyses", "cka", "batch_size", 8).planned() == {}


@pytest.mark.parametrize(
    ("key", "value"), [("batch_size", 7), ("workers", 1), ("device", "cpu"), ("replace", False)]
)
def test_how_an_extraction_runs_touches_nothing(
    finished: Workflow, key: str, value: object
) -> None:
    assert changed(finished, "extraction", key, value).planned() == {}


def test_how_a_model_is_shown_touches_the_figures_alone(finished: Workflow) -> None:
    entry = {"source": "demo", "name": "dino", "crop_fraction": 1.0, "label": "D", "family": "x"}
    other = changed(finished, "catalog", {"demo-dino": entry})
    assert other.planned() == {"cka_figures": 1, "all": 1}


def test_the_element_type_touches_everything_behind_it(finished: Workflow) -> None:
    planned = changed(finished, "extraction", "dtype", "float32").planned()
    assert planned["extract"] == 2
    assert "index" not in planned


def test_a_smaller_dataset_touches_its_index_first(finished: Workflow) -> None:
    planned = changed(finished, "datasets", "digits", "limit", 30).planned()
    assert (planned["index"], planned["extract"]) == (1, 2)
    assert "demo_digits" not in planned


@pytest.fixture
def mini(finished: Workflow, tmp_path: Path) -> Workflow:
    """A miniature that may be run, on photographs and one model."""
    config = deepcopy(finished.config)
    config["models"] = ["demo-dino"]
    config["analyses"]["cka"] = {"datasets": ["photos"], "tokens": ["cls"]}
    config["datasets"] = {"photos": {"layout": "folder", "root": str(tmp_path / "photos")}}
    return Workflow(finished.root, tmp_path, config)


def test_a_broken_image_is_named_and_earlier_results_stay(mini: Workflow, photos: Path) -> None:
    assert mini.run().returncode == 0
    store = vitfeat.open(mini.results / "features/photos/demo-dino.zarr")
    before, folder = store["cls"][:], store.path.stat().st_ino
    # The folder changes, so the index is made anew; it finds the broken file and stops.
    (photos / "dog" / "g.png").write_bytes(b"")
    done = mini.run()
    assert done.returncode != 0
    lines = [li for li in (done.stdout + done.stderr).splitlines() if "vitfeat: error" in li]
    assert lines
    assert all("dog/g.png" in line for line in lines)
    assert "Traceback" not in done.stdout + done.stderr
    store = vitfeat.open(mini.results / "features/photos/demo-dino.zarr")
    np.testing.assert_array_equal(store["cls"][:], before)
    # What was there before is still there, and as whole as it was.
    for path in ("datasets/photos.csv", "features/photos/demo-dino.json", "cka/all.png"):
        assert (mini.results / path).stat().st_size > 0
    # Without the broken file the store is still the right one: its extraction does not run anew.
    (photos / "dog" / "g.png").unlink()
    assert mini.run().returncode == 0
    assert store.path.stat().st_ino == folder


def test_what_lies_deep_in_a_folder_is_noticed(mini: Workflow, photos: Path) -> None:
    deep = photos / "dog" / "big" / "h.png"
    deep.parent.mkdir()
    shutil.copy(photos / "dog" / "d.png", deep)
    assert mini.run(str(mini.results / "datasets/photos.csv")).returncode == 0
    assert "index" not in mini.planned()
    shutil.copy(photos / "dog" / "d.png", deep.with_name("i.png"))
    assert mini.planned()["index"] == 1


def test_a_checkpoint_that_was_replaced_is_noticed(mini: Workflow, photos: Path) -> None:
    weights = mini.folder / "my weights.safetensors"
    shutil.copy(mini.root / "vitfeat/demo/weights/dino.safetensors", weights)
    entry = {
        "source": "timm",
        "name": "vit_tiny_patch16_224",
        "image_size": 32,
        "args": {"patch_size": 4, "embed_dim": 64, "depth": 6, "num_heads": 4},
        "checkpoint": str(weights),
        "crop_fraction": 1.0,
    }
    mine = changed(changed(mini, "catalog", {"mine": entry}), "models", ["mine"])
    store = mini.results / "features/photos/mine.json"
    assert mine.run(str(store)).returncode == 0
    before = json.loads(store.read_text("utf-8"))["fingerprint"]
    assert "extract" not in mine.planned()
    shutil.copy(mini.root / "vitfeat/demo/weights/mae.safetensors", weights)
    assert mine.planned()["extract"] == 1
    assert mine.run(str(store)).returncode == 0
    assert json.loads(store.read_text("utf-8"))["fingerprint"] != before


def test_changed_settings_replace_the_store(mini: Workflow, photos: Path) -> None:
    assert mini.run().returncode == 0
    other = changed(mini, "extraction", "dtype", "float32")
    assert other.run().returncode == 0
    store = vitfeat.open(mini.results / "features/photos/demo-dino.zarr")
    assert store["cls"].dtype == np.float32
    # Protected, when the config says so: the job stops, and the store is as it was.
    guarded = changed(mini, "extraction", {"dtype": "float16", "replace": False})
    done = guarded.run()
    assert done.returncode != 0
    assert "float32 in the store, float16 asked" in done.stdout + done.stderr
    assert vitfeat.open(store.path)["cls"].dtype == np.float32


WITHOUT_CLS = {
    "source": "timm",
    "name": "vit_base_patch16_siglip_224",
    "pretrained": False,
    "image_size": 32,
    "args": {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3},
    "family": "siglip2",
    "label": "Small SigLIP",
}


def test_a_model_without_cls_token_beside_one_with(mini: Workflow, photos: Path) -> None:
    config = {
        **mini.config,
        "models": ["demo-dino", "small-siglip"],
        "catalog": {"small-siglip": WITHOUT_CLS},
        "analyses": {"cka": {"datasets": ["photos"], "tokens": ["cls", "mean", "spatial"]}},
    }
    left_out = Workflow(mini.root, mini.folder, config)
    done = left_out.run()
    assert done.returncode == 0, done.stdout + done.stderr
    store = vitfeat.open(mini.results / "features/photos/small-siglip.zarr")
    assert store.array_names == ("spatial",)

    def rows(tokens: str, pair: str) -> list[dict[str, str]]:
        with (mini.results / f"cka/photos/{tokens}/{pair}.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    def log() -> str:
        return (mini.results / "logs/gram/photos/cls/small-siglip.log").read_text("utf-8")

    pair = "demo-dino--small-siglip"
    assert [len(rows(tokens, pair)) for tokens in ("cls", "mean", "spatial")] == [0, 12, 12]
    assert len(rows("cls", "demo-dino--demo-dino")) == 36
    assert rows("cls", "small-siglip--small-siglip") == []
    assert log() == "small-siglip has no CLS token: left out\n"
    figures = {name: (mini.results / f"cka/{name}.png") for name in ("all", "last_layer")}
    before = {name: path.read_bytes() for name, path in figures.items()}

    stands_in = changed(left_out, "analyses", "cka", "without_cls", "mean")
    # The other token kinds, and what is stored, stay as they are.
    planned = {"gram": 2, "cka_pair": 3, "cka_figures": 1, "all": 1}
    assert stands_in.planned() == planned
    done = stands_in.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert log() == "small-siglip has no CLS token: the mean of its spatial tokens stands in\n"
    made_from = {(row["made_from_a"], row["made_from_b"]) for row in rows("cls", pair)}
    assert made_from == {("cls", "mean")}
    own = "small-siglip--small-siglip"
    values = [[row["cka"] for row in rows(tokens, own)] for tokens in ("cls", "mean")]
    assert values[0] == values[1]
    assert len(values[0]) == 4
    for name, path in figures.items():
        assert path.read_bytes() != before[name]


def test_no_cls_token_in_any_model_is_one_line(mini: Workflow, photos: Path) -> None:
    config = {
        **mini.config,
        "models": ["small-siglip"],
        "catalog": {"small-siglip": WITHOUT_CLS},
        # What the store is made for; no analysis asks for it.
        "extraction": {"taps": ["spatial"]},
    }
    done = Workflow(mini.root, mini.folder, config).run()
    assert done.returncode != 0
    said = done.stdout + done.stderr
    lines = [line for line in said.splitlines() if line.startswith("vitfeat: error: ")]
    assert lines
    assert all("no CLS token in small-siglip" in line for line in lines)
    assert "Traceback" not in said
    assert not (mini.results / "cka/all.png").exists()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (("modles", []), ["'modles'", "'models'"]),
        (("models", ["demo-dinno"]), ["'demo-dinno'", "'demo-dino'"]),
        (("extraction", {"dtype": 16}), ["extraction.dtype", "16", "float16"]),
        (("analyses", "cka", "without_cls", "no"), ["without_cls", "leave_out, mean"]),
    ],
)
def test_a_bad_config_is_one_line(finished: Workflow, path: Any, words: list[str]) -> None:
    done = changed(finished, *path).run("--dry-run")
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("vitfeat: error: ")]
    assert len(errors) == 1
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in errors[0]


def test_command_line_overrides_reach_the_config(finished: Workflow) -> None:
    figures = {"cka_figures": 1, "all": 1}
    assert finished.planned("--config", "models=[demo-mae,demo-dino]") == figures
    assert finished.planned("--config", "extraction={batch_size: 16, replace: false}") == {}
    planned = finished.planned("--config", "datasets={digits: {limit: 30}}")
    assert planned["extract"] == 2


def test_rules_use_the_interpreter_that_runs_snakemake(finished: Workflow) -> None:
    # No environment is activated in these tests, and `python` elsewhere may be anything.
    done = finished.run("--dry-run", "--printshellcmds", "--forceall")
    assert "python -m vitfeat extract demo-dino" in done.stdout
    assert sys.executable not in done.stdout
