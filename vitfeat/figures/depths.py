"""Figure of where best layers lie: a row a model, a column a task, a dot at the layer's depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from vitfeat.figures import style
from vitfeat.figures.columns import Columns, Head, labels_width, model_rows
from vitfeat.figures.models import Model
from vitfeat.figures.sheet import Sheet, Space

WIDTH, GAP, PITCH = 0.37, 0.085, 0.15
"""Of a column, between columns, and of a row, in inches."""

ENDS = 0.14
"""Inches below, for the numbers of the first and the last layer."""


LINES = "#E4E4E4"
"""Of rows, and of both ends of a column."""


@dataclass(frozen=True, eq=False)
class DepthColumn:
    """Depths of the best layers by one score, from 0 to 1: by model id, where there is a value."""

    head: Head
    depths: Mapping[str, float]


def median_depth(column: DepthColumn, models: Sequence[Model]) -> float:
    """Return the median depth over the trained models that have one; NaN where none has."""
    trained = [
        column.depths[model.id]
        for model in models
        if model.id in column.depths and model.family not in style.UNTRAINED_FAMILIES
    ]
    return float(np.median(trained)) if trained else np.nan


def depths(
    columns: Sequence[DepthColumn],
    models: Sequence[Model],
    *,
    title: str,
    note: str,
    remarks: Sequence[str] = (),
) -> Figure:
    """Draw a dot for every model (down) and score (across) at the depth of its best layer.

    The median of each column's trained models is a vertical line.
    """
    placed = Columns([column.head for column in columns], WIDTH, gap=GAP, turned=True)
    height = PITCH * len(models)
    with style.settings():
        sheet = Sheet(
            [Space(placed.above, height, ENDS + 0.06)],
            [Space(labels_width(models), placed.whole, 0.1)],
            title=title,
            note=note,
            remarks=remarks,
        )
        ax = sheet.axes(0)
        ax.set_label("depths")
        model_rows(ax, models, placed.whole)
        group = None
        for column, left, width in zip(columns, placed.lefts, placed.widths, strict=True):
            right = left + width
            ax.hlines(range(len(models)), left, right, color=LINES, lw=0.6, zorder=1)
            # A dot at the end of a column is else not told from one at the start of the next.
            ends = ax.vlines([left, right], -0.5, len(models) - 0.5, color=LINES, lw=0.6, zorder=1)
            ends.set(label="_ends", clip_on=False)
            middle = median_depth(column, models)
            if np.isfinite(middle):
                ax.plot(
                    [left + middle * width] * 2,
                    [-0.5, len(models) - 0.5],
                    color="#CFCFCF",
                    lw=2.6,
                    solid_capstyle="butt",
                    clip_on=False,
                    label="_median",
                    zorder=2,
                )
            held = [(row, m) for row, m in enumerate(models) if m.id in column.depths]
            dots = ax.scatter(
                [left + column.depths[model.id] * width for _, model in held],
                [row for row, _ in held],
                s=16,
                c=[style.family_colour(model.family) for _, model in held],
                edgecolors="white",
                linewidths=0.4,
                zorder=3,
                clip_on=False,
            )
            dots.set_label(f"{column.head.group}/{column.head.text}")
            # The numbers of every column would run into their neighbours'.
            first = column.head.group != group
            group = column.head.group
            for text, x, side in (("0", left, "left"), ("1", right, "right")) if first else ():
                ax.annotate(
                    text,
                    (x, 0),
                    (0, -2),
                    xycoords=ax.get_xaxis_transform(),
                    textcoords="offset points",
                    size=style.SMALL_SIZE,
                    ha=side,
                    va="top",
                )
        placed.write(ax, height)
    return sheet.figure
