"""The view that published ViTs are evaluated with: resized, its centre cut out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitfeat.data.views.base import Interpolation, check_filter, resize


@dataclass(frozen=True)
class SquareView:
    """Resize, then crop the centre: the way that published ViTs are evaluated.

    The image keeps its aspect ratio and is resized to the smallest size that covers
    ``floor(height / crop_fraction) x floor(width / crop_fraction)``; ``size`` is cut from its
    middle. For a square this is bit for bit torchvision's ``Resize(resize_to, interpolation,
    antialias=True)`` and ``CenterCrop(size)`` on a PIL image.

    Parameters
    ----------
    size
        Height and width of the result in pixels.
    crop_fraction
        The crop's side over the resized image's shorter side, in (0, 1].
    interpolation
        ``"bicubic"``, ``"bilinear"`` or ``"lanczos"``, antialiased as Pillow does.

    Raises
    ------
    ValueError
        If a setting is outside its range.

    Examples
    --------
    >>> SquareView((224, 224), 0.875).resize_to
    256
    """

    size: tuple[int, int]
    crop_fraction: float = 0.875
    interpolation: Interpolation = "bicubic"

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ValueError(f"size {self.size}: height and width must be at least 1")
        # Beyond 1 the resized image would not cover the crop.
        if not 0 < self.crop_fraction <= 1:
            raise ValueError(f"crop_fraction {self.crop_fraction}: must be above 0 and at most 1")
        check_filter(self.interpolation)

    @property
    def covered(self) -> tuple[int, int]:
        """Height and width that the resized image covers."""
        height, width = self.size
        # Rounded down as timm does: 224 at 0.9 is 248.
        return int(height / self.crop_fraction), int(width / self.crop_fraction)

    @property
    def resize_to(self) -> int:
        """The shorter side of :attr:`covered`; for a square, that of the resized image."""
        return min(self.covered)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Give the width and height to which an image of ``width x height`` pixels is resized."""
        cover_height, cover_width = self.covered
        # The long side is truncated, not rounded, as torchvision does.
        if cover_width * height >= cover_height * width:
            return cover_width, int(cover_width * height / width)
        return int(cover_height * width / height), cover_height

    def _corner(self, width: int, height: int) -> tuple[int, int]:
        """Left and top of the crop within the resized image; rounds halves to even."""
        return round((width - self.size[1]) / 2), round((height - self.size[0]) / 2)

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Return :attr:`size`, whatever the image."""
        return self.size

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Find the crop's rectangle in the original image.

        Parameters
        ----------
        width, height
            Size of the original image in pixels.

        Returns
        -------
        tuple of float
            Left, top, right, bottom in the original's pixels, where the image spans
            ``(0, 0, width, height)``.
        """
        new_width, new_height = self.resized(width, height)
        left, top = self._corner(new_width, new_height)
        across, down = width / new_width, height / new_height
        return (
            left * across,
            top * down,
            (left + self.size[1]) * across,
            (top + self.size[0]) * down,
        )

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Apply the view.

        Returns
        -------
        numpy.ndarray
            uint8, shape (height, width, 3).
        """
        new_width, new_height = self.resized(*image.size)
        resized = resize(image, new_width, new_height, self.interpolation)
        left, top = self._corner(new_width, new_height)
        height, width = self.size
        return np.array(resized.crop((left, top, left + width, top + height)))

    def describe(self) -> dict[str, Any]:
        """Describe the view for a store's provenance; JSON-able."""
        return {
            "kind": "square",
            "size": list(self.size),
            "resize_to": self.resize_to,
            "crop_fraction": self.crop_fraction,
            "interpolation": self.interpolation,
        }
