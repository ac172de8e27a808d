from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from vitfeat.data.coco import regions
from vitfeat.data.regions import compress, decode, mask_of
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.demo.datasets import annotated, write
from vitfeat.errors import DataError

SPLITS = ("val2017", "train2017")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "coco"
    write("coco", root)
    return root


def content(root: Path, split: str) -> dict[str, Any]:
    path = root / "annotations" / f"instances_{split}.json"
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def hashes(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_writes_the_same_bytes_again(root: Path, tmp_path: Path) -> None:
    write("coco", tmp_path)
    assert hashes(tmp_path) == hashes(root)
    assert {path.split("/")[0] for path in hashes(root)} == {"images", "annotations"}


@pytest.mark.parametrize(("split", "n"), [("val2017", 79), ("train2017", 20)])
def test_loaders_read_it(root: Path, split: str, n: int) -> None:
    spec = DatasetSpec(name="demo", layout="coco", root=root, split=split)
    index = build_index(spec)
    assert len(index) == n
    assert len(set(zip(index.width.tolist(), index.height.tolist(), strict=True))) == 5
    rows = regions(spec, index, [])
    assert len(rows) == len(content(root, split)["annotations"])
    # Ink is where the masks are, but for what the JPEG blurred.
    for row in rows:
        grey = np.asarray(Image.open(root / row.image_id).convert("L"))
        assert grey[mask_of(row)].mean() > 150
    assert {row.name for row in rows} >= {"zero", "one", "eight"}


def test_all_digits_are_objects(root: Path) -> None:
    found = {a["category_id"] for a in content(root, "val2017")["annotations"]}
    assert found == set(range(1, 11))


@pytest.mark.parametrize("split", SPLITS)
def test_pycocotools_reads_it(root: Path, split: str, capsys: pytest.CaptureFixture[str]) -> None:
    coco = COCO(str(root / "annotations" / f"instances_{split}.json"))
    capsys.readouterr()
    assert len(coco.anns) == len(coco.dataset["annotations"])
    for annotation in coco.anns.values():
        encoded = coco.annToRLE(annotation)
        assert rle.area(encoded) == annotation["area"] > 0
        assert rle.toBbox(encoded).tolist() == annotation["bbox"]


def test_all_forms_of_masks_are_there(root: Path) -> None:
    annotations = content(root, "val2017")["annotations"]
    polygons = [a for a in annotations if isinstance(a["segmentation"], list)]
    assert sum(len(a["segmentation"]) > 1 for a in polygons) > 10
    lists = [a for a in annotations if a["iscrowd"]]
    assert len(lists) >= 5
    assert all(isinstance(a["segmentation"]["counts"], list) for a in lists)
    texts = [a for a in annotations if a not in polygons and a not in lists]
    assert len(texts) >= 2
    assert all(isinstance(a["segmentation"]["counts"], str) for a in texts)


def test_a_crowd_is_several_digits(root: Path) -> None:
    from scipy import ndimage

    for annotation in content(root, "val2017")["annotations"]:
        if annotation["iscrowd"]:
            height, width = annotation["segmentation"]["size"]
            mask = decode(compress(annotation["segmentation"], height, width), height, width)
            assert ndimage.label(mask)[1] >= 4


def test_one_image_has_no_annotations(root: Path) -> None:
    made = content(root, "val2017")
    empty = {i["id"] for i in made["images"]} - {a["image_id"] for a in made["annotations"]}
    assert len(empty) == 1


def test_outlines_give_the_mask_back() -> None:
    rng = np.random.default_rng(0)
    ring = np.zeros((9, 9), dtype=bool)
    ring[1:8, 1:8] = True
    ring[3:6, 3:6] = False
    # Ink that meets at corners, rings in rings, noise.
    corners = np.eye(6, dtype=bool)
    inner = ring.copy()
    inner[4, 4] = True
    made = [ring, corners, inner, ~corners, *(rng.random((12, 15)) < p for p in (0.3, 0.5, 0.7))]
    for mask in made:
        polygons = annotated.polygons(mask)
        assert all(len(polygon) >= 8 for polygon in polygons)
        found = decode(compress(polygons, *mask.shape), *mask.shape)
        np.testing.assert_array_equal(found, mask)
    assert len(annotated.polygons(ring)) == 2
    assert annotated.polygons(ring[:2, :4]) == [[1.0, 1.0, 4.0, 1.0, 4.0, 2.0, 1.0, 2.0]]


def test_runs() -> None:
    mask = np.array([[True, False], [True, True]])
    assert annotated.runs(mask) == [0, 2, 1, 1]
    assert annotated.runs(~mask) == [2, 1, 1]
    assert annotated.runs(np.zeros((2, 2), dtype=bool)) == [4]


def test_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("")
    with pytest.raises(DataError, match=r"cannot write the demo's coco under .*: name a writable"):
        write("coco", tmp_path)
