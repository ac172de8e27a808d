"""Attention maps of one image as one array of pixels, and single maps.

A grid is one array, whatever number of maps it has, so that drawing a figure of them stays cheap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.attention_maps.compute import Maps, Position
from vitfeat.analyses.attention_maps.grids import Grid
from vitfeat.figures import overlay

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]

GAP, BAR_GAP, BAR, LEAD_GAP = 4, 2, 5, 12
"""Pixels between maps, between a map and the bar below it, of the bar, and beside the pictures."""

SINGLE = 224
"""Pixels that the longer side of a single map has about, where the crop is smaller."""


@dataclass(frozen=True)
class Block:
    """A grid as pixels, and where its rows and columns are."""

    pixels: Pixels  # uint8 (height, width, 3)
    size: tuple[int, int]  # height and width of a map in pixels
    # rows, columns: middle of every row and column of maps, in pixels from the upper left
    rows: Floats
    columns: Floats


def block(grid: Grid, size: tuple[int, int], end: Floats, *, smooth: bool = False) -> Block:
    """Draw the maps of an image, and the pictures beside or above them, as one array.

    Parameters
    ----------
    size
        Height and width of a map in pixels.
    end
        What the last colour stands for: of :func:`vitfeat.figures.overlay.ends`.
    smooth
        Whether colours are interpolated between the centres of tokens.
    """
    maps, cells, tokens, crop = grid.maps, grid.cells, grid.of.tokens, grid.of.crop
    picture = overlay.resized(grid.of.picture, size)
    patches = overlay.Patches(tokens.grid, crop, size)
    drawn = overlay.overlay(picture, overlay.scaled(maps.spatial, end), crop, smooth=smooth)
    bars = tokens.n_prefix > 0
    lead_above = grid.kind == "head_position"
    high = size[0] + (BAR_GAP + BAR if bars else 0) + GAP
    wide = size[1] + GAP
    # The pictures stand above the maps or left of them, without bars.
    tops = high * np.arange(len(cells)) + (size[0] + LEAD_GAP if lead_above else 0)
    lefts = wide * np.arange(len(cells[0])) + (0 if lead_above else size[1] + LEAD_GAP)
    pixels = np.full((tops[-1] + high - GAP, lefts[-1] + wide - GAP, 3), 255, dtype=np.uint8)

    def put(image: Pixels, y: int, x: int) -> None:
        pixels[y : y + image.shape[0], x : x + image.shape[1]] = image

    for r, line in enumerate(cells):
        for c, cell in enumerate(line):
            _mark(drawn[r, c], patches, cell.position)
            put(drawn[r, c], tops[r], lefts[c])
            if bars:
                shares = float(maps.on_cls[r, c]), float(maps.on_registers[r, c])
                put(overlay.share_bar(size[1], BAR, *shares), tops[r] + size[0] + BAR_GAP, lefts[c])
            # A picture a query, which are positions down or across, or one in all.
            if (r if lead_above else c) or (r and grid.kind == "head_layer"):
                continue
            marked = picture.copy()
            _mark(marked, patches, cell.position)
            put(marked, 0 if lead_above else tops[r], lefts[c] if lead_above else 0)
    middles = [np.asarray(at, dtype=np.float64) for at in (tops + size[0] / 2, lefts + size[1] / 2)]
    return Block(pixels, size, *middles)


def _mark(picture: Pixels, patches: overlay.Patches, position: Position) -> None:
    if position.token is not None:
        overlay.mark(picture, patches, position.token)


def single(one: Maps, picture: Pixels, position: Position, end: Floats, *, smooth: bool) -> Pixels:
    """Draw one map over the picture, of the picture's size or a multiple of small ones.

    The query's token is in a box; `end` and `smooth` are as in :func:`block`.
    """
    crop = (picture.shape[0], picture.shape[1])
    factor = max(1, round(SINGLE / max(crop)))
    size = (crop[0] * factor, crop[1] * factor)
    patches = overlay.Patches((one.spatial.shape[-2], one.spatial.shape[-1]), crop, size)
    values = overlay.scaled(one.spatial, end)
    drawn = overlay.overlay(overlay.resized(picture, size), values, crop, smooth=smooth)
    _mark(drawn, patches, position)
    return drawn
