"""Attention maps laid over pictures, as arrays of pixels: no figure is needed.

A picture is what the model saw: the crop before normalisation. The token in row r and column c of
a grid is drawn over its own patch, rows r p ... (r + 1) p - 1 of the crop for patches of p pixels.
p is the crop's height over the grid's, rounded down; pixels beyond the last patch belong to no
token and stay grey.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from vitfeat.figures import style

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]

COLOURS, LEAST_COLOUR = "YlOrRd", 0.12
"""Of attention, and where in the colour map they begin: yellow to dark red, none of them grey."""

ALPHA, OPAQUE_FROM = 0.85, 0.6
"""Weight of the colour at its most, and the value that has it: it rises from 0 in a straight line.

Where there is no attention the picture shows, and where there is much, hardly anything of it."""

DARKEST, LIGHTEST = 0.38, 0.95
"""Greys of black and white below the colours, on a scale of 0 to 1: no colour is as dark as the
most attention, and none is lost on white."""

PERCENTILE = 98.0
"""Where colours end unless asked otherwise, of a map's values: one token may draw nearly all."""

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


def ends(maps: Floats, percentile: float, *, common: bool = False) -> Floats:
    """Return what the last colour of each map stands for, shaped to divide the maps by.

    Returns (..., 1, 1); 0 for a map without any attention.

    Parameters
    ----------
    maps
        (..., y, x), not negative.
    percentile
        Of a map's values; its maximum where that percentile is 0. NaN is no value.
    common
        Whether it is one for all maps.
    """
    axes = tuple(range(maps.ndim)) if common else (-2, -1)
    held = np.where(np.isfinite(maps), maps, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a map of NaN alone has no end
        found = np.nanpercentile(held, percentile, axis=axes, keepdims=True)
        found = np.where(found > 0, found, np.nanmax(held, axis=axes, keepdims=True))
    return np.asarray(np.broadcast_to(np.nan_to_num(found), (*maps.shape[:-2], 1, 1)))


def scaled(maps: Floats, end: Floats) -> Floats:
    """Divide maps (..., y, x) by what :func:`ends` gives; maps without any attention stay."""
    return np.asarray(np.divide(maps, end, out=0.0 * maps, where=end > 0))


def named(percentile: float) -> str:
    """Name where colours end."""
    return "the maximum" if percentile >= 100 else f"percentile {percentile:g}"


def said_of_scale(percentile: float, *, common: bool = False) -> str:
    """Say where colours end."""
    of = "all values in the figure" if common else "each map's values"
    beyond = "" if percentile >= 100 else "; larger ones have the last colour"
    return f"Colours end at {named(percentile)} of {of}{beyond}."


def colours() -> ListedColormap:
    """Colour map of attention as it looks over a picture of medium grey: for colour bars."""
    lut, alpha = _lut()
    return ListedColormap(alpha * lut + (1 - alpha) * (DARKEST + LIGHTEST) / 2)


def _lut() -> tuple[Floats, Floats]:
    """Colours (256, 3) of values from 0 to 1, and their weights (256, 1)."""
    values = np.linspace(0, 1, 256)
    lut = colormaps[COLOURS](LEAST_COLOUR + (1 - LEAST_COLOUR) * values)[:, :3]
    return lut.astype(np.float64), ALPHA * np.minimum(1, values / OPAQUE_FROM)[:, None]


def pale(picture: Pixels) -> Pixels:
    """Turn a picture (height, width, 3) to grey that is light enough to lay colours over."""
    grey = (picture @ np.asarray(LUMA)) / 255
    light = np.rint(255 * (DARKEST + (LIGHTEST - DARKEST) * grey)).astype(np.uint8)
    return np.repeat(light[..., None], 3, axis=-1)


def overlay(
    picture: Pixels, values: Floats, crop: tuple[int, int] | None = None, *, smooth: bool = False
) -> Pixels:
    """Lay maps over the picture in pale grey.

    Returns uint8 (..., height, width, 3).

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
    """
    drawn = (picture.shape[0], picture.shape[1])
    patches = Patches((values.shape[-2], values.shape[-1]), crop or drawn, drawn)
    rows, columns = patches.tokens(0), patches.tokens(1)
    if smooth:
        levels = _levels(patches.weights(0) @ values @ patches.weights(1).T)
    else:
        levels = _levels(values)[..., rows[:, None], columns]
    lut, alpha = _lut()
    bare = pale(picture)
    # In whole numbers and 16 bits: hundreds of maps are drawn at once.
    weight = np.rint(256 * alpha).astype(np.uint16)
    colour = np.rint(255 * alpha * lut).astype(np.uint16)
    rest = ((256 - weight)[levels] * bare.astype(np.uint16) + 128) >> 8
    mixed: Pixels = (colour[levels] + rest).astype(np.uint8)
    outside = (rows[:, None] < 0) | (columns < 0)
    mixed[..., outside, :] = bare[outside]
    return mixed


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
    """Draw the shares of two kinds of keys as one bar, whose whole width is 1."""
    bar = np.full((height, width, 3), _rgb(BAR_COLOURS["rest"]), dtype=np.uint8)
    first, second = round(on_cls * width), round((on_cls + on_registers) * width)
    bar[:, first:second] = _rgb(BAR_COLOURS["registers"])
    bar[:, :first] = _rgb(BAR_COLOURS["cls"])
    return bar


BAR_COLOURS = {"cls": "#1F1F1F", "registers": style.NO_VALUE, "rest": "#EEEEEE"}
"""Of the bar below a map."""


def share_handles(has_cls: bool, n_registers: int) -> list[Artist]:
    """Return a legend of :func:`share_bar` for a model with these tokens."""
    there = {"CLS": has_cls, "registers": bool(n_registers)}
    return [
        Patch(facecolor=BAR_COLOURS[kind.lower()], label=f"on {kind}")
        for kind, has in there.items()
        if has
    ]


def _rgb(colour: str) -> Pixels:
    return np.asarray(np.rint(np.asarray(to_rgb(colour)) * 255), dtype=np.uint8)
