from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.coco_json import HEIGHT, WIDTH, category, dump, image, instances, region, square
from tests.data.pictures import MakeTree
from vitfeat.data.annotations import RegionRow, read_annotations
from vitfeat.data.coco import regions
from vitfeat.data.index import Index
from vitfeat.data.regions import encode, mask_of
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.errors import DataError
from vitfeat.tables import write_table

FOLDER = "images/val2017"
JSON = "annotations/instances_val2017.json"


def spec_of(root: Path, **settings: Any) -> DatasetSpec:
    return DatasetSpec(name="c", layout="coco", root=root, split="val2017", **settings)


def index_of(root: Path, **settings: Any) -> Index:
    return build_index(spec_of(root, **settings))


@pytest.fixture
def coco(tree: MakeTree) -> Callable[[Any], Path]:
    """Write two images, 1.png and 2.png, and the JSON."""

    def make(content: Any) -> Path:
        root = tree(f"{FOLDER}/1.png", f"{FOLDER}/2.png")
        dump(root / JSON, content)
        return root

    return make


TWO = [image(1, "1.png"), image(2, "2.png")]


def test_images_are_those_in_both_places_and_annotated(
    tree: MakeTree, caplog: pytest.LogCaptureFixture
) -> None:
    root = tree(*(f"{FOLDER}/{name}.png" for name in ("b", "a", "more", "empty")))
    (root / FOLDER / "notes.txt").write_text("-")
    images = [image(n, f"{name}.png") for n, name in enumerate(("b", "gone", "a", "empty", "too"))]
    annotations = [region(9, 0), region(8, 2), region(7, 2), region(6, 1)]
    dump(root / JSON, instances(images, annotations))
    index = index_of(root)
    assert index.image_id == [f"{FOLDER}/a.png", f"{FOLDER}/b.png"]
    assert not index.has_labels
    text = "\n".join(caplog.messages)
    assert f"2 images of 5 that {JSON} names left out, not in {FOLDER}, first gone" in text
    assert "1 image without annotations left out" in text
    assert f"1 image ignored, not in {JSON}" in text
    assert "1 file ignored" in text


def test_a_whole_dataset_leaves_no_remark(
    coco: Callable[[Any], Path], caplog: pytest.LogCaptureFixture
) -> None:
    index_of(coco(instances(TWO, [region(1, 1), region(2, 2)])))
    assert caplog.messages == ["dataset c: 2 images, no classes"]


def test_regions(coco: Callable[[Any], Path], tmp_path: Path) -> None:
    crowd = np.zeros((HEIGHT, WIDTH), dtype=bool)
    crowd[4:9, 10:20] = True
    lengths = [10 * HEIGHT + 4, 5, *[HEIGHT - 5, 5] * 9]
    lengths.append(WIDTH * HEIGHT - sum(lengths))
    size = [HEIGHT, WIDTH]
    whole = np.ones((HEIGHT, WIDTH), dtype=bool)
    annotations = [
        region(30, 1, 18, segmentation=square(0, 0, 3) + square(10, 10, 5)),
        region(900, 2, 18, iscrowd=1, segmentation={"size": size, "counts": lengths}),
        region(20, 1, segmentation={"size": size, "counts": encode(whole)}),
        region(25, 2),
    ]
    del annotations[3]["iscrowd"]
    root = coco(instances(TWO, annotations))
    rows = regions(spec_of(root), index_of(root), [])
    first, second = f"{FOLDER}/1.png", f"{FOLDER}/2.png"
    # In the order of the images, then of the ids.
    assert [row[:7] for row in rows] == [
        (first, "object", 1, "cat", 0, HEIGHT, WIDTH),
        (first, "object", 18, "dog", 0, HEIGHT, WIDTH),
        (second, "object", 1, "cat", 0, HEIGHT, WIDTH),
        (second, "object", 18, "dog", 1, HEIGHT, WIDTH),
    ]
    parts = np.zeros((HEIGHT, WIDTH), dtype=bool)
    parts[:3, :3] = parts[10:15, 10:15] = True
    plain = np.zeros((HEIGHT, WIDTH), dtype=bool)
    plain[3:7, 2:6] = True
    for row, mask in zip(rows, (whole, parts, plain, crowd), strict=True):
        np.testing.assert_array_equal(mask_of(row), mask)
    write_table(tmp_path / "regions.csv", RegionRow, rows)
    assert read_annotations(tmp_path / "regions.csv", RegionRow) == rows


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_images_that_the_json_names_are_used_whatever_lies_beside_them(
    coco: Callable[[Any], Path], on_error: Any, caplog: pytest.LogCaptureFixture
) -> None:
    root = coco(instances(TWO, [region(1, 1), region(2, 2)]))
    for other in ("1.jpg", "2.bmp"):
        (root / FOLDER / other).write_bytes(b"a mask, or a copy")
    assert index_of(root, on_error=on_error).image_id == [f"{FOLDER}/1.png", f"{FOLDER}/2.png"]
    assert caplog.messages[1:] == [f"dataset c: 2 images ignored, not in {JSON}"]


def test_keys_in_any_order(coco: Callable[[Any], Path]) -> None:
    content = instances(TWO, [region(1, 1), region(2, 2)])
    want_root = coco(content)
    want = regions(spec_of(want_root), index_of(want_root), [])
    root = coco(dict(reversed(content.items())))
    assert regions(spec_of(root), index_of(root), []) == want


def test_only_images_of_the_index_have_rows(coco: Callable[[Any], Path]) -> None:
    # The mask of an image that is not used need not even be good.
    bad = region(2, 2, segmentation=[[1, 2, 3]])
    root = coco(instances(TWO, [region(1, 1), bad]))
    index = index_of(root, limit=1)
    assert [row.image_id for row in regions(spec_of(root), index, [])] == [f"{FOLDER}/1.png"]


def test_an_image_of_the_index_that_the_json_lacks(coco: Callable[[Any], Path]) -> None:
    root = coco(instances(TWO, [region(1, 1), region(2, 2)]))
    index = index_of(root)
    dump(root / JSON, instances(TWO[:1], [region(1, 1)]))
    with pytest.raises(DataError, match=rf"{FOLDER}/2\.png of the index is not in {JSON}; make"):
        regions(spec_of(root), index, [])


def test_another_size_than_the_masks(coco: Callable[[Any], Path]) -> None:
    root = coco(instances([image(1, "1.png", width=25)], [region(1, 1)]))
    index = index_of(root)
    with pytest.raises(DataError, match=r"1\.png has 25 x 20 pixels by it, but 24 x 20 in truth"):
        regions(spec_of(root), index, [])


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("", r"the folder .* does not exist; set datasets\.c\.root"),
        (FOLDER, f"the folder {FOLDER} is missing in .*; unpack val2017.zip into images"),
        (JSON, f"{JSON} is missing in .*; unpack annotations_trainval2017.zip there"),
    ],
)
def test_missing_pieces(coco: Callable[[Any], Path], missing: str, message: str) -> None:
    root = coco(instances(TWO, [region(1, 1)]))
    (root / missing).rename(root.with_name("elsewhere"))
    with pytest.raises(DataError, match=message) as caught:
        index_of(root)
    assert "\n" not in str(caught.value)


def test_no_image_is_there(coco: Callable[[Any], Path]) -> None:
    root = coco(instances([image(7, "7.png"), image(1, "1.png")], [region(1, 7)]))
    with pytest.raises(DataError, match=f"none of 2 images that {JSON} names is in {FOLDER}"):
        index_of(root)


def test_a_dataset_that_is_unpacked_one_folder_too_deep(coco: Callable[[Any], Path]) -> None:
    outer = coco(instances(TWO, [region(1, 1)])).parent
    with pytest.raises(DataError, match=rf"the folder {FOLDER} is missing .* \(.* has it\); unp"):
        index_of(outer)


def test_an_annotation_of_an_image_twice(coco: Callable[[Any], Path]) -> None:
    # Ids of other images' annotations may be the same.
    root = coco(instances(TWO, [region(3, 1), region(3, 2)]))
    assert len(regions(spec_of(root), index_of(root), [])) == 2
    root = coco(instances(TWO, [region(3, 1), region(4, 1), region(3, 1)]))
    with pytest.raises(DataError, match=r"annotation 3 of 1\.png stands there twice"):
        regions(spec_of(root), index_of(root), [])


@pytest.mark.parametrize(
    "name",
    [
        "../1.png",
        "/etc/passwd",
        "a/../../1.png",
        "..",
        "",
        ".",
        "C:\\1.png",
        "..\\1.png",
        "a\0b",
        5,
    ],
)
def test_names_stay_within_the_folder(coco: Callable[[Any], Path], name: Any) -> None:
    root = coco(instances([image(1, name)], [region(1, 1)]))
    with pytest.raises(DataError, match="is not the name of an image within its folder") as caught:
        index_of(root)
    assert "\n" not in str(caught.value)


def test_names_do_not_lead_through_links_to_elsewhere(
    coco: Callable[[Any], Path], tmp_path: Path
) -> None:
    root = coco(instances([image(1, "link/1.png")], [region(1, 1)]))
    outside = tmp_path / "outside"
    (root / FOLDER).rename(outside)
    (root / FOLDER).mkdir()
    (root / FOLDER / "link").symlink_to(outside)
    with pytest.raises(DataError, match=r"link/1\.png leads through a link out of .*val2017"):
        index_of(root)


def test_the_folder_of_images_may_be_a_link(coco: Callable[[Any], Path], tmp_path: Path) -> None:
    root = coco(instances(TWO, [region(1, 1), region(2, 2)]))
    (root / FOLDER).rename(tmp_path / "outside")
    (root / FOLDER).symlink_to(tmp_path / "outside")
    assert len(regions(spec_of(root), index_of(root), [])) == 2


def bad(**changes: Any) -> dict[str, Any]:
    return instances(TWO, [region(1, 1)]) | changes


BAD = {
    "no JSON": ("{", "is no JSON"),
    "not UTF-8": ("\udcff", "is no JSON"),
    "deep": ("[" * 100_000, "is no JSON"),
    "a list": ([], "has no list of images"),
    "no annotations": (bad(annotations=None), "has no list of annotations"),
    "an image of text": (bad(images=["1.png"]), "entry 0 of images lacks"),
    "an image without a name": (bad(images=[{"id": 1}]), "entry 0 of images lacks"),
    "an image with a text as id": (bad(images=[image("1", "1.png")]), "entry 0 of images"),  # type: ignore[arg-type]
    "an annotation among images": (bad(images=[region(1, 1)]), "entry 0 of images lacks"),
    "no size": (bad(images=[image(1, "1.png", width=None)]), "has no height and width of whole"),
    "negative size": (bad(images=[image(1, "1.png", width=-3)]), "has no height and width"),
    "image twice": (bad(images=[TWO[0], image(1, "3.png")]), "stands there twice"),
    "name twice": (bad(images=[TWO[0], image(3, "./1.png")]), "stands there twice"),
    "no category": (bad(categories=[]), "annotation 1: its category_id is 1, which is not known"),
    "category twice": (bad(categories=[category(1, "a"), category(1, "b")]), "category 1 .*twice"),
    "no annotation": (bad(annotations=[]), "has no annotations; unpack"),
    "category without a text": (bad(categories=[category(1, 7)]), "category 1 has no name"),  # type: ignore[arg-type]
    "unknown image": (bad(annotations=[region(5, 9)]), "annotation 5: its image_id is 9"),
    "list as image": (bad(annotations=[region(5, [1])]), "annotation 5: its image_id is"),  # type: ignore[arg-type]
    "no such flag": (bad(annotations=[region(5, 1, iscrowd=2)]), "annotation 5: its iscrowd is 2"),
    "annotation of text": (bad(annotations=["x"]), "entry 0 of annotations lacks"),
    "id of text": (bad(annotations=[region("x", 1)]), "entry 0 of annotations"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_bad_json(coco: Callable[[Any], Path], content: Any, message: str) -> None:
    root = coco("x")
    text = content if isinstance(content, str) else json.dumps(content)
    (root / JSON).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=message) as caught:
        index_of(root)
    assert "\n" not in str(caught.value)
    assert "instances_val2017.json" in str(caught.value)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 2, 3]], "x and y by turns"),
        ([[True, 2, "x", 4, 5, 6]], "x and y by turns"),
        (None, "neither a list of polygons nor run lengths"),
        (7, "neither"),
        ({"size": [HEIGHT, WIDTH], "counts": [1, -1, 480]}, "negative"),
        ({"size": [HEIGHT, WIDTH], "counts": [1.5]}, "no list of whole numbers"),
        ({"size": [1, 2], "counts": [2]}, r"size \[1, 2\], its image is \[20, 24\]"),
        ({"size": [HEIGHT, WIDTH], "counts": "zzz"}, "no compressed encoding"),
    ],
)
def test_bad_masks(coco: Callable[[Any], Path], segmentation: Any, message: str) -> None:
    root = coco(instances(TWO, [region(4, 1, segmentation=segmentation)]))
    index = index_of(root)
    with pytest.raises(DataError, match=rf"instances_val2017\.json, annotation 4: .*{message}"):
        regions(spec_of(root), index, [])


def test_images_in_folders_of_their_own(tree: MakeTree) -> None:
    root = tree(f"{FOLDER}/b/1.png", f"{FOLDER}/a/2.png")
    dump(
        root / JSON,
        instances([image(1, "b\\1.png"), image(2, "a/2.png")], [region(1, 1), region(2, 2)]),
    )
    index = index_of(root)
    assert index.image_id == [f"{FOLDER}/a/2.png", f"{FOLDER}/b/1.png"]
    assert len(regions(spec_of(root), index, [])) == 2
