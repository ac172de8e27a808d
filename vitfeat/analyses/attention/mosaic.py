"""Mosaics: a map for every layer and head, as one array of pixels, which is cheap however many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.colors import to_rgb as rgb
from numpy.typing import NDArray

from vitfeat.figures import overlay, style
from vitfeat.figures.fonts import text_width
from vitfeat.figures.sheet import Sheet, Space, above

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]

GAP = 2
"""Pixels between maps; twice as many below bars, which belong to the map above."""

BAR = 0.09
"""Height of the bar below a map, of the map's shorter side."""

CELL = 0.3
"""Side of a map in inches where there is room."""

WIDE, HIGH = style.PAGE_WIDTH, 14.0
"""Inches that a figure may take before its maps get smaller; a token keeps a pixel at least."""

BESIDE, ABOVE, BELOW = 0.32, 0.6, 0.1
"""Inches around a mosaic: layers' numbers to the left, names and heads' numbers above."""

APART = 0.2
SHAPE, HOLES = 0.9, 3.0
"""Width over height that figures aim at, and how much worse empty places make an arrangement."""

SCALE_WIDTH, SCALE_ROOM = 0.12, 1.1
SCALE_HEIGHT, SCALE_LEAST, SCALE_DROP = 1.3, 0.6, 0.1


@dataclass(frozen=True, eq=False)
class Mosaic:
    """Maps of all layers and heads as pixels."""

    pixels: Pixels  # uint8 (height, width, 3); layers from the top down, heads from left to right
    grid: tuple[int, int]  # rows and columns of a map
    scale: int  # pixels of a token's side
    pitch: tuple[int, int]  # pixels from one map to the next, down and across
    # label, title, detail: its name as an axes, its name in a figure, and a line on what it shows
    label: str = ""
    title: str = ""
    detail: str = ""

    def place(self, layer: int, head: int, y: float, x: float) -> tuple[float, float]:
        """Where the middle of a token is: pixels from the left, and from the top.

        Layer and head are counted from 0, whatever their numbers; y and x may be between tokens.
        """
        left = head * self.pitch[1] + (x + 0.5) * self.scale
        return left, layer * self.pitch[0] + (y + 0.5) * self.scale


def mosaic(levels: Floats, scale: int, shares: Floats | None = None, **named: str) -> Mosaic:
    """Lay maps out, layers downwards and heads to the right.

    `levels`, (layer, head, y, x) from 0 to 1, are what the colours stand for; beyond is cut off,
    NaN is grey. `shares`, (layer, head, 2), are attention on CLS and on registers, for a bar below
    each map; the place of the bar stays white where they are NaN.
    """
    layers, heads, rows, columns = levels.shape
    high, wide, bar = rows * scale, columns * scale, _bar_height((rows, columns), scale)
    gap = GAP if shares is None else 2 * GAP
    pitch = (high + gap + (0 if shares is None else bar + 1), wide + GAP)
    cells = np.full((layers, heads, *pitch, 3), 255, dtype=np.uint8)
    held = np.isfinite(levels)
    index = np.where(held, np.rint(np.clip(np.where(held, levels, 0), 0, 1) * 255), 256)
    # 256 levels, and no value.
    table = np.vstack([colormaps[style.VALUE_COLOURS](np.arange(256))[:, :3], rgb(style.NO_VALUE)])
    coloured = np.rint(table * 255).astype(np.uint8)[index.astype(np.int64)]
    cells[:, :, :high, :wide] = coloured.repeat(scale, axis=2).repeat(scale, axis=3)
    if shares is not None:
        for layer, head in np.argwhere(np.isfinite(shares).all(axis=-1)):
            drawn = overlay.share_bar(wide, bar, *map(float, shares[layer, head]))
            cells[layer, head, high + 1 : high + 1 + bar, :wide] = drawn
    pixels = cells.swapaxes(1, 2).reshape(layers * pitch[0], heads * pitch[1], 3)
    return Mosaic(pixels[:-gap, :-GAP], (rows, columns), scale, pitch, **named)


def _bar_height(grid: tuple[int, int], scale: int) -> int:
    return max(2, round(BAR * min(grid) * scale))


def extent(
    shape: tuple[int, int], grid: tuple[int, int], scale: int, *, bars: bool
) -> tuple[int, int]:
    """Height and width in pixels of a mosaic of so many layers and heads."""
    gap = 2 * GAP if bars else GAP
    below = _bar_height(grid, scale) + 1 if bars else 0
    high, wide = grid[0] * scale + below, grid[1] * scale
    return shape[0] * (high + gap) - gap, shape[1] * (wide + GAP) - GAP


def arranged(
    count: int, shape: tuple[int, int], grid: tuple[int, int], *, bars: bool
) -> tuple[int, int]:
    """Choose how many of so many mosaics stand side by side, and the pixels of a token.

    The maps are as large as fits :data:`WIDE` and :data:`HIGH`, up to :data:`CELL`. Where not even
    one pixel a token fits, the figure gets larger. `shape` is layers and heads, `grid` rows and
    columns of a map.
    """

    def size(across: int, scale: int) -> tuple[float, float]:
        height, width = (p / style.DPI for p in extent(shape, grid, scale, bars=bars))
        wide = across * (width + BESIDE + APART) + SCALE_ROOM
        return -(-count // across) * (height + ABOVE + BELOW) + 1, wide

    def badness(across: int, scale: int) -> float:
        height, width = size(across, scale)
        holes = -(-count // across) * across - count
        return abs(log(width / height / SHAPE)) + HOLES * holes / count

    largest = max(1, round(CELL * style.DPI / max(grid)))
    for scale in range(largest, 0, -1):
        sizes = {across: size(across, scale) for across in range(1, count + 1)}
        if fits := [a for a, (high, wide) in sizes.items() if high <= HIGH and wide <= WIDE]:
            return min(fits, key=lambda across: badness(across, scale)), scale
    return min(range(1, count + 1), key=lambda across: badness(across, 1)), 1


def sheet_of(
    shown: Sequence[Mosaic],
    across: int,
    layers: Sequence[int],
    *,
    scale: str,
    end: float | str,
    beyond: bool,
    **around: Any,
) -> tuple[Sheet, list[Axes]]:
    """Draw mosaics of one size beside and below one another, so many across.

    `scale` says what colours are of, in lines; `end` where they end, or what that is called where
    each map has a scale of its own; `beyond` whether values go on beyond.

    Returns the sheet, and an axes for each mosaic, in pixels from the upper left corner.
    """
    height, width = (pixels / style.DPI for pixels in shown[0].pixels.shape[:2])
    columns = []
    for column in range(across):
        names = [text_width(m.title, style.TEXT_SIZE, "bold") for m in shown[column::across]]
        names += [text_width(m.detail, style.SMALL_SIZE) for m in shown[column::across]]
        columns.append(Space(BESIDE, width, max(APART, max(names) - width + APART / 2)))
    columns[-1] = Space(BESIDE, width, max(columns[-1].after, SCALE_ROOM))
    below = max(BELOW, SCALE_DROP + SCALE_LEAST + 0.05 - height)
    rows = [Space(ABOVE, height, below)] * -(-len(shown) // across)
    sheet = Sheet(rows, columns, **around)
    axes = [sheet.axes(*divmod(index, across)) for index in range(len(shown))]
    for ax, drawn in zip(axes, shown, strict=True):
        _draw(ax, drawn, layers)
    left, top = sheet.right_of(0)
    room = max(SCALE_LEAST, height - SCALE_DROP)
    box = sheet.box(left + 0.2, top + SCALE_DROP, SCALE_WIDTH, min(SCALE_HEIGHT, room))
    mappable = ScalarMappable(
        Normalize(0, 1.0 if isinstance(end, str) else end), style.VALUE_COLOURS
    )
    bar = sheet.figure.colorbar(mappable, cax=box, extend="max" if beyond else "neither")
    box.tick_params(labelsize=style.SMALL_SIZE, width=0.6, length=2)
    if isinstance(end, str):
        bar.set_ticks([0, 1], labels=["0", end])
    box.set_title(scale, size=style.SMALL_SIZE, loc="left", pad=8)
    return sheet, axes


def _draw(ax: Axes, drawn: Mosaic, layers: Sequence[int]) -> None:
    high, wide = drawn.pixels.shape[:2]
    ax.imshow(drawn.pixels, extent=(0, wide, high, 0), aspect="auto")
    ax.set_xlim(0, wide)
    ax.set_ylim(high, 0)
    ax.set_label(drawn.label)
    heads = -(-wide // drawn.pitch[1])
    letters = text_width("00", style.SMALL_SIZE) * style.DPI
    rows = range(0, len(layers), _step(1.05 * style.SMALL_SIZE / 72 * style.DPI / drawn.pitch[0]))
    columns = range(0, heads, _step(1.3 * letters / drawn.pitch[1]))
    middle = ((drawn.grid[0] - 1) / 2, (drawn.grid[1] - 1) / 2)
    ax.set_yticks(
        [drawn.place(row, 0, *middle)[1] for row in rows], [str(layers[row]) for row in rows]
    )
    ax.set_xticks([drawn.place(0, column, *middle)[0] for column in columns], map(str, columns))
    ax.tick_params(length=0, pad=2, top=True, labeltop=True, bottom=False, labelbottom=False)
    ax.spines[:].set_visible(False)
    ax.xaxis.set_label_position("top")
    ax.set_xlabel("head", size=style.SMALL_SIZE, labelpad=1.5)
    ax.set_ylabel("layer", size=style.SMALL_SIZE, labelpad=1.5)
    above(ax, drawn.title, 31, weight="bold", size=style.TEXT_SIZE)
    above(ax, drawn.detail, 22)


def _step(least: float) -> int:
    """Return every which number is written, where so many places are the least between two."""
    return next(step for step in (1, 2, 4, 5, 10, 20, 50, 100, 1000) if step >= least)
