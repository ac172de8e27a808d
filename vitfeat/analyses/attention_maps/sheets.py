"""Figures of attention maps of chosen images: grids of overlays on what the model saw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from vitfeat.analyses.attention_maps.grids import ROLLOUT, Grid
from vitfeat.analyses.attention_maps.map_blocks import (
    GAP,
    LEAD_GAP,
    Block,
    Shown,
    axis_name,
    block,
    labels,
    position_label,
)
from vitfeat.errors import AnalysisError
from vitfeat.figures import overlay, style
from vitfeat.figures.fonts import text_width
from vitfeat.figures.sheet import EDGE, Sheet, Space

SCALES = ("own", "common")
"""Of colours: each map's own, or one that is common to a figure."""

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
    one: Shown,
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

    Parameters
    ----------
    one
        What to draw.
    title
        Whose maps they are; follows the kind.
    note
        Dataset and number of images; what is averaged or chosen is added.
    scale
        Out of :data:`SCALES`.
    percentile
        Where colours end, of the values of a map or the figure.
    smooth
        Whether colours are interpolated between the centres of tokens.

    Raises
    ------
    AnalysisError
        An unknown scale.
    """
    if scale not in SCALES:
        raise AnalysisError(f"unknown scale {scale!r} of maps; there are {', '.join(SCALES)}")
    common = scale == "common"
    with style.settings():
        return _figure(one, title, note, percentile, common=common, smooth=smooth)


def _figure(
    one: Shown, title: str, note: str, percentile: float, *, common: bool, smooth: bool
) -> Figure:
    grid = one.grid
    end = overlay.ends(grid.maps.spatial, percentile, common=common)
    down, right = labels(grid, "row"), labels(grid, "column")
    # The corner's text may reach over the picture that stands left of the maps.
    corner = text_width(_corner(grid), style.SMALL_SIZE)
    corner -= 0 if grid.kind == "head_position" else LEAST
    before = 2 * TICK + 0.04
    before += max(corner, *(text_width(label, style.SMALL_SIZE) for label in down))
    size = overlay.drawn_size(one.crop, grid.tokens.grid, _side(one, before) * style.DPI)
    drawn = block(one, size, end, smooth=smooth)
    height, width = (side / style.DPI for side in drawn.pixels.shape[:2])
    pitch = size[1] / style.DPI
    turned = max(text_width(label, style.SMALL_SIZE) for label in right) > pitch * 0.98
    above = max(text_width(t, style.SMALL_SIZE) for t in right) if turned else 0.1
    last = f"{end.max():.3g}" if common else overlay.named(percentile)
    texts = (text_width("0", style.SMALL_SIZE), text_width(last, style.SMALL_SIZE))
    name = text_width("attention", style.SMALL_SIZE)
    scale = name + sum(texts) + BAR_WIDTH + 4 * BAR_GAP
    head = text_width(one.caption, style.SMALL_SIZE, "bold") + 0.2 + scale
    sheet = Sheet(
        [Space(CAPTION + BELOW_CAPTION + above + 2 * TICK, height, BELOW)],
        [Space(before, width, max(0.02, head - width - before))],
        title=f"{TITLES[grid.kind]}: {title}",
        note=", ".join((note, *_chosen(grid))),
        legend=_legend(grid),
        remarks=[overlay.said_of_scale(percentile, common=common), *_remarks(grid)],
    )
    ax = sheet.axes(0)
    _draw(ax, drawn, down, right, turned, one)
    up = above + BELOW_CAPTION + TICK
    _caption(ax, one, before, up)
    _scale(sheet, ax, (scale, up), (texts[1], last), shown_to=float(end.max()) if common else 1.0)
    return sheet.figure


def _side(one: Shown, before: float) -> float:
    """Return the longer side of a map in inches, so that all maps fit on a page."""
    rows, columns = len(one.grid.cells), len(one.grid.cells[0])
    above = one.grid.kind == "head_position"
    tall, wide = (side / max(one.crop) for side in one.crop)
    gaps = (LEAD_GAP + GAP * columns) / style.DPI
    across = (style.PAGE_WIDTH - 2 * EDGE - before - gaps - 0.02) / ((columns + (not above)) * wide)
    return max(LEAST, min(CELL, across, HIGH / ((rows + above) * tall)))


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
    )


def _chosen(grid: Grid) -> Iterator[str]:
    """Say what a grid shows of the dimension that it has no rows or columns for."""
    cell = grid.cells[0][0]
    if grid.kind == "position_layer":
        yield "mean over heads" if cell.head is None else f"head {cell.head}"
    elif grid.kind == "head_position":
        yield f"layer {cell.layer}"
    else:
        yield f"query {position_label(cell.position)}"
    if grid.n_layers > len({cell.layer for line in grid.cells for cell in line}) > 1:
        yield f"{len(grid.cells[0])} of {grid.n_layers} layers"
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


def _scale(
    sheet: Sheet,
    ax: Axes,
    room: tuple[float, float],
    last: tuple[float, str],
    shown_to: float,
) -> None:
    """Draw the scale of colours at the height of the caption, at the figure's right.

    Parameters
    ----------
    sheet, ax
        The figure's frame and its maps.
    room
        Inches from the scale's left end to the figure's edge, and of its height above the maps.
    last
        Width in inches of the text at the scale's end, and the text.
    shown_to
        Where the scale ends.
    """
    width, up = room
    _, above = sheet.right_of(0)
    right = sheet.width - EDGE
    left = right - last[0] - BAR_GAP - BAR_WIDTH
    bar = sheet.box(left, above - up - BAR_HEIGHT, BAR_WIDTH, BAR_HEIGHT)
    mappable = ScalarMappable(Normalize(0, shown_to or 1.0), overlay.colours())
    sheet.figure.colorbar(mappable, cax=bar, orientation="horizontal", ticks=[])
    bar.set_label("colour bar")
    for text, x, side in (
        ("attention", right - width, "left"),
        ("0", left - BAR_GAP, "right"),
        (last[1], left + BAR_WIDTH + BAR_GAP, "left"),
    ):
        bar.annotate(
            text,
            ((x - left) / BAR_WIDTH, 0.5),
            xycoords="axes fraction",
            ha=side,
            va="center",
            size=style.SMALL_SIZE,
            annotation_clip=False,
        )
