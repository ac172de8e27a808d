from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.data.pictures import MakeTree, encode, noise
from vitfeat.cli import main
from vitfeat.data.annotations import PointRow, read_annotations
from vitfeat.data.index import Index
from vitfeat.data.scan import build_index
from vitfeat.data.spair import points
from vitfeat.data.spec import DatasetSpec
from vitfeat.errors import DataError

# Every image of `tree` has as many pixels.
SIZE = [24, 20, 3]

PAIRS = {
    "000002-cat_b-cat_a:cat": {"src_kps": [[1, 2], [3.5, 4]], "trg_kps": [[5, 6], [7, 8]]},
    "000010-cat_a-cat_c:cat": {"src_kps": [[0, 1]], "trg_kps": [[23, 19]], "kps_ids": ["4"]},
    "000001-dog_b-dog_a:tv_dog": {"trg_bndbox": [2, 3, 9, 17]},
}


def annotation(name: str, **changes: Any) -> dict[str, Any]:
    """What the archive has of a pair, whose file's name says which."""
    number, source, target = name.split(":")[0].split("-")
    made = {
        "filename": name,
        "src_imname": f"{source}.jpg",
        "trg_imname": f"{target}.jpg",
        "src_imsize": SIZE,
        "trg_imsize": SIZE,
        "src_bndbox": [0, 0, 20, 20],
        "trg_bndbox": [1, 2, 21, 12],
        "category": name.split(":")[1],
        "src_pose": "Frontal",
        "trg_pose": "Unspecified",
        "src_kps": [[1, 1], [2, 2]],
        "trg_kps": [[3, 3], [4, 4]],
        "mirror": 0,
        "viewpoint_variation": 0,
        "scale_variation": 0,
        "truncation": 0,
        "occlusion": 0,
        "pair_id": int(number),
    }
    made |= changes
    if isinstance(made["src_kps"], list):
        made.setdefault("kps_ids", [str(i) for i in range(len(made["src_kps"]))])
    return made


Root = Callable[..., Path]


@pytest.fixture
def root(tree: MakeTree) -> Root:
    """The pairs of the split test; changes are to the first one's annotation."""

    def make(colon: str = ":", listed: str | bytes | None = None, **changes: Any) -> Path:
        contents = {}
        for number, (name, more) in enumerate(PAIRS.items()):
            made = annotation(name, **(more | (changes if number == 0 else {})))
            path = f"PairAnnotation/test/{name.replace(':', colon)}.json"
            contents[path] = json.dumps(made).encode()
        if listed is not None:
            text = listed if isinstance(listed, bytes) else listed.encode()
            contents["Layout/large/test.txt"] = text
        images = [f"cat/cat_{one}" for one in "abcd"] + [f"tv_dog/dog_{one}" for one in "ab"]
        # Names end in .jpg, whatever is within.
        return tree(*(f"JPEGImages/{name}.jpg" for name in images), contents=contents)

    return make


def spec_of(root: Path, **settings: Any) -> DatasetSpec:
    return DatasetSpec(name="d", layout="spair", root=root, **({"split": "test"} | settings))


def index_of(root: Path, **settings: Any) -> Index:
    return build_index(spec_of(root, **settings))


def rows_of(root: Path, **settings: Any) -> list[PointRow]:
    return points(spec_of(root, **settings), index_of(root, **settings), [])


def image(name: str) -> str:
    return f"JPEGImages/{'tv_dog' if name.startswith('dog') else 'cat'}/{name}.jpg"


EXPECTED = [
    PointRow(0, "tv_dog", image("dog_b"), image("dog_a"), 0, 1, 1, 3, 3, 2, 3, 9, 17),
    PointRow(0, "tv_dog", image("dog_b"), image("dog_a"), 1, 2, 2, 4, 4, 2, 3, 9, 17),
    PointRow(1, "cat", image("cat_b"), image("cat_a"), 0, 1, 2, 5, 6, 1, 2, 21, 12),
    PointRow(1, "cat", image("cat_b"), image("cat_a"), 1, 3.5, 4, 7, 8, 1, 2, 21, 12),
    PointRow(2, "cat", image("cat_a"), image("cat_c"), 4, 0, 1, 23, 19, 1, 2, 21, 12),
]


@pytest.mark.parametrize("colon", [":", "_"])
def test_images_and_points_of_either_form_of_names(root: Root, colon: str) -> None:
    made = root(colon)
    index = index_of(made)
    # cat_d is of no pair.
    assert index.image_id == [image(n) for n in ("cat_a", "cat_b", "cat_c", "dog_a", "dog_b")]
    assert index.class_name == ["cat"] * 3 + ["tv_dog"] * 2
    assert index.label.tolist() == [0, 0, 0, 1, 1]
    assert points(spec_of(made), index, []) == EXPECTED


def test_labels_are_the_same_in_all_splits(root: Root) -> None:
    made = root()
    (made / "PairAnnotation/trn").mkdir()
    name = "000001-dog_a-dog_b:tv_dog"
    (made / f"PairAnnotation/trn/{name}.json").write_text(json.dumps(annotation(name)))
    index = index_of(made, split="trn")
    assert list(zip(index.class_name, index.label.tolist(), strict=True)) == [("tv_dog", 1)] * 2


def test_the_list_gives_the_pairs_and_their_order(root: Root) -> None:
    first, second, _ = PAIRS
    made = root(listed=f"{second}\r\n\n  {first.replace(':', '_')}\n")
    rows = rows_of(made)
    assert [row.pair for row in rows] == [0, 1, 1]
    assert [row._replace(pair=0) for row in rows] == [
        row._replace(pair=0) for row in (EXPECTED[4], *EXPECTED[2:4])
    ]
    assert not any("dog" in name for name in index_of(made).image_id)


def test_the_small_list_is_not_read(root: Root) -> None:
    made = root()
    (made / "Layout/small").mkdir(parents=True)
    (made / "Layout/small/test.txt").write_text("nonsense\n")
    assert rows_of(made) == EXPECTED


def test_of_two_files_of_a_pair_the_archives_own_counts(root: Root) -> None:
    made = root()
    for path in list((made / "PairAnnotation/test").iterdir()):
        path.with_name(path.name.replace(":", "_")).write_text("{}")
    assert rows_of(made) == EXPECTED


def test_other_files_are_passed_over(root: Root) -> None:
    made = root()
    for name in ("notes.txt", ".hidden.json"):
        (made / "PairAnnotation/test" / name).write_text("x")
    assert rows_of(made) == EXPECTED


def test_keypoints_that_one_image_hides_are_left_out(root: Root) -> None:
    made = root(src_kps=[[1, 2], None, [5, 5]], trg_kps=[None, [1, 1], [6, 7]], kps_ids=[3, "4", 5])
    (kept,) = (row for row in rows_of(made) if row.source == image("cat_b"))
    assert (kept.point, kept.source_x, kept.target_y) == (5, 5, 7)


@pytest.mark.parametrize("side", ["src", "trg"])
@pytest.mark.parametrize("place", [[-1, -1], [-1.5, 3], [3, -2], [24.5, 3], [3, 21], [-1.0, -1.0]])
def test_keypoints_outside_their_image_are_refused(root: Root, side: str, place: Any) -> None:
    other = "trg" if side == "src" else "src"
    made = root(**{f"{side}_kps": [[1, 1], place], f"{other}_kps": [[1, 1], [2, 2]]})
    said = rf"cat_a:cat\.json: {side}_kps, keypoint 1 .* is at .*, outside .* 24 x 20; .*write null"
    with pytest.raises(DataError, match=said):
        index_of(made)


def test_keypoints_up_to_a_pixel_beyond_are_kept_and_counted(root: Root) -> None:
    made = root(src_kps=[[-1, 3], [24, 20], [0, 19]], trg_kps=[[3, 3], [4, 4], [23.5, 0]])
    spec, notes = spec_of(made), list[str]()
    rows = [row for row in points(spec, index_of(made), notes) if row.pair == 1]
    assert [(row.source_x, row.source_y) for row in rows] == [(-1, 3), (24, 20), (0, 19)]
    assert notes == ["3 keypoints up to a pixel beyond an image, taken at its border in the source"]


def test_what_is_left_out_of_pairs_is_counted(root: Root) -> None:
    made = root(src_kps=[None, [1, 2]], trg_kps=[[5, 6], None], trg_bndbox=[-2, 0, 26, 20])
    notes: list[str] = []
    points(spec_of(made), index_of(made), notes)
    assert notes == [
        "1 pair without a keypoint that both images show, in no score",
        "2 keypoints left out, not visible in one of the images (null)",
        "1 target box more than a pixel beyond the image, used as annotated",
    ]
    notes.clear()
    points(spec_of(made), index_of(made, limit=2), notes)
    assert notes[0] == "2 pairs left out, of which the index lacks an image"
    notes.clear()
    points(spec_of(root()), index_of(root()), notes)
    assert notes == []


def test_keypoints_at_one_place_are_counted(root: Root) -> None:
    """As where some tool writes (0, 0) for what is not visible."""
    made = root(src_kps=[[0, 0], [1, 2], [0, 0]], trg_kps=[[3, 3], [4, 4], [3.5, 3]])
    notes: list[str] = []
    points(spec_of(made), index_of(made), notes)
    assert notes == [
        "2 keypoints at the place of another of its image, or at 0, 0 (not visible? null leaves it "
        "out)"
    ]


def test_a_keypoint_in_the_very_corner_is_counted(root: Root) -> None:
    notes: list[str] = []
    made = root(src_kps=[[0, 0], [1, 2]], trg_kps=[[3, 3], [4, 4]])
    points(spec_of(made), index_of(made), notes)
    assert notes[0].startswith("1 keypoint at the place of another of its image, or at 0, 0 ")


def test_places_in_shares_of_the_image_are_refused(root: Root) -> None:
    made = root(src_kps=[[3, 3], [4, 4]], trg_kps=[[0.25, 0.5], [0.9, 1.0]])
    with pytest.raises(DataError, match="trg_kps are all within the first pixel; places are in pi"):
        index_of(made)


def test_keypoints_of_an_image_that_exif_turns(root: Root) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    made = root(src_imsize=[20, 24, 3])
    (made / image("cat_b")).write_bytes(encode(noise(1, 24, 20), "JPEG", exif=exif))
    said = r"cat_b\.jpg has 20 x 24 pixels by it, but 24 x 20 as stored: its EXIF .* 6 .*exif$"
    with pytest.raises(DataError, match=said):
        rows_of(made)
    assert len(rows_of(made, orientation="exif")) == len(EXPECTED)


@pytest.mark.parametrize("box", [[24, 2, 30, 9], [-9, 2, 0, 9], [2, 20, 9, 30], [2, -9, 9, -1]])
def test_boxes_without_a_pixel_of_the_image(root: Root, box: list[float]) -> None:
    with pytest.raises(DataError, match=r"trg_bndbox .* holds no pixel of its image of 24 x 20"):
        index_of(root(trg_bndbox=box))


def test_a_pair_without_shared_keypoints_has_no_rows_but_a_number(root: Root) -> None:
    made = root(src_kps=[], trg_kps=[], kps_ids=[])
    assert rows_of(made) == [*EXPECTED[:2], EXPECTED[4]]


def test_pairs_without_an_image_in_the_index_are_left_out(root: Root) -> None:
    made = root()
    assert rows_of(made, limit=2) == EXPECTED[2:4]
    with pytest.raises(DataError, match=r"both images of none of the 3 pairs of .*\.limit"):
        rows_of(made, limit=1)


def test_an_unusable_image_may_be_skipped(root: Root) -> None:
    made = root()
    (made / image("cat_c")).write_bytes(b"no image")
    assert rows_of(made, on_error="skip") == EXPECTED[:4]
    (made / image("cat_c")).unlink()
    with pytest.raises(DataError, match=r"cat_c\.jpg: does not exist"):
        index_of(made)


def test_an_image_of_another_size_is_named(root: Root) -> None:
    made = root()
    (made / image("cat_a")).write_bytes(encode(noise(1, 12, 10)))
    with pytest.raises(DataError, match=r"cat_a\.jpg has 24 x 20 pixels by it, but 12 x 10"):
        rows_of(made)


def remove(path: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / path).rename(root / "elsewhere")

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (remove("JPEGImages"), "the folder JPEGImages is missing"),
        (remove("PairAnnotation"), "the folder PairAnnotation/test is missing"),
        (remove("PairAnnotation/test"), "the folder PairAnnotation/test is missing"),
        (remove("JPEGImages/cat"), "JPEGImages has no folder cat"),
        (
            lambda root: [p.unlink() for p in (root / "PairAnnotation/test").iterdir()],
            r"no pairs \(\*\.json\)",
        ),
    ],
)
def test_what_is_missing_is_named(root: Root, change: Callable[[Path], Any], said: str) -> None:
    made = root()
    change(made)
    with pytest.raises(DataError, match=said) as caught:
        index_of(made)
    assert str(made) in str(caught.value) or "PairAnnotation" in str(caught.value)


def test_no_root() -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist; set datasets\.d\.root"):
        index_of(Path("nowhere"))


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ("000002-cat_b-cat_a:cat\n000003-x-y:cat\n", "line 2: 000003-x-y:cat has no file"),
        ("../../etc/passwd\n", "line 1: ../../etc/passwd has no file"),
        ("000002-cat_b-cat_a:cat\n000002-cat_b-cat_a_cat\n", "line 2: .* stands on line 1 already"),
        ("\n", "lists no pairs"),
        (b"\xff\xfe\n", "line 1: not valid UTF-8"),
    ],
)
def test_a_bad_list(root: Root, listed: str | bytes, said: str) -> None:
    with pytest.raises(DataError, match=rf"Layout/large/test\.txt.*{said}"):
        index_of(root(listed=listed))


DEEP = "[" * 900 + "]" * 900


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xff",
        b"[" * 100_000,
        b'{"a": ' * 100_000,
        b'{"category": ' + b"9" * 5000 + b"}",
        b"{}" + b" " * 2**20,
    ],
)
def test_a_file_that_is_no_annotation(root: Root, text: bytes) -> None:
    made = root()
    path = made / "PairAnnotation/test/000002-cat_b-cat_a:cat.json"
    path.write_bytes(text)
    with pytest.raises(DataError, match=r"000002-cat_b-cat_a:cat\.json") as caught:
        index_of(made)
    assert len(str(caught.value)) < 400


def test_a_folder_in_the_place_of_a_file(root: Root) -> None:
    made = root()
    (made / "PairAnnotation/test/000000-x.json").mkdir()
    with pytest.raises(DataError, match=r"000000-x\.json is no file"):
        index_of(made)


@pytest.mark.parametrize(
    "name",
    ["", "..", "../cat_a.jpg", "/etc/passwd", "a\\b", "a/b", ".hidden", "a\0b", 3, None, ["x"]],
)
@pytest.mark.parametrize("key", ["src_imname", "trg_imname", "category"])
def test_names_that_lead_elsewhere(root: Root, key: str, name: Any) -> None:
    with pytest.raises(DataError, match=f"{key} must be a name that leads to no other folder"):
        index_of(root(**{key: name}))


def test_names_that_are_no_unicode(root: Root) -> None:
    with pytest.raises(DataError, match="src_imname must be a name"):
        index_of(root(src_imname="\udc80.jpg"))


@pytest.mark.parametrize("key", ["src_kps", "trg_kps", "trg_bndbox", "src_imsize", "kps_ids"])
@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        "text",
        {"a": 1},
        [[1]],
        [[1, 2, 3]],
        ["x", "y"],
        [[1, "2"]],
        [True, False],
        [[float("nan"), 1]],
        [[float("inf"), 1]],
        [[1e300, 1]],
        [[10**400, 1]],
        json.loads(DEEP),
    ],
)
def test_values_of_other_kinds(root: Root, key: str, value: Any) -> None:
    with pytest.raises(DataError, match=rf"cat_a:cat\.json: {key}") as caught:
        index_of(root(**{key: value}))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("box", [[5, 5, 5, 9], [5, 9, 9, 9], [9, 9, 1, 1], [1, 2, float("nan"), 4]])
def test_boxes_that_are_none(root: Root, box: list[float]) -> None:
    with pytest.raises(DataError, match="trg_bndbox must"):
        index_of(root(trg_bndbox=box))


def test_as_many_keypoints_on_both_sides_as_numbers(root: Root) -> None:
    with pytest.raises(DataError, match="trg_kps has 1 keypoint, kps_ids 2"):
        index_of(root(trg_kps=[[1, 1]]))
    with pytest.raises(DataError, match="kps_ids must be a list of the numbers"):
        index_of(root(kps_ids=["1", "-2"]))


def test_a_category_that_is_a_link_elsewhere(root: Root) -> None:
    made = root()
    (made / "JPEGImages/cat").rename(made.parent / "outside")
    (made / "JPEGImages/cat").symlink_to(made.parent / "outside")
    with pytest.raises(DataError, match="JPEGImages/cat is a link out of JPEGImages"):
        index_of(made)


def test_the_folder_of_images_may_be_a_link(root: Root) -> None:
    made = root()
    (made / "JPEGImages").rename(made.parent / "outside")
    (made / "JPEGImages").symlink_to(made.parent / "outside")
    assert rows_of(made) == EXPECTED


def test_as_commands_do_it(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    made = root()
    index, out = made.parent / "index.csv", made.parent / "points.csv"
    settings = ["d", "--layout", "spair", "--root", str(made), "--split", "test"]
    assert main(["index", *settings, "--out", str(index)]) == 0
    assert main(["annotations", *settings, "--index", str(index), "--out", str(out)]) == 0
    assert read_annotations(out, PointRow) == EXPECTED
    (made / "PairAnnotation/test/000002-cat_b-cat_a:cat.json").write_text("{")
    out.unlink()
    capsys.readouterr()
    assert main(["annotations", *settings, "--index", str(index), "--out", str(out)]) == 1
    errors = [s for s in capsys.readouterr().err.splitlines() if "Traceback" in s or "error" in s]
    assert len(errors) == 1
    assert not out.exists()
