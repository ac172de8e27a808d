"""What `vitfeat info` says of a dataset's tables, and which notes stand there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.coco_json import dump, image, instances, region, square
from tests.data.pictures import MakeTree, encode, noise
from vitfeat.cli import main
from vitfeat.data.images import facts_of
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec

Say = Callable[..., tuple[int, str]]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command; give its exit code and what it printed."""

    def run(*arguments: str | Path) -> tuple[int, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out if code == 0 else printed.err

    return run


def bands(mode: str, dtype: Any, *shape: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 200, (16, 24, *shape)).astype(dtype)
    return Image.fromarray(pixels, mode) if mode else Image.fromarray(pixels)


def deep_png() -> bytes:
    """A PNG of 16 bits a colour, which Pillow reads and does not write."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    rows = np.random.default_rng(1).integers(0, 65536, (16, 24, 3)).astype(">u2")
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 24, 16, 16, 2, 0, 0, 0))
    start = b"\x89PNG\r\n\x1a\n" + header
    return start + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


PALETTE = noise(1, 24, 16).quantize(8)


def plain(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    return encode(noise(1, 24, 16).convert(mode), kind, **options)


def several(kind: str) -> bytes:
    return plain(kind, save_all=True, append_images=[noise(2, 24, 16), noise(3, 24, 16)])


KINDS: dict[str, tuple[str, bytes]] = {
    "alpha": ("alpha.png", encode(bands("", np.uint8, 4))),
    "alpha-palette": ("palette.png", encode(PALETTE, transparency=2)),
    "deep": ("grey.png", encode(bands("", np.uint16))),
    "deep-colours": ("deep.png", deep_png()),
    "real": ("real.tif", encode(bands("", np.float32), "TIFF")),
    "inks": ("inks.jpg", plain("JPEG", "CMYK")),
    "profile": ("p.jpg", plain("JPEG", icc_profile=b"\0" * 128 + b"Display P3")),
    "frames": ("frames.gif", several("GIF")),
    "frames-pages": ("pages.tif", several("TIFF")),
    "frames-webp": ("moving.webp", several("WEBP")),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decode", [False, True])
def test_what_changes_the_numbers_of_an_image_is_noticed(kind: str, decode: bool) -> None:
    assert facts_of(KINDS[kind][1], "i", decode=decode).traits == (kind.split("-")[0],)


@pytest.mark.parametrize(
    "data",
    [
        plain("PNG"),
        plain("PNG", "L"),
        encode(PALETTE),
        encode(PALETTE, "GIF"),
        plain("JPEG", icc_profile=b"\0" * 128 + b"sRGB IEC61966-2.1"),
        plain("JPEG", icc_profile=b"\0" * 128 + "sRGB".encode("utf-16-be")),
        plain("TIFF"),
        several("MPO"),
        plain("ICO", sizes=[(16, 16), (24, 16)]),
    ],
)
def test_of_a_plain_image_nothing_is_noticed(data: bytes) -> None:
    assert facts_of(data, "i", decode=True).traits in (
        (),
        ("alpha",) if data[:4] == b"\0\0\1\0" else (),
    )


def test_an_index_counts_what_changes_numbers_with_the_first_image(
    tree: MakeTree, caplog: pytest.LogCaptureFixture
) -> None:
    root = tree("plain.png", contents=dict(KINDS.values()))
    index = build_index(DatasetSpec(name="d", layout="flat", root=root))
    assert index.notes == [
        "2 images with transparency, laid over white; first alpha.png",
        "2 images of 16 bits, reduced to 8; first deep.png",
        "1 image of floating-point values, taken as 0 to 1 or as 0 to 255; first real.tif",
        "1 image in CMYK or Lab, converted to RGB without a colour profile; first inks.jpg",
        "1 image with a colour profile other than sRGB, which is not applied; first p.jpg",
        "3 images of several frames or pages, of which the first is used; first frames.gif",
    ]
    assert caplog.messages[1:] == [f"dataset d: {note}" for note in index.notes]


def test_info_of_an_index(tree: MakeTree, tmp_path: Path, say: Say) -> None:
    root = tree("a/1.png", "a/2.png", contents={"b/3.png": KINDS["alpha"][1], "b/4.png": b"x"})
    out = tmp_path / "photos.csv"
    settings = ["photos", "--layout", "folder", "--root", root, "--on-error", "skip"]
    assert say("index", *settings, "--out", out)[0] == 0
    code, text = say("info", out)
    lines = text.splitlines()
    assert code == 0
    assert lines[0].split() == ["index", str(out)]
    assert lines[1] == "images       3, 2 classes"
    assert lines[3] == "skipped      1, first: b/4.png"
    assert lines[4] == "note         1 image with transparency, laid over white; first b/3.png"
    assert lines[5].startswith("note         1 unusable image skipped, first b/4.png")


def test_info_of_annotations(tree: MakeTree, tmp_path: Path, say: Say) -> None:
    root = tree("images/val/1.png")
    annotations = [
        region(1, 1, iscrowd=1),
        region(2, 1, segmentation=[[1, 2, 3, 4]]),
        region(3, 1, segmentation=square(20, 15, 8)),
    ]
    dump(root / "annotations/instances_val.json", instances([image(1, "1.png")], annotations))
    index, out = tmp_path / "c.csv", tmp_path / "regions" / "c.csv"
    settings = ["c", "--layout", "coco", "--root", root, "--split", "val"]
    assert say("index", *settings, "--out", index)[0] == 0
    assert say("annotations", *settings, "--index", index, "--out", out)[0] == 0
    code, text = say("info", out)
    assert code == 0
    assert text.splitlines() == [
        f"annotations  {out}",
        "kind         regions",
        "rows         3",
        "note         1 region of several objects that were not told apart (crowds), which are no "
        "objects by default; first of images/val/1.png",
        "note         1 region without a pixel; first of images/val/1.png",
        "note         1 region drawn more than a pixel beyond the image, cut at its border; first "
        "of images/val/1.png",
    ]


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "\udcff\udcfe", "model,layer\n"])
def test_info_of_another_table_is_one_line(tmp_path: Path, say: Say, text: str) -> None:
    path = tmp_path / "other.csv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    code, said = say("info", path)
    assert code == 1
    assert "other.csv is n" in said
    assert "Traceback" not in said
    code, said = say("info", tmp_path / "gone.csv")
    assert (code, "gone.csv cannot be read" in said) == (1, True)
