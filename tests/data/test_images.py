from __future__ import annotations

import contextlib
import io
import pickle
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from tests.data.pictures import encode, noise
from vitfeat.data.images import (
    ImageError,
    facts_of,
    image_extensions,
    open_rgb,
    printable,
    rgb_from_bytes,
)
from vitfeat.errors import DataError


def first_pixels(data: bytes, count: int = 4) -> list[tuple[int, ...]]:
    image = rgb_from_bytes(data, "image", min_side=1)
    assert image.mode == "RGB"
    return [tuple(pixel) for pixel in np.asarray(image).reshape(-1, 3)[:count].tolist()]


def of_pixels(mode: str, pixels: list[Any]) -> Image.Image:
    image = Image.new(mode, (len(pixels), 1))
    for place, pixel in enumerate(pixels):
        image.putpixel((place, 0), pixel)
    return image


def over_white(colour: int, alpha: int) -> int:
    return int(colour * alpha / 255 + 255 - alpha + 0.5)


def test_bilevel_and_grey_become_equal_channels() -> None:
    assert first_pixels(encode(of_pixels("1", [0, 1]))) == [(0, 0, 0), (255, 255, 255)]
    assert first_pixels(encode(of_pixels("L", [0, 7, 255]))) == [(0,) * 3, (7,) * 3, (255,) * 3]


def test_palette_is_looked_up() -> None:
    image = of_pixels("P", [1, 0])
    image.putpalette([10, 20, 30, 200, 100, 0])
    assert first_pixels(encode(image)) == [(200, 100, 0), (10, 20, 30)]


@pytest.mark.parametrize(("colour", "alpha"), [(40, 0), (40, 255), (40, 100), (201, 77), (0, 1)])
def test_alpha_is_composited_over_white(colour: int, alpha: int) -> None:
    want = over_white(colour, alpha)
    grey = encode(of_pixels("LA", [(colour, alpha)]))
    assert first_pixels(grey) == [(want, want, want)]
    rgb = encode(of_pixels("RGBA", [(colour, 255, 0, alpha)]))
    assert first_pixels(rgb) == [(want, 255, over_white(0, alpha))]


def test_every_colour_and_alpha_rounds_exactly() -> None:
    colour, alpha = np.meshgrid(np.arange(256), np.arange(256))
    bands = np.stack([colour, colour, colour, alpha], axis=-1).astype(np.uint8)
    found = np.asarray(rgb_from_bytes(encode(Image.fromarray(bands)), "image"))[..., 0]
    # 2 n + 255 over 510 rounds n / 255; there are no ties as 255 is odd.
    exact = (2 * (colour * alpha + 255 * (255 - alpha)) + 255) // 510
    np.testing.assert_array_equal(found, exact)


def test_palette_with_transparency() -> None:
    image = of_pixels("P", [0, 1, 2])
    image.putpalette([10, 20, 30, 200, 100, 0, 50, 50, 50])
    one = first_pixels(encode(image, transparency=1))
    assert one == [(10, 20, 30), (255, 255, 255), (50, 50, 50)]
    each = first_pixels(encode(image, transparency=bytes([255, 0, 100])))
    assert each == [(10, 20, 30), (255, 255, 255), (over_white(50, 100),) * 3]


def test_palette_with_alpha_channel() -> None:
    # No file format that Pillow writes holds PA; TIFF holds a palette with a second band.
    image = of_pixels("PA", [(0, 255), (1, 0)])
    image.putpalette([10, 20, 30, 200, 100, 0])
    from vitfeat.data.images import _to_rgb

    assert np.asarray(_to_rgb(image, "image")).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_transparent_colour_of_grey_and_rgb() -> None:
    assert first_pixels(encode(of_pixels("L", [7, 8]), transparency=7)) == [(255,) * 3, (8,) * 3]
    image = of_pixels("RGB", [(1, 2, 3), (1, 2, 4)])
    assert first_pixels(encode(image, transparency=(1, 2, 3))) == [(255,) * 3, (1, 2, 4)]


def test_cmyk_jpeg_and_ycbcr() -> None:
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    red, green, blue = first_pixels(encode(cyan, "JPEG", quality=100))[0]
    assert red <= 2
    assert min(green, blue) >= 253
    # Y 81, Cb 90, Cr 240 in full range: R = Y + 1.402 (Cr - 128) = 238, and so on.
    ycbcr = encode(Image.new("YCbCr", (8, 8), (81, 90, 240)), "TIFF")
    found = first_pixels(ycbcr)[0]
    assert np.abs(np.array(found) - (238, 14, 14)).max() <= 1


def test_lab_tiff_white_and_black() -> None:
    image = of_pixels("LAB", [(255, 128, 128), (0, 128, 128)])
    found = np.array(first_pixels(encode(image, "TIFF")))
    assert np.abs(found - [(255, 255, 255), (0, 0, 0)]).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_sixteen_bit_grey_is_scaled_not_clipped(kind: str, dtype: str) -> None:
    values = [0, 128, 129, 300, 32896, 65535]
    image = Image.fromarray(np.array([values], dtype=dtype))
    want = [round(value * 255 / 65535) for value in values]
    assert want == [0, 0, 1, 1, 128, 255]
    assert first_pixels(encode(image, kind), 6) == [(value,) * 3 for value in want]


def test_sixteen_bit_grey_with_transparent_value() -> None:
    image = Image.fromarray(np.array([[300, 301]], dtype=np.uint16))
    assert first_pixels(encode(image, transparency=300)) == [(255,) * 3, (1,) * 3]


def test_mode_i_within_and_beyond_sixteen_bits() -> None:
    image = Image.fromarray(np.array([[0, 300, 65535]], dtype=np.int32))
    assert image.mode == "I"
    assert first_pixels(encode(image, "TIFF")) == [(0,) * 3, (1,) * 3, (255,) * 3]
    for value in (-1, 65536):
        data = encode(Image.fromarray(np.array([[0, value]], dtype=np.int32)), "TIFF")
        with pytest.raises(DataError, match=r"image: grey values .* do not fit 16 bits"):
            rgb_from_bytes(data, "image", min_side=1)


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 0.5, 1.01], [0, 0, 1]),
        ([-5.0, 127.6, 300.0], [0, 128, 255]),
        ([-0.1, 0.6, 1.0], [0, 1, 1]),
    ],
)
def test_float_tiff(values: list[float], want: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert first_pixels(encode(image, "TIFF")) == [(value,) * 3 for value in want]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_float_that_is_not_finite(value: float) -> None:
    image = Image.fromarray(np.array([[0, value]], dtype=np.float32))
    with pytest.raises(DataError, match="not finite"):
        rgb_from_bytes(encode(image, "TIFF"), "image", min_side=1)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3  # type: ignore[attr-defined]
    assert first_pixels(data)[0] == (255, 0, 0)


def test_gif_with_transparency() -> None:
    image = of_pixels("P", [0, 1])
    image.putpalette([10, 20, 30, 200, 100, 0])
    assert first_pixels(encode(image, "GIF", transparency=0)) == [(255,) * 3, (200, 100, 0)]


def test_rgb_passes_unchanged() -> None:
    image = noise(2)
    np.testing.assert_array_equal(np.asarray(rgb_from_bytes(encode(image), "i")), np.asarray(image))


# --- errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *(("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("BMP", {})),
        *(("GIF", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("JPEG2000", {})),
    ],
)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_truncated(kind: str, options: dict[str, Any], kept: float) -> None:
    data = encode(noise(3, 90, 70), kind, **options)
    with pytest.raises(DataError, match=r"^pic: "):
        rgb_from_bytes(data[: int(len(data) * kept)], "pic")


def test_truncated_whatever_the_switch_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encode(noise(3, 90, 70), "JPEG")
    with pytest.raises(DataError, match="damaged or truncated"):
        rgb_from_bytes(data[: len(data) // 2], "pic")
    assert ImageFile.LOAD_TRUNCATED_IMAGES, "the caller's switch is put back"


def test_files_that_are_no_images(tmp_path: Path) -> None:
    cases: dict[str, tuple[bytes, str]] = {
        "empty.jpg": (b"", "zero bytes"),
        "text.jpg": (b"not an image at all\n" * 50, "not an image that Pillow can read"),
        "drawing.jpg": (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\nshowpage\n",
            "not an image",
        ),
    }
    for name, (data, message) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=f"{name}: .*{message}"):
            open_rgb(tmp_path / name)
    with pytest.raises(DataError, match=r"gone\.png: does not exist"):
        open_rgb(tmp_path / "gone.png")
    with pytest.raises(DataError, match="not a regular file"):
        open_rgb(tmp_path)


def test_open_rgb_reads_a_file(tmp_path: Path) -> None:
    noise(4).save(tmp_path / "a.png")
    assert open_rgb(tmp_path / "a.png").size == (24, 20)


def test_small_sides() -> None:
    for size in ((1, 1), (7, 100), (100, 7)):
        with pytest.raises(DataError, match=r"a side is below min_side: 8"):
            rgb_from_bytes(encode(Image.new("RGB", size)), "pic")
    assert rgb_from_bytes(encode(Image.new("RGB", (8, 8))), "pic").size == (8, 8)


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises many pixels and holds none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    start = b"\x89PNG\r\n\x1a\n" + chunk(
        b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    )
    return start + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((12_000, 9_000), "12000 x 9000 pixels, more than max_megapixels: 80"),
        ((60_000, 60_000), "more than twice the pixels of max_megapixels: 80"),
    ],
)
@pytest.mark.parametrize("read", [facts_of, rgb_from_bytes])
def test_too_many_pixels_by_the_header(read: Any, size: tuple[int, int], message: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=message):
            read(png_header(*size), "pic")


def test_too_many_pixels_nested_in_a_small_image() -> None:
    png = png_header(20_000, 20_000)
    entry = struct.pack("<BBBBHHII", 64, 64, 0, 0, 1, 32, len(png), 22)
    with pytest.raises(DataError, match="more than twice the pixels of max_megapixels: 80"):
        rgb_from_bytes(struct.pack("<HHH", 0, 1, 1) + entry + png, "pic")


def test_a_raised_limit_goes_beyond_pillows_own() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert facts_of(png_header(20_000, 10_000), "pic", max_megapixels=200)[:2] == (
            20_000,
            10_000,
        )
    limit = Image.MAX_IMAGE_PIXELS
    assert limit is not None
    assert limit > 80e6, "Pillow's own limit is put back"


def test_hostile_files_give_only_image_errors() -> None:
    rng = np.random.default_rng(0)
    kinds = ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "ICO", "TGA", "PCX", "SGI", "DDS", "PPM")
    for kind in kinds:
        good = np.frombuffer(encode(noise(5, 32, 32), kind), dtype=np.uint8)
        for _ in range(25):
            bad = good.copy()
            places = rng.integers(0, min(len(bad), 120), 4)
            bad[places] = rng.integers(0, 256, 4)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                with contextlib.suppress(ImageError):
                    rgb_from_bytes(bad.tobytes(), "pic", max_megapixels=1)


def test_odd_exceptions_of_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(noise(6))
    for kind in (SyntaxError, struct.error, OverflowError, MemoryError, EOFError, RecursionError):

        def fail(_self: object, kind: type[Exception] = kind) -> None:
            raise kind

        monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
        with pytest.raises(ImageError, match=kind.__name__):
            rgb_from_bytes(data, "pic")


def test_image_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(ImageError("a\nb", "bad  thing")))
    assert type(error) is ImageError
    assert (str(error), error.name, error.reason) == (r"a\nb: bad thing", "a\nb", "bad thing")


def test_printable() -> None:
    assert printable("naïve/猫 1.jpg") == "naïve/猫 1.jpg"
    assert printable("a\n\x1b\udcff") == r"a\n\x1b\udcff"


def test_extensions() -> None:
    assert {".jpg", ".jpeg", ".png", ".tif", ".webp", ".mpo", ".bmp", ".gif"} <= image_extensions()
    assert not {".pdf", ".h5", ".eps", ".mpg", ".txt", ".npy"} & image_extensions()
