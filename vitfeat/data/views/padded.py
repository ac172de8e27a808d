"""The view that keeps the whole image: its long side fitted, the rest padded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitfeat.data.views.base import Interpolation, check_filter, resize


@dataclass(frozen=True)
class PaddedView:
    """Resize to the largest size that fits, and pad with zeros (black) around it.

    The aspect is kept up to the rounding of one side to whole pixels. The image stands in the
    middle; of an odd number of padded pixels, one more is to the right and below.

    Parameters
    ----------
    size
        Height and width of the result in pixels.
    interpolation
        ``"bicubic"``, ``"bilinear"`` or ``"lanczos"``, antialiased as Pillow does.

    Raises
    ------
    ValueError
        If a setting is outside its range.

    Examples
    --------
    >>> PaddedView((224, 224)).resized(448, 224)
    (224, 112)
    """

    size: tuple[int, int]
    interpolation: Interpolation = "bicubic"

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ValueError(f"size {self.size}: height and width must be at least 1")
        check_filter(self.interpolation)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Give the width and height to which an image of ``width x height`` pixels is resized."""
        fit_height, fit_width = self.size
        if fit_width * height <= fit_height * width:
            return fit_width, max(1, round(fit_width * height / width))
        return max(1, round(fit_height * width / height)), fit_height

    def _corner(self, width: int, height: int) -> tuple[int, int]:
        """Left and top of the resized image within the result."""
        return (self.size[1] - width) // 2, (self.size[0] - height) // 2

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Return :attr:`size`, whatever the image."""
        return self.size

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Find the rectangle that the result shows; it reaches beyond the image where padded."""
        new_width, new_height = self.resized(width, height)
        left, top = self._corner(new_width, new_height)
        across, down = width / new_width, height / new_height
        return (
            -left * across,
            -top * down,
            (self.size[1] - left) * across,
            (self.size[0] - top) * down,
        )

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Apply the view: uint8, shape (height, width, 3)."""
        new_width, new_height = self.resized(*image.size)
        left, top = self._corner(new_width, new_height)
        padded = np.zeros((*self.size, 3), dtype=np.uint8)
        padded[top : top + new_height, left : left + new_width] = np.asarray(
            resize(image, new_width, new_height, self.interpolation)
        )
        return padded

    def describe(self) -> dict[str, Any]:
        """Describe the view for a store's provenance; JSON-able."""
        return {"kind": "padded", "size": list(self.size), "interpolation": self.interpolation}
