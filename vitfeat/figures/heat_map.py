"""Heat maps of numbers: a row a model, values in the cells, the best of a column framed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from vitfeat.figures import style
from vitfeat.figures.blocks import ABSENT
from vitfeat.figures.columns import Columns, Head, labels_width, model_rows
from vitfeat.figures.labels import drawn_width
from vitfeat.figures.models import Model
from vitfeat.figures.sheet import Sheet, Space

Floats = NDArray[np.float64]

CELL_HEIGHT = 0.185
NOTE_SIZE = 5.5
"""Font size of the notes within cells, in points."""

NARROW = 0.34
"""Least width of columns in inches."""

PAD, NOTE_GAP = 0.03, 0.04
"""Inches beside the texts of a cell, and between a value and its note."""

BAR, NUMBERED_BAR = 0.42, 0.62
"""Inches right of the cells, for the colour bar: without and with numbers."""

TALLEST_BAR = 1.2
"""Inches."""

MIDDLE = 0.35
"""Shade of columns whose values are all the same."""


@dataclass(frozen=True, eq=False)
class Cells:
    """What a heat map shows."""

    heads: Sequence[Head]
    values: Floats  # (model, column): shares, written as percentages; NaN where there is none
    notes: Sequence[Sequence[str]]  # (model, column): small behind the value
    turned: bool = False  # whether the columns' texts are turned, for narrow columns
    # Whether each column has a scale of its own; a common one runs over all values.
    own_scales: bool = True
    width: float = NARROW  # of the columns at least, in inches

    def room(self) -> tuple[float, float]:
        """Return how wide the widest value and the widest note are, in inches."""
        held = self.values[np.isfinite(self.values)]
        values = max((drawn_width(written(v), weight="bold") for v in held), default=0.0)
        notes = max(
            (drawn_width(note, NOTE_SIZE) for row in self.notes for note in row), default=0.0
        )
        return values, notes + NOTE_GAP if notes else 0.0


def heat_map(
    cells: Cells,
    models: Sequence[Model],
    *,
    title: str,
    note: str,
    scale: str = "",
    remarks: Sequence[str] = (),
) -> Figure:
    """Draw values as coloured cells with their numbers, a row a model.

    The greatest value of every column is bold and framed, and all that are equal as written.
    `scale` stands beside the colour bar, where all columns have a common one.
    """
    width = max(cells.width, sum(cells.room()) + 2 * PAD)
    columns = Columns(cells.heads, width, turned=cells.turned)
    # Of a single model no value is more or less than another on a column's own scale.
    bar = 0.1 if cells.own_scales and len(models) < 2 else BAR
    bar = bar if cells.own_scales else NUMBERED_BAR
    hatched = ["Hatched: no value."] if np.isnan(cells.values).any() else []
    height = CELL_HEIGHT * len(models)
    with style.settings():
        sheet = Sheet(
            [Space(columns.above, height, 0.12)],
            [Space(labels_width(models), columns.whole, bar)],
            title=title,
            note=note,
            remarks=[*remarks, *hatched],
        )
        ax = sheet.axes(0)
        ax.set_label("heat map")
        model_rows(ax, models, columns.whole)
        shades = _shades(cells)
        for column, place in enumerate(zip(columns.lefts, columns.widths, strict=True)):
            _column(ax, cells, column, place, shades[:, column])
        columns.write(ax, height)
        if len(models) > 1 or not cells.own_scales:
            _bar(sheet, cells, max(height, columns.above), scale)
    return sheet.figure


def colours() -> Colormap:
    """Return the colour map: from nearly white to dark, whose lightness falls evenly."""
    shades = colormaps["YlGnBu"](np.linspace(0, 0.76, 256))
    return LinearSegmentedColormap.from_list("cells", list(map(tuple, shades)))


def _shades(cells: Cells) -> Floats:
    """Values between the least (0) and the greatest (1) of their scale; NaN stays."""
    values = cells.values
    parts = [values[:, [at]] for at in range(values.shape[1])] if cells.own_scales else [values]
    shaded = []
    for part in parts:
        held = part[np.isfinite(part)]
        low, high = (held.min(), held.max()) if held.size else (0.0, 0.0)
        # A single value, as of one model, is neither the least nor the greatest.
        shaded.append((part - low) / (high - low) if high > low else part * 0 + MIDDLE)
    return np.hstack(shaded)


def _ink(colour: Sequence[float]) -> str:
    """Black or white, whichever has more contrast to a colour (W3C's relative luminance)."""
    parts = np.array(colour[:3])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return "white" if luminance < 0.179 else "black"


def written(value: float) -> str:
    """Return a share as the figure writes it: in percent, with one decimal."""
    return f"{100 * value:.1f}"


def greatest(values: Iterable[float]) -> set[str]:
    """Return how the greatest of some values is written; nothing of fewer than two."""
    held = [value for value in values if np.isfinite(value)]
    return {written(max(held))} if len(held) > 1 else set()


def _column(
    ax: Axes, cells: Cells, column: int, place: tuple[float, float], shades: Floats
) -> None:
    left, width = place
    values, notes = cells.room()
    middle = left + width / 2
    best = greatest(cells.values[:, column])
    shown = colours()
    for row, (value, shade) in enumerate(zip(cells.values[:, column], shades, strict=True)):
        corner, size = (left + 0.01, row - 0.46), (width - 0.02, 0.92)
        if not np.isfinite(value):
            ax.add_patch(Rectangle(corner, *size, **ABSENT))
            continue
        is_best = written(value) in best
        edge = {"edgecolor": "black", "lw": 0.9} if is_best else {"lw": 0}
        cell = Rectangle(corner, *size, facecolor=shown(shade), zorder=2 + is_best, **edge)
        ax.add_patch(cell)
        note = cells.notes[row][column]
        ink = _ink(shown(shade))
        at = middle + (values - notes) / 2 if note else middle
        ax.text(
            at,
            row,
            written(value),
            size=style.SMALL_SIZE,
            weight="bold" if is_best else "normal",
            color=ink,
            ha="right" if note else "center",
            va="center_baseline",
            zorder=4,
        )
        if note:
            ax.text(
                at + NOTE_GAP,
                row,
                note,
                size=NOTE_SIZE,
                color=ink,
                ha="left",
                va="center_baseline",
                zorder=4,
            )


def _bar(sheet: Sheet, cells: Cells, height: float, scale: str) -> None:
    left, top = sheet.right_of(0)
    high = min(height, TALLEST_BAR)
    # Beside few rows it begins above them, beside the heads of the columns.
    top += min(0.0, CELL_HEIGHT * len(cells.values) - high)
    bar = sheet.box(left + 0.1, top, 0.1, high)
    bar.set_label("colour bar")
    if cells.own_scales:
        sheet.figure.colorbar(ScalarMappable(Normalize(0, 1), colours()), cax=bar, ticks=[])
        for at, text, va in ((0, "least", "bottom"), (1, "most", "top")):
            bar.text(1.3, at, text, transform=bar.transAxes, size=style.SMALL_SIZE, va=va)
        return
    held = 100 * cells.values[np.isfinite(cells.values)]
    low, high = (float(held.min()), float(held.max())) if held.size else (0.0, 1.0)
    limits = Normalize(low, high if high > low else low + 1)
    sheet.figure.colorbar(ScalarMappable(limits, colours()), cax=bar)
    bar.tick_params(labelsize=style.SMALL_SIZE, width=0.5, length=2)
    bar.set_ylabel(scale, size=style.SMALL_SIZE, labelpad=4)
