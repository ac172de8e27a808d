"""Figures of attention maps of chosen images: grids of overlays on what the model saw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, log

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from vitfeat.analysis.attention.map_grids import ROLLOUT, Grid
from vitfeat.errors import AnalysisError
from vitfeat.plots import style
from vitfeat.plots.images import overlay
from vitfeat.plots.images.map_blocks import Block, Shown, axis_name, block, labels, position_label
from vitfeat.plots.sheet import Sheet, Space
from vitfeat.plots.similarity.blocks import text_width

SCALES = ("own", "common")
"""Of colours: up to each map's maximum, or up to one value that is common to a figure."""

COMMON = 99.5
"""Percentile of a figure's values that the common scale ends at: a few tokens draw nearly all."""

TITLES = {
    "position_layer": "Attention maps, query position × layer",
    "head_position": "Attention maps, head × query position",
    "head_layer": "Attention maps, head × layer",
}

CELL = 0.62
"""Side of a map in inches where there is room."""

WIDE, HIGH = 12.0, 13.0
"""Inches that the maps of a figure may take before they get smaller."""

LEAST = 0.08
"""Inches of a map however many there are."""

HOLES = 3.0
"""How much worse than a square an arrangement of blocks is with as many empty places as blocks."""

TICK, LINE, CAPTION, BELOW_CAPTION, BELOW, APART = 0.05, 0.11, 0.17, 0.15, 0.16, 0.3
SCALE_WIDTH, SCALE_HEIGHT = 0.12, 1.3


def figure(
    shown: Sequence[Shown],
    *,
    title: str,
    note: str,
    scale: str = "own",
    smooth: bool = False,
) -> Figure:
    """Draw grids of one kind, an image each, beside and below one another.

    Every map is laid over the picture that the model saw, in grey; the picture itself stands once
    beside or above. A box marks the query's token. The bar below a map is the share of the query's
    attention that the map lacks, as it is on CLS and registers.

    Parameters
    ----------
    shown
        What to draw.
    title
        Whose maps they are; follows the kind.
    note
        Dataset and number of images; what is averaged or chosen is added.
    scale
        Out of :data:`SCALES`.
    smooth
        Whether colours are interpolated between the centres of tokens.

    Raises
    ------
    AnalysisError
        Nothing to draw, several kinds, or an unknown scale.
    """
    if len({one.grid.kind for one in shown}) != 1:
        raise AnalysisError("a figure of attention maps shows one kind of grid: give one or more")
    if scale not in SCALES:
        raise AnalysisError(f"unknown scale {scale!r} of maps; there are {', '.join(SCALES)}")
    with style.settings():
        return _figure(shown, title, note, scale, smooth)


def _figure(shown: Sequence[Shown], title: str, note: str, scale: str, smooth: bool) -> Figure:
    first = shown[0]
    common = float(np.percentile(np.stack([one.grid.maps.spatial for one in shown]), COMMON))
    across, side = _arranged(first, len(shown))
    size = overlay.drawn_size(first.crop, first.grid.tokens.grid, side * style.DPI)
    top = common if scale == "common" else None
    blocks = [block(one, size, top, smooth=smooth) for one in shown]
    height, width = (max(b.pixels.shape[axis] for b in blocks) / style.DPI for axis in (0, 1))
    down, right = labels(first.grid, "row"), labels(first.grid, "column")
    pitch = size[1] / style.DPI
    turned = max(text_width(label, style.SMALL_SIZE) for label in right) > pitch * 0.98
    above = max(text_width(t, style.SMALL_SIZE) for t in right) if turned else 0.1
    # The corner's text may reach over the picture that stands left of the maps.
    lead = (blocks[0].columns[0] - size[1] / 2) / style.DPI
    corner = text_width(_corner(first.grid), style.SMALL_SIZE) - lead
    before = 0.04 + max(corner, *(text_width(label, style.SMALL_SIZE) for label in down))
    captions = max(text_width(_plain(one.caption), style.SMALL_SIZE, "bold") for one in shown)
    n_rows = -(-len(shown) // across)
    # The scale stands right of the last column; the captions may be wider than their grids.
    last = max(0.2 + SCALE_WIDTH + 0.95, captions - width - before)
    between = max(APART, captions - width - before + APART)
    spaces = [Space(before + 2 * TICK, width, between)] * (across - 1)
    sheet = Sheet(
        [Space(CAPTION + BELOW_CAPTION + above + 2 * TICK, height, BELOW)] * n_rows,
        [*spaces, Space(before + 2 * TICK, width, last)],
        title=f"{TITLES[first.grid.kind]}: {title}",
        note=", ".join((note, *_chosen(first.grid))),
        legend=_legend(first.grid),
        remarks=[*_remarks(first.grid), *_about_scale(scale)],
    )
    for index, (one, drawn) in enumerate(zip(shown, blocks, strict=True)):
        ax = sheet.axes(*divmod(index, across))
        _draw(ax, drawn, down, right, turned, one)
        _caption(ax, one, before + 2 * TICK, above + BELOW_CAPTION + TICK)
    _scale(sheet, scale, common, min(SCALE_HEIGHT, height))
    return sheet.figure


def _arranged(one: Shown, count: int) -> tuple[int, float]:
    """Return how many blocks stand side by side, and the side of a map in inches."""
    rows, columns = len(one.grid.cells), len(one.grid.cells[0])
    lead = one.grid.kind == "head_position"
    rows, columns = rows + lead, columns + (not lead)
    tall, wide = (side / max(one.crop) for side in one.crop)

    def badness(across: int) -> float:
        down = -(-count // across)
        shape = down * (rows * tall + 1) / (across * (columns * wide + 1))
        return abs(log(shape)) + HOLES * (across * down - count) / count

    across = min(range(1, count + 1), key=badness)
    down = -(-count // across)
    side = min(CELL, WIDE / (across * columns * wide), HIGH / (down * rows * tall))
    return across, max(LEAST, side)


def _corner(grid: Grid) -> str:
    """Return what stands left of the column labels: what goes down and what across."""
    return f"{axis_name(grid, 'row')} ↓  {axis_name(grid, 'column')} →"


def _draw(
    ax: Axes, drawn: Block, down: Sequence[str], right: Sequence[str], turned: bool, one: Shown
) -> None:
    height, width = drawn.pixels.shape[:2]
    ax.imshow(drawn.pixels, extent=(0, width, height, 0), aspect="auto")
    ax.set_xlim(0, width)
    ax.set_ylim(height, 0)
    # As many labels as there is room for.
    every = ceil(LINE * style.DPI / drawn.size[0])
    ax.set_yticks(drawn.rows[::every], down[::every])
    every = ceil(LINE * style.DPI / drawn.size[1]) if turned else 1
    ax.set_xticks(drawn.columns[::every], right[::every], rotation=90 if turned else 0)
    ax.tick_params(length=0, pad=TICK * 72, labeltop=True, labelbottom=False)
    ax.spines[:].set_visible(False)
    ax.set_label(one.grid.image)
    ax.annotate(
        _corner(one.grid),
        ((drawn.columns[0] - drawn.size[1] / 2) / width, 1),
        (-3, TICK * 72),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        va="bottom",
        size=style.SMALL_SIZE,
    )


def _caption(ax: Axes, one: Shown, left: float, up: float) -> None:
    ax.annotate(
        one.caption,
        (0, 1),
        (-left * 72, up * 72),
        xycoords="axes fraction",
        textcoords="offset points",
        weight="bold",
        size=style.SMALL_SIZE,
        # File names may hold what would be read as a formula.
        parse_math=False,
    )


def _plain(text: str) -> str:
    """Return a text as wide as this one that is no formula."""
    return text.replace("$", "S")


def _chosen(grid: Grid) -> Iterator[str]:
    """Say what a grid shows of the dimension that it has no rows or columns for."""
    cell = grid.cells[0][0]
    if grid.kind == "position_layer":
        yield "mean over heads" if cell.head is None else f"head {cell.head}"
    elif grid.kind == "head_position":
        yield f"layer {cell.layer}"
    else:
        yield f"query {position_label(cell.position)}"
    if grid.renormalised:
        yield "each row divided by what it gives to spatial tokens"


def _legend(grid: Grid) -> list[Artist]:
    handles: list[Artist] = []
    if grid.tokens.has_cls:
        handles.append(Patch(facecolor=overlay.BAR_COLOURS["cls"], label="on CLS"))
    if grid.tokens.n_registers:
        handles.append(Patch(facecolor=overlay.BAR_COLOURS["registers"], label="on registers"))
    if any(cell.position.token is not None for line in grid.cells for cell in line):
        box = Patch(facecolor="none", edgecolor=overlay.MARK_COLOUR, lw=1.4, label="query token")
        handles.append(box)
    return handles


def _remarks(grid: Grid) -> list[str]:
    remarks = []
    if grid.tokens.n_prefix:
        remarks.append(
            "Bar below a map: share of the query's attention that is on no spatial token; the "
            "whole width is 1."
        )
    names = {cell.position.name for line in grid.cells for cell in line}
    if "mean" in names:
        remarks.append("Position mean: mean over all spatial queries.")
    if any("," in name for name in names):
        remarks.append("Positions r,c: row and column of the token, from 0 at the upper left.")
    if ROLLOUT.name in names:
        remarks.append(
            "rollout: attention rollout of the CLS token from this layer's output down to the input"
            f"{', not renormalised' if grid.renormalised else ''}."
        )
    return remarks


def _about_scale(scale: str) -> list[str]:
    if scale == "own":
        return []
    return [f"Colours end at percentile {COMMON:g} of all values in the figure."]


def _scale(sheet: Sheet, scale: str, top: float, height: float) -> None:
    left, above = sheet.right_of(0)
    bar = sheet.box(left + 0.2, above, SCALE_WIDTH, height)
    end = top if scale == "common" and top > 0 else 1.0
    mappable = ScalarMappable(Normalize(0, end), overlay.colours())
    extend = "max" if scale == "common" else "neither"
    colour_bar = sheet.figure.colorbar(mappable, cax=bar, extend=extend)
    bar.tick_params(labelsize=style.SMALL_SIZE, width=0.6, length=2)
    if scale == "own":
        colour_bar.set_ticks([0, 1], labels=["0", "map's maximum"])
    bar.set_title("attention", size=style.SMALL_SIZE, loc="left", pad=7)
