"""What all views have, and what they share."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitfeat.errors import DataError

Interpolation = Literal["bicubic", "bilinear", "lanczos"]

FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}
"""Pillow's filters, antialiased."""

# A strip of 8 x 1 000 000 pixels passes as an image, but with its short side at 224 it would take
# 19 GB. Photographs and panoramas stay far below this many pixels.
_MAX_RESIZED_PIXELS = 2**28


class View(Protocol):
    """How an image becomes the array that a model sees."""

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Return height and width in pixels of what an image of `width` x `height` becomes."""

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Find the rectangle of an image that the result shows.

        Every token of the result is a rectangle of the same size in it.

        Parameters
        ----------
        width, height
            Size of the image in pixels.

        Returns
        -------
        tuple of float
            Left, top, right, bottom in the image's pixels, where it spans
            ``(0, 0, width, height)``; beyond it where the result is padded.
        """

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Apply the view.

        Returns
        -------
        numpy.ndarray
            uint8, shape (height, width, 3).
        """

    def describe(self) -> dict[str, Any]:
        """Describe the view for a store's provenance; JSON-able."""


def check_filter(interpolation: str) -> None:
    """Refuse an unknown interpolation."""
    if interpolation not in FILTERS:
        raise ValueError(f"interpolation {interpolation!r}: must be one of {', '.join(FILTERS)}")


def resize(image: Image.Image, width: int, height: int, interpolation: str) -> Image.Image:
    """Resize an RGB image."""
    if image.mode != "RGB":
        raise ValueError(f"the view takes RGB images, not {image.mode}")
    if width * height > _MAX_RESIZED_PIXELS:
        raise DataError(
            f"{image.width} x {image.height} pixels is too elongated: it would be resized to "
            f"{width} x {height}; remove it or crop it"
        )
    return image.resize((width, height), FILTERS[interpolation])
