"""The view for dense features: the whole image at a size of its own, nothing cut off or padded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitfeat.data.views.base import Interpolation, check_filter, resize


@dataclass(frozen=True)
class DenseView:
    """Resize to a given short or long side; the other follows from the aspect.

    Both sides are rounded down to whole patches, so that the aspect changes by less than a patch.

    Parameters
    ----------
    side
        Whether the ``short`` or the ``long`` side is given.
    pixels
        That side in pixels.
    patch
        Height and width of a patch in pixels.
    window
        Height and width of the windows that the result is pushed through the model in, in pixels;
        None for one pass. The result is at least as large.
    interpolation
        ``"bicubic"``, ``"bilinear"`` or ``"lanczos"``, antialiased as Pillow does.

    Raises
    ------
    ValueError
        If a setting is outside its range.

    Examples
    --------
    >>> DenseView("short", 448, (16, 16)).size_of(640, 480)
    (448, 592)
    """

    side: Literal["short", "long"]
    pixels: int
    patch: tuple[int, int]
    window: tuple[int, int] | None = None
    interpolation: Interpolation = "bicubic"

    def __post_init__(self) -> None:
        if self.side not in ("short", "long"):
            raise ValueError(f"side {self.side!r}: must be short or long")
        if self.pixels < max(self.patch):
            raise ValueError(f"pixels {self.pixels}: a patch has {max(self.patch)}")
        if self.window is not None and self.pixels < max(self.window):
            raise ValueError(
                f"pixels {self.pixels}: below the model's own size of {max(self.window)}, which "
                "it would be cut into"
            )
        check_filter(self.interpolation)

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Return height and width in pixels of what an image of `width` x `height` becomes."""
        given = min(width, height) if self.side == "short" else max(width, height)
        sides = []
        for side, patch, least in zip(
            (height, width), self.patch, self.window or self.patch, strict=True
        ):
            # Whole numbers throughout: a float would lose a patch where the product is exact.
            fitted = side * self.pixels // given
            sides.append(max(fitted - fitted % patch, least))
        return sides[0], sides[1]

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return the whole image: nothing is cut off."""
        return 0.0, 0.0, float(width), float(height)

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Apply the view: uint8, shape (height, width, 3)."""
        height, width = self.size_of(*image.size)
        return np.array(resize(image, width, height, self.interpolation))

    def describe(self) -> dict[str, Any]:
        """Describe the view for a store's provenance; JSON-able."""
        return {
            "kind": "dense",
            "side": self.side,
            "pixels": self.pixels,
            "patch": list(self.patch),
            "window": None if self.window is None else list(self.window),
            "interpolation": self.interpolation,
        }
