"""Figures of attention maps of chosen images: grids of overlays on what the model saw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from vitfeat.analyses.attention_maps.compute import Position
from vitfeat.analyses.attention_maps.grids import ROLLOUT, Grid
from vitfeat.analyses.attention_maps.map_blocks import GAP, LEAD_GAP, Block, block
from vitfeat.figures import overlay, style
from vitfeat.figures.fonts import text_width
from vitfeat.figures.sheet import EDGE, Sheet, Space

TITLES = {
    "position_layer": "Attention maps, query position × layer",
    "head_position": "Attention maps, head × query position",
    "head_layer": "Attention maps, head × layer",
}

CELL, LEAST = 1.0, 0.36
"""Side of a map in inches: at most, and at least, which may make the figure wider than a page."""

HIGH = 10.0
"""Inches that the maps of a figure may take from the top down before they get smaller."""

TICK, LINE, CAPTION, BELOW_CAPTION, BELOW = 0.05, 0.11, 0.17, 0.15, 0.16

BAR_WIDTH, BAR_HEIGHT, BAR_GAP = 1.1, 0.09, 0.07
"""Of the scale, and between it and its texts, in inches."""


def figure(
    grid: Grid,
    *,
    title: str,
    note: str,
    scale: str = "own",
    percentile: float = overlay.PERCENTILE,
    smooth: bool = False,
) -> Figure:
    """Draw a grid of maps of one image, as wide as a page.

    Every map is laid over the picture that the model saw, in pale grey; the picture itself stands
    once beside or above. A box marks the query's token. The bar below a map is the share of the
    query's attention that the map lacks, as it is on CLS and registers.

    To `note`, dataset and number of images, is added what is averaged or chosen; `scale`,
    `percentile` and `smooth` are as in
    :class:`vitfeat.analyses.attention_maps.settings.AttentionMapSettings`.
    """
    common = scale == "common"
    with style.settings():
        end = overlay.ends(grid.maps.spatial, percentile, common=common)
        down, right = _labels(grid, 0), _labels(grid, 1)
        # The corner's text may reach over the picture that stands left of the maps.
        corner = text_width(_corner(grid), style.SMALL_SIZE)
        corner -= 0 if grid.kind == "head_position" else LEAST
        before = 2 * TICK + 0.04
        before += max(corner, *(text_width(label, style.SMALL_SIZE) for label in down))
        side = _side(grid, before) * style.DPI
        size = overlay.drawn_size(grid.of.crop, grid.of.tokens.grid, side)
        drawn = block(grid, size, end, smooth=smooth)
        height, width = (pixels / style.DPI for pixels in drawn.pixels.shape[:2])
        widest = max(text_width(label, style.SMALL_SIZE) for label in right)
        turned = widest > size[1] / style.DPI * 0.98
        above = widest if turned else 0.1
        last = f"{end.max():.3g}" if common else overlay.named(percentile)
        texts = ("attention", "0", last)
        bar = sum(text_width(text, style.SMALL_SIZE) for text in texts) + BAR_WIDTH + 4 * BAR_GAP
        head = text_width(grid.of.caption, style.SMALL_SIZE, "bold") + 0.2 + bar
        sheet = Sheet(
            [Space(CAPTION + BELOW_CAPTION + above + 2 * TICK, height, BELOW)],
            [Space(before, width, max(0.02, head - width - before))],
            title=f"{TITLES[grid.kind]}: {title}",
            note=", ".join((note, *_chosen(grid))),
            legend=_legend(grid),
            remarks=[overlay.said_of_scale(percentile, common=common), *_footnotes(grid)],
        )
        ax = sheet.axes(0)
        ax.set_label(grid.of.image)
        _draw(ax, drawn, down, right, turned)
        corner_at = (drawn.columns[0] - size[1] / 2) / drawn.pixels.shape[1]
        _write(ax, _corner(grid), (corner_at, 1), (-3, TICK * 72), ha="right", va="bottom")
        up = above + BELOW_CAPTION + TICK
        _write(ax, grid.of.caption, (0, 1), (-before * 72, up * 72), weight="bold")
        _scale(sheet, bar, up, last, float(end.max()) if common else 1.0)
    return sheet.figure


def _label(position: Position) -> str:
    return "CLS" if position.name == "cls" else position.name


def _labels(grid: Grid, axis: int) -> list[str]:
    """Return what stands at the rows (axis 0) or columns of maps."""
    cells = grid.cells[0] if axis else [line[0] for line in grid.cells]
    what = grid.kind.split("_")[axis]
    if what == "layer":
        return [str(cell.layer) for cell in cells]
    if what == "head":
        return ["mean" if cell.head is None else str(cell.head) for cell in cells]
    return [_label(cell.position) for cell in cells]


def _corner(grid: Grid) -> str:
    """Return what stands left of the column labels: what goes down and what across."""
    down, across = grid.kind.split("_")
    return f"{down} ↓  {across} →"


def _side(grid: Grid, before: float) -> float:
    """Return the longer side of a map in inches, so that all maps fit on a page."""
    rows, columns = len(grid.cells), len(grid.cells[0])
    above = grid.kind == "head_position"
    tall, wide = (side / max(grid.of.crop) for side in grid.of.crop)
    gaps = (LEAD_GAP + GAP * columns) / style.DPI
    across = (style.PAGE_WIDTH - 2 * EDGE - before - gaps - 0.02) / ((columns + (not above)) * wide)
    return max(LEAST, min(CELL, across, HIGH / ((rows + above) * tall)))


def _draw(ax: Axes, drawn: Block, down: Sequence[str], right: Sequence[str], turned: bool) -> None:
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


def _write(
    ax: Axes, text: str, at: tuple[float, float], points: tuple[float, float], **more: Any
) -> None:
    """Write a small text so many points from a place in shares of the axes."""
    ax.annotate(
        text,
        at,
        points,
        xycoords="axes fraction",
        textcoords="offset points",
        size=style.SMALL_SIZE,
        annotation_clip=False,
        **more,
    )


def _chosen(grid: Grid) -> Iterator[str]:
    """Say what a grid shows of the dimension that it has no rows or columns for."""
    cell = grid.cells[0][0]
    if grid.kind == "position_layer":
        yield "mean over heads" if cell.head is None else f"head {cell.head}"
    elif grid.kind == "head_position":
        yield f"layer {cell.layer}"
    else:
        yield f"query {_label(cell.position)}"
    if len(grid.of.layers) > len({cell.layer for line in grid.cells for cell in line}) > 1:
        yield f"{len(grid.cells[0])} of {len(grid.of.layers)} layers"
    if grid.of.renormalised:
        yield "each row divided by what it gives to spatial tokens"


def _legend(grid: Grid) -> list[Artist]:
    handles = overlay.share_handles(grid.of.tokens.has_cls, grid.of.tokens.n_registers)
    if any(cell.position.token is not None for line in grid.cells for cell in line):
        box = Patch(facecolor="none", edgecolor=overlay.MARK_COLOUR, lw=1.4, label="query token")
        handles.append(box)
    return handles


def _footnotes(grid: Grid) -> list[str]:
    notes = []
    if grid.of.tokens.n_prefix:
        notes.append(
            "Bar below a map: share of the query's attention that is on no spatial token; the "
            "whole width is 1."
        )
    names = {cell.position.name for line in grid.cells for cell in line}
    if "mean" in names:
        notes.append("Position mean: mean over all spatial queries.")
    if any("," in name for name in names):
        notes.append("Positions r,c: row and column of the token, from 0 at the upper left.")
    if ROLLOUT.name in names:
        notes.append(
            "rollout: attention rollout of the CLS token from this layer's output down to the input"
            f"{', not renormalised' if grid.of.renormalised else ''}."
        )
    return notes


def _scale(sheet: Sheet, width: float, up: float, last: str, end: float) -> None:
    """Draw the scale of colours, so many inches above the maps and at the figure's right.

    Its texts and itself are `width` inches wide; it ends at `end`, which is called `last`.
    """
    _, above = sheet.right_of(0)
    right = sheet.width - EDGE
    left = right - text_width(last, style.SMALL_SIZE) - BAR_GAP - BAR_WIDTH
    bar = sheet.box(left, above - up - BAR_HEIGHT, BAR_WIDTH, BAR_HEIGHT)
    mappable = ScalarMappable(Normalize(0, end or 1.0), overlay.colours())
    sheet.figure.colorbar(mappable, cax=bar, orientation="horizontal", ticks=[])
    bar.set_label("colour bar")
    gap = BAR_GAP / BAR_WIDTH
    start = (right - width - left) / BAR_WIDTH
    for text, x, side in (
        ("attention", start, "left"),
        ("0", -gap, "right"),
        (last, 1 + gap, "left"),
    ):
        _write(bar, text, (x, 0.5), (0, 0), ha=side, va="center")
