"""EXIF orientations: of every value and place, in images, and in what is annotated in them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.data.coco_json import dump, image, instances, region
from tests.data.pictures import encode, noise
from vitfeat.cli import main
from vitfeat.data import coco
from vitfeat.data.images import facts_of, open_rgb, rgb_from_bytes, turned
from vitfeat.data.index import Index
from vitfeat.data.indexed import rgb_of, view_of
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.data.views import DenseView
from vitfeat.errors import DataError

Pixels = NDArray[np.uint8]

# By EXIF 2.3: where the stored rows begin and where the columns do, in the picture as it is seen.
SEEN = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def as_seen(stored: Pixels, orientation: int) -> Pixels:
    """Put every stored pixel where the standard says that it is seen."""
    height, width = stored.shape[:2]
    rows, columns = SEEN[orientation]
    upright = rows in ("top", "bottom")
    seen = np.empty((height, width, 3) if upright else (width, height, 3), dtype=np.uint8)
    for r in range(height):
        for c in range(width):
            along_rows = r if rows in ("top", "left") else height - 1 - r
            along_columns = c if columns in ("top", "left") else width - 1 - c
            place = (along_rows, along_columns) if upright else (along_columns, along_rows)
            seen[place] = stored[r, c]
    return seen


def tiff(*entries: tuple[int, int, int, bytes], order: str = "<") -> bytes:
    """An EXIF block of one directory: tag, type, count and four bytes of the value each."""
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8)
    fields = b"".join(struct.pack(f"{order}HHI", *entry[:3]) + entry[3] for entry in entries)
    return start + struct.pack(f"{order}H", len(entries)) + fields + b"\0\0\0\0"


def short(value: int, order: str = "<") -> tuple[int, int, int, bytes]:
    return 0x0112, 3, 1, struct.pack(f"{order}HH", value, 0)


def jpeg(exif: bytes | None, seed: int = 1, size: tuple[int, int] = (24, 16)) -> bytes:
    """A JPEG with an APP1 segment behind its start, made without Pillow's writer of EXIF."""
    plain = encode(noise(seed, *size), "JPEG", quality=95)
    if exif is None:
        return plain
    body = b"Exif\0\0" + exif
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + plain[2:]


def png(exif: bytes, behind: bool = False, seed: int = 1) -> bytes:
    """A PNG with a chunk eXIf, in front of its pixels or behind them."""
    plain = encode(noise(seed, 24, 16))
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif
    chunk += struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    at = len(plain) - 12 if behind else 33
    return plain[:at] + chunk + plain[at:]


def xmp(orientation: int) -> bytes:
    return (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:Orientation="%d"/>'
        b"</rdf:RDF></x:xmpmeta>" % orientation
    )


def with_xmp(orientation: int) -> bytes:
    plain = jpeg(None)
    body = b"http://ns.adobe.com/xap/1.0/\0" + xmp(orientation)
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + plain[2:]


def saved(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    return encode(noise(1, 24, 16), kind, exif=exif, **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "made",
    [
        lambda o: jpeg(tiff(short(o))),
        lambda o: jpeg(tiff(short(o, ">"), order=">")),
        lambda o: png(tiff(short(o))),
        lambda o: png(tiff(short(o)), behind=True),
        lambda o: saved("WEBP", o),
        lambda o: saved("MPO", o),
        with_xmp,
    ],
    ids=["jpeg", "jpeg-big-endian", "png", "png-behind", "webp", "mpo", "xmp-alone"],
)
def test_every_orientation_puts_pixels_where_the_standard_says(
    made: Callable[[int], bytes], orientation: int, tmp_path: Path
) -> None:
    data = made(orientation)
    stored = np.asarray(rgb_from_bytes(data, "i"))
    for decode in (False, True):
        facts = facts_of(data, "i", decode=decode)
        assert (facts.width, facts.height, facts.orientation) == (24, 16, orientation)
    np.testing.assert_array_equal(stored, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    want = as_seen(stored, orientation)
    np.testing.assert_array_equal(np.asarray(turned(rgb_from_bytes(data, "i"), orientation)), want)
    (tmp_path / "i").write_bytes(data)
    np.testing.assert_array_equal(np.asarray(open_rgb(tmp_path / "i", "exif")), want)
    np.testing.assert_array_equal(np.asarray(open_rgb(tmp_path / "i")), stored)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_by_its_decoder_and_only_once(orientation: int, tmp_path: Path) -> None:
    data = saved("TIFF", orientation)
    want = as_seen(np.asarray(noise(1, 24, 16)), orientation)
    facts = facts_of(data, "i")
    assert (facts.height, facts.width, facts.orientation) == (*want.shape[:2], 1)
    (tmp_path / "i.tif").write_bytes(data)
    for how in ("stored", "exif"):
        np.testing.assert_array_equal(np.asarray(open_rgb(tmp_path / "i.tif", how)), want)


@pytest.mark.parametrize(
    ("exif", "orientation"),
    [
        (tiff(short(0)), 1),
        (tiff(short(9)), 1),
        (tiff(short(65535)), 1),
        (tiff(), 1),
        (b"", 1),
        (b"garbage" * 9, 1),
        (tiff(short(6))[:15], 1),
        (tiff((0x0112, 3, 0, bytes(4))), 1),
        (tiff((0x0112, 2, 2, b"6\0\0\0")), 1),
        (tiff((0x0112, 99, 1, b"6\0\0\0")), 1),
        (tiff((0x0112, 5, 1, struct.pack("<I", 2**31))), 1),
        # A whole number of another width is read as everywhere.
        (tiff((0x0112, 4, 1, struct.pack("<I", 6))), 6),
        # Of two values, and of two tags of one directory, the first counts, as for Pillow.
        (tiff((0x0112, 3, 2, struct.pack("<HH", 6, 3))), 6),
        (tiff(short(6), short(3)), 6),
    ],
)
def test_damaged_and_absurd_exif_is_no_orientation_and_no_error(
    exif: bytes, orientation: int
) -> None:
    for data in (jpeg(exif), png(exif)):
        facts = facts_of(data, "i", decode=True)
        assert facts == facts_of(data, "i")
        assert (facts.width, facts.height, facts.orientation) == (24, 16, orientation)


def test_the_orientation_of_a_thumbnail_is_none_of_the_image() -> None:
    block = tiff(short(1))[:-4]
    second = struct.pack("<H", 1) + struct.pack("<HHI", *short(6)[:3]) + short(6)[3] + bytes(4)
    exif = block + struct.pack("<I", len(block) + 4) + second
    assert facts_of(jpeg(exif), "i").orientation == 1


def test_pixels_of_a_png_are_not_decoded_to_look_for_exif() -> None:
    whole = encode(noise(3, 90, 70))
    facts = facts_of(whole[: len(whole) // 2], "i")
    assert facts.orientation == 1


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four photographs of which two are stored turned, and one is upside down."""
    root = tmp_path / "photos"
    root.mkdir()
    for number, orientation in enumerate((1, 6, 8, 3)):
        exif = tiff(short(orientation)) if orientation != 1 else None
        (root / f"{number}.jpg").write_bytes(jpeg(exif, seed=number))
    return root


def index_of(root: Path, **settings: Any) -> Index:
    return build_index(DatasetSpec(name="photos", layout="flat", root=root, **settings))


@pytest.mark.parametrize(("on_error", "workers"), [("stop", 1), ("skip", 1), ("stop", 2)])
def test_the_index_has_the_size_as_seen_and_says_how_many_are_turned(
    photos: Path, on_error: Any, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    spec = DatasetSpec(name="photos", layout="flat", root=photos, on_error=on_error)
    stored = build_index(spec, workers=workers)
    assert stored.orientation.tolist() == [1, 1, 1, 1]
    assert (stored.width.tolist(), stored.height.tolist()) == ([24] * 4, [16] * 4)
    (note,) = stored.notes
    assert note == (
        "3 images with an EXIF orientation, used as stored and not as viewers show them "
        "(datasets.photos.orientation: exif turns them); first 1.jpg"
    )
    assert caplog.messages[-1] == f"dataset photos: {note}"
    seen = index_of(photos, on_error=on_error, orientation="exif")
    assert seen.orientation.tolist() == [1, 6, 8, 3]
    assert (seen.width.tolist(), seen.height.tolist()) == ([24, 16, 16, 24], [16, 24, 24, 16])
    assert seen.notes == ["3 images turned upright as the EXIF orientation says; first 1.jpg"]


def test_annotations_of_stored_images_are_said_to_be_of_the_stored(tmp_path: Path) -> None:
    """Turned by 180 degrees no size tells which image was annotated."""
    exif = Image.Exif()
    exif[0x0112] = 3
    for folder, name in (("Annotations", "0.png"), ("JPEGImages", "0.jpg")):
        path = tmp_path / folder / "480p/bear" / name
        path.parent.mkdir(parents=True)
        Image.new("RGB", (24, 16)).save(path, exif=exif)
    (tmp_path / "ImageSets/2017").mkdir(parents=True)
    (tmp_path / "ImageSets/2017/val.txt").write_text("bear")
    (note,) = build_index(DatasetSpec(name="d", layout="davis", root=tmp_path, split="val")).notes
    assert "as viewers show them, and so is what is annotated in them (datasets.d." in note


def test_turned_images_are_other_images(photos: Path, tmp_path: Path) -> None:
    stored, seen = index_of(photos), index_of(photos, orientation="exif")
    assert stored.fingerprint != seen.fingerprint
    seen.write(tmp_path / "i.csv")
    again = Index.read(tmp_path / "i.csv")
    assert again.fingerprint == seen.fingerprint
    assert again.orientation.tolist() == seen.orientation.tolist()
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        (photos / name).unlink()
    # Nothing to turn: one and the same.
    assert index_of(photos).fingerprint == index_of(photos, orientation="exif").fingerprint


def test_readers_of_an_index_turn_as_it_says(photos: Path) -> None:
    view = DenseView("short", 16, (8, 8))
    for how in ("stored", "exif"):
        index = index_of(photos, orientation=how)
        for row in range(len(index)):
            one = index.row(row)
            data = (photos / one.image_id).read_bytes()
            stored = np.asarray(rgb_from_bytes(data, "i"))
            orientation = facts_of(data, "i").orientation if how == "exif" else 1
            want = as_seen(stored, orientation)
            np.testing.assert_array_equal(np.asarray(rgb_of(one, photos)), want)
            given = view_of(one, photos, view)
            np.testing.assert_array_equal(given, view(Image.fromarray(want)))
            assert given.shape[:2] == view.size_of(*one.seen_size)


def coco_of(root: Path, turn: int, size: tuple[int, int], **settings: Any) -> list[Any]:
    """Read the regions of an image of 24 x 16 pixels as stored, annotated with some size."""
    (root / "images/val").mkdir(parents=True)
    (root / "images/val/1.jpg").write_bytes(jpeg(tiff(short(turn))))
    listed = image(1, "1.jpg", width=size[0], height=size[1])
    dump(root / "annotations/instances_val.json", instances([listed], [region(1, 1)]))
    spec = DatasetSpec(name="c", layout="coco", root=root, split="val", **settings)
    return coco.regions(spec, build_index(spec), [])


@pytest.mark.parametrize(("how", "size"), [("stored", (24, 16)), ("exif", (16, 24))])
def test_masks_are_of_the_image_as_it_is_used(tmp_path: Path, how: Any, size: Any) -> None:
    (row,) = coco_of(tmp_path, 6, size, orientation=how)
    assert (row.width, row.height) == size


@pytest.mark.parametrize(
    ("how", "size", "other"), [("stored", (16, 24), "exif"), ("exif", (24, 16), "stored")]
)
def test_masks_of_the_other_orientation_are_refused_with_the_setting(
    tmp_path: Path, how: Any, size: Any, other: str
) -> None:
    said = rf"orientation 6 turns it by 90 degrees, .*set datasets\.c\.orientation: {other}$"
    with pytest.raises(DataError, match=said):
        coco_of(tmp_path, 6, size, orientation=how)


@pytest.mark.parametrize("size", [(16, 24), (12, 8)])
def test_masks_that_no_orientation_explains(tmp_path: Path, size: tuple[int, int]) -> None:
    with pytest.raises(DataError, match="restore the original"):
        coco_of(tmp_path, 3, size)


def test_what_no_size_tells_is_said(tmp_path: Path) -> None:
    coco_of(tmp_path / "data", 3, (24, 16))
    settings = ["c", "--layout", "coco", "--root", str(tmp_path / "data"), "--split", "val"]
    settings += ["--orientation", "exif"]
    index, out = tmp_path / "c.csv", tmp_path / "regions.csv"
    assert main(["index", *settings, "--out", str(index)]) == 0
    assert main(["annotations", *settings, "--index", str(index), "--out", str(out)]) == 0
    assert (tmp_path / "regions.notes.txt").read_text() == (
        "1 image turned by EXIF to the same size: what is annotated in them is taken to be of the "
        "turned image; first images/val/1.jpg\n"
    )
