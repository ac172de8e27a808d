from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitfeat.data import spair as layout
from vitfeat.data.annotations import PointRow
from vitfeat.data.index import Index
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.demo import datasets, digits
from vitfeat.demo.datasets.spair import CATEGORIES, KEYPOINTS, SPLITS
from vitfeat.errors import DataError

SIDES = ("src", "trg")
NAMES = sorted(digits.CLASS_NAMES[digit] for digit in CATEGORIES)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("spair")
    datasets.write("spair", root)
    return root


def read(root: Path, split: str) -> tuple[Index, list[PointRow]]:
    spec = DatasetSpec(name="demo", layout="spair", root=root, split=split)
    index = build_index(spec)
    return index, layout.points(spec, index, [])


def pair_files(root: Path, split: str = "*") -> list[dict[str, Any]]:
    paths = sorted((root / "PairAnnotation").glob(f"{split}/*.json"))
    found = [json.loads(path.read_text("utf-8")) for path in paths]
    assert [one["filename"] for one in found] == [path.stem for path in paths]
    return found


def images_of(root: Path) -> dict[str, dict[str, Any]]:
    paths = (root / "ImageAnnotation").glob("*/*.json")
    return {path.stem: json.loads(path.read_text("utf-8")) for path in paths}


@pytest.mark.parametrize("split", SPLITS)
def test_the_layout_reads_it(root: Path, split: str) -> None:
    index, rows = read(root, split)
    n_images, n_pairs = SPLITS[split], SPLITS[split] - 1
    assert index.class_name == [name for name in NAMES for _ in range(n_images)]
    assert len({row.pair for row in rows}) == 4 * n_pairs
    by_pair = [sum(row.pair == pair for row in rows) for pair in range(4 * n_pairs)]
    assert min(by_pair) >= 4
    assert max(by_pair) <= KEYPOINTS
    listed = (root / f"Layout/large/{split}.txt").read_text("utf-8").splitlines()
    assert listed == [one["filename"] for one in pair_files(root, split)]
    small = (root / f"Layout/small/{split}.txt").read_text("utf-8").splitlines()
    assert set(small) < set(listed)


def test_splits_show_other_digits_and_nothing_is_left_over(root: Path) -> None:
    seen = [set(read(root, split)[0].image_id) for split in SPLITS]
    assert not seen[0] & seen[1] | seen[0] & seen[2] | seen[1] & seen[2]
    files = {p.relative_to(root).as_posix() for p in (root / "JPEGImages").rglob("*.jpg")}
    assert files == set.union(*seen)
    assert len(files) <= 120


def test_images_have_several_aspects(root: Path) -> None:
    index, _ = read(root, "test")
    sizes = set(zip(index.width.tolist(), index.height.tolist(), strict=True))
    assert {width > height for width, height in sizes} == {True, False}
    assert all(32 <= side <= 96 for size in sizes for side in size)
    for name, about in images_of(root).items():
        with Image.open(root / f"JPEGImages/{about['category']}/{name}.jpg") as image:
            assert image.size == (about["image_width"], about["image_height"])
            assert image.mode == "RGB"


def test_pairs_say_what_their_images_say(root: Path) -> None:
    images = images_of(root)
    for pair in pair_files(root):
        source, target = (images[pair[f"{side}_imname"].removesuffix(".jpg")] for side in SIDES)
        assert source["category"] == target["category"] == pair["category"]
        for side, image in zip(SIDES, (source, target), strict=True):
            shown = [image["kps"][number] for number in pair["kps_ids"]]
            assert pair[f"{side}_kps"] == shown
            assert None not in shown
            assert pair[f"{side}_bndbox"] == image["bndbox"]
            assert pair[f"{side}_imsize"] == [image["image_width"], image["image_height"], 3]
        both = [n for n in source["kps"] if source["kps"][n] and target["kps"][n]]
        assert pair["kps_ids"] == both
        assert pair["truncation"] == source["truncated"] + 2 * target["truncated"]
        assert pair["occlusion"] == source["occluded"] + 2 * target["occluded"]


def test_it_is_of_all_difficulties(root: Path) -> None:
    pairs = pair_files(root)
    for key, levels in (("viewpoint_variation", 3), ("scale_variation", 3), ("truncation", 4)):
        assert {pair[key] for pair in pairs} == set(range(levels)), key
    assert {pair["occlusion"] for pair in pairs} >= {0, 1, 2}


def test_keypoints_correspond(root: Path) -> None:
    """An affine map leads from the keypoints of any image of a digit to those of any other."""
    images = images_of(root)
    by_digit: dict[str, list[str]] = {}
    for name in images:
        by_digit.setdefault(name[:7], []).append(name)
    assert len(by_digit) == 3 * len(CATEGORIES)
    checked = 0
    for names in by_digit.values():
        for one, other in combinations(names, 2):
            kps, others = images[one]["kps"], images[other]["kps"]
            both = [n for n in kps if kps[n] and others[n]]
            if len(both) < 5:
                continue
            here = np.array([[*kps[n], 1.0] for n in both])
            there = np.array([others[n] for n in both])
            fitted = here @ np.linalg.lstsq(here, there, rcond=None)[0]
            np.testing.assert_allclose(fitted, there, atol=0.01)
            checked += 1
    assert checked > 100


def test_keypoints_are_on_ink_within_the_box(root: Path) -> None:
    for name, about in images_of(root).items():
        with Image.open(root / f"JPEGImages/{about['category']}/{name}.jpg") as image:
            grey = np.asarray(image.convert("L"), dtype=int)
        left, top, right, bottom = about["bndbox"]
        assert 0 <= left < right < grey.shape[1]
        assert 0 <= top < bottom < grey.shape[0]
        shown = [place for place in about["kps"].values() if place]
        for x, y in shown:
            assert left - 2 <= x <= right + 2
            assert top - 2 <= y <= bottom + 2
            assert grey[max(0, round(y) - 1) :, max(0, round(x) - 1) :][:3, :3].max() > 60
        # What is missing is said to be beyond the image, or covered.
        assert (len(shown) < KEYPOINTS) == bool(about["truncated"] or about["occluded"])


def test_the_same_bytes_every_time(root: Path, tmp_path: Path) -> None:
    datasets.write("spair", tmp_path)
    files = [p.relative_to(root) for p in sorted(root.rglob("*")) if p.is_file()]
    assert files == [p.relative_to(tmp_path) for p in sorted(tmp_path.rglob("*")) if p.is_file()]
    for name in files:
        assert (root / name).read_bytes() == (tmp_path / name).read_bytes()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot write the demo's spair"):
        datasets.write("spair", tmp_path / "file")
