from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.pictures import MakeTree, encode
from vitfeat.data.annotations import FrameRow
from vitfeat.data.davis import frames
from vitfeat.data.index import Index
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.errors import DataError

SEQUENCES = {"bear": 3, "cows": 2, "dog": 4}
# Of the size of the trees' images.
MASK = encode(Image.new("P", (24, 20)))
LISTS = {"ImageSets/2017/val.txt": b"dog\nbear\r\n\ncows", "ImageSets/2017/train.txt": b"goat\n"}


def names(kind: str, sequence: str, n: int) -> list[str]:
    folder, suffix = {"image": ("JPEGImages", "jpg"), "mask": ("Annotations", "png")}[kind]
    return [f"{folder}/480p/{sequence}/{number:05d}.{suffix}" for number in range(n)]


def images() -> list[str]:
    return [name for sequence, n in SEQUENCES.items() for name in names("image", sequence, n)]


@pytest.fixture
def root(tree: MakeTree) -> Path:
    """Masks of all frames of bear, and of the first frames alone of the others."""
    masks = dict.fromkeys(names("mask", "bear", 3), MASK)
    masks |= {names("mask", sequence, 1)[0]: MASK for sequence in ("cows", "dog")}
    return tree(*images(), contents=LISTS | masks)


def spec_of(root: Path, **settings: Any) -> DatasetSpec:
    return DatasetSpec(name="d", layout="davis", root=root, **({"split": "val"} | settings))


def index_of(root: Path, **settings: Any) -> Index:
    return build_index(spec_of(root, **settings))


def test_frames_of_the_split_by_sequence(root: Path) -> None:
    index = index_of(root)
    assert index.image_id == images()
    assert index.label.tolist() == [0] * 3 + [1] * 2 + [2] * 4
    assert index.class_name == ["bear"] * 3 + ["cows"] * 2 + ["dog"] * 4


def test_rows_of_frames(root: Path) -> None:
    rows = frames(spec_of(root), index_of(root), [])
    assert rows[:3] == [
        FrameRow("bear", number, image, mask)
        for number, (image, mask) in enumerate(
            zip(names("image", "bear", 3), names("mask", "bear", 3), strict=True)
        )
    ]
    assert [row.image_id for row in rows] == images()
    assert [row.frame for row in rows[3:]] == [0, 1, 0, 1, 2, 3]
    # As in test-dev, which has masks of first frames alone.
    assert [row.mask for row in rows[5:]] == [names("mask", "dog", 1)[0], "", "", ""]


def test_numbers_follow_the_order_of_names_not_what_they_say(root: Path) -> None:
    for kind in ("JPEGImages", "Annotations"):
        for path in sorted((root / kind / "480p/bear").iterdir()):
            path.rename(path.with_stem(f"{2 * int(path.stem) + 10:05d}"))
    rows = frames(spec_of(root), index_of(root), [])
    assert [(row.frame, row.image_id[-9:], row.mask[-9:]) for row in rows[:3]] == [
        (0, "00010.jpg", "00010.png"),
        (1, "00012.jpg", "00012.png"),
        (2, "00014.jpg", "00014.png"),
    ]


@pytest.mark.parametrize("form", ["{}", "frame_{}", "a{}b", "{} (1)"])
def test_numbers_without_leading_zeros_are_refused(root: Path, form: str) -> None:
    folder = root / "JPEGImages/480p/bear"
    for path in sorted(folder.iterdir()):
        path.rename(folder / f"{form.format(int(path.stem) * 5)}.jpg")
    (root / "Annotations/480p/bear").rename(root / "aside")
    said = "10.*jpg comes before .*5.*jpg, but not by their numbers.*leading zeros, as in 00002.jpg"
    with pytest.raises(DataError, match=said):
        index_of(root)


def test_a_mark_behind_a_number_does_not_hide_that_it_lacks_zeros(root: Path) -> None:
    folder = root / "JPEGImages/480p/bear"
    for path, name in zip(sorted(folder.iterdir()), ["1", "10_key", "2"], strict=True):
        path.rename(folder / f"{name}.jpg")
    (root / "Annotations/480p/bear").rename(root / "aside")
    with pytest.raises(DataError, match=r"10_key\.jpg comes before 2\.jpg, but not by their num"):
        index_of(root)


def test_numbers_of_other_things_are_no_order(root: Path) -> None:
    folder = root / "JPEGImages/480p/bear"
    names = ["a10_x.jpg", "b2_y.jpg", "c1.jpg"]
    for path, name in zip(sorted(folder.iterdir()), names, strict=True):
        path.rename(folder / name)
    masks = root / "Annotations/480p/bear"
    for path, name in zip(sorted(masks.iterdir()), names, strict=True):
        path.rename((masks / name).with_suffix(".png"))
    assert index_of(root).image_id[:3] == [f"JPEGImages/480p/bear/{name}" for name in names]


def drawn_mask(*numbers: int) -> bytes:
    pixels = np.zeros((20, 24), dtype=np.uint8)
    pixels[0, : len(numbers)] = numbers
    return encode(Image.fromarray(pixels).convert("P"))


@pytest.mark.parametrize("kind", ["P", "L"])
def test_masks_of_0_and_255_are_refused_with_what_to_do(root: Path, kind: str) -> None:
    pixels = np.zeros((20, 24), dtype=np.uint8)
    pixels[3:9] = 255
    mask = Image.fromarray(pixels)
    if kind == "P":
        mask.putpalette([0, 0, 0, *[9, 9, 9] * 254, 255, 255, 255])
    (root / names("mask", "dog", 1)[0]).write_bytes(encode(mask))
    said = "Annotations/480p/dog/00000.png: .* 255 is void in DAVIS-2017.*write 1 in its place"
    with pytest.raises(DataError, match=said):
        frames(spec_of(root), index_of(root), [])


def test_masks_of_shades_are_refused(root: Path) -> None:
    """As a mask of 0 and 255 has them once its edges were smoothed."""
    pixels = np.zeros((20, 24), dtype=np.uint8)
    pixels[3, :] = np.linspace(0, 255, 24).astype(np.uint8)
    pixels[4, :] = pixels[3, :] // 2
    (root / names("mask", "dog", 1)[0]).write_bytes(encode(Image.fromarray(pixels)))
    with pytest.raises(DataError, match=r"dog/00000\.png: it holds .* shades of grey rather"):
        frames(spec_of(root), index_of(root), [])


@pytest.mark.parametrize("settings", [{}, {"on_error": "skip"}])
def test_two_frames_of_one_name_are_refused(root: Path, settings: dict[str, Any]) -> None:
    (root / "JPEGImages/480p/bear/00001.png").write_bytes(encode(Image.new("RGB", (24, 20))))
    with pytest.raises(DataError, match=r"bear/00001\.jpg and .*00001\.png have one name .* one"):
        index_of(root, **settings)


def test_other_pictures_beside_masks_do_not_matter(root: Path) -> None:
    (root / "Annotations/480p/bear/00001.jpg").write_bytes(b"a preview")
    assert len(frames(spec_of(root), index_of(root), [])) == 9


def test_what_is_odd_in_first_masks_is_said(root: Path) -> None:
    (root / names("mask", "bear", 3)[0]).write_bytes(drawn_mask(3, 1))
    (root / names("mask", "cows", 1)[0]).write_bytes(drawn_mask(1, 2, 255))
    notes: list[str] = []
    frames(spec_of(root), index_of(root), notes)
    assert notes == [
        "1 sequence whose first mask holds no object, left out; first dog",
        "1 sequence whose first mask has pixels of 255 (void), which count as background; first "
        "cows",
        "1 sequence whose first mask passes over numbers of objects: what has no pixel in it is no "
        "object (analyses.video.objects: official scores it, as the official evaluation does); "
        "first bear with the objects 1, 3",
        "2 sequences without masks of all frames, followed but not scored; first cows",
    ]


def test_masks_of_a_frame_that_exif_turns(root: Path) -> None:
    """Annotated as viewers show the frames: the setting is named, and then they fit."""
    exif = Image.Exif()
    exif[0x0112] = 8
    for name in names("image", "bear", 3):
        (root / name).write_bytes(encode(Image.new("RGB", (20, 24)), "JPEG", exif=exif))
    said = r"orientation 8 turns it by 90 degrees.*set datasets\.d\.orientation: exif$"
    with pytest.raises(DataError, match=said):
        frames(spec_of(root), index_of(root), [])
    index = index_of(root, orientation="exif")
    assert len(frames(spec_of(root, orientation="exif"), index, [])) == 9


def test_per_class_takes_the_first_frames_of_each(root: Path) -> None:
    index = index_of(root, per_class=2)
    rows = frames(spec_of(root, per_class=2), index, [])
    assert [(row.sequence, row.frame) for row in rows] == [
        (sequence, frame) for sequence in SEQUENCES for frame in (0, 1)
    ]
    assert [row.image_id for row in rows] == index.image_id


@pytest.mark.parametrize(
    ("limit", "whole", "note"),
    [
        (3, ["bear"], "the first 1 of 3 sequences used, for limit: 3"),
        (4, ["bear"], "the first 1 of 3 sequences used, for limit: 4"),
        (5, ["bear", "cows"], "the first 2 of 3 sequences used, for limit: 5"),
        (8, ["bear", "cows"], "the first 2 of 3 sequences used, for limit: 8"),
        (9, ["bear", "cows", "dog"], None),
    ],
)
def test_limit_takes_whole_sequences(
    root: Path, limit: int, whole: list[str], note: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    index = index_of(root, limit=limit)
    assert index.class_name == [name for name in whole for _ in range(SEQUENCES[name])]
    assert sorted({row.sequence for row in frames(spec_of(root, limit=limit), index, [])}) == whole
    assert any("sequences used" in line for line in caplog.messages) == (note is not None)
    assert note is None or any(note in line for line in caplog.messages)


def test_limit_counts_frames_after_per_class(root: Path) -> None:
    assert index_of(root, limit=4, per_class=2).class_name == ["bear"] * 2 + ["cows"] * 2


def test_limit_below_the_first_sequence(root: Path) -> None:
    with pytest.raises(DataError, match="bear has 3 frames, more than limit: 2, which takes whole"):
        index_of(root, limit=2)


def test_other_splits_and_folders_do_not_matter(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "JPEGImages/480p/unlisted").mkdir()
    (root / "JPEGImages/480p/bear/notes.txt").write_text("-")
    assert index_of(root).image_id == images()
    assert any("1 file ignored" in line for line in caplog.messages)


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_a_skipped_frame_is_an_error(root: Path, broken: int) -> None:
    (root / names("image", "bear", 3)[broken]).write_bytes(b"no image")
    settings = {"on_error": "skip"}
    index = index_of(root, **settings)
    assert len(index) == 8
    message = f"bear/0000{broken}.jpg was left out: not an image .* out of ImageSets/2017/val.txt"
    with pytest.raises(DataError, match=message):
        frames(spec_of(root, **settings), index, [])


def test_a_sequence_that_was_skipped_altogether_is_an_error(root: Path) -> None:
    for name in names("image", "cows", 2):
        (root / name).write_bytes(b"")
    index = index_of(root, on_error="skip")
    with pytest.raises(DataError, match=r"cows/00000.jpg was left out: the file is empty"):
        frames(spec_of(root, on_error="skip"), index, [])


def test_a_frame_that_came_after_the_index_is_an_error(root: Path) -> None:
    index = index_of(root)
    added = root / "JPEGImages/480p/cows/00002.jpg"
    added.write_bytes((root / images()[0]).read_bytes())
    with pytest.raises(DataError, match=r"cows/00002.jpg was left out: .* make it anew"):
        frames(spec_of(root), index, [])


def test_the_first_mask_must_be_there(root: Path) -> None:
    index = index_of(root)
    (root / "Annotations/480p/cows/00000.png").rename(root / "Annotations/480p/cows/00001.png")
    with pytest.raises(DataError, match=r"no mask .*Annotations/480p/cows/00000.png; a sequence"):
        frames(spec_of(root), index, [])


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        (
            "ImageSets",
            "ImageSets/2017 is missing in .*; unpack the lists of sequences",
        ),
        ("ImageSets/2017/val.txt", "no list of sequences .*/val.txt; there are train; set data"),
        ("JPEGImages", "the folder JPEGImages/480p is missing in .*; unpack the frames there"),
        (
            "JPEGImages/480p/cows",
            "480p/cows is missing in .*; unpack the frames of sequence cows there",
        ),
        ("Annotations", "480p/bear is missing in .*; unpack the masks of sequence bear there"),
        (
            "Annotations/480p/dog",
            "480p/dog is missing in .*; unpack the masks of sequence dog",
        ),
    ],
)
def test_missing_pieces_are_named(root: Path, gone: str, message: str) -> None:
    (root / gone).rename(root.parent / "moved")
    with pytest.raises(DataError, match=f"^dataset d: .*{message}"):
        frames(spec_of(root), index_of(root), [])


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_frame_that_only_its_mask_is_left_of(root: Path, gone: int) -> None:
    (root / names("image", "bear", 3)[gone]).unlink()
    with pytest.raises(DataError, match=rf"no frame for the mask .*bear/0000{gone}.png; a video"):
        index_of(root)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (
            encode(Image.new("P", (12, 10))),
            ".*00002.jpg has 12 x 10 pixels by it, but 24 x 20 in truth; take mask and frame",
        ),
        (encode(Image.new("RGB", (24, 20))), "a PNG of RGB colours"),
        (MASK[:20], "no PNG file"),
        (b"", "no PNG file"),
    ],
)
def test_masks_that_are_none_of_their_frames(root: Path, mask: bytes, message: str) -> None:
    (root / names("mask", "bear", 3)[2]).write_bytes(mask)
    index = index_of(root)
    with pytest.raises(DataError, match=rf"^dataset d: Annotations.*bear/00002.png: {message}"):
        frames(spec_of(root), index, [])


def test_a_dataset_that_is_unpacked_one_folder_too_deep(root: Path) -> None:
    outer = root.rename(root.parent / "DAVIS").parent
    with pytest.raises(DataError, match=r"ImageSets/2017 is missing .* \(.*DAVIS has it\); unpack"):
        index_of(outer)


def test_a_sequence_without_frames(root: Path) -> None:
    for name in names("image", "cows", 2):
        (root / name).unlink()
    with pytest.raises(DataError, match=r"no images in .*480p/cows; the frames of sequence cows"):
        index_of(root)


def test_a_missing_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone does not exist; set datasets\.d\.root"):
        index_of(tmp_path / "gone")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"bear\n../../secret\n", "line 2: ../../secret is not the name of a sequence"),
        (b"/etc\n", "line 1: /etc is not the name"),
        (b"..\n", "line 1: .. is not the name"),
        (b"bear/../dog\n", "line 1: bear/../dog is not the name"),
        (b"a\\b\n", "line 1: .* is not the name"),
        (b"a\0b\n", r"line 1: a\\x00b is not the name"),
        (b"bear\nout\n", "line 2: out is not the name .* does not lead out"),
        (b"bear\n\nbear\n", "line 3: bear stands on line 1 already"),
        (b"\n \n", "names no sequences"),
        (b"\xff\n", "not valid UTF-8"),
    ],
)
def test_bad_lists(root: Path, text: bytes, message: str) -> None:
    secret = root.parent / "secret"
    secret.mkdir()
    (root / "JPEGImages/480p/out").symlink_to(secret)
    (root / "ImageSets/2017/val.txt").write_bytes(text)
    with pytest.raises(DataError, match=f"^list .*{message}"):
        index_of(root)


def test_the_whole_folder_of_frames_may_be_a_link(root: Path) -> None:
    (root / "JPEGImages").rename(root.parent / "elsewhere")
    (root / "JPEGImages").symlink_to(root.parent / "elsewhere")
    assert index_of(root).image_id == images()
