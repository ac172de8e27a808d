"""An image in windows of a model's own size, and the grid of tokens put together from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tiling:
    """Windows side by side from the top left; the last of a row or column ends with the image.

    Where two windows overlap, the tokens of the earlier one count, row by row. ``grid`` and
    ``window`` are rows and columns of tokens, ``patch`` is height and width in pixels.
    """

    grid: tuple[int, int]
    window: tuple[int, int]
    patch: tuple[int, int]

    @property
    def corners(self) -> list[tuple[int, int]]:
        """Row and column of the first token of each window, row by row."""
        down, across = (
            [min(start, side - step) for start in range(0, side, step)]
            for side, step in zip(self.grid, self.window, strict=True)
        )
        return [(y, x) for y in down for x in across]

    def cut(self, images: Tensor) -> Tensor:
        """Cut (n, H, W, 3) into (n windows, h, w, 3), the windows of an image one by one."""
        (height, width), (down, across) = self.window, self.patch
        windows = [
            images[:, y * down : (y + height) * down, x * across : (x + width) * across]
            for y, x in self.corners
        ]
        return torch.stack(windows, 1).flatten(0, 1)

    def join(self, tokens: Tensor) -> Tensor:
        """Put spatial tokens (n windows, token, channel) together: (n, token, channel)."""
        corners, (height, width) = self.corners, self.window
        windows = tokens.view(-1, len(corners), height, width, tokens.shape[-1])
        grid = tokens.new_empty((len(windows), *self.grid, tokens.shape[-1]))
        # Backwards, so that the first written stays.
        for number in reversed(range(len(corners))):
            y, x = corners[number]
            grid[:, y : y + height, x : x + width] = windows[:, number]
        return grid.flatten(1, 2)
