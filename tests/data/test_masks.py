from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.pictures import encode, noise
from vitfeat.data.images import ImageError
from vitfeat.data.masks import palette, read_mask, write_mask


def numbers(height: int = 6, width: int = 9, most: int = 256) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.integers(0, most, (height, width), dtype=np.uint8)


def test_the_palette_is_that_of_voc() -> None:
    known = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        2: (0, 128, 0),
        3: (128, 128, 0),
        4: (0, 0, 128),
        7: (128, 128, 128),
        8: (64, 0, 0),
        9: (192, 0, 0),
        15: (192, 128, 128),
        16: (0, 64, 0),
        21: (128, 64, 128),
        64: (32, 0, 0),
        255: (224, 224, 192),
    }
    for number, colour in known.items():
        assert tuple(palette()[number]) == colour
    assert len({tuple(colour) for colour in palette().tolist()}) == 256


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "00000.png"
    mask = numbers()
    mask[0, :2] = 0, 255
    write_mask(path, mask)
    found = read_mask(path, (6, 9))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, mask)
    with Image.open(path) as image:
        assert (image.mode, image.format) == ("P", "PNG")
        np.testing.assert_array_equal(np.array(image), mask)
        np.testing.assert_array_equal(np.reshape(image.getpalette(), (-1, 3)), palette())
        # What a viewer shows.
        np.testing.assert_array_equal(np.array(image.convert("RGB")), palette()[mask])
    assert sorted(path.parent.iterdir()) == [path]


def test_the_same_mask_is_the_same_file(tmp_path: Path) -> None:
    for name in "ab":
        write_mask(tmp_path / name, numbers())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def png(values: np.ndarray, bits: int, colour_type: int) -> bytes:
    """A PNG of packed values: Pillow writes no grey ones of 2 or 4 bits."""
    height, width = values.shape
    unpacked = np.unpackbits(values[..., None], axis=-1)[..., -bits:].reshape(height, -1)
    lines = b"".join(b"\0" + np.packbits(line).tobytes() for line in unpacked)
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    if colour_type == 3:
        chunks.insert(1, (b"PLTE", palette()[: 2**bits].tobytes()))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("colour_type", [0, 3])
def test_grey_and_indexed_masks_of_few_bits_keep_their_numbers(
    tmp_path: Path, colour_type: int, bits: int
) -> None:
    path = tmp_path / "mask.png"
    mask = numbers(most=2**bits)
    path.write_bytes(png(mask, bits, colour_type))
    np.testing.assert_array_equal(read_mask(path, (6, 9)), mask)


def test_a_palette_of_equal_colours_changes_nothing(tmp_path: Path) -> None:
    image = Image.fromarray(numbers(most=3))
    image.putpalette([7, 7, 7] * 3)
    path = tmp_path / "mask.png"
    path.write_bytes(encode(image, transparency=1))
    np.testing.assert_array_equal(read_mask(path, (6, 9)), numbers(most=3))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encode(noise(0, 9, 6)), "a PNG of RGB colours, not of object numbers"),
        (encode(noise(0, 9, 6).convert("RGBA")), "a PNG of RGBA colours"),
        (encode(noise(0, 9, 6).convert("LA")), "a PNG of grey values with transparency"),
        (encode(Image.fromarray(np.zeros((6, 9), np.uint16))), "a PNG of 16-bit values"),
        (encode(Image.fromarray(numbers(9, 6))), "mask has 6 x 9 pixels, its frame 9 x 6"),
        (encode(noise(0, 9, 6), "JPEG"), "no PNG file"),
        (encode(Image.fromarray(numbers()))[:30], "damaged or truncated mask"),
        (encode(Image.fromarray(numbers()))[:60], "damaged or truncated mask"),
        (encode(Image.fromarray(numbers()))[:20], "no PNG file"),
        (b"", "no PNG file"),
    ],
)
def test_errors(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=f"^bear/0.png: .*{message}"):
        read_mask(path, (6, 9), "bear/0.png")


def test_an_absent_mask_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.png: does not exist"):
        read_mask(tmp_path / "gone.png", (6, 9))


def test_nothing_large_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(np.zeros((1, 1), np.uint8), 8, 3).replace(b"\0\0\0\1", b"\0\1\0\0", 2))
    with pytest.raises(ImageError, match="65536 x 65536 pixels, its frame 9 x 6"):
        read_mask(path, (6, 9))
