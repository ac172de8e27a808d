"""The workflow as a user runs it again: what is noticed, what is replaced, what stops it."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import vitfeat
from tests.workflow.harness import Workflow, changed


@pytest.fixture
def mini(root: Path, tmp_path: Path) -> Workflow:
    """A miniature that may be run, on photographs and one model."""
    config = {
        "models": ["demo-dino"],
        "datasets": {"photos": {"layout": "folder", "root": str(tmp_path / "photos")}},
        "analyses": {"cka": {"datasets": ["photos"], "tokens": ["cls"]}},
    }
    return Workflow(root, tmp_path, config)


def test_a_broken_image_is_named_and_earlier_results_stay(mini: Workflow, photos: Path) -> None:
    assert mini.run().returncode == 0
    store = vitfeat.open(mini.results / "features/photos/demo-dino.zarr")
    before, folder = store["cls"][:], store.path.stat().st_ino
    # The folder changes, so the index is made anew; it finds the broken file and stops.
    (photos / "dog" / "g.png").write_bytes(b"")
    done = mini.run()
    assert done.returncode != 0
    lines = [li for li in (done.stdout + done.stderr).splitlines() if "vitfeat: error" in li]
    # Said once, as the last thing that a person reads.
    assert lines == done.stderr.splitlines()[-1:]
    assert "dog/g.png" in lines[0]
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


def test_an_image_replaced_under_its_own_name_is_noticed(mini: Workflow, photos: Path) -> None:
    assert mini.run().returncode == 0
    store = vitfeat.open(mini.results / "features/photos/demo-dino.zarr")
    before, image = store["cls"][:], photos / "dog/e.png"
    # Touched files are read, and are the same: nothing runs, now and from then on.
    for path in (photos, *photos.rglob("*")):
        os.utime(path)
    assert mini.planned() == {}
    status = image.stat()
    shutil.copy(photos / "dog/d.png", image)
    with image.open("ab") as file:
        file.truncate(status.st_size)
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns - 10**15))
    planned = mini.run("--dry-run")
    assert "1 image is not what was indexed, first dog/e.png" in planned.stderr
    # Where Snakemake keeps no records of what was run, it is said all the same.
    records = mini.folder / ".snakemake"
    records.rename(mini.folder / "records")
    assert "1 image is not what was indexed" in mini.run("--dry-run").stderr
    shutil.rmtree(records)
    (mini.folder / "records").rename(records)
    rules = ("index", "extract_of_all", "gram_of_all", "cka_of_all", "cka_figures", "all")
    runs = dict.fromkeys(rules, 1)
    assert mini.planned() == runs
    done = mini.run()
    assert done.returncode == 0, done.stdout + done.stderr
    after = vitfeat.open(store.path)["cls"][:]
    changed_rows = np.flatnonzero((after != before).any(axis=(1, 2)))
    assert changed_rows.tolist() == [4]
    assert mini.planned() == {}


def test_a_checkpoint_that_was_replaced_is_noticed(mini: Workflow, photos: Path) -> None:
    weights = mini.folder / "my weights.safetensors"
    shutil.copy(mini.root / "vitfeat/demo/weights/dino.safetensors", weights)
    entry = {
        "source": "timm",
        "name": "vit_tiny_patch16_224",
        "image_size": 32,
        "args": {"patch_size": 4, "embed_dim": 64, "depth": 6, "num_heads": 4},
        "checkpoint": str(weights),
        "normalisation": "half",
        "crop_fraction": 1.0,
    }
    mine = changed(changed(mini, "catalog", {"mine": entry}), "models", ["mine"])
    store = mini.results / "features/photos/mine.json"
    wide = changed(mine, "analyses", "cka", "tokens", ["cls", "all"])
    assert wide.run(str(store)).returncode == 0
    before = json.loads(store.read_text("utf-8"))["fingerprint"]
    assert "extract_of_all" not in mine.planned()
    os.utime(weights)
    assert "extract_of_all" not in mine.planned()
    shutil.copy(mini.root / "vitfeat/demo/weights/mae.safetensors", weights)
    os.utime(weights, (10**9, 10**9))
    plan = mine.run("--dry-run", str(store))
    # What nobody asks for any more is no reason, and is not made again.
    assert "--taps cls --index" in plan.stdout
    assert mine.run(str(store)).returncode == 0
    assert json.loads(store.read_text("utf-8"))["fingerprint"] != before


def test_changed_settings_replace_the_store(mini: Workflow, photos: Path) -> None:
    manifest = str(mini.results / "features/photos/demo-dino.json")
    assert mini.run(manifest).returncode == 0
    other = changed(mini, "extraction", "dtype", "float32")
    assert other.run(manifest).returncode == 0
    store = vitfeat.open(mini.results / "features/photos/demo-dino.zarr")
    assert store["cls"].dtype == np.float32
    # Protected, when the config says so: the job stops, and the store is as it was.
    guarded = changed(mini, "extraction", {"dtype": "float16", "replace": False})
    done = guarded.run(manifest)
    assert done.returncode != 0
    assert "float32 in the store, float16 asked" in done.stdout + done.stderr
    assert vitfeat.open(store.path)["cls"].dtype == np.float32


def test_who_asks_for_less_keeps_the_store_and_has_the_numbers_of_a_smaller_one(
    mini: Workflow, photos: Path
) -> None:
    some = {"cka": {"datasets": ["photos"], "tokens": ["cls", "all"]}}
    wide = changed(mini, "analyses", {**some, "attention": {"datasets": ["photos"]}})
    manifest = str(mini.results / "features/photos/demo-dino.json")
    assert wide.run(manifest, str(mini.results / "cka/all.png")).returncode == 0
    store = Path(manifest).with_suffix(".zarr")
    before = store.stat().st_ino
    assert mini.planned() == {"cka_of_all": 1, "cka_figures": 1, "all": 1}
    table = mini.results / "cka/photos/cls/demo-dino--demo-dino.csv"
    assert mini.run(str(table)).returncode == 0
    assert store.stat().st_ino == before
    kept = [row["cka"] for row in csv.DictReader(table.open())]
    # Of other images, which an earlier run has listed.
    fewer = changed(mini, "datasets", "photos", "limit", 4)
    assert fewer.run(str(mini.results / "datasets/photos.csv")).returncode == 0
    assert "--taps cls --index" in fewer.run("--dry-run", manifest).stdout
    # A store that is gone is made as it is asked for today.
    shutil.rmtree(store)
    Path(manifest).unlink()
    assert mini.run(str(table)).returncode == 0
    assert vitfeat.open(store).array_names == ("cls",)
    # Attention that is tapped is computed in other steps: the same but for rounding.
    fresh = [row["cka"] for row in csv.DictReader(table.open())]
    np.testing.assert_allclose(np.float64(fresh), np.float64(kept), atol=1e-4)
    assert len(fresh) == 36


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
        return (mini.results / "logs/gram/photos.log").read_text("utf-8")

    pair = "demo-dino--small-siglip"
    assert [len(rows(tokens, pair)) for tokens in ("cls", "mean", "spatial")] == [0, 12, 12]
    assert len(rows("cls", "demo-dino--demo-dino")) == 36
    assert rows("cls", "small-siglip--small-siglip") == []
    assert log() == "small-siglip has no CLS token: left out\n"
    figures = {name: (mini.results / f"cka/{name}.png") for name in ("all", "last_layer")}
    before = {name: path.read_bytes() for name, path in figures.items()}

    stands_in = changed(left_out, "analyses", "cka", "without_cls", "mean")
    # The other token kinds, and what is stored, stay as they are.
    planned = {"gram_of_all": 1, "cka_of_all": 1, "cka_figures": 1, "all": 1}
    assert stands_in.planned() == planned
    done = stands_in.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert log().splitlines() == [
        "demo-dino: Gram matrices of cls, mean, spatial are there, of the same features",
        "small-siglip has no CLS token: the mean of its spatial tokens stands in",
        "small-siglip: Gram matrices of mean, spatial are there, of the same features",
    ]
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
    assert lines == done.stderr.splitlines()[-1:]
    assert "no CLS token in small-siglip" in lines[0]
    assert "Traceback" not in said
    assert not (mini.results / "cka/all.png").exists()
