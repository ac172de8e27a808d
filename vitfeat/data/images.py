"""Image files of every kind as 8-bit RGB, or one clear error.

How each mode becomes RGB:

==================================  ===========================================================
what Pillow opens                   what comes out
==================================  ===========================================================
1, L, P, YCbCr, HSV, LAB, CMYK      Pillow's ``convert("RGB")`` (no ICC profiles)
RGBA, LA, PA, and P, L or RGB with  composited over white: ``round((a * c + (255 - a) * 255) /
a transparent colour (tRNS)         255)``
16-bit grey (I;16, I)               0..65535 scaled to 0..255 with rounding; never clipped
16-bit colours                      the upper byte, which is all that Pillow gives of them
F                                   values within [0, 1]: times 255; others: clipped to 0..255
animations, several pages           the first
EXIF orientation                    applied by :func:`turned` alone; the decoders of TIFF and HEIC
                                    have turned the pixels already
==================================  ===========================================================

EPS and WMF are not images here although Pillow knows them: they are drawings, which need an
external program whose output depends on its version. HEIC is read where pillow-heif is installed.
"""

from __future__ import annotations

import functools
import importlib
import io
import logging
import math
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from vitfeat.errors import DataError, is_of_the_system, what_to_do

logger = logging.getLogger(__name__)

# What Pillow registers but cannot decode by itself: it only identifies (or only writes) the first
# six, and draws the last two with Ghostscript and with Windows.
_NOT_DECODED = frozenset({"BUFR", "GRIB", "HDF5", "MPEG", "PALM", "PDF", "EPS", "WMF"})

Orientation = Literal["stored", "exif"]
"""Whether pixels are used as they are stored, or turned as EXIF says."""

# What EXIF's values bring upright; 1 is upright already.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION_TAG = 0x0112

# A PNG has its EXIF in front of the pixels or behind them; where it is, one of these stands.
_PNG_EXIF = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")

TRAITS = {
    "alpha": "with transparency, laid over white",
    "deep": "of 16 bits, reduced to 8",
    "real": "of floating-point values, taken as 0 to 1 or as 0 to 255",
    "inks": "in CMYK or Lab, converted to RGB without a colour profile",
    "profile": "with a colour profile other than sRGB, which is not applied",
    "frames": "of several frames or pages, of which the first is used",
}
"""What of an image changes its numbers when it becomes 8-bit RGB, in words for people."""

# Of these formats several frames are no pages: previews, sizes, layers.
_NO_PAGES = frozenset({"MPO", "ICO", "ICNS", "PSD", "HEIF"})

# Image files that Pillow does not read by itself, by their endings, and what does.
_HEIC_ENDINGS = (".heic", ".heics", ".heif", ".heifs", ".hif")
_OTHER_ENDINGS = {
    **dict.fromkeys(_HEIC_ENDINGS, "the package pillow-heif (pip install pillow-heif)"),
    **dict.fromkeys((".avif", ".avifs"), "Pillow 11.3 or later"),
    **dict.fromkeys((".jxl", ".svg"), "other programs: save them as JPEG or PNG"),
    **dict.fromkeys(
        (".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"),
        "raw converters: save them as JPEG or PNG",
    ),
}

# Bytes 8 to 12 of a file that begins with a box "ftyp", by what is within.
_BRANDS = {
    **dict.fromkeys(
        (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"), ".heic"
    ),
    **dict.fromkeys((b"avif", b"avis"), ".avif"),
}

# Pillow's switches are global. Held so that two threads cannot put back each other's values.
_SWITCHES = threading.Lock()


def printable(name: str) -> str:
    r"""Escape what a terminal cannot show: line ends, controls, bytes that are not UTF-8.

    Examples
    --------
    >>> printable("a\nb")
    'a\\nb'
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name
    )


class ImageError(DataError):
    """An image that cannot be used; the message is ``name: reason``."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{printable(name)}: {reason}")
        self.name = name
        self.reason = " ".join(reason.split())

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        return ImageError, (self.name, self.reason)


@functools.cache
def _formats() -> tuple[str, ...]:
    """Name the formats that are decoded: Pillow's own, and HEIC where pillow-heif is installed."""
    Image.init()
    with suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
    return tuple(name for name in Image.OPEN if name not in _NOT_DECODED)


@functools.cache
def image_extensions() -> frozenset[str]:
    """Give the lower-case file extensions, with their dot, that mark an image in a folder."""
    _formats()  # registers HEIC
    known = Image.registered_extensions().items()
    return frozenset(extension for extension, name in known if name not in _NOT_DECODED)


def reader_of(extension: str) -> str | None:
    """Return what reads image files of an ending that is not read here; None of all others."""
    known = extension.lower()
    return None if known in image_extensions() else _OTHER_ENDINGS.get(known)


def _unknown(data: bytes) -> str:
    """Say of a file that Pillow does not know what it is, where that can be told."""
    ending = _BRANDS.get(data[8:12], "") if data[4:8] == b"ftyp" else ""
    if reader := reader_of(ending):
        return f"an image in the format {ending[1:].upper()}, which is read by {reader}"
    return "not an image that Pillow can read"


@contextmanager
def _pillow(max_pixels: int) -> Iterator[None]:
    """Hold Pillow's global switches at our limits, and keep its warnings to itself."""
    with _SWITCHES, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        # Beyond twice this number Pillow raises, also for an image nested within another (ICO),
        # which our own look at the header does not see.
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = max_pixels, False
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = before


@contextmanager
def _opened(data: bytes, name: str, min_side: int, max_megapixels: float) -> Iterator[Image.Image]:
    """Open ``data`` up to its checked header; whatever Pillow raises becomes an ImageError."""
    if not data:
        raise ImageError(name, "the file is empty (zero bytes)")
    # Rounded, so that a limit which was computed from a number of pixels is that number again.
    max_pixels = round(max_megapixels * 1e6)
    formats = _formats()
    with _pillow(max_pixels):
        try:
            with Image.open(io.BytesIO(data), formats=formats) as image:
                width, height = image.size
                if min(width, height) < min_side:
                    raise ImageError(
                        name, f"{width} x {height} pixels, a side is below min_side: {min_side}"
                    )
                if width * height > max_pixels:
                    raise ImageError(
                        name,
                        f"{width} x {height} pixels, more than max_megapixels: {max_megapixels:g}",
                    )
                yield image
        except ImageError:
            raise
        except UnidentifiedImageError:
            raise ImageError(name, _unknown(data)) from None
        except Image.DecompressionBombError:
            raise ImageError(
                name, f"more than twice the pixels of max_megapixels: {max_megapixels:g}"
            ) from None
        # Hostile and damaged files make Pillow's decoders raise nearly anything: OSError,
        # SyntaxError, struct.error, OverflowError, MemoryError, EOFError, ...
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise ImageError(name, f"damaged or truncated image ({what})") from error


class Facts(NamedTuple):
    """What an image's file tells beside its pixels."""

    width: int
    height: int
    """In pixels, as they are stored."""
    orientation: int
    """EXIF's, from 1 (upright) to 8."""
    traits: tuple[str, ...]
    """Out of :data:`TRAITS`."""


def facts_of(
    data: bytes,
    name: str,
    *,
    decode: bool = False,
    min_side: int = 8,
    max_megapixels: float = 80.0,
) -> Facts:
    """Read from an image's header what is to be known of it; decode it only to see that it can be.

    Raises ImageError of what is no image, of sizes outside the limits, and of damage.
    """
    with _opened(data, name, min_side, max_megapixels) as image:
        traits = _traits(image)
        if decode:
            image.load()
            _to_rgb(image, name)
        return Facts(*image.size, _orientation(image, data), traits)


def rgb_from_bytes(
    data: bytes, name: str, *, min_side: int = 8, max_megapixels: float = 80.0
) -> Image.Image:
    """Decode an image fully into mode RGB, in the way that the module documents, as stored.

    The limits are checked on the header, before decoding. Raises ImageError.
    """
    with _opened(data, name, min_side, max_megapixels) as image:
        image.load()  # before looking at the mode, which some decoders settle only here
        return _to_rgb(image, name)


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """Bring an image upright as one of EXIF's orientations, 1 to 8, says."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def turned_size(width: int, height: int, orientation: int) -> tuple[int, int]:
    """Return width and height of what :func:`turned` makes of an image."""
    return (height, width) if orientation >= 5 else (width, height)


def read_bytes(path: Path, name: str, most: int = -1) -> bytes:
    """Read a regular file, whole or so many bytes of it; raises ImageError where that fails."""
    try:
        # A named pipe would hang on opening.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ImageError(name, "not a regular file")
        with path.open("rb") as file:
            return file.read(most)
    except FileNotFoundError:
        what = "a link to a file that does not exist" if path.is_symlink() else "does not exist"
        raise ImageError(name, what) from None
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or str(error)
        if is_of_the_system(error):
            # No image may be left out for it.
            raise DataError(f"{path}: cannot be read: {what}; {what_to_do(error)}") from error
        raise ImageError(name, f"cannot be read: {what}") from None


def open_rgb(path: Path, orientation: Orientation = "stored") -> Image.Image:
    """Read and decode an image file into mode RGB; raises ImageError, which names its path."""
    name = str(path)
    data = read_bytes(Path(path), name)
    image = rgb_from_bytes(data, name)
    found = facts_of(data, name).orientation
    if found == 1:
        return image
    done = "which is applied" if orientation == "exif" else "which is not applied"
    logger.warning(
        f"{printable(name)}: EXIF orientation {found}, {done} (orientation: {orientation})"
    )
    return turned(image, found) if orientation == "exif" else image


def _orientation(image: Image.Image, data: bytes) -> int:
    """Return EXIF's orientation, 1 to 8; 1 too where it cannot be read or has no such value."""
    # Pillow turns TIFF when it decodes it, and has turned the size already.
    if hasattr(image, "tag_v2"):
        return 1
    # Pillow would look for the EXIF of every PNG behind its pixels, and decode them for that.
    if image.format == "PNG" and not any(mark in data for mark in _PNG_EXIF):
        return 1
    try:
        value = image.getexif().get(_ORIENTATION_TAG)
    # Damaged EXIF makes Pillow raise nearly anything; the pixels are as good without.
    except Exception:
        return 1
    return value if type(value) is int and value in _TURNS else 1


def _traits(image: Image.Image) -> tuple[str, ...]:
    """Return what of an opened image changes its numbers, out of :data:`TRAITS`."""
    tiles = getattr(image, "tile", None)
    raw = str(tiles[0].args) if tiles else ""
    profile = image.info.get("icc_profile") or b""
    named = b"sRGB" in profile or "sRGB".encode("utf-16-be") in profile
    try:
        frames = image.format not in _NO_PAGES and getattr(image, "is_animated", False)
    except Exception:  # a second frame that is damaged
        frames = True
    found = {
        "alpha": image.has_transparency_data,
        "deep": image.mode == "I" or image.mode.startswith("I;") or ";16" in raw,
        "real": image.mode == "F",
        "inks": image.mode in ("CMYK", "LAB"),
        "profile": bool(profile) and not named,
        "frames": frames,
    }
    return tuple(name for name, is_so in found.items() if is_so)


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;"):
        return Image.fromarray(_from_16_bit(image, name)).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(_from_float(image, name)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image.convert("RGB")


def _from_16_bit(image: Image.Image, name: str) -> NDArray[np.uint8]:
    values = np.asarray(image).astype(np.int64)
    lowest, highest = values.min(), values.max()
    if lowest < 0 or highest > 65535:
        raise ImageError(
            name, f"grey values {lowest}..{highest} do not fit 16 bits; save it as 8 or 16 bits"
        )
    # 65535 / 255 = 257 is odd, so that there are no ties to break.
    grey = ((values + 128) // 257).astype(np.uint8)
    transparent = image.info.get("transparency")
    if transparent is not None:
        grey[values == transparent] = 255
    return grey


def _from_float(image: Image.Image, name: str) -> NDArray[np.uint8]:
    values = np.asarray(image, dtype=np.float64)
    lowest, highest = float(values.min()), float(values.max())
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise ImageError(name, "holds values that are not finite (NaN or infinite)")
    if lowest >= 0 and highest <= 1:
        values = values * 255
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)
