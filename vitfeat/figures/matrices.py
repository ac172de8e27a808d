"""Matrices of models by models: cells in colour, with their values where these can be read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from vitfeat.figures import style
from vitfeat.figures.blocks import SCALE, absent, colours

MAX_WRITTEN = 12
"""Values are written into the cells for no more models than this."""

Cells = Sequence[Sequence[np.float64 | None]]
"""Values by row, from the bottom up, and column; None where nothing was computed."""


def value_size(pitch: float) -> float:
    """Return the font size in points of values in cells of so many inches."""
    return min(style.TEXT_SIZE, pitch * 72 / 4.2)


def draw_matrix(ax: Axes, cells: Cells, size: float) -> None:
    """Draw a square matrix over the whole of an axes where model k covers k to k + 1.

    Values are written into the cells of up to :data:`MAX_WRITTEN` models; those below 0, which
    unbiased estimates may have, as 0. NaN is grey, and what was not computed is hatched.
    """
    count = len(cells)
    for row, column in np.ndindex(count, count):
        value = cells[row][column]
        if value is None:
            absent(ax, column, row, 0)
        elif count <= MAX_WRITTEN:
            write_value(ax, column + 0.5, row + 0.5, value, size)
    ax.imshow(
        np.array(cells, dtype=np.float64),
        origin="lower",
        extent=(0, count, 0, count),
        aspect="auto",
        cmap=colours(),
        norm=SCALE,
    )
    ax.hlines(range(1, count), 0, count, color="white", lw=0.8)
    ax.vlines(range(1, count), 0, count, color="white", lw=0.8)


def write_value(ax: Axes, x: float, y: float, value: np.float64, size: float) -> None:
    """Write a value into its cell, black or white, whichever stands out."""
    red, green, blue, _ = colours()(SCALE(np.ma.masked_invalid([value])))[0]
    dark = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 < 0.18
    ax.text(
        x,
        y,
        "nan" if np.isnan(value) else f"{max(value, 0):.2f}",
        ha="center",
        va="center",
        size=size,
        color="white" if dark else "black",
    )
