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


def position_label(position: Position) -> str:
    """Name a query as figures do."""
    return "CLS" if position.name == "cls" else position.name


def axis_name(grid: Grid, axis: str) -> str:
    """Name what goes down or across."""
    down, across = grid.kind.split("_")
    return down if axis == "row" else across


def labels(grid: Grid, axis: str) -> list[str]:
    """Return what stands at the rows (axis ``row``) or columns of maps."""
    what = axis_name(grid, axis)
    cells = [line[0] for line in grid.cells] if axis == "row" else list(grid.cells[0])
    if what == "layer":
        return [str(cell.layer) for cell in cells]
    if what == "head":
        return ["mean" if cell.head is None else str(cell.head) for cell in cells]
    return [position_label(cell.position) for cell in cells]


@dataclass(frozen=True)
class Shown:
    """A grid and what is to be seen of its image.

    Attributes
    ----------
    grid
        The maps.
    picture
        uint8 (height, width, 3): what the model saw, before normalisation.
    caption
        Above the grid: which image it is.
    """

    grid: Grid
    picture: Pixels
    caption: str

    @property
    def crop(self) -> tuple[int, int]:
        """Height and width of the picture in pixels."""
        return self.picture.shape[0], self.picture.shape[1]


@dataclass(frozen=True)
class Block:
    """A grid as pixels, and where its rows and columns are.

    Attributes
    ----------
    pixels
        uint8 (height, width, 3).
    size
        Height and width of a map in pixels.
    rows, columns
        Middle of every row and column of maps, in pixels from the upper left.
    """

    pixels: Pixels
    size: tuple[int, int]
    rows: Floats
    columns: Floats


def block(one: Shown, size: tuple[int, int], end: Floats, *, smooth: bool = False) -> Block:
    """Draw the maps of an image, and the pictures beside or above them, as one array.

    Parameters
    ----------
    one
        The maps and the picture.
    size
        Height and width of a map in pixels.
    end
        What the last colour stands for: of :func:`vitfeat.figures.overlay.ends`.
    smooth
        Whether colours are interpolated between the centres of tokens.
    """
    maps, cells = one.grid.maps, one.grid.cells
    picture = overlay.resized(one.picture, size)
    patches = overlay.Patches(one.grid.tokens.grid, one.crop, size)
    values = overlay.scaled(maps.spatial, end)
    drawn = overlay.overlay(picture, values, one.crop, smooth=smooth)
    bars = one.grid.tokens.n_prefix > 0
    lead_above = one.grid.kind == "head_position"
    high = size[0] + (BAR_GAP + BAR if bars else 0) + GAP
    wide = size[1] + GAP
    # The pictures stand above the maps or left of them, without bars.
    first_row = size[0] + LEAD_GAP if lead_above else 0
    first_column = 0 if lead_above else size[1] + LEAD_GAP
    tops = first_row + high * np.arange(len(cells))
    lefts = first_column + wide * np.arange(len(cells[0]))
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
    for r, c in _pictures(one.grid):
        marked = picture.copy()
        _mark(marked, patches, cells[r][c].position)
        put(marked, 0 if lead_above else tops[r], lefts[c] if lead_above else 0)
    middles = [np.asarray(at, dtype=np.float64) for at in (tops + size[0] / 2, lefts + size[1] / 2)]
    return Block(pixels, size, *middles)


def _mark(picture: Pixels, patches: overlay.Patches, position: Position) -> None:
    if position.token is not None:
        overlay.mark(picture, patches, position.token)


def single(
    found: Maps, picture: Pixels, position: Position, end: Floats, *, smooth: bool
) -> Pixels:
    """Draw one map over the picture, the query's token in a box.

    Parameters
    ----------
    found
        The map.
    picture
        uint8 (height, width, 3): what the model saw.
    position
        The query.
    end, smooth
        As in :func:`block`.

    Returns
    -------
    NDArray
        uint8 (height, width, 3), of the picture's size, or of a multiple of small pictures.
    """
    crop = (picture.shape[0], picture.shape[1])
    factor = max(1, round(SINGLE / max(crop)))
    size = (crop[0] * factor, crop[1] * factor)
    patches = overlay.Patches((found.spatial.shape[-2], found.spatial.shape[-1]), crop, size)
    values = overlay.scaled(found.spatial, end)
    drawn = overlay.overlay(overlay.resized(picture, size), values, crop, smooth=smooth)
    _mark(drawn, patches, position)
    return drawn


def _pictures(grid: Grid) -> list[tuple[int, int]]:
    """Return the cells that the picture stands beside or above of, with the cell's query."""
    if grid.kind == "head_position":
        return [(0, column) for column in range(len(grid.cells[0]))]
    if grid.kind == "head_layer":
        return [(0, 0)]
    return [(row, 0) for row in range(len(grid.cells))]
