"""From image files to attention maps, by a store and from a single file, all by the commands."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional

from vitfeat.analyses.attention_maps.files import caption, folder_name
from vitfeat.analyses.attention_maps.grids import KINDS, AttentionMapRow
from vitfeat.analyses.attention_maps.job import entries_of
from vitfeat.cli import main
from vitfeat.models.entry import ModelEntry
from vitfeat.models.loading import load_backbone
from vitfeat.store.opening import open_store
from vitfeat.tables import read_table

# A grid of 2 x 3, so that rows and columns cannot be mixed up.
TINY: dict[str, Any] = {
    "source": "timm",
    "name": "vit_tiny_patch16_224",
    "image_size": [32, 48],
    "args": {"depth": 3, "embed_dim": 48, "num_heads": 3},
    "seed": 3,
}
HEIGHT, WIDTH = TINY["image_size"]
Fails = Callable[..., str]


def run(*arguments: object) -> int:
    return main([str(a) for a in arguments])


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run a command that must fail, and return its one line."""

    def failing(*arguments: object) -> str:
        capsys.readouterr()
        assert run(*arguments) == 1
        errors = [
            line for line in capsys.readouterr().err.splitlines() if "vitfeat: error: " in line
        ]
        assert len(errors) == 1
        return errors[0]

    return failing


def extracted(photos: Path, *more: object, **entry: Any) -> Path:
    """Index a folder and extract its attention; return the store."""
    index, store = photos.parent / "index.csv", photos.parent / "features" / "d" / "tiny.zarr"
    # A store of more images would serve a request for fewer, too.
    shutil.rmtree(store, ignore_errors=True)
    assert run("index", "photos", "--layout", "folder", "--root", photos, "--out", index) == 0
    command = ["extract", "tiny", "--entry", json.dumps({**TINY, **entry}), "--index", index]
    command += ["--root", photos, "--out", store, "--device", "cpu", "--threads", 1]
    taps = () if "--taps" in more else ("--taps", "attention")
    assert run(*command, "--dtype", "float32", *taps, *more) == 0
    return store


def map_command(store: Path, photos: Path, out: Path, *more: object) -> list[object]:
    index = photos.parent / "index.csv"
    command = ["attention-maps", store, "--index", index, "--root", photos, "--out", out]
    return [*command, *more]


def crop_of(path: Path) -> np.ndarray:
    """Cut the crop with torchvision; the photographs of 40 x 48 cover 36 x 54 by their width."""
    covered = (int(HEIGHT / 0.875), int(WIDTH / 0.875))
    image = Image.open(path).convert("RGB")
    height = int(covered[1] * image.height / image.width)
    kind = transforms.InterpolationMode.BICUBIC
    resized = functional.resize(image, [height, covered[1]], interpolation=kind)
    return np.asarray(functional.center_crop(resized, [HEIGHT, WIDTH]))


@torch.no_grad()
def attention_of(path: Path, entry: dict[str, Any] = TINY) -> np.ndarray:
    """Read (layer, head, query, key) off an unfused pass, by hooks of this test."""
    backbone = load_backbone(ModelEntry.from_mapping("tiny", entry))
    read: list[torch.Tensor] = []
    for block in backbone.blocks:
        attn: Any = block.attn
        attn.fused_attn = False
        attn.attn_drop.register_forward_pre_hook(lambda _m, a: read.append(a[0][0].clone()))
    pixels = torch.from_numpy(crop_of(path).copy()).permute(2, 0, 1).float() / 255
    backbone.forward(transforms.Normalize(backbone.mean, backbone.std)(pixels)[None])
    return torch.stack(read).numpy().astype(np.float64)


Table = dict[tuple[Any, ...], float]


def numbers(path: Path) -> Table:
    rows = read_table(path, AttentionMapRow, "table of attention maps", "vitfeat attention-maps")
    found = {tuple(row)[:-1]: row.attention for row in rows}
    assert len(found) == len(rows)
    return found


def check(table: Table, images: dict[str, Path], positions: Sequence[str]) -> None:
    """Hold every number of a table to the attention of the image's file."""
    queries = {"cls": 0, "top": 1 + 1, "left": 1 + 3, "centre": 1 + 4, "right": 1 + 5, "0,2": 3}
    true = {image: attention_of(path) for image, path in images.items()}
    seen = set()
    for (image, layer, head, position, key, row, column), value in table.items():
        if position == "rollout":
            continue
        heads = true[image][layer].mean(0) if head is None else true[image][layer, head]
        rows = heads[1:].mean(0) if position == "mean" else heads[queries[position]]
        right = rows[0] if key == "cls" else rows[1 + row * 3 + column]
        assert value == pytest.approx(right, abs=2e-5)
        seen.add((image, position))
    assert {image for image, _ in seen} == set(images)
    assert {position for _, position in seen} <= set(positions)


@pytest.mark.parametrize(
    ("chosen", "rows"), [(["--images", "2"], [1, 4]), (["--ids", "dog/f.png", "cat/b.png"], [1, 5])]
)
def test_a_pass_of_chosen_images_gives_what_the_pass_of_all_gives(
    photos: Path, chosen: list[str], rows: list[int]
) -> None:
    stores, tables = [], []
    for more in ([], chosen):
        store = extracted(photos, *more, "--dtype", "float16")
        out = photos.parent / f"maps{len(stores)}"
        assert run(*map_command(store, photos, out, "--images", *chosen[1:])) == 0
        opened = open_store(store)
        stores.append((opened.image_ids, opened["attention"][:], opened.attributes))
        found = sorted(out.glob("*/*.csv"))
        tables.append({path.relative_to(out): path.read_bytes() for path in found})
    (ids, every, _), (some_ids, some, attributes) = stores
    assert some_ids == [ids[row] for row in rows]
    assert attributes["forward_images"] == 2
    np.testing.assert_array_equal(some, every[rows])
    assert len(tables[0]) == 2 * len(KINDS)
    assert tables[0] == tables[1]


def test_the_job_pushes_the_images_that_it_shows_through_every_model(
    photos: Path, fails: Fails
) -> None:
    index, folder = photos.parent / "index.csv", photos.parent / "maps"
    assert run("index", "photos", "--layout", "folder", "--root", photos, "--out", index) == 0
    entries = {name: {**TINY, "seed": seed} for name, seed in (("a", 3), ("b", 4))}
    job = ["run", "attention_maps", index, "--root", photos, "--device", "cpu", "--models", "a"]
    job += ["b", "--entries", json.dumps(entries), "--positions", "cls", "left"]
    for key, name in (("store", "{model}.zarr"), ("manifest", "{model}.json"), ("out", "{model}")):
        job += [f"--{key}", folder / name]
    numbers_asked = ["--extraction", '{"dtype": "float32"}']
    assert run(*job, *numbers_asked, "--images", "dog/e.png") == 0
    # Other images replace its store.
    assert run(*job, *numbers_asked, "--images", "cat/b.png", "dog/f.png") == 0
    for name, entry in entries.items():
        assert json.loads((folder / f"{name}.json").read_text())["forward_images"] == 2
        true = attention_of(photos / "dog/f.png", entry)
        found = open_store(folder / f"{name}.zarr")["attention"][1]
        np.testing.assert_allclose(found, true, atol=2e-5)
        files = {path.name for path in (folder / name / "head_layer").glob("*.png")}
        assert files == {"0-cat_b.png", "1-dog_f.png"}
    line = fails(*job, "--extraction", '{"dtyp": "float32"}')
    assert "--extraction: unknown key 'dtyp' (did you mean 'dtype'?)" in line


def test_an_index_of_other_images_is_refused(photos: Path, fails: Fails) -> None:
    store = extracted(photos, "--ids", "cat/b.png")
    Image.new("RGB", (48, 40), "red").save(photos / "cat" / "b.png")
    index = photos.parent / "index.csv"
    assert run("index", "photos", "--layout", "folder", "--root", photos, "--out", index) == 0
    line = fails(*map_command(store, photos, photos.parent / "maps"))
    assert "lists other images" in line


def test_chosen_images_that_are_not_there(photos: Path, fails: Fails) -> None:
    index = photos.parent / "index.csv"
    assert run("index", "photos", "--layout", "folder", "--root", photos, "--out", index) == 0
    command = ["extract", "tiny", "--entry", json.dumps(TINY), "--index", index, "--root", photos]
    line = fails(*command, "--out", photos.parent / "s.zarr", "--ids", "cat/b.pgn")
    assert "the dataset has no image 'cat/b.pgn' (did you mean 'cat/b.png'?)" in line


def test_maps_of_some_images_are_of_those_images(photos: Path) -> None:
    """Attention is kept of two images that are not the first ones, asked for in another order."""
    kept = ["cat/c.png", "dog/e.png"]
    store = extracted(photos, "--limits", json.dumps({"attention": kept}))
    out = photos.parent / "maps"
    positions = ["0,2", "cls", "mean", "left"]
    asked = ["--images", *reversed(kept), "--positions", *positions, "--layer", "middle"]
    assert run(*map_command(store, photos, out, *asked)) == 0
    images = {name: photos / name for name in reversed(kept)}
    for kind in KINDS:
        assert {p.name for p in (out / kind).iterdir()} == {
            f"{name}.{s}" for name in ("0-dog_e", "1-cat_c") for s in ("png", "pdf", "csv")
        }
        for place, (image, path) in enumerate(images.items()):
            table = numbers(out / kind / f"{folder_name(place, image)}.csv")
            check(table, {image: path}, positions)
    by_position = numbers(out / "head_position/1-cat_c.csv")
    assert {key[1] for key in by_position} == {1}
    assert {key[2] for key in by_position} == {None, 0, 1, 2}
    assert {key[3] for key in numbers(out / "head_layer/0-dog_e.csv")} == {"0,2"}
    found = numbers(out / "position_layer/0-dog_e.csv")
    assert {key[3] for key in found} == {*positions, "rollout"}


def test_figures_of_images_that_are_no_longer_asked_for_go(photos: Path) -> None:
    store, out = extracted(photos), photos.parent / "maps"
    asked = ["--positions", "cls", "--images"]
    assert run(*map_command(store, photos, out, *asked, "cat/a.png", "cat/c.png")) == 0
    own = out / "head_layer" / "0-notes.txt"
    own.write_text("look at head 1")
    assert run(*map_command(store, photos, out, *asked, "cat/c.png")) == 0
    files = {f"0-cat_c.{suffix}" for suffix in ("png", "pdf", "csv")}
    assert {p.name for p in (out / "position_layer").iterdir()} == files
    assert {p.name for p in (out / "head_layer").iterdir()} == {*files, own.name}


def test_figures_show_the_layers_that_are_asked_for_and_tables_all(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, drawn = extracted(photos), []
    from vitfeat.analyses.attention_maps import files as map_files

    draw = map_files.figure
    monkeypatch.setattr(
        map_files, "figure", lambda one, **more: drawn.append(one) or draw(one, **more)
    )
    asked = ["--images", "cat/a.png", "--positions", "cls", "--layers", "first", 2]
    assert run(*map_command(store, photos, photos.parent / "maps", *asked)) == 0
    assert [[cell.layer for cell in grid.cells[0]] for grid in drawn] == [[0, 2], [2], [0, 2]]
    for kind in ("position_layer", "head_layer"):
        table = numbers(photos.parent / "maps" / kind / "0-cat_a.csv")
        assert {key[1] for key in table} == {0, 1, 2}


def test_a_number_of_images_is_spread_over_those_that_are_kept(photos: Path) -> None:
    store = open_store(extracted(photos))
    assert entries_of(store, 1) == [3]
    assert entries_of(store, 3) == [1, 3, 5]
    assert entries_of(store, 100) == list(range(6))
    kept = open_store(extracted(photos, "--limits", '{"attention": 4}'))
    assert kept.rows("attention").tolist() == [0, 2, 3, 5]
    assert entries_of(kept, 4) == [0, 1, 2, 3]
    assert entries_of(kept, 2) == [1, 3]
    assert entries_of(kept, ["dog/f.png", "cat/a.png"]) == [3, 0]


def test_the_picture_is_the_crop_that_the_model_got(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = extracted(photos, "--limits", '{"attention": ["cat/b.png", "dog/e.png"]}')
    given: list[Any] = []
    from vitfeat.analyses.attention_maps import files as map_files

    draw = map_files.figure
    monkeypatch.setattr(
        map_files, "figure", lambda one, **more: given.append(one) or draw(one, **more)
    )
    assert run(*map_command(store, photos, photos.parent / "maps", "--images", "dog/e.png")) == 0
    assert [one.of.caption for one in given] == ["dog/e.png (dog)"] * 3
    for one in given:
        np.testing.assert_array_equal(one.of.picture, crop_of(photos / "dog/e.png"))


def test_a_head_and_rows_without_cls_can_be_asked_for(photos: Path) -> None:
    store = extracted(photos)
    out = photos.parent / "maps"
    asked = ["--images", "cat/a.png", "--head", 2, "--renormalised", "--positions", "right", "mean"]
    assert run(*map_command(store, photos, out, *asked, "--scale", "common", "--smooth")) == 0
    true = attention_of(photos / "cat/a.png")[:, 2]
    shares = true[:, :, 1:] / true[:, :, 1:].sum(-1, keepdims=True)
    for key, value in numbers(out / "position_layer/0-cat_a.csv").items():
        _, layer, head, position, kind, row, column = key
        assert head == 2
        if kind == "cls":
            rows = true[layer, 6, 0] if position == "right" else true[layer, 1:, 0].mean()
            assert value == pytest.approx(rows, abs=2e-5)
        else:
            assert kind == "spatial_renormalised"
            query = shares[layer, 6] if position == "right" else shares[layer, 1:].mean(0)
            assert value == pytest.approx(query[row * 3 + column], abs=2e-5)


def test_every_map_as_a_file_of_its_own(photos: Path) -> None:
    store = extracted(photos)
    out = photos.parent / "maps"
    asked = ["--images", "cat/a.png", "dog/f.png", "--positions", "cls", "0,2", "--single-maps"]
    assert run(*map_command(store, photos, out, *asked)) == 0
    assert {p.name for p in (out / "maps").iterdir()} == {"0-cat_a", "1-dog_f"}
    names = {
        f"{layer:02d}-{head}-{position}.{suffix}"
        for layer in range(3)
        for head in ("mean", "00", "01", "02")
        for position in ("cls", "0_2")
        for suffix in ("png", "npy")
    }
    folder = out / "maps" / "1-dog_f"
    assert {p.name for p in folder.iterdir()} == names
    true = attention_of(photos / "dog/f.png")
    found = np.load(folder / "02-01-0_2.npy")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, true[2, 1, 3, 1:].reshape(2, 3), atol=2e-5)
    found = np.load(folder / "00-mean-cls.npy")
    np.testing.assert_allclose(found, true[0, :, 0, 1:].mean(0).reshape(2, 3), atol=2e-5)
    with Image.open(folder / "02-01-0_2.png") as image:
        assert image.size == (5 * WIDTH, 5 * HEIGHT)

    # Those of other images and positions go; what is not ours stays.
    own = folder / "00-notes.txt"
    own.write_text("look at head 1")
    asked = ["--images", "cat/b.png", "--positions", "diagonal", "--single-maps"]
    assert run(*map_command(store, photos, out, *asked)) == 0
    assert {p.name for p in (out / "maps").iterdir()} == {"0-cat_b", "1-dog_f"}
    assert list(folder.iterdir()) == [own]


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("cat/a.png", "3-cat_a"),
        ("å ü/日本 $x$ .jpeg", "3-_x_"),
        ("../../etc/passwd", "3-_.._etc_passwd"),
        ("a" * 300 + "/b.png", "3-" + "a" * 48 + "_b"),
    ],
)
def test_folders_have_safe_names(image: str, name: str) -> None:
    assert folder_name(3, image) == name
    assert "/" not in folder_name(3, image)


def test_captions_are_cut_at_their_front() -> None:
    assert caption("a/b.png") == "a/b.png"
    assert caption("a/b.png", "cat") == "a/b.png (cat)"
    assert caption("a\nb.png") == "a\\nb.png"
    long = caption(f"{'x' * 100}/b.png", "cat")
    assert long.startswith("…xxx")
    assert long.endswith("x/b.png (cat)")
    assert len(long) == 70 + 6


def test_maps_of_a_model_without_cls(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = {"args": {**TINY["args"], "class_token": False, "global_pool": "avg"}}
    store = extracted(photos, **entry)
    out = photos.parent / "maps"
    assert run(*map_command(store, photos, out)) == 0
    assert "tiny has no CLS token: the position cls is left out" in capsys.readouterr().err
    table = numbers(out / "head_layer/0-cat_b.csv")
    assert {key[3] for key in table} == {"mean"}
    assert {key[4] for key in table} == {"spatial"}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--positions", "centr"], ["--positions", "found 'centr'; allowed: cls, top, left"]),
        (["--positions", "2,0"], ["'2,0' is outside the grid of 2 rows and 3 columns"]),
        (["--layer", "7"], ["layer 7 is not stored"]),
        (["--layer", "all"], ["--layer: found 'all'; allowed: first, q1, middle"]),
        (["--layers", "7"], ["layer 7 is not stored"]),
        (["--layers", "spred"], ["--layers: found 'spred'; allowed: spread, all, first"]),
        (["--head", "3"], ["head 3 is not there: the model has 3, 0 to 2"]),
        (["--images", "cat/b.pmg"], ["'cat/b.pmg' is not stored (did you mean 'cat/b.png'?)"]),
    ],
)
def test_what_is_not_there_is_one_line(
    photos: Path, fails: Fails, more: list[str], words: list[str]
) -> None:
    store = extracted(photos)
    line = fails(*map_command(store, photos, photos.parent / "maps", *more))
    for word in words:
        assert word in line
    assert not (photos.parent / "maps").exists()


def test_an_image_whose_attention_was_not_kept(photos: Path, fails: Fails) -> None:
    store = extracted(photos, "--limits", '{"attention": ["cat/c.png"]}')
    line = fails(*map_command(store, photos, photos.parent / "maps", "--images", "cat/a.png"))
    assert "the attention of the image 'cat/a.png' is not stored" in line
    assert "it is of 1 image, the first is 'cat/c.png'" in line


def test_a_store_without_attention(photos: Path, fails: Fails) -> None:
    store = extracted(photos, "--taps", "cls")
    line = fails(*map_command(store, photos, photos.parent / "maps"))
    assert "no attention in this store (it holds cls); extract the tap attention" in line


def test_an_image_that_changed_since_it_was_indexed(photos: Path, fails: Fails) -> None:
    store = extracted(photos)
    Image.new("RGB", (48, 40), "red").save(photos / "dog/d.png")
    line = fails(*map_command(store, photos, photos.parent / "maps"))
    assert "dog/d.png: the file has changed since it was indexed" in line
    (photos / "dog/d.png").unlink()
    assert "dog/d.png: does not exist" in fails(*map_command(store, photos, photos.parent / "maps"))


def test_the_index_of_other_images(photos: Path, fails: Fails) -> None:
    store = extracted(photos)
    index = photos.parent / "index.csv"
    rows = list(csv.reader(index.open(newline="")))
    with index.open("w", newline="") as file:
        csv.writer(file, lineterminator="\r\n").writerows(rows[:-1])
    line = fails(*map_command(store, photos, photos.parent / "maps"))
    assert f"{index} lists other images than {store}" in line


def grid_command(image: Path, out: Path, *more: object) -> list[object]:
    command = ["attention-grid", image, "--model", "tiny", "--entry", json.dumps(TINY)]
    return [*command, "--out", out, *more]


def test_a_single_file_gives_what_its_store_gives(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = extracted(photos)
    assert run(*map_command(store, photos, photos.parent / "maps", "--images", "dog/e.png")) == 0
    out = photos.parent / "one" / "grid.png"
    capsys.readouterr()
    assert run(*grid_command(photos / "dog/e.png", out, "--kind", "all")) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == [str(out.with_name(f"grid-{kind}.png")) for kind in KINDS]
    for kind in KINDS:
        assert out.with_name(f"grid-{kind}.pdf").is_file()
        alone = numbers(out.with_name(f"grid-{kind}.csv"))
        stored = numbers(photos.parent / "maps" / kind / "0-dog_e.csv")
        assert [key[1:] for key in alone] == [key[1:] for key in stored]
        np.testing.assert_allclose(list(alone.values()), list(stored.values()), atol=1e-6)
        assert {key[0] for key in alone} == {"e.png"}


def test_a_photograph_is_turned_by_every_command_or_by_none(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stored on its side with the orientation that turns it, it gives the maps of the upright."""
    upright = Image.open(photos / "dog/e.png")
    exif = Image.Exif()
    exif[0x0112] = 8
    side = upright.transpose(Image.Transpose.ROTATE_270)
    wanted = photos.parent / "upright" / "grid.png"
    assert run(*grid_command(photos / "dog/e.png", wanted)) == 0
    side.save(photos / "dog/e.png", exif=exif)
    index, store = photos.parent / "index.csv", photos.parent / "features" / "d" / "tiny.zarr"
    settings = ["photos", "--layout", "folder", "--root", photos, "--orientation", "exif"]
    assert run("index", *settings, "--out", index) == 0
    command = ["extract", "tiny", "--entry", json.dumps(TINY), "--index", index, "--root", photos]
    command += ["--out", store, "--device", "cpu", "--threads", 1, "--dtype", "float32"]
    assert run(*command, "--taps", "attention") == 0
    assert run(*map_command(store, photos, photos.parent / "maps", "--images", "dog/e.png")) == 0
    capsys.readouterr()
    out = photos.parent / "turned" / "grid.png"
    assert run(*grid_command(photos / "dog/e.png", out, "--orientation", "exif")) == 0
    assert "EXIF orientation 8, which is applied" in capsys.readouterr().err
    want = numbers(wanted.with_suffix(".csv"))
    stored = numbers(photos.parent / "maps" / "position_layer" / "0-dog_e.csv")
    for found in (numbers(out.with_suffix(".csv")), stored):
        np.testing.assert_allclose(list(found.values()), list(want.values()), atol=1e-6)
    plain = photos.parent / "stored" / "grid.png"
    assert run(*grid_command(photos / "dog/e.png", plain)) == 0
    assert "EXIF orientation 8, which is not applied" in capsys.readouterr().err
    other = numbers(plain.with_suffix(".csv"))
    assert not np.allclose(list(other.values()), list(want.values()), atol=1e-6)
    assert run("info", store) == 0
    note = "note         1 image turned upright as the EXIF orientation says; first dog/e.png"
    assert note in capsys.readouterr().out


def test_a_single_file_and_one_kind(photos: Path) -> None:
    out, maps = photos.parent / "grid.png", photos.parent / "single"
    more = ["--kind", "head-layer", "--positions", "right", "--maps", maps]
    assert run(*grid_command(photos / "cat/b.png", out, *more)) == 0
    check(numbers(out.with_suffix(".csv")), {"b.png": photos / "cat/b.png"}, ["right"])
    assert len(list((maps / "0-b").glob("*.png"))) == 3 * 4
    with Image.open(out) as image:
        assert image.width > 500


def test_a_demo_model_needs_nothing_but_its_name(photos: Path) -> None:
    out = photos.parent / "grid.png"
    command = ["attention-grid", photos / "cat/b.png", "--model", "demo-dino", "--out", out]
    assert run(*command, "--positions", "diagonal", "cls") == 0
    table = numbers(out.with_suffix(".csv"))
    assert {key[3] for key in table} == {*(f"{i},{i}" for i in range(8)), "cls", "rollout"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": "nowhere.png"}, ["nowhere.png: does not exist"]),
        ({"image": "cat"}, ["not a regular file"]),
        ({"--model": "demo-dinno", "--entry": None}, ["did you mean 'demo-dino'?"]),
        ({"--positions": "9,9"}, ["'9,9' is outside the grid of 2 rows"]),
        ({"--layer": "5"}, ["found 5; a model of 3 layers has 0 to 2"]),
        ({"--layer": "lst"}, ["--layer: found 'lst'; allowed: first, q1, middle"]),
        ({"--head": "8"}, ["head 8 is not there"]),
        ({"--out": "grid.jpg"}, ["the figure is a PNG"]),
        ({"--entry": "{"}, ["--entry: not JSON"]),
        (
            {"--entry": json.dumps({"source": "timm", "name": "mambaout_femto"})},
            ["is not a plain ViT"],
        ),
        (
            {
                "--entry": json.dumps(
                    {**TINY, "name": "vit_dpwee_patch16_reg1_gap_256", "args": {"depth": 2}}
                )
            },
            ["model tiny: the attention of layer 0", "cannot be tapped"],
        ),
    ],
)
def test_what_an_image_grid_cannot_be_made_of(
    photos: Path, fails: Fails, change: dict[str, str | None], words: list[str]
) -> None:
    settings: dict[str, Any] = {
        "image": "cat/b.png",
        "--model": "tiny",
        "--entry": json.dumps(TINY),
        "--out": "grid.png",
        **change,
    }
    image = photos / settings.pop("image")
    settings["--out"] = photos.parent / settings["--out"]
    options = [str(v) for pair in settings.items() if pair[1] is not None for v in pair]
    line = fails("attention-grid", image, *options)
    for word in words:
        assert word in line
    assert not list(photos.parent.glob("grid*"))
