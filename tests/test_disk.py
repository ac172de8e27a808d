"""What takes how much of the disk: what stands there, and what a config will take."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter, namedtuple
from pathlib import Path
from typing import Any

import pytest
import yaml

from vitfeat.cli import main
from vitfeat.config.config import Config
from vitfeat.config.parsing import parse_config
from vitfeat.disk import FEATURES, GRAMS, TRANSIENT, Item, on_disk, tabulate
from vitfeat.plan.disk import (
    CHOSEN,
    PIECES,
    Size,
    compressed,
    dataset_size,
    disk_lines,
    is_there,
    planned,
)
from vitfeat.store.arrays import Geometry
from vitfeat.store.layout import plan_layout
from vitfeat.text import size as in_words

_Usage = namedtuple("_Usage", ["total", "used", "free"])


def _config(tmp_path: Path, **changes: Any) -> Config:
    raw = {
        "results": str(tmp_path / "results"),
        "models": ["demo-dino"],
        "datasets": {"digits": {"layout": "digits", "split": "test"}},
        "analyses": {"cka": {"datasets": ["digits"], "tokens": ["cls"]}},
        **changes,
    }
    return parse_config(raw)


def _bytes(items: list[Item]) -> dict[tuple[str, str], int]:
    return {(item.kind, item.array): item.n_bytes for item in items}


def test_planned_bytes_are_those_of_the_numbers(tmp_path: Path) -> None:
    config = _config(
        tmp_path,
        analyses={
            "cka": {"datasets": ["digits"], "tokens": ["cls", "all"]},
            "residual": {"datasets": ["digits"], "images": 10},
            "attention_maps": {"datasets": ["digits"], "images": 3},
        },
    )
    # Of the embedded models: 6 layers, 64 channels, 4 heads, 8 x 8 tokens and CLS; float16.
    tokens, cls, grams = 6 * 65 * 64 * 2, 6 * 64 * 2, 6 * 4 * 599**2
    assert _bytes(planned(config, {"digits": Size(599)})) == {
        (FEATURES, "cls"): 599 * cls,
        (FEATURES, "spatial"): 599 * (tokens - cls),
        **{(FEATURES, t): 10 * tokens for t in ("block_input", "attn_branch", "mlp_branch")},
        # Of all images, four norms a token in float32.
        (FEATURES, "residual_norms"): 599 * 6 * 65 * 4 * 4,
        (GRAMS, "cls"): grams,
        (GRAMS, "all"): grams,
        (CHOSEN, "attention"): 3 * 6 * 4 * 65**2 * 2,
        # Two blocks share every shard: until both are there, all of it stands beside them.
        (PIECES, ""): 599 * (tokens + 6 * 65 * 4 * 4) + 3 * 10 * tokens,
    }


def test_pieces_are_those_that_an_extraction_keeps_room_for(tmp_path: Path) -> None:
    taps = {"residual": {"datasets": ["digits"], "images": 10}}
    config = _config(tmp_path, analyses=taps, extraction={"taps": ["cls", "spatial"]})
    geometry = Geometry((0, 1, 2, 3, 4, 5), 64, 4, (8, 8), has_cls=True, n_registers=0)
    for n_images in (50, 599, 100_000):
        kept = dict.fromkeys(config.limits("digits"), tuple(range(10)))
        layout = plan_layout(geometry, config.taps("digits"), n_images, "float16", kept)
        items = _bytes(planned(config, {"digits": Size(n_images)}))
        assert items[PIECES, ""] == layout.pieces_bytes
    # All of a few images, of many those of two shards at most.
    assert items[PIECES, ""] < items[FEATURES, "spatial"] / 5


def test_pieces_are_counted_of_one_store_that_is_not_there(tmp_path: Path) -> None:
    datasets = {n: {"layout": "digits", "split": n} for n in ("test", "train")}
    cka = {"cka": {"datasets": list(datasets), "tokens": ["cls"]}}
    config = _config(tmp_path, datasets=datasets, analyses=cka)
    sizes = {"test": Size(599), "train": Size(1_198)}
    pieces = []
    for made in (None, "train", "test"):
        if made:
            manifest = tmp_path / f"results/features/{made}/demo-dino.json"
            manifest.parent.mkdir(parents=True)
            manifest.write_text("{}")
        items = planned(config, sizes)
        pieces.append([(item.dataset, item.n_bytes) for item in items if item.kind == PIECES])
    row = 6 * 64 * 2
    assert pieces == [[("train", 1_198 * row)], [("test", 599 * row)], []]


def test_rounding_takes_bits_of_features_off_and_nothing_else(tmp_path: Path) -> None:
    items = [
        Item(FEATURES, "d", "m", "spatial", 1600),
        Item(FEATURES, "d", "m", "attention_summary", 1600),
        Item(GRAMS, "d", "m", "cls", 1600),
    ]
    for extraction, spatial in (({}, 0.9), ({"keep_bits": 7}, 0.9 - 3 / 16)):
        config = _config(tmp_path, extraction=extraction)
        assert compressed(config, items) == pytest.approx(1600 * (spatial + 0.9 + 1))
    config = _config(tmp_path, extraction={"keep_bits": 7, "dtype": "float32"})
    assert compressed(config, items[:1]) == pytest.approx(1600 * (0.9 - 16 / 32))


def test_what_goes_after_use_is_told_apart(tmp_path: Path) -> None:
    cka = {"cka": {"datasets": ["digits"], "tokens": ["cls", "mean"]}}
    config = _config(tmp_path, analyses=cka, extraction={"keep": ["cls"]})
    kinds = {item.array: item.kind for item in planned(config, {"digits": Size(599)})}
    assert (kinds["cls"], kinds["spatial"]) == (GRAMS, TRANSIENT)
    assert ", of which 28.1 MiB go after use, about " in disk_lines(config)[0]


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        ({"layout": "digits", "split": "train"}, Size(1_198)),
        ({"layout": "imagenet", "root": "x", "split": "train"}, Size(1_281_167)),
        ({"layout": "imagenet", "root": "x", "split": "train", "per_class": 2}, Size(2_000)),
        ({"layout": "imagenet50", "root": "x", "per_class": 100, "split": "train"}, Size(5_000)),
        ({"layout": "coco", "root": "x", "split": "val2017", "limit": 9}, Size(9, regions=7.3)),
        ({"layout": "folder", "root": "photos"}, Size(6)),
        ({"layout": "folder", "root": "photos", "per_class": 2}, Size(4)),
        ({"layout": "flat", "root": "photos", "limit": 5}, Size(5)),
        ({"layout": "list", "root": "photos", "list": "photos/list.txt"}, Size(2)),
        ({"layout": "flat", "root": "absent"}, None),
    ],
)
def test_a_dataset_without_an_index_is_counted_or_as_published(
    tmp_path: Path,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    spec: dict[str, Any],
    size: Size | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    (photos / "list.txt").write_text("cat/a.png\ndog/d.png\n\n")
    (photos / "list.txt").rename(tmp_path / "list.txt")
    if "list" in spec:
        spec = {**spec, "list": "list.txt"}
    config = _config(tmp_path, datasets={"d": spec}, analyses={})
    assert dataset_size(config, "d") == size


def test_an_index_tells_the_number_of_images_and_regions_and_their_aspect(tmp_path: Path) -> None:
    tables = tmp_path / "results/datasets"
    (tables / "regions").mkdir(parents=True)
    (tables / "d.csv").write_text("image_id,width,height\na,200,100\nb,300,300\n")
    (tables / "regions/d.csv").write_text("region\n1\n2\n3\n")
    dense = {"kind": "dense", "short_side": 64}
    spec = {"layout": "coco", "root": "x", "split": "val2017", "view": dense}
    config = _config(tmp_path, datasets={"d": spec}, analyses={})
    assert dataset_size(config, "d") == Size(2, aspect=1.5, regions=1.5)


def test_lines_say_what_is_to_come_and_whether_the_disk_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = {
        "digits": {"layout": "digits", "split": "test"},
        "gone": {"layout": "flat", "root": str(tmp_path / "gone")},
    }
    cka = {"datasets": ["digits", "gone"], "tokens": ["cls"]}
    config = _config(tmp_path, datasets=datasets, analyses={"cka": cka})
    asked: list[Path] = []

    def usage(path: Path) -> _Usage:
        asked.append(path)
        return _Usage(10**12, 0, free)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    free = 2**30
    # 599 x 6 x 64 float16, all of it in pieces once more, and 6 matrices of 599 x 599 float32.
    total = "disk: at most 9.1 MiB to write, without gone (not there to be counted), about 9.0 MiB"
    assert disk_lines(config) == [f"{total} compressed; 1.0 GiB free"]
    assert asked == [tmp_path]
    free = 2**20
    first, second = disk_lines(config)
    assert first == f"{total} compressed; 1.0 MiB free: NOT ENOUGH"
    assert second == (
        "  most of it: digits 8.7 MiB; demo-dino 8.7 MiB; all of it: vitfeat du --plan CONFIG"
    )
    # What is there is not to come.
    for path in ("features/digits/demo-dino.json", "cka/gram/digits/cls/demo-dino.safetensors"):
        made = tmp_path / "results" / path
        made.parent.mkdir(parents=True)
        made.write_text("{}")
    assert disk_lines(config) == []
    assert all(is_there(config, item) for item in planned(config, {"digits": Size(599)}))


@pytest.mark.parametrize(
    ("stored", "extraction", "says"),
    [
        ({}, {}, ""),
        ({"taps": ["cls", "spatial", "mlp_branch"]}, {}, ""),
        ({}, {"taps": ["spatial", "attention"]}, "without spatial, attention"),
        # What the model has not is in no store of it.
        ({"taps": ["spatial"]}, {"taps": ["spatial"]}, ""),
        ({}, {"dtype": "float32"}, "of other settings (dtype: float16 in the store, float32 ask"),
        ({}, {"precision": "bf16"}, "of other settings (precision: fp32 in the store, bf16 asked)"),
        ({}, {"keep_bits": 6}, "of other settings (keep_bits: nothing in the store, 6 asked)"),
    ],
)
def test_stores_that_lack_something_are_said_and_counted(
    tmp_path: Path, stored: dict[str, Any], extraction: dict[str, Any], says: str
) -> None:
    cka = {"cka": {"datasets": ["digits"], "tokens": ["cls"]}}
    config = _config(tmp_path, analyses=cka, extraction=extraction)
    request = {"taps": ["cls"], "dtype": "float16", "precision": "fp32", **stored}
    said = {
        "request": {**request, "data": {"n_images": 599}},
        "has_cls": "cls" in request["taps"],
        "n_registers": 0,
    }
    store = tmp_path / "results/features/digits/demo-dino.zarr"
    store.mkdir(parents=True)
    (store / "zarr.json").write_text(json.dumps({"attributes": {"vitfeat": said}}))
    # Not before it is sealed.
    assert len(disk_lines(config)) == 1
    store.with_suffix(".json").write_text("{}")
    gram = tmp_path / "results/cka/gram/digits/cls/demo-dino.safetensors"
    gram.parent.mkdir(parents=True)
    gram.write_text("")
    lines = disk_lines(config)
    assert len(lines) == (2 if says else 0)
    if says:
        assert re.match(r"extracted again, at most \d+\.\d [KM]iB: 1 store ", lines[0])
        assert f" 1 store {says}" in lines[0]
        assert lines[0].endswith(": digits demo-dino")
        total = sum(i.n_bytes for i in planned(config, {"digits": Size(599)}) if i.kind == FEATURES)
        assert in_words(total) in lines[0]


_FILES = {
    "features/d/a.zarr/zarr.json": (FEATURES, "d", "a", "coordinates, metadata"),
    "features/d/a.zarr/label/c.0": (FEATURES, "d", "a", "coordinates, metadata"),
    "features/d/a.zarr/cls/c.0.0.0": (FEATURES, "d", "a", "cls"),
    "features/d/a.zarr/attention_summary/aligned/c.0": (FEATURES, "d", "a", "attention_summary"),
    "features/d/a.json": (FEATURES, "d", "a", "coordinates, metadata"),
    "features/d/a.transient/spatial/c.0": (TRANSIENT, "d", "a", "spatial"),
    "features/d/.a.zarr.lock": (FEATURES, "d", "a", "coordinates, metadata"),
    "features/d/b.1.zarr.partial/cls/c.0": ("unfinished stores", "d", "b.1", ""),
    "features/d/b.zarr.replaced/cls/c.0": ("leftovers", "d", "b", ""),
    "tasks/.all.csv.123.partial": ("leftovers", "", "", ""),
    "attention_maps/stores/d/a.zarr/attention/c.0": (CHOSEN, "d", "a", "attention"),
    "attention_maps/d/a/head_layer/0-x.png": ("figures", "d", "", ""),
    "cka/gram/d/cls/a.safetensors": (GRAMS, "d", "a", "cls"),
    "cka/d/cls/a--a.csv": ("tables", "d", "", ""),
    "cka/all.png": ("figures", "", "", ""),
    "cka/sets/b16/all.pdf": ("figures", "", "", ""),
    "datasets/d.csv": ("indexes and annotations", "", "", ""),
    "demo/digits/test/0/0.png": ("embedded datasets", "", "", ""),
    "weights/x.json": ("weights", "", "", ""),
    "logs/extract/d/a.log": ("logs and timings", "", "", ""),
}


def test_every_file_of_the_results_has_its_kind(tmp_path: Path) -> None:
    expected = Counter[tuple[str, str, str, str]]()
    for number, (name, what) in enumerate(_FILES.items(), start=1):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(number))
        expected[what] += number
    # What a link leads to is not counted here.
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/linked").symlink_to(tmp_path / "features")
    found = on_disk(tmp_path)
    assert {item[:4]: item.n_bytes for item in found if item.array or item.model} == {
        what: n for what, n in expected.items() if what[2]
    }
    kinds = Counter[str]()
    for item in found:
        kinds[item.kind] += item.n_files
    wanted = Counter(what[0] for what in _FILES.values())
    wanted["tables"] += 1  # the link itself
    assert kinds == wanted


def test_tables_are_sorted_and_sum_to_the_whole() -> None:
    items = [Item("a", f"d{n:02}", "m", "x", n * 2**20, 1) for n in range(1, 21)]
    items.append(Item("b", "", "", "", 2**30, 2_000))
    lines = list(tabulate(items, "in results", everything=True))
    assert lines[0] == "1.2 GiB in 2,020 files in results"
    at = lines.index("by dataset")
    assert lines[at + 1] == "    20.0 MiB          1 file  d20"
    assert lines[at + 13] == "    36.0 MiB         8 files  8 more"
    assert lines[lines.index("by kind") + 1] == "     1.0 GiB     2,000 files  b"
    assert lines[-1] == "     1.0 MiB          1 file  a, d01, m, x"
    assert lines[-21] == "     1.0 GiB     2,000 files  b"


def test_the_command_takes_a_folder_or_a_config(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["du"]) == 1
    assert "results: no such folder" in capsys.readouterr().err
    (tmp_path / "results").mkdir()
    (tmp_path / "results/x.csv").write_text("abc")
    assert main(["du"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "3 B in 1 file in results"
    config = {"models": ["demo-dino"], "datasets": {"d": {"layout": "flat", "root": "gone"}}}
    config["extraction"] = {"taps": ["cls"]}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(config))
    assert main(["du", "--plan", "my.yaml"]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("dataset d: not there to be counted")
    assert main(["du", "--plan", str(root / "configs/paper.yaml"), "--all"]) == 0
    said = capsys.readouterr().out
    assert re.match(r"5\.\d TiB at most, about 4\.\d TiB compressed; ", said)
    assert "features, davis, mae-h14, spatial" in said
    for bad in ("absent.yaml", "results/x.csv"):
        assert main(["du", "--plan", bad]) == 1
        assert capsys.readouterr().err.startswith(f"vitfeat: error: {bad}: ")
