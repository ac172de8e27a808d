"""Image files of every kind as 8-bit RGB, or one clear error.

How each mode becomes RGB:

==================================  ===========================================================
what Pillow opens                   what comes out
==================================  ===========================================================
1, L, P, YCbCr, HSV, LAB, CMYK      Pillow's ``convert("RGB")`` (no ICC profiles)
RGBA, LA, PA, and P, L or RGB with  composited over white: ``round((a * c + (255 - a) * 255) /
a transparent colour (tRNS)         255)``
16-bit grey (I;16, I)               0..65535 scaled to 0..255 with rounding; never clipped
F                                   values within [0, 1]: times 255; others: clipped to 0..255
animations, several pages           the first
EXIF orientation                    ignored: the published models were trained and evaluated on
                                    pixels as Pillow decodes them (Pillow itself turns TIFF and
                                    AVIF, and nothing else)
==================================  ===========================================================

EPS and WMF are not images here although Pillow knows them: they are drawings, which need an
external program whose output depends on its version.
"""

from __future__ import annotations

import functools
import io
import math
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from vitfeat.errors import DataError

# What Pillow registers but cannot decode by itself: it only identifies (or only writes) the first
# six, and draws the last two with Ghostscript and with Windows.
_NOT_DECODED = frozenset({"BUFR", "GRIB", "HDF5", "MPEG", "PALM", "PDF", "EPS", "WMF"})

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
    """An image that cannot be used.

    Parameters
    ----------
    name
        The image, as the user knows it.
    reason
        What is wrong with it; the message is ``name: reason``.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{printable(name)}: {reason}")
        self.name = name
        self.reason = " ".join(reason.split())

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        return ImageError, (self.name, self.reason)


@functools.cache
def _formats() -> tuple[str, ...]:
    """Name the formats that Pillow decodes by itself."""
    Image.init()
    return tuple(name for name in Image.OPEN if name not in _NOT_DECODED)


@functools.cache
def image_extensions() -> frozenset[str]:
    """Give the lower-case file extensions, with their dot, that mark an image in a folder."""
    known = Image.registered_extensions().items()
    return frozenset(extension for extension, name in known if name not in _NOT_DECODED)


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
            raise ImageError(name, "not an image that Pillow can read") from None
        except Image.DecompressionBombError:
            raise ImageError(
                name, f"more than twice the pixels of max_megapixels: {max_megapixels:g}"
            ) from None
        # Hostile and damaged files make Pillow's decoders raise nearly anything: OSError,
        # SyntaxError, struct.error, OverflowError, MemoryError, EOFError, ...
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise ImageError(name, f"damaged or truncated image ({what})") from error


def image_size(
    data: bytes, name: str, *, min_side: int = 8, max_megapixels: float = 80.0
) -> tuple[int, int]:
    """Read an image's size from its header, without decoding the pixels.

    Parameters
    ----------
    data
        The file's contents.
    name
        What to call the image in errors.
    min_side
        Fewest pixels that width and height may have.
    max_megapixels
        Most pixels that the image may have, in millions.

    Returns
    -------
    tuple of int
        Width and height in pixels.

    Raises
    ------
    ImageError
        If the header is not an image's, or its size is outside the limits.
    """
    with _opened(data, name, min_side, max_megapixels) as image:
        return image.size


def rgb_from_bytes(
    data: bytes, name: str, *, min_side: int = 8, max_megapixels: float = 80.0
) -> Image.Image:
    """Decode an image fully into 8-bit RGB, in the way that the module documents.

    Parameters
    ----------
    data, name, min_side, max_megapixels
        As in :func:`image_size`; the limits are checked on the header, before decoding.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, of the size that :func:`image_size` gives.

    Raises
    ------
    ImageError
        If the image is empty, unreadable, truncated, too small or too large.
    """
    with _opened(data, name, min_side, max_megapixels) as image:
        image.load()  # before looking at the mode, which some decoders settle only here
        return _to_rgb(image, name)


def read_bytes(path: Path, name: str, most: int = -1) -> bytes:
    """Read a regular file, whole or so many bytes of it.

    Raises
    ------
    ImageError
        If it does not exist, may not be read, or is a folder or a device.
    """
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
        raise ImageError(name, f"cannot be read: {what}") from None


def open_rgb(path: Path, *, min_side: int = 8, max_megapixels: float = 80.0) -> Image.Image:
    """Read and decode an image file into 8-bit RGB.

    Parameters
    ----------
    path
        The file; errors call it by this path.
    min_side, max_megapixels
        As in :func:`image_size`.

    Returns
    -------
    PIL.Image.Image
        Mode RGB.

    Raises
    ------
    ImageError
        As :func:`read_bytes` and :func:`rgb_from_bytes` do.
    """
    name = str(path)
    data = read_bytes(Path(path), name)
    return rgb_from_bytes(data, name, min_side=min_side, max_megapixels=max_megapixels)


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
