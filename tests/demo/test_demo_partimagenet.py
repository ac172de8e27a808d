from __future__ import annotations

import hashlib
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from vitfeat.data.partimagenet import SPLITS, regions
from vitfeat.data.regions import mask_of
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.demo.datasets import write
from vitfeat.demo.datasets.partimagenet import SUPERCLASSES
from vitfeat.errors import DataError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "partimagenet"
    write("partimagenet", root)
    return root


def hashes(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_writes_the_same_bytes_again(root: Path, tmp_path: Path) -> None:
    write("partimagenet", tmp_path)
    assert hashes(tmp_path) == hashes(root)
    names = {path.split("/")[0] for path in hashes(root)}
    assert names == {*SPLITS, *(f"{split}.json" for split in SPLITS)}


def test_no_image_is_in_two_splits(root: Path) -> None:
    found = [h for path, h in hashes(root).items() if path.endswith("JPEG")]
    assert len(found) == len(set(found)) <= 120


@pytest.mark.parametrize("split", SPLITS)
def test_loaders_read_it(root: Path, split: str) -> None:
    spec = DatasetSpec(name="demo", layout="partimagenet", root=root, split=split)
    index = build_index(spec)
    assert sorted(set(index.class_name)) == sorted(SUPERCLASSES)
    assert index.n_classes == 3
    assert len(set(zip(index.width.tolist(), index.height.tolist(), strict=True))) == 4
    digit_of = {f"n{digit:08d}": digit for digit in range(10)}
    for image_id, name in zip(index.image_id, index.class_name, strict=True):
        assert digit_of[image_id.split("/")[1]] in SUPERCLASSES[name][0]
    rows = regions(spec, index, [])
    parts = Counter(row.name for row in rows if row.level == "part")
    assert set(parts) == {f"{n} {part}" for n, (_, parts) in SUPERCLASSES.items() for part in parts}
    assert sum(row.level == "object" for row in rows) == len(index)
    for row in rows:
        mask = mask_of(row)
        if mask.any():
            grey = np.asarray(Image.open(root / row.image_id).convert("L"))
            assert grey[mask].mean() > 150


def test_parts_do_not_overlap_and_go_from_top_to_bottom(root: Path) -> None:
    spec = DatasetSpec(name="demo", layout="partimagenet", root=root, split="train")
    index = build_index(spec)
    rows = regions(spec, index, [])
    for image_id in index.image_id:
        *parts, whole = (row for row in rows if row.image_id == image_id)
        masks = [mask_of(row) for row in parts]
        np.testing.assert_array_equal(np.sum(masks, axis=0), mask_of(whole))
        bottoms = [np.flatnonzero(mask.any(axis=1))[[0, -1]] for mask in masks]
        assert all(upper[1] < lower[0] for upper, lower in pairwise(bottoms))


def test_pycocotools_reads_it(root: Path) -> None:
    for split in SPLITS:
        coco = COCO(str(root / f"{split}.json"))
        annotations = list(coco.anns.values())
        # As in the official files, one outline is too short to cover anything.
        short = [a for a in annotations if min(map(len, a["segmentation"])) < 6]
        assert len(short) == (split == "val")
        for annotation in annotations:
            if annotation not in short:
                assert coco.annToMask(annotation).sum() == annotation["area"]


def test_a_synset_runs_out(root: Path) -> None:
    # Eights are one; the other round digits go on.
    spec = DatasetSpec(
        name="demo", layout="partimagenet", root=root, split="val", per_superclass=10
    )
    index = build_index(spec)
    counts = Counter(image_id.split("/")[1] for image_id in index.image_id)
    assert [counts[f"n{digit:08d}"] for digit in (0, 6, 8, 9)] == [3, 3, 1, 3]
    assert [counts[f"n{digit:08d}"] for digit in (2, 3, 5)] == [4, 3, 3]
    assert [counts[f"n{digit:08d}"] for digit in (1, 4, 7)] == [4, 2, 4]


def test_json_is_compact(root: Path) -> None:
    text = (root / "val.json").read_text()
    assert "\n" not in text
    assert set(json.loads(text)) == {"info", "images", "annotations", "categories"}


def test_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "train").write_text("")
    with pytest.raises(DataError, match="cannot write the demo's partimagenet under"):
        write("partimagenet", tmp_path)
