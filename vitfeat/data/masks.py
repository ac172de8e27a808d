"""Masks of objects as PNG files in DAVIS's form: every pixel is the number of an object.

0 is background, 1 to n the objects, and 255, where there is any, void: not told. Officially masks
are indexed PNGs, whose palette only shows the numbers in colours; grey PNGs of the numbers
themselves are read too.
"""

from __future__ import annotations

import functools
import io
import os
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitfeat.data.images import ImageError, read_bytes
from vitfeat.files import replacing

Mask = NDArray[np.uint8]

VOID = 255
"""Number of pixels that a mask says nothing of."""

_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_GREY, _INDEXED = 0, 3
_COLOUR_TYPES = {2: "RGB colours", 4: "grey values with transparency", 6: "RGBA colours"}


@functools.cache
def palette() -> NDArray[np.uint8]:
    """Return the colours of all numbers, those of PASCAL VOC, which DAVIS has: uint8 (256, 3).

    The lowest three bits of a number are the highest bits of red, green and blue, the next three
    their second highest, and so on: 1 is dark red, 2 dark green, 3 olive, 4 dark blue.
    """
    numbers = np.arange(256)[:, None]
    colours = np.zeros((256, 3), dtype=np.int64)
    for level in range(3):
        bits = numbers >> (3 * level + np.arange(3)) & 1
        colours |= bits << (7 - level)
    table = colours.astype(np.uint8)
    table.flags.writeable = False
    return table


def read_mask(path: str | os.PathLike[str], size: tuple[int, int], name: str | None = None) -> Mask:
    """Read a mask of a frame's size (height, width): uint8 (height, width).

    It is an indexed PNG of up to 8 bits, or a grey one that holds the numbers. Raises ImageError,
    where `name`, or else the path, is what the file is called.
    """
    called = str(path) if name is None else name
    data = read_bytes(Path(path), called)
    width, height, depth, colour_type = _header(data, called)
    if (height, width) != size:
        raise ImageError(
            called,
            f"the mask has {width} x {height} pixels, its frame {size[1]} x {size[0]}; "
            "take both from the same resolution of the dataset",
        )
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            values = np.asarray(image if colour_type == _INDEXED else image.convert("L"))
    # Damaged files make Pillow's decoders raise nearly anything.
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise ImageError(called, f"damaged or truncated mask ({what})") from None
    if colour_type == _GREY:
        # Pillow spreads grey values of fewer bits over 0 to 255.
        values = values // (255 // (2**depth - 1))
    return np.asarray(values, dtype=np.uint8)


def mask_size(path: str | os.PathLike[str], name: str) -> tuple[int, int]:
    """Read width and height of a mask from its header."""
    header = _header(read_bytes(Path(path), name, len(_START) + 10), name)
    return header.width, header.height


class _Header(NamedTuple):
    width: int
    height: int
    depth: int
    colour_type: int


def _header(data: bytes, name: str) -> _Header:
    """Check a PNG's header before anything is decoded."""
    if not data.startswith(_START) or len(data) < len(_START) + 10:
        raise ImageError(name, "no PNG file; masks are indexed PNGs of object numbers")
    header = _Header(*struct.unpack_from(">IIBB", data, len(_START)))
    if header.colour_type not in (_GREY, _INDEXED) or header.depth > 8:
        found = _COLOUR_TYPES.get(header.colour_type, f"{header.depth}-bit values")
        raise ImageError(
            name, f"a PNG of {found}, not of object numbers; save the mask as an indexed PNG"
        )
    return header


def objects_in(mask: Mask) -> tuple[int, ...]:
    """Return the numbers of the objects that a mask holds, ascending."""
    return tuple(number for number in np.unique(mask).tolist() if number not in (0, VOID))


def write_mask(path: str | os.PathLike[str], mask: Mask) -> None:
    """Write a mask in the official form: an indexed PNG of 8 bits with :func:`palette`."""
    image = Image.fromarray(mask)
    image.putpalette(palette().tobytes())
    with replacing(path) as partial:
        image.save(partial, format="PNG")
