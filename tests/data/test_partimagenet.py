from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.coco_json import HEIGHT, WIDTH, category, dump, image, instances, region, square
from tests.data.pictures import MakeTree
from vitfeat.data.index import Index
from vitfeat.data.partimagenet import regions
from vitfeat.data.regions import mask_of
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.errors import DataError

CATEGORIES = [
    category(0, "Quadruped Head", "Quadruped"),
    category(1, "Quadruped Body", "Quadruped"),
    category(2, "Snake Head", "Snake"),
    category(3, "Bottle Body", "Bottle"),
]
# Two synsets of quadrupeds, one of snakes.
CAT, DOG, SNAKE = "n02123045", "n02109961", "n01728920"


def spec_of(root: Path, split: str = "train", **settings: Any) -> DatasetSpec:
    return DatasetSpec(name="p", layout="partimagenet", root=root, split=split, **settings)


def index_of(spec: DatasetSpec) -> Index:
    return build_index(spec)


def content(parts: dict[str, list[int]], **other: Any) -> dict[str, Any]:
    """Annotate images with one square for each of the parts."""
    images = [image(place, name) for place, name in enumerate(parts)]
    annotations = [
        region(100 * place + number, place, part, segmentation=square(2 * number, 3 * number))
        for place, found in enumerate(parts.values())
        for number, part in enumerate(found)
    ]
    return instances(images, annotations, CATEGORIES) | other


def name(synset: str, number: int) -> str:
    return f"{synset}_{number}.JPEG"


def of(synset: str, *numbers: int) -> list[str]:
    return [name(synset, number) for number in numbers]


def release(tree: MakeTree, parts: dict[str, list[int]], split: str = "train") -> Path:
    """Write a split as released: images in folders of their synset, the JSON beside."""
    root = tree(*(f"{split}/{n.split('_')[0]}/{n}" for n in parts))
    dump(root / f"{split}.json", content(parts))
    return root


def test_labels_are_superclasses(tree: MakeTree, caplog: pytest.LogCaptureFixture) -> None:
    parts = {name(SNAKE, 7): [2], name(DOG, 2): [1, 0], name(CAT, 3): [0], name(CAT, 20): [1]}
    root = release(tree, parts)
    index = index_of(spec_of(root))
    assert list(zip(index.image_id, index.label.tolist(), index.class_name, strict=True)) == [
        # Bottles have a number though there are none.
        (f"train/{SNAKE}/{name(SNAKE, 7)}", 2, "Snake"),
        (f"train/{DOG}/{name(DOG, 2)}", 1, "Quadruped"),
        (f"train/{CAT}/{name(CAT, 20)}", 1, "Quadruped"),
        (f"train/{CAT}/{name(CAT, 3)}", 1, "Quadruped"),
    ]
    assert caplog.messages == ["dataset p: 4 images, 2 classes"]


def test_regions(tree: MakeTree) -> None:
    parts = {name(SNAKE, 7): [2], name(DOG, 2): [1, 0, 1]}
    root = release(tree, parts)
    spec = spec_of(root)
    rows = regions(spec, index_of(spec), [])
    snake, dog = f"train/{SNAKE}/{name(SNAKE, 7)}", f"train/{DOG}/{name(DOG, 2)}"
    size = (HEIGHT, WIDTH)
    assert [row[:7] for row in rows] == [
        (snake, "part", 2, "Snake Head", 0, *size),
        (snake, "object", 2, "Snake", 0, *size),
        (dog, "part", 1, "Quadruped Body", 0, *size),
        (dog, "part", 0, "Quadruped Head", 0, *size),
        (dog, "part", 1, "Quadruped Body", 0, *size),
        (dog, "object", 1, "Quadruped", 0, *size),
    ]
    expected = np.zeros(size, dtype=bool)
    for row, number in zip(rows[2:5], range(3), strict=True):
        left, top = 2 * number, 3 * number
        mask = np.zeros(size, dtype=bool)
        mask[top : top + 4, left : left + 4] = True
        np.testing.assert_array_equal(mask_of(row), mask)
        expected |= mask
    np.testing.assert_array_equal(mask_of(rows[5]), expected)


def test_an_image_with_parts_of_two_superclasses(tree: MakeTree) -> None:
    # The dog eats a snake: an object of each. The synset is what most of its annotations are of.
    root = release(tree, {name(DOG, 1): [2, 0], name(DOG, 2): [1], name(SNAKE, 1): [2, 0]})
    spec = spec_of(root)
    index = index_of(spec)
    # Of snake and quadruped as often, the first by name.
    assert index.class_name == ["Quadruped"] * 3
    rows = [r for r in regions(spec, index, []) if r.image_id.endswith(name(DOG, 1))]
    assert [(r.level, r.category, r.name) for r in rows] == [
        ("part", 2, "Snake Head"),
        ("part", 0, "Quadruped Head"),
        ("object", 1, "Quadruped"),
        ("object", 2, "Snake"),
    ]
    np.testing.assert_array_equal(mask_of(rows[3]), mask_of(rows[0]))


def test_degenerate_polygons_cover_nothing(tree: MakeTree) -> None:
    root = release(tree, {name(DOG, 1): [0, 1]})
    changed = content({name(DOG, 1): [0, 1]})
    changed["annotations"][1]["segmentation"] = [[3, 3, 4, 3]]
    dump(root / "train.json", changed)
    spec = spec_of(root)
    masks = [mask_of(row) for row in regions(spec, index_of(spec), [])]
    assert [mask.sum() for mask in masks] == [16, 0, 16]


# Images of the three synsets; the last is of another superclass. Names are sorted as texts.
SAMPLED = {
    **{n: [0] for n in of(CAT, 1, 2, 3, 4, 5)},
    **{n: [1] for n in of(DOG, 10, 9)},
    **{n: [2] for n in of(SNAKE, 1, 2, 3)},
}


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        # The dog's synset is the first.
        (1, of(DOG, 10) + of(SNAKE, 1)),
        (2, of(DOG, 10) + of(CAT, 1) + of(SNAKE, 1, 2)),
        (3, of(DOG, 10, 9) + of(CAT, 1) + of(SNAKE, 1, 2, 3)),
        # Dogs run out, cats go on; so do snakes.
        (5, of(DOG, 10, 9) + of(CAT, 1, 2, 3) + of(SNAKE, 1, 2, 3)),
        (7, list(SAMPLED)),
        (100, list(SAMPLED)),
        (None, list(SAMPLED)),
    ],
)
def test_sampling(
    tree: MakeTree, n: int | None, expected: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    root = release(tree, SAMPLED)
    index = index_of(spec_of(root, per_superclass=n))
    found = [image_id.split("/")[2] for image_id in index.image_id]
    assert sorted(found) == sorted(expected)
    assert index.image_id == sorted(index.image_id)
    text = "\n".join(caplog.messages)
    short = n is not None and n > 3
    assert ("superclass Snake has 3 images, fewer than per_superclass" in text) == short
    assert ("superclass Quadruped has 7 images, fewer than" in text) == (n == 100)


def test_sampling_takes_only_what_is_there_and_annotated(
    tree: MakeTree, caplog: pytest.LogCaptureFixture
) -> None:
    root = release(tree, SAMPLED)
    (root / "train" / DOG / name(DOG, 10)).unlink()
    changed = content(SAMPLED)
    changed["annotations"] = [a for a in changed["annotations"] if a["image_id"] != 0]
    dump(root / "train.json", changed)
    index = index_of(spec_of(root, per_superclass=3))
    quadrupeds = [i.split("/")[2] for i in index.image_id if SNAKE not in i]
    assert quadrupeds == of(DOG, 9) + of(CAT, 2, 3)
    text = "\n".join(caplog.messages)
    assert "1 image of 10 that train.json names left out, not in train, first n02109961_10" in text
    assert "1 image without annotations left out" in text


def test_the_other_release(tree: MakeTree) -> None:
    # Images without folders of synsets, the JSON below annotations; names with folders of Windows.
    parts = {name(DOG, 1): [0], name(SNAKE, 2): [2]}
    root = tree(*(f"images/val/{n}" for n in parts))
    dump(root / "annotations/val/val.json", content({f"val\\{n}": p for n, p in parts.items()}))
    spec = spec_of(root, "val")
    index = index_of(spec)
    assert index.image_id == [f"images/val/{n}" for n in of(SNAKE, 2) + of(DOG, 1)]
    assert [row.level for row in regions(spec, index, [])] == ["part", "object"] * 2


def test_all_splits_together(tree: MakeTree) -> None:
    release(tree, {name(SNAKE, 1): [2], name(SNAKE, 3): [2]}, "train")
    release(tree, {name(DOG, 2): [0, 1]}, "val")
    root = release(tree, {name(SNAKE, 2): [2], name(DOG, 1): [1]}, "test")
    spec = spec_of(root, "all", per_superclass=2)
    index = index_of(spec)
    # Of one synset in several splits, images of the first folder by name come first.
    assert index.image_id == [
        f"test/{SNAKE}/{name(SNAKE, 2)}",
        f"test/{DOG}/{name(DOG, 1)}",
        f"train/{SNAKE}/{name(SNAKE, 1)}",
        f"val/{DOG}/{name(DOG, 2)}",
    ]
    assert [row.level for row in regions(spec, index, [])] == [
        *["part", "object"] * 3,
        *["part"] * 2,
        "object",
    ]
    (root / "val.json").unlink()
    with pytest.raises(DataError, match=r"val\.json is missing"):
        index_of(spec)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("train", r"the folder train is missing in .*; expected train.json beside train, or annot"),
        (
            "train.json",
            r"train.json is missing in .*; expected train.json beside train, or annotat",
        ),
        ("", "does not exist"),
    ],
)
def test_missing_pieces(tree: MakeTree, missing: str, message: str) -> None:
    root = release(tree, {name(DOG, 1): [0]})
    (root / missing).rename(root.with_name("elsewhere"))
    with pytest.raises(DataError, match=message) as caught:
        index_of(spec_of(root))
    assert "\n" not in str(caught.value)


def test_no_image_is_there(tree: MakeTree) -> None:
    root = release(tree, {name(DOG, 1): [0]})
    dump(root / "train.json", content({name(DOG, 2): [0]}))
    with pytest.raises(DataError, match=r"no image that train\.json names is in train"):
        index_of(spec_of(root))


def test_a_name_without_synset(tree: MakeTree) -> None:
    root = tree("train/dog/dog_1.JPEG")
    dump(root / "train.json", content({"dog_1.JPEG": [0]}))
    with pytest.raises(
        DataError, match=r"dog_1\.JPEG does not begin with a synset, as in n02109961_"
    ):
        index_of(spec_of(root))


def test_two_files_of_one_name(tree: MakeTree) -> None:
    root = tree(f"train/a/{name(DOG, 1)}", f"train/b/{name(DOG, 1)}")
    dump(root / "train.json", content({name(DOG, 1): [0]}))
    with pytest.raises(DataError, match="have one name; remove one of them"):
        index_of(spec_of(root))
    dump(root / "train.json", content({f"a/{name(DOG, 1)}": [0], f"b/{name(DOG, 1)}": [0]}))
    with pytest.raises(DataError, match=r"two images are called n02109961_1\.JPEG"):
        index_of(spec_of(root))


def test_categories_need_superclasses(tree: MakeTree) -> None:
    root = release(tree, {name(DOG, 1): [0]})
    changed = content({name(DOG, 1): [0]}, categories=[{"id": 0, "name": "Head"}])
    dump(root / "train.json", changed)
    with pytest.raises(DataError, match="a category has no supercategory, which is the superclass"):
        index_of(spec_of(root))


def test_hostile_names(tree: MakeTree) -> None:
    root = release(tree, {name(DOG, 1): [0]})
    dump(root / "train.json", content({f"../{name(DOG, 1)}": [0]}))
    with pytest.raises(DataError, match="names must not lead out of it"):
        index_of(spec_of(root))


def test_index_and_annotations_at_odds(tree: MakeTree) -> None:
    root = release(tree, {name(DOG, 1): [0], name(DOG, 2): [0]})
    spec = spec_of(root)
    index = index_of(spec)
    dump(root / "train.json", content({name(DOG, 1): [0]}))
    with pytest.raises(DataError, match=r"n02109961_2\.JPEG of the index is not in train\.json"):
        regions(spec, index, [])
    small = content({name(DOG, 1): [0], name(DOG, 2): [0]})
    small["images"][1]["height"] = 19
    dump(root / "train.json", small)
    with pytest.raises(DataError, match="has 24 x 19 pixels by it, but 24 x 20 in truth"):
        regions(spec, index, [])
