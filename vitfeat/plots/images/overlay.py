"""Attention maps laid over pictures, as arrays of pixels: no figure is needed.

A picture is what the model saw: the crop before normalisation. The token in row r and column c of
a grid is drawn over its own patch, rows r p ... (r + 1) p - 1 of the crop for patches of p pixels.
p is the crop's height over the grid's, rounded down; pixels beyond the last patch belong to no
token and stay grey.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import ListedColormap, to_rgb
from numpy.typing import NDArray
from PIL import Image

from vitfeat.plots import style

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]

COLOURS = "magma"
"""Of attention: lightness rises with the value."""

ALPHA = 0.7
"""Weight of the colour; the rest is the picture in grey. Constant, so that colours can be read."""

CONTRAST = 0.16
"""Greatest standard deviation of the grey below the colours, on a scale of 0 to 1."""

MARK_COLOUR = "#2BE8E8"
"""Of the box around the query: none of the colours of attention."""

LUMA = (0.299, 0.587, 0.114)
"""Grey of red, green and blue (ITU-R BT.601)."""


@dataclass(frozen=True)
class Patches:
    """Which pixels of a drawn picture show which token.

    Parameters
    ----------
    grid
        Rows and columns of tokens.
    crop
        Height and width of what the model saw, in its pixels.
    drawn
        Height and width that it is drawn at.
    """

    grid: tuple[int, int]
    crop: tuple[int, int]
    drawn: tuple[int, int]

    def tokens(self, axis: int) -> NDArray[np.int64]:
        """Return the token's row (axis 0) or column (axis 1) of each drawn pixel; -1 of none."""
        at = np.floor(self._places(axis)).astype(np.int64)
        return np.where(at < self.grid[axis], at, -1)

    def _places(self, axis: int) -> Floats:
        """Where the pixels' centres are, in tokens from the first one's edge."""
        patch = self.crop[axis] // self.grid[axis]
        centres = (np.arange(self.drawn[axis]) + 0.5) * self.crop[axis] / self.drawn[axis]
        return np.asarray(centres / patch)

    def weights(self, axis: int) -> Floats:
        """Return (pixel, token): linear between the centres of tokens, constant beyond the last."""
        count = self.grid[axis]
        at = np.clip(self._places(axis) - 0.5, 0, count - 1)
        return np.asarray(np.maximum(0, 1 - np.abs(at[:, None] - np.arange(count))))

    def box(self, token: tuple[int, int]) -> tuple[slice, slice]:
        """Return the rows and columns of pixels that show a token."""
        found = [np.flatnonzero(self.tokens(axis) == token[axis]) for axis in (0, 1)]
        rows, columns = (slice(int(at[0]), int(at[-1]) + 1) for at in found)
        return rows, columns


def drawn_size(crop: tuple[int, int], grid: tuple[int, int], side: float) -> tuple[int, int]:
    """Return the height and width in pixels to draw a crop at, its longer side near to `side`.

    All tokens get the same number of pixels, and at least one; small crops whole multiples.
    """
    longer = max(crop)
    if longer <= side:
        factor = max(1, round(side / longer))
        return crop[0] * factor, crop[1] * factor
    patch = max(crop[0] // grid[0], crop[1] // grid[1])
    scale = max(1, round(side / longer * patch)) / patch
    return max(1, round(crop[0] * scale)), max(1, round(crop[1] * scale))


def resized(picture: Pixels, drawn: tuple[int, int]) -> Pixels:
    """Draw a picture (height, width, 3) at another size; its pixels stay visible when it grows."""
    if picture.shape[:2] == drawn:
        return picture
    grows = drawn[0] >= picture.shape[0]
    kind = Image.Resampling.NEAREST if grows else Image.Resampling.BOX
    return np.asarray(Image.fromarray(picture).resize(drawn[::-1], kind))


def colours() -> ListedColormap:
    """Colour map of attention as it looks over a picture of medium grey: for colour bars."""
    return ListedColormap(ALPHA * _lut() + (1 - ALPHA) * 0.5)


def _lut() -> Floats:
    return np.asarray(colormaps[COLOURS](np.arange(256))[:, :3], dtype=np.float64)


def overlay(
    picture: Pixels, values: Floats, crop: tuple[int, int] | None = None, *, smooth: bool = False
) -> Pixels:
    """Lay maps over the picture in grey.

    Parameters
    ----------
    picture
        (height, width, 3): the crop, at the size that it is to be drawn at.
    values
        (..., y, x) from 0 to 1: what the colours stand for; beyond is cut off.
    crop
        Height and width of the crop in the model's pixels; those of `picture` if not given.
    smooth
        Whether values are interpolated between the centres of tokens. Else every patch has one
        colour, which is what the model has.

    Returns
    -------
    NDArray
        uint8 (..., height, width, 3).
    """
    drawn = (picture.shape[0], picture.shape[1])
    patches = Patches((values.shape[-2], values.shape[-1]), crop or drawn, drawn)
    rows, columns = patches.tokens(0), patches.tokens(1)
    if smooth:
        fine = patches.weights(0) @ values @ patches.weights(1).T
        levels = _levels(fine)
    else:
        levels = _levels(values)[..., rows[:, None], columns]
    grey = _grey(picture)
    # In whole numbers from the start: hundreds of maps are drawn at once.
    light = np.rint((1 - ALPHA) * grey).astype(np.uint8)[..., None]
    mixed: Pixels = np.rint(ALPHA * 255 * _lut()).astype(np.uint8)[levels] + light
    bare = np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=-1)
    outside = (rows[:, None] < 0) | (columns < 0)
    mixed[..., outside, :] = bare[outside]
    return mixed


def _grey(picture: Pixels) -> Floats:
    """Turn a picture to grey, 0 to 255, around medium and of limited contrast.

    Else the white and black of a drawing would be taken for more and less attention.
    """
    grey = picture @ np.asarray(LUMA)
    deviation = grey.std()
    factor = min(1.0, 255 * CONTRAST / deviation) if deviation > 0 else 1.0
    return np.asarray(np.clip(127.5 + factor * (grey - grey.mean()), 0, 255))


def _levels(values: Floats) -> NDArray[np.uint8]:
    return np.asarray(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8))


def mark(picture: Pixels, patches: Patches, token: tuple[int, int]) -> None:
    """Draw a box around a token, into the picture (height, width, 3) itself.

    The box is outside of the token where there is room, so that it does not hide it.
    """
    rows, columns = patches.box(token)
    width = max(1, round(max(picture.shape) / 60))
    for size, colour in ((width + -(-width // 2), (0.0, 0.0, 0.0)), (width, to_rgb(MARK_COLOUR))):
        top, left = max(0, rows.start - size), max(0, columns.start - size)
        bottom, right = rows.stop + size, columns.stop + size
        filled = np.zeros(picture.shape[:2], dtype=bool)
        filled[top:bottom, left:right] = True
        filled[rows, columns] = False
        picture[filled] = np.rint(np.asarray(colour) * 255)


def share_bar(width: int, height: int, on_cls: float, on_registers: float) -> Pixels:
    """Draw the shares of two kinds of keys as one bar, whose whole width is 1.

    Returns
    -------
    NDArray
        uint8 (height, width, 3).
    """
    bar = np.full((height, width, 3), _rgb(BAR_COLOURS["rest"]), dtype=np.uint8)
    first, second = round(on_cls * width), round((on_cls + on_registers) * width)
    bar[:, first:second] = _rgb(BAR_COLOURS["registers"])
    bar[:, :first] = _rgb(BAR_COLOURS["cls"])
    return bar


BAR_COLOURS = {"cls": "#1F1F1F", "registers": style.NO_VALUE, "rest": "#EEEEEE"}
"""Of the bar below a map."""


def _rgb(colour: str) -> Pixels:
    return np.asarray(np.rint(np.asarray(to_rgb(colour)) * 255), dtype=np.uint8)
