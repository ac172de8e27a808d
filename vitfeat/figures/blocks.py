"""The frame of figures of similarity: square blocks of models by models in rows and columns.

Sizes follow from the number of models and the length of their labels.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from vitfeat.figures import style
from vitfeat.figures.fonts import text_width
from vitfeat.figures.models import Model
from vitfeat.figures.sheet import EDGE, Sheet, Space, above, bare

SCALE = Normalize(0, 1)
STRIP = 0.07
PAD = 0.06
GAP = 0.3
BLOCK_TITLE = 0.42
ABSENT: dict[str, Any] = {
    "facecolor": "white",
    "edgecolor": style.NO_VALUE,
    "hatch": "////",
    "lw": 0,
}
BAR_GAP, BAR_WIDTH, BAR_TEXT = 0.16, 0.13, 0.5


@dataclass(frozen=True)
class Place:
    """Where a block stands, and what stands above it."""

    # row, column: names of its row and column; blocks of one row or column share the name
    row: str
    column: str
    # title, note: above the block, the note small
    title: str
    note: str
    name: str = ""  # of its axes; those of row and column if not given


@dataclass(frozen=True)
class Frame:
    """A figure with one axes per block, where model k covers k to k + 1 on both axes."""

    figure: Figure
    axes: list[Axes]  # the blocks' axes, in the order that they were given
    # left, below: axes of the first column, and the last of each column: where ticks belong
    left: list[Axes]
    below: list[Axes]
    pitch: float  # inches per model


def colours() -> Colormap:
    """Colour map of CKA, grey where there is no value."""
    return colormaps[style.VALUE_COLOURS].with_extremes(bad=style.NO_VALUE)


def page_pitch(models: Sequence[Model], columns: int, least: float, most: float) -> float:
    """Return the inches per model with which a figure of so many columns is as wide as a page.

    It is not less than `least`, which makes the figure wider, and not more than `most`.
    """
    label = max((text_width(model.label, style.TEXT_SIZE) for model in models), default=0.0)
    beside = EDGE + label + 2 * PAD + STRIP + BAR_GAP + BAR_WIDTH + BAR_TEXT
    block = (style.PAGE_WIDTH - beside - (columns - 1) * GAP) / columns
    return min(max(block / max(len(models), 1), least), most)


def frame(
    places: Sequence[Place],
    rows: Sequence[str],
    columns: Sequence[str],
    models: Sequence[Model],
    drawn: Collection[NDArray[np.float64] | np.float64 | None],
    *,
    title: str,
    note: str,
    remarks: Sequence[str],
    pitch: float,
    ticks: float,
    scale: str,
    no_value: str = "no value (nan)",
) -> Frame:
    """Lay out blocks, titles, labels in family colours, legend and colour bar.

    Parameters
    ----------
    rows, columns
        Their names, from the top down and from left to right.
    models
        In this order from left to right and from the bottom up.
    drawn
        All values in the figure, None for pairs that were not computed: what the legend explains.
    ticks
        Inches to leave between blocks and colour strips for ticks.
    scale, no_value
        What the colours are of, and what no colour means.
    """
    block = pitch * len(models)
    # Rotated text needs about its height per model.
    size = min(style.TEXT_SIZE, pitch * 72 * 0.75)
    label = max(text_width(model.label, size) for model in models)
    angle = 0 if label < pitch - PAD else 45 if pitch > 0.45 else 90
    label_below = {0: size / 72, 45: 0.71 * label + size / 72, 90: label}[angle]
    beside = ticks + STRIP + 2 * PAD
    # A slanted label of the first model may reach further left than any beside the block.
    left = max(label + beside, 0.71 * label if angle == 45 else 0)
    headed = [text_width(one.note, style.SMALL_SIZE) for one in places]
    headed += [text_width(one.title, style.TEXT_SIZE, "bold") for one in places]
    across = max(0.0, *headed, block) - block
    below = [beside - PAD] * (len(rows) - 1) + [beside + label_below + PAD]
    behind = [across + GAP] * (len(columns) - 1) + [across + BAR_GAP + BAR_WIDTH + BAR_TEXT - EDGE]
    sheet = Sheet(
        [Space(BLOCK_TITLE, block, room) for room in below],
        [Space(0 if at else left, block, room) for at, room in enumerate(behind)],
        title=title,
        note=note,
        legend=_handles(models, drawn, no_value),
        remarks=remarks,
    )
    axes, lefts = [], []
    belows: dict[int, tuple[int, Axes]] = {}
    for one in places:
        row, column = rows.index(one.row), columns.index(one.column)
        ax = sheet.axes(row, column)
        bare(ax, one.name or f"{one.row}/{one.column}")
        ax.set_xlim(0, len(models))
        ax.set_ylim(0, len(models))
        head(ax, one.title, one.note)
        _strips(ax, models, block, ticks)
        axes.append(ax)
        if column == 0:
            lefts.append(ax)
        if column not in belows or row > belows[column][0]:
            belows[column] = row, ax
    for ax in lefts:
        _labels(ax, models, size, -beside / block, None)
    for _, ax in belows.values():
        _labels(ax, models, size, -beside / block, angle)
    edge, top = sheet.right_of(0)
    bar = sheet.box(edge + across + BAR_GAP, top, BAR_WIDTH, block)
    sheet.figure.colorbar(ScalarMappable(SCALE, colours()), cax=bar, label=scale)
    bar.tick_params(labelsize=style.SMALL_SIZE, width=0.6, length=2)
    return Frame(sheet.figure, axes, lefts, [ax for _, ax in belows.values()], pitch)


def _handles(
    models: Sequence[Model],
    drawn: Collection[NDArray[np.float64] | np.float64 | None],
    no_value: str,
) -> list[Patch]:
    """Legend: the families, and what stands for no value where there is some."""
    families = dict.fromkeys(model.family for model in models)
    handles = [Patch(facecolor=style.family_colour(name), label=name) for name in families]
    if any(panel is not None and np.isnan(panel).any() for panel in drawn):
        handles.append(Patch(facecolor=style.NO_VALUE, label=no_value))
    if any(panel is None for panel in drawn):
        handles.append(Patch(**ABSENT, label="not computed"))
    return handles


def absent(ax: Axes, column: int, row: int, gutter: float) -> None:
    """Hatch the place of a pair that was not computed."""
    side = 1 - 2 * gutter
    ax.add_patch(Rectangle((column + gutter, row + gutter), side, side, **ABSENT))


def head(ax: Axes, title: str, note: str) -> None:
    """Write a title and a small note above an axes, which :data:`BLOCK_TITLE` has room for."""
    above(ax, title, 15, size=style.TEXT_SIZE, weight="bold")
    above(ax, note, 5)


def _strips(ax: Axes, models: Sequence[Model], block: float, ticks: float) -> None:
    """Family colours along the left and the lower side."""
    unit = len(models) / block
    start, depth = -(ticks + PAD / 2 + STRIP) * unit, STRIP * unit
    for index, model in enumerate(models):
        colour = style.family_colour(model.family)
        for corner, size in (((start, index), (depth, 1)), ((index, start), (1, depth))):
            ax.add_patch(Rectangle(corner, *size, facecolor=colour, lw=0, clip_on=False))


def _labels(ax: Axes, models: Sequence[Model], size: float, at: float, angle: float | None) -> None:
    """Model labels, below the axes at an angle, or left of it when there is none."""
    for index, model in enumerate(models):
        middle = (index + 0.5) / len(models)
        x, y, ha, va = (
            (at, middle, "right", "center") if angle is None else (middle, at, "center", "top")
        )
        ax.text(
            x,
            y,
            model.label,
            transform=ax.transAxes,
            rotation=angle or 0,
            rotation_mode="anchor" if angle == 45 else "default",
            ha="right" if angle == 45 else ha,
            va=va,
            size=size,
            color=style.family_colour(model.family),
        )
